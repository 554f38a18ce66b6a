"""`segment`, from Python and from a shell, against the run of `inference.json` that it stands for."""

import json
import subprocess
import sys
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.transforms import LoadImage
from PIL import Image

import medsegdiff_bundle
from medsegdiff_bundle import configuration
from medsegdiff_bundle.__main__ import main

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
IMAGES = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr"
OBLIQUE = np.array([[0.9, -0.3, 0.1, -20], [0.2, 1.1, 0.0, 13], [-0.1, 0.1, 1.5, 7], [0, 0, 0, 1]])
NETWORK = {
    "network_def#channels": [4, 8, 8],
    "network_def#denoiser_channels": [4, 8, 8],
    "network_def#num_heads": 2,
}
SMALL = {
    "hippocampus": {**NETWORK, "network_def#token_size": 8},
    "isic": {**NETWORK, "network_def#token_size": 2, "patch_size": [16, 16]},
    "lidc": {**NETWORK, "network_def#token_size": 2, "patch_size": [16, 16]},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of a task: a network of a few thousand weights that marks some of each class, with two members."""
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for task, small in SMALL.items():
        overlay = CONFIGS / "tasks" / f"{task}.json"
        parser = configuration.load([CONFIGS / "inference.json", overlay], {**small, "bundle_root": str(ROOT)})
        torch.manual_seed(1)
        network = parser.get_parsed_content("network_def")
        torch.save(network.state_dict(), folder / f"{task}.pt")
        found[task] = {**small, "checkpoint": str(folder / f"{task}.pt"), "ensemble_size": 2, "device": "cpu"}
    return found


@pytest.fixture
def crop(tmp_path):
    """A part of a real volume, tilted."""
    image = np.asarray(nibabel.load(IMAGES / "hippocampus_001.nii.gz").dataobj)[8:24, 10:30, 5:23]
    file = tmp_path / "crop.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, OBLIQUE), file)
    return file


def test_the_same_as_inference_json(settings, crop, tmp_path):
    monai.bundle.run(
        config_file=str(CONFIGS / "inference.json"),
        bundle_root=str(ROOT),
        dataset_dir=str(crop),
        output_dir=str(tmp_path / "run"),
        **settings["hippocampus"],
    )
    found = medsegdiff_bundle.segment(crop, output_dir=tmp_path / "out", **settings["hippocampus"])
    assert found.name == "crop"
    assert found.class_names == ("anterior", "posterior")
    assert found.mask_file == tmp_path / "out" / "crop_seg.nii.gz"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(
        file.name for file in (tmp_path / "run").iterdir()
    )
    mask, uncertainty = (nibabel.load(tmp_path / "run" / f"crop_{what}.nii.gz") for what in ("seg", "uncertainty"))
    assert len(np.unique(found.mask)) > 1
    for result, expected in ((found.mask, mask), (found.uncertainty, uncertainty)):
        assert result.shape == (16, 20, 18)
        assert result.dtype == expected.get_data_dtype()
        np.testing.assert_array_equal(result, np.asarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, OBLIQUE, atol=1e-6)
    assert (tmp_path / "out" / "crop_seg.nii.gz").read_bytes() == (tmp_path / "run" / "crop_seg.nii.gz").read_bytes()


@pytest.mark.parametrize("kind", ["array", "tensor", "MetaTensor", "MetaTensor without channels"])
def test_an_array_is_its_file(kind, settings, crop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = medsegdiff_bundle.segment(crop, **settings["hippocampus"])
    array = np.asarray(nibabel.load(crop).dataobj)
    image = {
        "array": array,
        "tensor": torch.tensor(array),
        "MetaTensor": LoadImage(ensure_channel_first=True)(crop),
        "MetaTensor without channels": LoadImage()(crop),
    }
    affine = None if "MetaTensor" in kind else OBLIQUE
    found = medsegdiff_bundle.segment(image[kind], affine=affine, **settings["hippocampus"])
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.uncertainty, expected.uncertainty)
    np.testing.assert_allclose(found.affine, OBLIQUE, atol=1e-6)
    assert (found.name, found.mask_file, found.members) == ("image", None, None)
    assert [file.name for file in tmp_path.iterdir()] == ["crop.nii.gz"]


@pytest.mark.parametrize("ending", [".nrrd", ".mhd", ".mgz"])
def test_a_volume_of_another_format_gets_results_of_its_own(ending, settings, crop, tmp_path):
    """The same mask as of the same volume in NIfTI, which ITK takes for one of the image."""
    source = nibabel.load(crop)
    rotation = np.linalg.qr(OBLIQUE[:3, :3])[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * [0.9, 1.1, 1.5], OBLIQUE[:3, 3]
    nibabel.save(nibabel.Nifti1Image(np.asarray(source.dataobj).astype(np.float32), affine), tmp_path / "as_nifti.nii")
    image = SimpleITK.ReadImage(str(tmp_path / "as_nifti.nii"))
    path = tmp_path / f"scan{ending}"
    if ending == ".mgz":
        nibabel.save(nibabel.MGHImage(np.asarray(source.dataobj).astype(np.float32), affine), path)
    else:
        SimpleITK.WriteImage(image, str(path))
    small = {**settings["hippocampus"], "spacing": None}  # rounding in a header moves what is resampled
    expected = medsegdiff_bundle.segment(tmp_path / "as_nifti.nii", **small)
    found = medsegdiff_bundle.segment(path, output_dir=tmp_path / "out", **small)
    assert found.name == "scan" and found.mask_file == tmp_path / "out" / f"scan_seg{ending}"
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {
        f"scan_{what}" for what in (f"seg{ending}", f"uncertainty{ending}", "overlay.png", "report.html")
    } <= written
    if ending == ".mgz":
        mask = nibabel.load(found.mask_file)
        np.testing.assert_array_equal(mask.dataobj, found.mask)
        np.testing.assert_allclose(mask.affine, affine, atol=1e-4)
    else:
        mask = SimpleITK.ReadImage(str(found.mask_file))
        SimpleITK.Mask(image, mask)  # refuses what lies elsewhere
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask).T, found.mask)
    again = medsegdiff_bundle.segment(
        path, output_dir=tmp_path / "again", output_ext=".nii.gz", **settings["hippocampus"]
    )
    assert again.mask_file.name == "scan_seg.nii.gz" and again.mask_file.is_file()


def test_members(settings, crop):
    found = medsegdiff_bundle.segment(crop, return_members=True, **{**settings["hippocampus"], "ensemble_size": 3})
    assert found.members.shape == (3, 3, 16, 20, 18)
    np.testing.assert_allclose(found.members.sum(axis=1), 1, atol=1e-5)
    assert not np.array_equal(found.members[0], found.members[1])
    np.testing.assert_array_equal(found.members.mean(axis=0).argmax(axis=0), found.mask)
    alone = medsegdiff_bundle.segment(crop, return_members=True, anchor_only=True, **settings["hippocampus"])
    assert alone.members.shape == (1, 3, 16, 20, 18)
    kept = {**settings["hippocampus"], "ensemble_size": 3, "spacing": None}  # which would interpolate probabilities
    labels = medsegdiff_bundle.segment(crop, return_members=True, output="labels", **kept)
    assert labels.members.shape == (3, 16, 20, 18) and labels.members.dtype == np.uint8
    found = medsegdiff_bundle.segment(crop, return_members=True, **kept)
    np.testing.assert_array_equal(labels.members, found.members.argmax(axis=1))


def test_members_of_a_large_image(settings, crop, caplog):
    """Labels in the place of probabilities that would not fit in the memory, which the report says."""
    kept = {**settings["hippocampus"], "ensemble_size": 3, "spacing": None}
    labels = medsegdiff_bundle.segment(crop, output="labels", return_members=True, **kept)
    assert not any("stand for" in each for each in labels.report["processing"])
    segmenter = medsegdiff_bundle.Segmenter(**kept)
    segmenter.inferer.memory = 400_000  # bytes, less than a setting may say
    found = segmenter(crop, return_members=True)
    np.testing.assert_array_equal(found.members, labels.members)
    assert found.members.shape == (3, 16, 20, 18) and len(np.unique(found.members)) > 1
    np.testing.assert_array_equal(found.mask, labels.mask)
    assert found.report["settings"]["output"] == "labels"
    (said,) = [each for each in found.report["processing"] if "stand for" in each]
    assert said.endswith("their mean became a vote.") and said in caplog.text


def test_a_mask_is_made_again_from_its_report(settings, crop, tmp_path):
    """With its task, seed, members and network, from the weights that made it and from no others."""
    small = settings["hippocampus"]
    changed = {**small, "ensemble_size": 3, "fusion": "vote", "mirror_axes": [], "num_inference_steps": 2, "seed": 7}
    first = medsegdiff_bundle.segment(crop, output_dir=tmp_path / "first", **changed)
    report = tmp_path / "first" / "crop_report.json"
    given = {"like": report, "checkpoint": small["checkpoint"], "device": "cpu"}
    again = medsegdiff_bundle.segment(crop, output_dir=tmp_path / "again", **given)
    for name in ("crop_seg.nii.gz", "crop_uncertainty.nii.gz", "crop_overlay.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    for entry in ("date", "fingerprint"):  # the second is of how the settings were given
        assert again.report.pop(entry) and first.report.pop(entry)
    assert again.report == first.report
    used = again.report["settings"]
    assert (used["network_def#channels"], used["seed"], used["spacing"]) == ([4, 8, 8], 7, [1, 1, 1])
    assert not {"epochs", "output_dir", "checkpoint", "progress"} & used.keys()
    words = ["segment", str(crop), "-o", str(tmp_path / "shell"), "--like", str(report)]
    assert main([*words, "--checkpoint", small["checkpoint"]]) == 0
    mask = (tmp_path / "first" / "crop_seg.nii.gz").read_bytes()
    assert (tmp_path / "shell" / "crop_seg.nii.gz").read_bytes() == mask
    for other, message in (
        ({"checkpoint": settings["lidc"]["checkpoint"]}, "lidc.pt' are others than those asked for"),
        ({"seed": 8}, "seed is 7 in the report"),
        ({"like": crop}, "cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            medsegdiff_bundle.segment(crop, output_dir=tmp_path / "none", **{**given, **other})
    assert not (tmp_path / "none").exists()


def test_a_bar_where_it_is_asked_for(settings, crop, capsys):
    small = {**settings["hippocampus"], "mirror_axes": []}
    silent = medsegdiff_bundle.segment(crop, **small)
    assert capsys.readouterr().err == ""
    shown = medsegdiff_bundle.segment(crop, progress=True, **small)
    assert "sampling: 100%" in (bar := capsys.readouterr().err) and "2/2" in bar  # two members of one step
    np.testing.assert_array_equal(shown.mask, silent.mask)


def test_labels_of_members_window_by_window(settings, crop, tmp_path):
    """The settings for large volumes: the same members but for ties in half precision, fused by votes."""
    large = {"roi_size": [16, 16, 16], "members_per_batch": 1, "ensemble_size": 3, "spacing": None}
    small = {**settings["hippocampus"], **large}
    expected = medsegdiff_bundle.segment(crop, return_members=True, **small).members.argmax(axis=1)  # (E, X, Y, Z)
    found = medsegdiff_bundle.segment(crop, output_dir=tmp_path / "out", output="labels", **small)
    votes = np.stack([(expected == label).mean(axis=0) for label in range(3)])
    assert (found.mask == votes.argmax(axis=0)).mean() > 0.998
    entropy = -(votes * np.log(np.maximum(votes, 1e-9))).sum(axis=0) / np.log(3)
    assert (np.abs(found.uncertainty - entropy) < 1e-5).mean() > 0.998
    members = np.stack([(expected == label).sum(axis=(1, 2, 3)) for label in (1, 2)])  # (structures, E)
    volumes = members.mean(axis=1) * abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000
    structures = found.report["structures"].values()
    np.testing.assert_allclose([structure["volume_mean"] for structure in structures], volumes, rtol=2e-3)
    endings = ["seg.nii.gz", "uncertainty.nii.gz", "overlay.png", "report.json", "report.html"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"crop_{ending}" for ending in endings}


@pytest.mark.parametrize(("task", "channels"), [("isic", 3), ("lidc", 1)])
def test_pictures(task, channels, settings, tmp_path):
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (24, 40, 3) if channels == 3 else (24, 40), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    found = medsegdiff_bundle.segment(
        tmp_path / "picture.png", task, output_dir=tmp_path / "out", return_members=True, **settings[task]
    )
    assert found.mask.shape == found.uncertainty.shape == (24, 40)
    assert found.members.shape == (2, 2, 24, 40)
    np.testing.assert_allclose(found.members.sum(axis=1), 1, atol=1e-5)
    if task == "lidc":  # sees the centre alone
        assert found.mask[4:20, 12:28].any() and not found.mask[:4].any() and not found.mask[:, 28:].any()
    assert found.affine is None
    assert len(np.unique(found.mask)) == 2
    np.testing.assert_array_equal(np.asarray(Image.open(found.mask_file)), found.mask * 255)
    labels = medsegdiff_bundle.segment(
        tmp_path / "picture.png", task, return_members=True, output="labels", fusion="vote", **settings[task]
    )
    assert labels.members.shape == (2, 24, 40) and labels.members.dtype == np.uint8 and labels.members.any()
    np.testing.assert_array_equal(labels.members[0] & labels.members[1], labels.mask)  # a tie of two is background
    again = medsegdiff_bundle.segment(picture, task, **settings[task])
    np.testing.assert_array_equal(again.mask, found.mask)
    for channel_first in (True,) if channels == 3 else (True, False):
        meta_tensor = LoadImage(ensure_channel_first=channel_first)(tmp_path / "picture.png")
        np.testing.assert_array_equal(medsegdiff_bundle.segment(meta_tensor, task, **settings[task]).mask, found.mask)


def test_a_photograph_of_a_turned_phone(settings, tmp_path):
    """Its results lie in the grid that every viewer shows."""
    seen = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # stored a quarter turn anticlockwise
    Image.fromarray(np.rot90(seen)).save(tmp_path / "phone.png", exif=exif)
    Image.fromarray(seen).save(tmp_path / "upright.png")
    phone, upright = medsegdiff_bundle.segment(tmp_path, "isic", output_dir=tmp_path / "out", **settings["isic"])
    assert phone.mask.shape == (40, 24) and phone.mask.any()
    assert "Turned as the Exif orientation 6 says." in phone.report["processing"]
    assert not any("Exif" in sentence for sentence in upright.report["processing"])
    np.testing.assert_array_equal(phone.mask, upright.mask)
    for end in ("seg", "uncertainty", "overlay"):
        written = [Image.open(tmp_path / "out" / f"{name}_{end}.png") for name in ("phone", "upright")]
        assert written[0].getexif().get(274, 1) == 1
        np.testing.assert_array_equal(*map(np.asarray, written))


def test_a_nifti_file_of_two_axes(settings, tmp_path):
    """Its results have its axes, (W, H) for the picture (H, W), also in the file."""
    picture = np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    nibabel.save(nibabel.Nifti1Image(picture.T.astype(np.float32), np.eye(4)), tmp_path / "b.nii.gz")
    given = {"output_dir": tmp_path / "out", "output_ext": ".nii.gz", "return_members": True, **settings["lidc"]}
    first, second = medsegdiff_bundle.segment(tmp_path, "lidc", **given)
    assert first.mask.shape == (24, 40) and first.mask.any()
    np.testing.assert_array_equal(second.mask, first.mask.T)
    np.testing.assert_array_equal(second.uncertainty, first.uncertainty.T)
    np.testing.assert_array_equal(second.members, first.members.swapaxes(-1, -2))
    np.testing.assert_array_equal(nibabel.load(second.mask_file).dataobj, second.mask)


@pytest.mark.parametrize("shape", [(16, 20, 1), (16, 1, 1)])
def test_a_volume_of_one_slice_keeps_its_geometry(shape, settings, crop, tmp_path):
    thin = np.asarray(nibabel.load(crop).dataobj)[: shape[0], : shape[1], : shape[2]]
    nibabel.save(nibabel.Nifti1Image(thin, OBLIQUE), tmp_path / "thin.nii.gz")
    out = tmp_path / "out"
    maps = {"uncertainty_maps": ["entropy", "disagreement"]}
    found = medsegdiff_bundle.segment(tmp_path / "thin.nii.gz", output_dir=out, **maps, **settings["hippocampus"])
    for what, channels in (("seg", ()), ("uncertainty", ()), ("disagreement", (2,))):
        file = nibabel.load(out / f"thin_{what}.nii.gz")
        assert file.shape == (*shape, *channels)
        np.testing.assert_allclose(file.affine, OBLIQUE, atol=1e-6)
    np.testing.assert_array_equal(nibabel.load(found.mask_file).dataobj, found.mask)


@pytest.mark.parametrize("output", ["probabilities", "labels"])
def test_numbers_that_overflow_are_no_sure_background(output, settings, crop, tmp_path):
    """The error names the image, not only the folder."""
    image = np.random.default_rng(0).random((16, 16, 16), dtype=np.float32)
    image[0, 0, :3] = 3e38
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "large.nii.gz")
    with pytest.raises(ValueError, match="large.nii.gz' cannot be segmented: .*The probabilities hold NaN"):
        medsegdiff_bundle.segment(tmp_path, output=output, **settings["hippocampus"])


def test_errors_of_the_caller_stay_what_they_are(settings, crop):
    error = ValueError("too small\nby far")

    def refuse(result):
        raise error

    with pytest.raises(ValueError) as raised:
        medsegdiff_bundle.segment(crop, on_result=refuse, **settings["hippocampus"])
    assert raised.value is error


def test_a_tensor_in_bfloat16(settings):
    image = torch.rand(16, 16, 16).bfloat16()
    expected = medsegdiff_bundle.segment(image.float(), **settings["hippocampus"])
    np.testing.assert_array_equal(medsegdiff_bundle.segment(image, **settings["hippocampus"]).mask, expected.mask)


def test_paths_that_look_like_expressions(settings, crop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("$1+1", "50@#1", "%#a", "it's 100%"):
        Path(f"{name}.nii.gz").write_bytes(crop.read_bytes())
        found = medsegdiff_bundle.segment(f"{name}.nii.gz", output_dir=f"@{name}", **settings["hippocampus"])
        assert found.name == name and found.mask_file == Path(f"@{name}/{name}_seg.nii.gz")
        assert found.mask_file.is_file()


def test_results_beside_the_pictures(settings, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    original = (tmp_path / "a.png").read_bytes()
    medsegdiff_bundle.segment(tmp_path / "a.png", "isic", output_dir=tmp_path, **settings["isic"])
    assert (tmp_path / "a.png").read_bytes() == original and (tmp_path / "a_overlay.png").is_file()


def test_a_folder_gives_a_list(settings, crop, tmp_path):
    (tmp_path / "another.nii.gz").write_bytes(crop.read_bytes())
    found = medsegdiff_bundle.segment(tmp_path, **settings["hippocampus"])
    assert [result.name for result in found] == ["another", "crop"]


def test_other_files_of_pictures(settings, tmp_path):
    """TIFF, 16 bits, and both: the same masks as of PNG and 8 bits, with a picture and a report."""
    picture = np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8)
    picture[0, :2] = 0, 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture).save(tmp_path / "b.tif")
    for name in ("c.png", "d.tiff"):
        Image.fromarray(257 * picture.astype(np.uint16)).save(tmp_path / name)
    for task in ("lidc", "isic"):
        out = tmp_path / task
        first, *others = medsegdiff_bundle.segment(tmp_path, task, output_dir=out, **settings[task])
        assert len(np.unique(first.mask)) == 2 and len(others) == 3
        for other in others:
            np.testing.assert_array_equal(other.mask, first.mask)
            for end in ("_overlay.png", "_uncertainty.png"):
                assert (out / f"{other.name}{end}").read_bytes() == (out / f"a{end}").read_bytes()
            assert (out / f"{other.name}_report.html").is_file()


@pytest.mark.parametrize(
    ("image", "given", "sentence"),
    [
        ("/nowhere", {}, "There is no image file or folder '/nowhere'."),
        ("text.txt", {}, "'text.txt' cannot be read: "),
        ("broken.png", {"task": "isic"}, "'broken.png' cannot be read: "),
        ("crop.nii.gz", {"task": "liver"}, "There is no task 'liver': choose from amos22, amos22_mr, brats2021, "),
        ("crop.nii.gz", {"checkpoint": "none.pt"}, "weights of the task 'hippocampus': the file 'none.pt' does"),
        ("crop.nii.gz", {"checkpoint": "text.txt"}, "The weights 'text.txt' cannot be read: "),
        ("crop.nii.gz", {"checkpoint": "answer.txt"}, "The weights 'answer.txt' cannot be read: "),
        ("crop.nii.gz", {"class_names": None}, "class_names must be a list of names, got None."),
        ("crop.nii.gz", {"network_def#channels": "abc"}, "network_def#channels must be a list of whole numbers"),
        ("crop.nii.gz", {"schedule": "none"}, "schedule must be one of linear_beta, "),
        ("crop.nii.gz", {"spacing": 1e-30}, "crop.nii.gz' cannot be segmented: spacing 1e-30 x 1e-30 x 1e-30 mm makes"),
        ("crop.nii.gz", {"seed": 1.5}, "seed must be a whole number of at least 0, got 1.5."),
        ("flat.nii", {}, "'flat.nii' cannot be read: its header places the voxels nowhere"),
        ("crop.nii.gz", {"device": "quantum"}, "There is no device 'quantum' here."),
        ("crop.nii.gz", {"fusion": "guess"}, "fusion must be one of staple, mean, vote, dice, got 'guess'."),
        (
            "crop.nii.gz",
            {"num_inference_steps": 0},
            "num_inference_steps must be a whole number of at least 1, got 0.",
        ),
        ("crop.nii.gz", {"ensemble_sise": 3}, "has no setting 'ensemble_sise': did you mean 'ensemble_size'?"),
        ("crop.nii.gz", {"affine": np.eye(4)}, "affine is for arrays: a file has its own."),
        (np.zeros((4, 4)), {}, "The task takes arrays of 3 axes, and one of channels, got (4, 4)."),
        (np.full((4, 4, 4), np.nan), {}, "The array must hold finite real numbers, got float64."),
        (np.zeros((4, 4, 4, 2)), {}, "has 2 channel(s), the network takes 1."),
        (np.zeros((4, 4, 4)), {"affine": "RAS"}, "affine must be an invertible matrix of shape (4, 4)"),
        (np.zeros((4, 4, 4)), {"affine": np.eye(4)[::-1]}, "whose last row is 0, 0, 0, 1."),
        (np.zeros((4, 4, 4)), {"affine": np.zeros((4, 4))}, "affine must be an invertible matrix of shape (4, 4)"),
        (np.full((4, 4), 0.5), {"task": "isic"}, "A picture must hold whole numbers from 0 to 255."),
        (np.zeros((4, 4, 4)), {"task": "isic"}, "A picture must be (H, W) or (H, W, 3), got (4, 4, 4)."),
        (np.zeros((4, 4)), {"task": "isic", "affine": np.eye(4)}, "A picture has no affine."),
    ],
)
def test_one_sentence_and_nothing_written(image, given, sentence, settings, crop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("text.txt", "broken.png"):
        Path(name).write_text("nothing")
    Path("answer.txt").write_text("Repository not found")
    flat = nibabel.Nifti1Image(np.zeros((4, 4, 4), dtype=np.float32), None)
    flat.header["sform_code"], flat.header["srow_x"] = 1, 0
    nibabel.save(flat, "flat.nii")
    with pytest.raises(ValueError) as raised:
        task = given.get("task", "hippocampus")
        medsegdiff_bundle.segment(image, output_dir="out", **{**settings.get(task, {}), **given})
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not Path("out").exists()


def test_importing_the_package_imports_no_torch():
    code = "import sys, medsegdiff_bundle; assert not {'torch', 'monai', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_unknown_attributes_stay_unknown():
    with pytest.raises(AttributeError, match="no attribute 'segments'"):
        medsegdiff_bundle.segments  # noqa: B018
    assert json.loads((CONFIGS / "metadata.json").read_text())["version"] == medsegdiff_bundle.__version__


def test_the_command(settings, crop, tmp_path, capsys):
    small = settings["hippocampus"]["checkpoint"]
    assert main(["segment", str(crop), "-o", str(tmp_path / "out"), "--steps", "1", "--members", "1"]) == 0
    mask = nibabel.load(tmp_path / "out" / "crop_seg.nii.gz")
    voxel = abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000  # ml
    anterior, posterior = (voxel * (np.asarray(mask.dataobj) == number).sum() for number in (1, 2))
    expected = f"crop: anterior {anterior:.3f} ml, posterior {posterior:.3f} ml; mask in {mask.get_filename()}\n"
    assert capsys.readouterr().out == expected
    assert main(["segment", str(crop), "-o", str(tmp_path / "no"), "--checkpoint", small]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: The weights {small!r} do not fit: ") and captured.err.count("\n") == 1
    assert not (tmp_path / "no").exists()
