"""All faults of a data set in one table."""

import csv
import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff_bundle import cli
from medsegdiff_bundle.datalist import read_data_set
from medsegdiff_bundle.planning import check_data_set

RANDOM = np.random.default_rng(0)


def volume(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


def label(*classes):
    values = np.zeros((4, 5, 6), np.uint8)
    for value in classes:
        values[0, value % 5] = value
    return values


def nnunet(root, cases="abcdef", channels=2):
    names = {str(channel): f"T{channel + 1}" for channel in range(channels)}
    described = {"channel_names": names, "labels": {"background": 0, "one": 1, "two": 2}, "file_ending": ".nii.gz"}
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(described))
    for name in cases:
        for channel in range(channels):
            volume(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz", RANDOM.random((4, 5, 6)).astype(np.float32))
        volume(root / "labelsTr" / f"{name}.nii.gz", label(1, 2))
    return root


def faults(root):
    _, found = check_data_set(read_data_set(root))
    return {(fault.case, fault.kind): fault for fault in found}


def test_a_right_set(tmp_path):
    facts, found = check_data_set(read_data_set(nnunet(tmp_path)))
    assert found == []
    assert [case.counts for case in facts] == [{0: 108, 1: 6, 2: 6}] * 6
    assert facts[0].spacing == (1, 1, 1) and facts[0].channels == 2 and facts[0].axcodes == "RAS"


def test_every_kind_of_fault_is_in_the_table(tmp_path):
    """Not only the first: a set of many cases is mended once."""
    root = nnunet(tmp_path, "abcdefghi")
    images, labels = root / "imagesTr", root / "labelsTr"
    (images / "a_0001.nii.gz").unlink()
    (images / "b_0000.nii.gz").write_bytes(b"nothing")
    volume(images / "c_0001.nii.gz", RANDOM.random((4, 5, 7)).astype(np.float32))
    volume(labels / "d.nii.gz", label(1, 2), np.diag([1.0, 1, 3, 1]))
    volume(labels / "e.nii.gz", label(1, 3, 7))
    for channel in range(2):
        (images / f"f_{channel:04d}.nii.gz").write_bytes((images / f"g_{channel:04d}.nii.gz").read_bytes())
    volume(labels / "h.nii.gz", label())
    (labels / "i.nii.gz").unlink()
    found = faults(root)
    expected = {
        ("a", "channels"): "It lacks the channel T2.",
        ("b", "unreadable"): "b_0000.nii.gz",
        ("c", "geometry"): "has the shape (4, 5, 7)",
        ("d", "geometry"): "lies elsewhere than its image",
        ("e", "labels"): "The label holds 3 (6 voxels), 7 (6 voxels): the set knows 0, 1, 2.",
        ("g", "duplicate"): "the same values as that of 'f'",
        ("h", "empty"): "nothing but background",
        ("i", "labels"): "It has no label.",
    }
    assert set(found) == set(expected)
    for key, text in expected.items():
        assert text in found[key].sentence, found[key]
    assert [key for key, fault in found.items() if not fault.fatal] == [("h", "empty")]


def test_constant_images_and_values_that_are_no_numbers(tmp_path):
    root = nnunet(tmp_path, channels=1)
    volume(root / "imagesTr" / "a_0000.nii.gz", np.full((4, 5, 6), 3, np.float32))
    volume(root / "imagesTr" / "b_0000.nii.gz", np.full((4, 5, 6), np.nan, np.float32))
    volume(root / "labelsTr" / "c.nii.gz", label(1, 2) * np.float32(0.4))
    volume(root / "imagesTr" / "d_0000.nii.gz", RANDOM.random((4, 5)).astype(np.float32))
    found = faults(root)
    assert "All voxels of the image are 3" in found["a", "empty"].sentence
    assert "holds NaN or infinite values" in found["b", "unreadable"].sentence
    assert "which is no whole number" in found["c", "labels"].sentence
    assert "The image has 2 axes, most others 3" in found["d", "channels"].sentence


def test_a_class_that_no_case_holds(tmp_path):
    root = nnunet(tmp_path)
    for name in "abcdef":
        volume(root / "labelsTr" / f"{name}.nii.gz", label(1))
    assert faults(root)["", "labels"].sentence == "No case holds the class two (value 2)."


def test_the_ignored_value_is_known(tmp_path):
    root = nnunet(tmp_path)
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(content | {"labels": {**content["labels"], "ignore": 3}}))
    volume(root / "labelsTr" / "a.nii.gz", label(1, 2, 3))
    assert faults(root) == {}


