"""Cleaning of masks that labels choose, and what it does to a mask."""

import json
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import KeepLargestConnectedComponentd

from medsegdiff_bundle import cli, settings
from medsegdiff_bundle.evaluation.cleaning import Masks, _candidates, choose_cleaning
from medsegdiff_bundle.model_file import read_model, write_model
from medsegdiff_bundle.segmentation import segment
from medsegdiff_bundle.transforms import Cleand


def label_of(two_parts=False):
    label = torch.zeros(1, 16, 16, 12)
    label[0, 2:8, 2:8, 2:8] = 1
    label[0, 9:14, 9:14, 2:8] = 2
    if two_parts:
        label[0, 12:15, 1:4, 2:5] = 1
    return label


def wrong(label, seed):
    """With specks of both classes away from them, and a hole in the first."""
    mask = label.clone()
    random = np.random.default_rng(seed)
    for number in (1, 2):
        x, z = random.integers(12, 16), random.integers(9, 12)
        mask[0, x, number * 2, z] = number
    mask[0, 4, 4, 4] = 0
    return MetaTensor(mask)


def test_what_helps_is_taken():
    cases = [Masks(wrong(label_of(), seed), label_of()) for seed in range(4)]
    kept, trials = choose_cleaning(lambda: iter(cases), ["edge", "core"])
    assert [trial.name for trial in trials if trial.taken] == [
        "largest component of edge",
        "largest component of core",
        "filled holes of edge",
    ]
    assert trials[-1].after == 1.0 and trials[0].before < 0.999
    assert [step["applied_labels"] for step in kept] == [[1], [2], [1]]


def test_what_harms_or_does_nothing_is_left():
    """The first class has two parts, so that its largest alone is wrong; specks of it go by their size."""
    cases = [Masks(wrong(label_of(True), seed), label_of(True)) for seed in range(4)]
    kept, trials = choose_cleaning(lambda: iter(cases), ["edge", "core"])
    taken = {trial.name: trial.taken for trial in trials}
    assert taken == {
        "largest component of edge": False,
        "largest component of core": True,
        "filled holes of edge": True,
        "filled holes of core": False,
        "no part below 13.5": True,
    }
    right = [Masks(MetaTensor(label_of()), label_of()) for _ in range(4)]
    assert choose_cleaning(lambda: iter(right), ["edge", "core"])[0] == []
    assert not any(trial.taken for trial in choose_cleaning(lambda: iter(cases[:1]), ["edge", "core"])[1]), "one case"


@pytest.mark.parametrize(
    ("smallest", "left"), [(1.0, [1, 2, 8]), (2.0, [1, 2, 8]), (4.0, [2, 8]), (5.0, [8]), (16.0, [8]), (17.0, [])]
)
@pytest.mark.parametrize("unit", [1.0, 1 / 3])
def test_a_part_as_large_as_the_bound_stays(smallest, left, unit):
    """Whatever scikit-image counts as small: the bound is half of the smallest part in any label."""
    mask = MetaTensor(torch.zeros(1, 8, 8, 8), affine=torch.diag(torch.tensor([1.0, 1.0, unit, 1.0])))
    mask[0, 0, 0, 0] = 1
    mask[0, 1:3, 1, 1] = 2  # touches the first by a corner
    mask[0, 4:6, 4:6, 4:6] = 1
    *_, (name, steps) = _candidates(["edge", "core"], smallest * unit)
    assert name == f"no part below {smallest * unit / 2:.3g}"
    clean = Cleand("pred", ConfigParser({"bundle_path": None, "steps": steps}).get_parsed_content("steps"))
    done = clean({"pred": mask})["pred"]
    parts = [(done[0, 0, 0, 0] == 1), (done[0, 1:3, 1, 1] == 2), (done[0, 4:6, 4:6, 4:6] == 1)]
    assert [int(part.sum()) for part in parts if part.any()] == left and int((done > 0).sum()) == sum(left)


def test_the_mask_is_cleaned_and_that_is_said():
    mask = wrong(label_of(), 0)
    data = {"pred": mask, "image": MetaTensor(torch.zeros(1, 16, 16, 12)), "member_labels": mask.clone()}
    before = mask.clone()
    done = Cleand("pred", [KeepLargestConnectedComponentd("pred", applied_labels=[1])])(data)
    assert torch.equal(mask, before) and torch.equal(done["member_labels"], before)
    assert int((done["pred"] != before).sum()) == 1 and done["pred"].dtype == before.dtype
    assert "(KeepLargestConnectedComponent): 1 of its voxels" in done["image"].meta["processing"]
    assert Cleand("pred")(data)["pred"] is mask


