"""Miniature sets of nnU-Net, volumes with regions and pictures with an ignored value: from `configure` to scores."""

import csv
import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff_bundle import Segmenter, cli
from medsegdiff_bundle.handlers.record import read_history
from medsegdiff_bundle.planning import plan
from medsegdiff_bundle.planning.measure import Cost

REGIONS = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}  # by classes, of which the files call the last 4
NAMES = [*REGIONS]
SMALL = {"network_def#channels": [4, 8], "network_def#denoiser_channels": [4, 8], "network_def#num_heads": 2}
SMALL |= {"network_def#strides": None, "network_def#kernel_sizes": None, "epochs": 1, "val_interval": 1}


def volume(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])), path)


def nested():
    """A label of BraTS in small, 4 for the enhancing part: each part within the one before."""
    label = np.zeros((12, 10, 9), np.uint8)
    label[1:9, 1:8, 1:8] = 1
    label[3:7, 3:6, 2:6] = 2
    label[4:6, 4:6, 3:5] = 4
    return label


def write_regions(root):
    """Five volumes of two channels, of which the last slices are not annotated."""
    random = np.random.default_rng(0)
    labels = {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "enhancing": 4, "ignore": 5}
    described = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "file_ending": ".nii.gz"}
    root.mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps({**described, "regions_class_order": [1, 2, 4]}))
    for name in "abcde":
        label = nested()
        for channel in range(2):
            values = random.normal(0, 0.2, label.shape) + label / (channel + 1)
            volume(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz", values.astype(np.float32))
        label[..., -2:] = 5
        volume(root / "labelsTr" / f"{name}.nii.gz", label)
    return root


def write_pictures(root):
    """Five grey pictures of two classes, half of each not annotated; of one nothing is."""
    random = np.random.default_rng(1)
    described = {"channel_names": {"0": "X-ray"}, "file_ending": ".png"}
    labels = {"background": 0, "left": 1, "top": 2, "ignore": 3}
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps({**described, "labels": labels}))
    for name in "abcde":
        label = np.zeros((40, 48), np.uint8)
        label[8:30, 4:14] = 1
        label[4:10, 20:30] = 2
        image = random.integers(0, 60, label.shape) + 60 * label
        label[20:] = 3
        if name == "e":
            label[:] = 3
        Image.fromarray(image.astype(np.uint8)).save(root / "imagesTr" / f"{name}_0000.png")
        Image.fromarray(label).save(root / "labelsTr" / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """A set, by the function that writes it, and the settings that `configure` writes for it, of a small network."""

    def cost(network, batch_size, patch, device, amp, recycling=0.5):
        return Cost(1e-3, 1000, 1000)

    def make(write):
        folder = tmp_path_factory.mktemp("set")
        root = write(folder / "set")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan, "training_cost", cost)
            words = ["configure", str(root), "-o", str(folder / "mine.json"), "--hours", "0.001", "-d", "cpu", "-q"]
            assert cli.main(words) == 0
        entries = json.loads((folder / "mine.json").read_text())
        (folder / "mine.json").write_text(json.dumps({**entries, **SMALL}))
        return folder, entries

    return make


@pytest.fixture(scope="module")
def trained(configured):
    """Folder of a set with regions and an ignored value, and of its training of one epoch."""
    folder, entries = configured(write_regions)
    assert cli.main(["train", str(folder / "mine.json"), "-q"]) == 0
    return folder, entries


def test_what_configure_writes(trained):
    folder, entries = trained
    assert entries["class_names"] == NAMES and entries["regions"] == [*REGIONS.values()]
    assert entries["regions_class_order"] == [1, 2, 4]
    assert entries["ignore_label"] == 4
    assert entries["class_values"] == [0, 1, 2, 4, 5]
    page = (folder / "mine.md").read_text()
    assert "The set names regions (whole: value 1 + value 2 + enhancing; core: value 2 + enhancing" in page


def test_the_training(trained):
    (row,) = read_history(trained[0] / "mine_training" / "history.csv")
    assert {f"val_{kind} {name}" for kind in ("fused", "anchor") for name in NAMES} <= set(row)
    assert np.isfinite([row["loss diffusion"], row["loss anchor"]]).all()
    model = json.loads((trained[0] / "mine_training" / "model.model.json").read_text())["configuration"]
    assert model["regions"] == [*REGIONS.values()] and model["regions_class_order"] == [1, 2, 4]