def test_masks_after_a_lossy_format(tmp_path):
    for name in "abcdef":
        for folder, ending in (("images", "png"), ("masks", "png")):
            (tmp_path / folder).mkdir(exist_ok=True)
            values = RANDOM.integers(0, 255, (8, 9)) if folder == "images" else 255 * RANDOM.integers(0, 2, (8, 9))
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / folder / f"{name}.{ending}")
    assert faults(tmp_path) == {}
    Image.fromarray(RANDOM.integers(0, 255, (40, 41, 3)).astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    found = faults(tmp_path)
    assert "3 channels that are neither grey" in found["a", "labels"].sentence
    assert "(40, 41)" in found["a", "geometry"].sentence or "(41, 40)" in found["a", "geometry"].sentence


def test_patients_in_both_sections_are_a_remark(tmp_path):
    for patient in range(10):
        for number in range(2):
            for folder in ("images", "masks"):
                (tmp_path / folder).mkdir(exist_ok=True)
                values = RANDOM.integers(0, 2, (8, 9)) * (255 if folder == "masks" else 100)
                Image.fromarray(values.astype(np.uint8)).save(tmp_path / folder / f"p{patient:02d}_s{number}.png")
    assert faults(tmp_path) == {}, "the rule keeps patients together"
    names = [file.stem for file in sorted((tmp_path / "images").iterdir())]
    split = {"train": [name for i, name in enumerate(names) if i % 5], "val": names[::5]}
    (tmp_path / "splits.json").write_text(json.dumps(split))
    fault = faults(tmp_path)["", "split"]
    assert "4 patients or groups are in training and in validation, such as 'p00'" in fault.sentence
    assert not fault.fatal


@pytest.mark.parametrize("broken", [False, True])
def test_the_command(tmp_path, capsys, broken):
    root = nnunet(tmp_path / "set")
    if broken:
        volume(root / "labelsTr" / "e.nii.gz", label(9))
    status = cli.main(["check", str(root), "-o", str(tmp_path / "faults.csv")])
    out = capsys.readouterr().out
    assert status == int(broken)
    assert out.splitlines()[-1] == (
        f"6 cases of a data set in the form of nnU-Net: {'1 fault' if broken else '0 faults'}, 0 remarks."
    )
    rows = list(csv.DictReader((tmp_path / "faults.csv").open()))
    assert [row["case"] for row in rows] == ["e"] * broken
    assert ("The label holds 9" in out) is broken


def test_masks_in_jpeg_are_of_two_classes(tmp_path):
    """As those of TN3K: the compression smears outlines, which are 1 from half of 255 on, in the training, too."""
    from medsegdiff_bundle.transforms import LoadImaged, PictureLabelsd

    for folder in ("trainval-image", "trainval-mask"):
        (tmp_path / folder).mkdir()
        for number in range(5):
            values = np.zeros((40, 50), np.uint8)
            values[10:25, 8 : 20 + number] = 255
            if folder.endswith("image"):
                values = RANDOM.integers(0, 255, (40, 50)).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / folder / f"{number:04d}.jpg", quality=60)
    data_set = read_data_set(tmp_path)
    facts, found = check_data_set(data_set)
    assert [fault for fault in found if fault.fatal] == []
    assert facts[0].counts == {0: 2000 - 180, 255: 180}
    loaded = LoadImaged("label")({"label": str(data_set.cases[0].label)})["label"][None]
    assert int(PictureLabelsd("label", 2)({"label": loaded})["label"].sum()) == 180


def test_masks_in_a_colour_are_what_training_takes_them_for(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for seed, name in enumerate("abcdef"):
        picture = np.random.default_rng(seed).integers(0, 255, (8, 9, 3)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / f"{name}.png")
        mask = np.zeros((8, 9, 3), np.uint8)
        mask[2:5, 3:7] = 128, 0, 0
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    facts, found = check_data_set(read_data_set(tmp_path))
    assert not [fault for fault in found if fault.fatal] and facts[0].counts == {0: 60, 255: 12}