def write_masks(root, folder, number):
    """A folder "labels", or "masks" that are wrong."""
    (root / folder).mkdir()
    for case in range(number):
        values = wrong(label_of(), case) if folder == "masks" else label_of()
        image = nibabel.Nifti1Image(np.asarray(values)[0].astype(np.uint8), np.diag([1, 1, 2, 1]))
        nibabel.save(image, root / folder / f"c{case}{'_seg' * (folder == 'masks')}.nii.gz")
    return root / folder


def weights_of(file):
    """A file of weights that know two classes."""
    file.write_bytes(b"weights")
    about = {"class_names": ["edge", "core"], "spatial_dims": 3, "image_channels": 1}
    write_model(file, {"task": None, "version": "0.13.0", "configuration": about})
    return str(file)


def test_the_command_writes_beside_the_weights(tmp_path, capsys):
    for folder in ("masks", "labels"):
        write_masks(tmp_path, folder, 4)
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    words = ["clean", str(tmp_path / "masks"), str(tmp_path / "labels"), "--classes", "edge", "core"]
    assert cli.main([*words, "-c", str(weights)]) == 2
    assert "with 'model.model.json' beside them" in capsys.readouterr().err
    weights_of(weights)
    assert cli.main([*words, "-c", str(weights)]) == 0
    told = capsys.readouterr()
    said = told.out
    assert "cleaned otherwise" not in told.err
    assert "largest component of edge: Dice 0.9" in said and "(+0.0" in said and ": taken" in said
    kept = read_model(weights)["configuration"]["clean"]
    assert [step["_target_"] for step in kept][:2] == ["KeepLargestConnectedComponentd"] * 2
    assert json.loads(said.splitlines()[-1].removeprefix("clean: ")) == kept
    known = tmp_path / "model.known.json"
    known.write_text("{}")
    assert cli.main([*words, "-c", str(weights)]) == 0
    assert "cleaned otherwise" not in capsys.readouterr().err  # it is the same as before
    weights_of(weights)
    assert cli.main([*words, "-c", str(weights), "-q"]) == 0
    said_of_known = f"{str(known)!r} is of masks that were cleaned otherwise: calibrate writes it anew.\n"
    assert capsys.readouterr().err.endswith(said_of_known)


def nested(seed=None):
    """A region and a smaller one within it, (2, S); with a seed, specks of both and a hole in the inner one."""
    masks = torch.zeros(2, 16, 16, 12)
    masks[0, 2:12, 2:12, 2:9], masks[1, 4:10, 4:10, 3:8] = 1, 1
    if seed is not None:
        x, z = np.random.default_rng(seed).integers(13, 16), 10
        masks[0, x, 2, z] = masks[1, x, 6, z] = 1
        masks[1, 6, 6, 5] = 0
    return MetaTensor(masks)


def test_each_region_is_cleaned_by_itself():
    """The hole of the inner one is not one of the outer one, and what is kept of one says nothing of the other."""
    cases = [Masks(nested(seed), nested().as_tensor()) for seed in range(4)]
    kept, trials = choose_cleaning(lambda: iter(cases), ["whole", "core"])
    assert [trial.name for trial in trials if trial.taken] == [
        "largest component of whole",
        "largest component of core",
        "filled holes of core",
    ]
    assert trials[-1].after == 1.0
    data = {"pred": nested(0), "image": MetaTensor(torch.zeros(1, 16, 16, 12))}
    only = Cleand("pred", [KeepLargestConnectedComponentd("pred", applied_labels=[2])])(data)["pred"]
    assert torch.equal(only[0], nested(0)[0]) and int((only[1] != nested(0)[1]).sum()) == 1
    assert isinstance(only, MetaTensor) and only.dtype == nested().dtype


