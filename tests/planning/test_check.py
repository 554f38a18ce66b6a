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


def table(root, labels, images=None, **more):
    """A table of cases whose class names are not told, by the values of their labels and images."""
    cases = []
    for name, values in labels.items():
        volume(root / f"{name}_label.nii", values)
        image = (images or {}).get(name, RANDOM.random(values.shape).astype(np.float32))
        volume(root / f"{name}.nii", image)
        cases.append({"name": name, "image": f"{name}.nii", "label": f"{name}_label.nii"})
    (root / "cases.json").write_text(json.dumps({"cases": cases, **more}))
    return root / "cases.json"


def test_labels_of_a_set_that_names_no_class(tmp_path):
    """Their values are the classes, unless they are too many to be some."""
    shades = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    right = {name: label(1, 4) for name in "bcdef"}
    assert faults(table(tmp_path, right)) == {}
    found = faults(table(tmp_path, {**right, "a": shades, "b": shades + 100}))
    assert found["", "labels"].sentence == (
        "The labels hold 220 different values and the set names no class: are they labels?"
    )
    found = faults(table(tmp_path, {"a": shades % 9, **right}, class_names=["one"]))
    assert found["a", "labels"].sentence.startswith("The label holds 2 (14 voxels), 3 (13 voxels), ")
    assert found["a", "labels"].sentence.endswith("6 (13 voxels) and 2 more: the set knows 0, 1.")
    found = faults(table(tmp_path, {name: label() for name in "abcdef"}))
    assert found["", "labels"].sentence == "No label holds anything but background." and found["", "labels"].fatal


def test_a_label_of_shades(tmp_path):
    """As of a picture that was taken for a mask."""
    shades = np.arange(40 * 40, dtype=np.int16).reshape(40, 40, 1)
    found = faults(table(tmp_path, {"a": shades, **{name: label(1) for name in "bcdef"}}))
    assert found["a", "labels"].sentence == (
        "The label holds 1600 different values: it is no label, or went through a lossy format."
    )


def test_a_channel_for_each_class(tmp_path):
    """Of 0 and 1, with the background or without; with other values it is no label."""
    numbers = label(1, 2)
    channels = np.stack([numbers == value for value in range(3)], axis=-1).astype(np.uint8)
    facts, found = check_data_set(read_data_set(table(tmp_path, {"a": channels, "b": channels[..., 1:]},
                                                      {"a": numbers.astype(float), "b": numbers + 0.5})))  # fmt: skip
    assert [case.counts for case in facts] == [{0: 108, 1: 6, 2: 6}] * 2
    found = faults(table(tmp_path, {"a": 2 * channels, "b": numbers}, {"a": numbers.astype(float)}))
    assert found["a", "labels"].sentence == (
        "The label has 3 channels that are neither grey nor one of 0 and 1 per class."
    )


def test_images_of_more_channels_than_others(tmp_path):
    images = {"a": RANDOM.random((4, 5, 6, 2)).astype(np.float32)}
    found = faults(table(tmp_path, {name: label(1) for name in "abcdef"}, images))
    assert found["a", "channels"].sentence == "The image has 2 channels, most others have 1."


def test_files_and_names_that_are_not_there_or_twice(tmp_path):
    file = table(tmp_path, {name: label(1) for name in "abcdef"})
    content = json.loads(file.read_text())
    content["cases"][1]["name"] = "a"
    content["cases"][2]["image"] = "gone.nii"
    file.write_text(json.dumps(content))
    found = faults(file)
    assert found["a", "list"].sentence == "2 cases have this name." and not found["a", "list"].fatal
    assert found["c", "unreadable"].sentence == f"The image '{tmp_path / 'gone.nii'}' does not exist."


def test_a_case_that_trains_and_validates(tmp_path):
    file = table(tmp_path, {name: label(1) for name in "abcdef"})
    content = json.loads(file.read_text())
    for number, case in enumerate([*content["cases"]]):
        case["section"] = "validation" if number < 2 else "training"
    content["cases"].append({**content["cases"][0], "section": "training"})
    file.write_text(json.dumps(content))
    assert faults(file)["a", "split"].sentence == "It trains and validates."
    for case in content["cases"]:
        case["section"] = "validation"
    file.write_text(json.dumps(content))
    assert "holds no training case" in faults(file)["", "split"].sentence


def test_a_set_without_a_case(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (nnunet(tmp_path, "") / folder).mkdir()
    _, found = check_data_set(read_data_set(tmp_path))
    assert found[0].sentence == f"{str(tmp_path)!r} holds no case."


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