def test_segment(trained, tmp_path):
    """One mask, regions written over one another; a structure of the report each, counted from the region itself."""
    folder = trained[0]
    words = ["segment", str(folder / "one"), "-o", str(tmp_path), "-q", "-m", "3"]
    (folder / "one").mkdir()
    for channel in range(2):
        name = f"a_{channel:04d}.nii.gz"
        (folder / "one" / name).symlink_to(folder / "set" / "imagesTr" / name)
    weights = ["-c", str(folder / "mine_training" / "model.pt"), "-d", "cpu", "--set", "fusion=staple"]
    assert cli.main([*words, *weights, "--set", "uncertainty_maps=['entropy','disagreement']"]) == 0
    mask = np.asarray(nibabel.load(tmp_path / "a_0000_seg.nii.gz").dataobj)
    assert mask.shape == nested().shape and set(np.unique(mask)) <= {0, 1, 2, 4}
    report = json.loads((tmp_path / "a_0000_report.json").read_text())
    assert list(report["structures"]) == NAMES and report["settings"]["regions"] == [*REGIONS.values()]
    assert all(len(each["member_volumes"]) == 3 for each in report["structures"].values())
    # The last of the regions lies over the others.
    assert report["structures"]["enhancing"]["volume"] == pytest.approx(2e-3 * (mask == 4).sum())
    assert nibabel.load(tmp_path / "a_0000_disagreement.nii.gz").shape == (*mask.shape, 3)
    page = (tmp_path / "a_0000_report.html").read_text()
    assert all(f"</span>{name}</th>" in page for name in NAMES)
    assert (tmp_path / "a_0000_overlay.png").is_file()


@pytest.mark.parametrize("settings", [{"roi_size": [8, 8, 8]}, {"output": "labels", "anchor_only": True}])
def test_segmenter(trained, settings):
    """Windows and labels, too; regions are what the mask is made of, and members are as many."""
    segmenter = Segmenter(checkpoint=trained[0] / "mine_training" / "model.pt", device="cpu", **settings)
    found = segmenter(_image(trained[0]), return_members=True)
    assert found.class_names == tuple(NAMES) and found.regions.shape == (3, *found.mask.shape)
    for number, order in enumerate([1, 2, 4]):
        later = found.regions[number + 1 :].any(axis=0)
        np.testing.assert_array_equal(found.mask == order, (found.regions[number] > 0) & ~later)
        volume = found.report["structures"][NAMES[number]]["volume"]
        assert volume == pytest.approx(1e-3 * found.regions[number].sum())  # an array has voxels of 1 mm
    assert found.members.shape[1:] == found.regions.shape and found.members.min() >= 0 and found.members.max() <= 1


def _image(folder):
    """Both channels of a case, with the channels last."""
    files = [folder / "set" / "imagesTr" / f"a_{channel:04d}.nii.gz" for channel in range(2)]
    return np.stack([nibabel.load(file).get_fdata(dtype=np.float32) for file in files], axis=-1)


def test_evaluate_weights(trained, tmp_path, capsys):
    folder = trained[0]
    words = [
        "evaluate",
        "--data",
        str(folder / "set"),
        "--config",
        str(folder / "mine.json"),
        "-o",
        str(tmp_path),
        "-q",
    ]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "fused" in said and all(f"{name} " in said for name in NAMES)


def test_evaluate_masks(trained, tmp_path):
    """Regions by the data set's own file; labels against themselves agree, where they are annotated."""
    labels = trained[0] / "set" / "labelsTr"
    assert cli.main(["evaluate", str(labels), str(labels), "-o", str(tmp_path), "-q"]) == 0
    rows = [*csv.DictReader((tmp_path / "scores.csv").open())]
    assert [row["name"] for row in rows[:3]] == NAMES and {row["dice"] for row in rows} == {"1"}
    annotated = nested()[..., :-2]
    assert float(rows[0]["volume"]) == pytest.approx(2e-3 * (annotated > 0).sum())
    assert float(rows[1]["volume"]) == pytest.approx(2e-3 * (annotated > 1).sum())


def test_pictures_that_are_half_annotated(configured, tmp_path, capsys):
    folder, entries = configured(write_pictures)
    assert entries["class_names"] == ["left", "top"] and entries["ignore_label"] == 3 and "regions" not in entries
    assert cli.main(["train", str(folder / "mine.json"), "-q"]) == 0
    (row,) = read_history(folder / "mine_training" / "history.csv")
    assert np.isfinite([row["loss diffusion"], row["loss anchor"]]).all()
    images = str(folder / "set" / "imagesTr")
    assert cli.main(["segment", images, "-o", str(tmp_path / "out"), "-t", str(folder / "mine.json"), "-q"]) == 0
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out" / "a_0000_seg.png")))) <= {0, 1, 2}
    words = [
        "evaluate",
        "--data",
        str(folder / "set"),
        "--config",
        str(folder / "mine.json"),
        "-o",
        str(tmp_path / "ev"),
    ]
    assert cli.main(words) == 0 and "top" in capsys.readouterr().out
    assert cli.main(["evaluate", str(tmp_path / "out"), str(folder / "set" / "labelsTr"), "-q"]) == 0