def test_the_command_tells_regions_from_numbers(tmp_path, capsys):
    """Those of the files, of which the inner region is written as 4; as many as the weights know."""
    for folder in ("masks", "labels"):
        (tmp_path / folder).mkdir()
    for case in range(4):
        for folder, values in (("masks", nested(case)), ("labels", nested())):
            numbers = np.where(values[1] > 0, 4, np.asarray(values[0])).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(numbers, np.eye(4)), tmp_path / folder / f"c{case}.nii.gz")
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    about = {"class_names": ["whole", "core"], "regions": [[1, 2], [2]], "spatial_dims": 3, "image_channels": 1}
    write_model(weights, {"task": None, "version": "0.13.0", "configuration": about})
    words = [
        "clean",
        str(tmp_path / "masks"),
        str(tmp_path / "labels"),
        "-c",
        str(weights),
        "--classes",
        "whole",
        "core",
    ]
    assert cli.main(words) == 2
    assert "know 2 regions that overlap, and 0 are named: --regions says" in capsys.readouterr().err
    assert cli.main([*words, "--regions", "1,4", "4"]) == 0
    assert "largest component of core: Dice 0.99" in capsys.readouterr().out
    kept = read_model(weights)["configuration"]["clean"]
    assert {step["_target_"]: step.get("applied_labels") for step in kept}["FillHolesd"] == [2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--classes", "edge"], "c0_seg.nii.gz' holds 2, which is none of the classes 1 edge."),
        (["--classes", "edge", "core", "rim"], "model.pt' know edge, core, and here are edge, core, rim."),
        (["--classes", "edge", "core", "--regions", "7", "8"], "know 0 regions that overlap, and 2 are named"),
    ],
)
def test_masks_of_others_change_no_weights(words, sentence, tmp_path, capsys):
    folders = [str(write_masks(tmp_path, folder, 2)) for folder in ("masks", "labels")]
    weights = weights_of(tmp_path / "model.pt")
    before = (tmp_path / "model.model.json").read_bytes()
    assert cli.main(["clean", *folders, "-c", weights, *words]) == 2
    assert sentence in capsys.readouterr().err
    assert (tmp_path / "model.model.json").read_bytes() == before


def test_what_was_not_annotated_and_what_has_no_label_count_in_nothing(tmp_path):
    """In a process of its own, which says the first but not what libraries regret."""
    folders = [write_masks(tmp_path, folder, 3) for folder in ("masks", "labels")]
    (tmp_path / "labels" / "c2.nii.gz").unlink()
    labels = {"background": 0, "edge": 1, "core": 2, "ignore": 3}
    (tmp_path / "labels" / "dataset.json").write_text(json.dumps({"labels": labels}))
    for file in sorted((tmp_path / "labels").glob("*.nii.gz")):
        values = np.asarray(nibabel.load(file).dataobj).copy()
        values[11:, :, 8:] = 3  # where the specks are
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1])), file)
    words = [sys.executable, "-m", "medsegdiff_bundle", "clean", *map(str, folders)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert ended.stderr == "1 prediction(s) without a label: c2_seg.nii.gz\n"
    assert "largest component of edge: Dice 0.9988 -> 0.9988 (+0.0000 ± 0.0000): left" in ended.stdout
    assert "filled holes of edge: Dice 0.9988 -> 1.0000" in ended.stdout


@pytest.mark.parametrize("weights", [True, False])
def test_segment_cleans(small_dataset, tmp_path, weights):
    """By the file beside the weights, or by a setting of a file; members and uncertainty stay."""
    image = sorted((small_dataset / "imagesTr").glob("*.nii.gz"))[0]
    plain = segment(image, ensemble_size=1, device="cpu", return_members=True)
    # A rule that shows: every part is too small.
    rule = [{"_target_": "RemoveSmallObjectsd", "keys": "pred", "min_size": 10**6}]
    model = settings.bundle_root() / "models" / "model.pt"
    if weights:
        shutil.copy(model, tmp_path / "model.pt")
        write_model(
            tmp_path / "model.pt",
            {**read_model(model), "configuration": {**read_model(model)["configuration"], "clean": rule}},
        )
        cleaned = segment(image, checkpoint=tmp_path / "model.pt", ensemble_size=1, device="cpu", return_members=True)
    else:
        cleaned = segment(image, ensemble_size=1, device="cpu", return_members=True, clean=rule)
    assert plain.mask.any() and not cleaned.mask.any()
    np.testing.assert_array_equal(cleaned.uncertainty, plain.uncertainty)
    np.testing.assert_array_equal(cleaned.members, plain.members)
    assert any("was cleaned (RemoveSmallObjects)" in each for each in cleaned.report["processing"])


def test_the_command_segment_cleans(tmp_path):
    """As a process of its own, which imports only what it has a use for: each transform that may be chosen."""
    models = settings.bundle_root() / "models"
    shutil.copy(models / "model.pt", tmp_path)
    model = read_model(models / "model.pt")
    steps = [step for _, each in _candidates(["anterior", "posterior"], 8.0) for step in each]
    write_model(tmp_path / "model.pt", {**model, "configuration": {**model["configuration"], "clean": steps}})
    image = settings.bundle_root() / "medsegdiff_bundle/sample_data/hippocampus/imagesTr/hippocampus_001.nii.gz"
    words = ["segment", image, "-c", tmp_path / "model.pt", "-o", tmp_path / "out", "--anchor-only", "-d", "cpu", "-q"]
    command = [sys.executable, "-m", "medsegdiff_bundle", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "out" / "hippocampus_001_seg.nii.gz").is_file()
