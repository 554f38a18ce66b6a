import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff_bundle.datalist import (
    channels_entry,
    decathlon_datalist,
    image_datalist,
    picture_datalist,
    segmentation_datalist,
)
from medsegdiff_bundle.uncertainty import CLASS_UNCERTAINTIES, UNCERTAINTIES


def volume(path, shape=(2, 3, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, dtype=np.uint8), np.eye(4)), path)
    return path


def entry(name):
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


def folder(root, names="abcdefg", shape=(2, 3, 4), splits=None, **dataset):
    dataset = {"training": [entry(name) for name in names]} | dataset
    for part in dataset.values():
        for case in part:
            volume(root / case["image"], shape)
            if case.get("label"):
                volume(root / case["label"])
    (root / "dataset.json").write_text(json.dumps(dataset))
    if splits is not None:
        (root / "splits.json").write_text(json.dumps(splits))
    return root


def pictures(root, names="abcdefg", image=".jpg", mask=".png", splits=None):
    for part, ending in (("images", image), ("masks", mask)):
        (root / part).mkdir(exist_ok=True)
        for name in names:
            (root / part / f"{name}{ending}").write_bytes(b"")
    if splits is not None:
        (root / "splits.json").write_text(json.dumps(splits))
    return root


def names(cases):
    return "".join(case["image"].rpartition("/")[2].split(".")[0] for case in cases)


def both(root, **kwargs):
    return tuple(names(decathlon_datalist(root, section, **kwargs)) for section in ("training", "validation"))


# Sections


def test_every_fifth_case_in_the_order_of_names(tmp_path):
    root = folder(tmp_path, "gkafbecdihj")
    assert both(root) == ("bcdeghij", "afk")
    assert both(str(root)) == ("bcdeghij", "afk")


def test_validation_of_dataset_json(tmp_path):
    assert both(folder(tmp_path, "cab", validation=[entry("z"), entry("y")])) == ("abc", "yz")


def test_splits_json_comes_first(tmp_path):
    splits = {"train": ["c", "a"], "val": ["b", "y"], "test": ["d"]}
    root = folder(tmp_path, "abcd", splits=splits, validation=[entry("y")])
    assert both(root) == ("ac", "by")
    assert names(decathlon_datalist(root, "test")) == "d"


def test_a_pattern_takes_some_of_the_cases_of_splits_json(tmp_path):
    """Those that it leaves out are not missed, and those that are not there are."""
    splits = {"train": ["ct1", "mr1"], "val": ["ct2", "mr2"]}
    root = folder(tmp_path, ["ct1", "mr1", "ct2", "mr2"], splits=splits)
    taken = [names(segmentation_datalist(root, section, case_pattern="ct.*")) for section in ("training", "validation")]
    assert taken == ["ct1", "ct2"]
    (root / "splits.json").write_text(json.dumps({**splits, "val": ["ct2", "mr3"]}))
    with pytest.raises(ValueError, match="names the case 'mr3', which dataset.json lacks"):
        segmentation_datalist(root, "validation", case_pattern="ct.*")


def test_only_splits_json_names_test_cases(tmp_path):
    root = folder(tmp_path, test=[])
    with pytest.raises(ValueError, match="holds no test case"):
        decathlon_datalist(root, "test")
    (root / "splits.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    with pytest.raises(ValueError, match="has no list 'test'"):
        decathlon_datalist(root, "test")


def test_paths_exist_and_belong_together(tmp_path):
    for section in ("training", "validation"):
        for case in decathlon_datalist(folder(tmp_path), section, 1):
            assert set(case) == {"image", "label"}
            assert nibabel.load(case["image"]).shape == nibabel.load(case["label"]).shape
            assert case["label"] == case["image"].replace("imagesTr", "labelsTr")


def test_cases_of_one_name_in_different_folders(tmp_path):
    """One folder per case is as common as one name per case: none may get lost."""
    cases = [{"image": f"case{i}/image.nii.gz", "label": f"case{i}/label.nii.gz"} for i in range(6)]
    root = folder(tmp_path, training=cases)
    found = [decathlon_datalist(root, section) for section in ("validation", "training")]
    assert [re.findall(r"case\d", case["image"])[0] for part in found for case in part] == [
        *("case0", "case5"),
        *("case1", "case2", "case3", "case4"),
    ]
    (root / "splits.json").write_text(json.dumps({"train": ["image"], "val": ["image"]}))
    with pytest.raises(ValueError, match="cannot tell 'case0/image.nii.gz' from 'case1/image.nii.gz'"):
        decathlon_datalist(root, "training")


def test_names_with_dots(tmp_path):
    root = folder(tmp_path, ["1.2.1", "1.2.2"], splits={"train": ["1.2.2"], "val": ["1.2.1"]})
    assert decathlon_datalist(root, "training")[0]["image"].endswith("1.2.2.nii.gz")
    assert decathlon_datalist(root, "validation")[0]["image"].endswith("1.2.1.nii.gz")


def test_channels_of_four_dimensional_images(tmp_path):
    root = folder(tmp_path, shape=(2, 3, 4, 4))
    assert len(decathlon_datalist(root, "training", 4)) == 5
    assert len(decathlon_datalist(root, "training")) == 5
    with pytest.raises(ValueError, match=r"a.nii.gz' has 4 channel\(s\), the network takes 1"):
        decathlon_datalist(root, "validation", 1)
    with pytest.raises(ValueError, match=r"has 1 channel\(s\), the network takes 4"):
        decathlon_datalist(folder(tmp_path), "validation", 4)


def test_a_folder_of_nnunet(tmp_path):
    """Its dataset.json lists no case; the channels of an image are files of their own."""
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MR"}, "file_ending": ".nii"}))
    for name in "abcdef":
        volume(tmp_path / "imagesTr" / f"{name}_0000.nii")
        volume(tmp_path / "labelsTr" / f"{name}.nii")
    assert both(tmp_path, in_channels=1) == ("b_0000c_0000d_0000e_0000", "a_0000f_0000")
    assert decathlon_datalist(tmp_path, "training")[0]["label"] == str(tmp_path / "labelsTr" / "b.nii")
    volume(tmp_path / "imagesTr" / "c_0001.nii")
    with pytest.raises(ValueError, match="'c' .* has 2 channels in files of their own, 'c_0000.nii' to 'c_0001.nii'"):
        decathlon_datalist(tmp_path, "training")


# Refusals, each with the name of what is wrong


def test_unknown_section(tmp_path):
    for datalist in (decathlon_datalist, picture_datalist, segmentation_datalist):
        with pytest.raises(ValueError, match="section must be 'training', 'validation' or 'test', got 'val'"):
            datalist(folder(tmp_path), "val")


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match="dataset_dir .*nowhere' is not a folder"):
        decathlon_datalist(tmp_path / "nowhere", "training")


def test_folder_without_dataset_json(tmp_path):
    with pytest.raises(ValueError, match=f"dataset_dir '{re.escape(str(tmp_path))}' holds no dataset.json"):
        decathlon_datalist(tmp_path, "training")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "dataset.json' is not a JSON file"),
        ("[]", "dataset.json' must hold a JSON object, got a list"),
        ("{}", "holds no training case"),
        ('{"training": []}', "holds no training case"),
        ('{"training": ["a.nii.gz"]}', "has in the place of training the entry 'a.nii.gz', which names no image"),
        ('{"training": [{"image": ["a.nii.gz"]}]}', "training the entry {'image': ['a.nii.gz']}, which names no image"),
        ('{"training": null}', "has in the place of training None, which is no list of cases"),
        ('{"training": [{"label": "a.nii.gz"}]}', "training the entry {'label': 'a.nii.gz'}, which names no image"),
    ],
)
def test_bad_dataset_json(tmp_path, content, sentence):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        decathlon_datalist(tmp_path, "training")


def test_single_case_leaves_nothing_to_train_with(tmp_path):
    root = folder(tmp_path, "a")
    assert names(decathlon_datalist(root, "validation")) == "a"
    with pytest.raises(ValueError, match="holds no training case"):
        decathlon_datalist(root, "training")


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        ({"train": ["a", "q"], "val": []}, "names the case 'q', which dataset.json lacks"),
        ({"val": ["a"]}, "has no list 'train'"),
        ({"train": None, "val": ["a"]}, "has None in the place of a list of names"),
        ({"train": [], "val": ["a"]}, "holds no training case"),
        ([], "splits.json' must hold a JSON object, got a list"),
    ],
)
def test_bad_splits_json(tmp_path, splits, sentence):
    with pytest.raises(ValueError, match=sentence):
        decathlon_datalist(folder(tmp_path, splits=splits), "training")


def test_missing_files(tmp_path):
    root = folder(tmp_path)
    (root / "labelsTr" / "a.nii.gz").unlink()
    with pytest.raises(ValueError, match="The image .*a.nii.gz' has no label: .*labelsTr/a.nii.gz' does not exist"):
        decathlon_datalist(root, "validation")
    (root / "imagesTr" / "a.nii.gz").unlink()
    with pytest.raises(ValueError, match="The image .*imagesTr/a.nii.gz' does not exist"):
        decathlon_datalist(root, "validation")


def test_entry_without_label(tmp_path):
    root = folder(tmp_path, training=[{"image": "imagesTr/a.nii.gz"}])
    with pytest.raises(ValueError, match="The image .*a.nii.gz' has no label in dataset.json"):
        decathlon_datalist(root, "validation")


def test_unreadable_image(tmp_path):
    root = folder(tmp_path)
    (root / "imagesTr" / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="The image .*a.nii.gz' cannot be read"):
        decathlon_datalist(root, "validation", 1)


# Images to segment


def test_a_folder_of_pictures_alone(tmp_path):
    """`images` without masks: all are segmented, and of a folder that is split those of the validation."""
    for name in "abc":
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{name}.png").write_bytes(b"")
    assert names(image_datalist(tmp_path, 3, 2)) == "abc"
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a"], "val": ["c", "b"]}))
    assert sorted(names(image_datalist(tmp_path, 3, 2))) == ["b", "c"]


def test_an_image_of_a_file_for_each_channel(tmp_path):
    files = [volume(tmp_path / f"{name}.nii") for name in ("t1", "t2")]
    assert channels_entry(files, 2, 3) == {"image": [str(file) for file in files]}
    assert channels_entry(files[:1], 1, 3) == {"image": str(files[0])}
    with pytest.raises(ValueError, match="t1.nii' has 2 channels in files of their own, the network takes 3."):
        channels_entry(files, 3, 3)
    with pytest.raises(ValueError, match="t3.nii' does not exist."):
        channels_entry([*files, tmp_path / "t3.nii"], 3, 3)
    volume(tmp_path / "both.nii", (2, 3, 4, 2))
    with pytest.raises(ValueError, match=r"both.nii' has 2 channel\(s\), the network takes 1."):
        channels_entry([files[0], tmp_path / "both.nii"], 2, 3)


@pytest.mark.parametrize(
    ("channels", "axes", "sentence"),
    [(5, 2, "is a picture, of 1, 3 or 4 channels, not 5."), (1, 3, "is a picture, the network takes volumes.")],
)
def test_a_picture_that_the_network_does_not_take(tmp_path, channels, axes, sentence):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=f"The image '.*a.png' {sentence}"):
        image_datalist(tmp_path / "a.png", channels, axes)


def test_image_file(tmp_path):
    path = volume(tmp_path / "one.nii.gz")
    assert image_datalist(path, 1) == image_datalist(str(path)) == [{"image": str(path)}]
    with pytest.raises(ValueError, match=r"has 1 channel\(s\), the network takes 3"):
        image_datalist(path, 3)


def test_folder_of_images(tmp_path):
    for name in ("b.nii.gz", "a.nii", "sub/c.nii.gz"):
        volume(tmp_path / name)
    for name in ("d.PNG", "e.txt", "._b.nii.gz", "f.csv"):
        (tmp_path / name).write_bytes(b"")
    assert image_datalist(tmp_path, 1) == [{"image": str(tmp_path / name)} for name in ("a.nii", "b.nii.gz", "d.PNG")]


def test_results_of_an_earlier_run_are_no_images(tmp_path):
    maps = {**UNCERTAINTIES, **CLASS_UNCERTAINTIES}.keys() - {"entropy"}
    kinds = ["seg", "uncertainty", *maps, "overlay"]
    assert len(kinds) == 6
    for name in ("a", "x_seg", *(f"a_{kind}" for kind in kinds)):
        volume(tmp_path / f"{name}.nii.gz")
    assert [Path(case["image"]).name for case in image_datalist(tmp_path, 1)] == ["a.nii.gz", "x_seg.nii.gz"]


def test_decathlon_folder_gives_its_validation_images(tmp_path):
    root = folder(tmp_path, "abcdef")
    assert image_datalist(root, 1) == [{"image": str(root / "imagesTr" / f"{name}.nii.gz")} for name in "af"]


def test_results_of_one_name(tmp_path):
    cases = [{"image": f"case{i}/image.nii.gz", "label": f"case{i}/label.nii.gz"} for i in range(2)]
    root = folder(tmp_path / "decathlon", training=[], validation=cases)
    with pytest.raises(ValueError, match="case0/image.nii.gz' and '.*case1/image.nii.gz' would both be written as"):
        image_datalist(root)
    for name in ("scan.nii", "scan.nii.gz"):
        volume(tmp_path / "files" / name)
    with pytest.raises(ValueError, match="scan.nii' and '.*scan.nii.gz' would both be written as 'scan': rename one."):
        image_datalist(tmp_path / "files")


def test_no_images(tmp_path):
    with pytest.raises(ValueError, match="There is no image file or folder .*nowhere"):
        image_datalist(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="The folder .* holds no image file and no DICOM series"):
        image_datalist(tmp_path)


# Folders of pictures


def test_sections_of_pictures(tmp_path):
    root = pictures(tmp_path, "cab", splits={"train": ["c"], "val": ["a"], "test": ["b"]})
    for section, name in (("training", "c"), ("validation", "a"), ("test", "b")):
        expected = [{"image": str(root / "images" / f"{name}.jpg"), "label": str(root / "masks" / f"{name}.png")}]
        assert picture_datalist(root, section) == segmentation_datalist(str(root), section, 3) == expected
    assert image_datalist(root, 3) == [{"image": str(root / "images" / "a.jpg")}]


def brats(root, name, parts=("flair", "t1", "t1ce", "t2")):
    return [str(volume(root / name / f"{name}_{part}.nii.gz")) for part in parts]


def test_the_folder_of_one_case_is_an_image_of_a_file_for_each_channel(tmp_path):
    """As BraTS hands out a patient; the label, and what was written beside it, are no channels."""
    files = brats(tmp_path, "BraTS2021_00000")
    brats(tmp_path, "BraTS2021_00000", ["seg", "flair_seg", "flair_uncertainty"])
    assert image_datalist(tmp_path / "BraTS2021_00000", 4, 3) == [{"image": files}]


def test_the_folder_of_a_case_that_lacks_a_channel_is_refused(tmp_path):
    brats(tmp_path, "BraTS2021_00000", ["flair", "t1", "t2"])
    with pytest.raises(ValueError, match=r"_flair.nii.gz' has 1 channel\(s\), the network takes 4"):
        image_datalist(tmp_path / "BraTS2021_00000", 4, 3)


def test_a_folder_of_other_files_is_no_case(tmp_path):
    files = [*brats(tmp_path, "a", ["1", "2"]), str(volume(tmp_path / "a" / "other.nii.gz"))]
    with pytest.raises(ValueError, match=r"'.*a_1.nii.gz' has 1 channel"):
        image_datalist(tmp_path / "a", 3, 3)
    assert image_datalist(tmp_path / "a", 1, 3) == [{"image": file} for file in files]


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        (["a_0.jpg", "a_1.jpg", "a_2.jpg"], (4, 4)),  # pictures of three colours
        (["a_00.nii.gz", "a_01.nii.gz", "a_02.nii.gz"], (4, 4, 4)),  # cases by their numbers
        (["a_t1.nii.gz", "a_t2.nii.gz", "a_x.nii.gz"], (4, 4, 4, 3)),  # each of three channels
    ],
)
def test_images_of_a_folder_of_their_name_are_not_joined(names, shape, tmp_path):
    for name in names:
        if name.endswith(".jpg"):
            (tmp_path / "a").mkdir(exist_ok=True)
            Image.new("RGB", shape).save(tmp_path / "a" / name)
        else:
            volume(tmp_path / "a" / name, shape)
    try:
        found = [case["image"] for case in image_datalist(tmp_path / "a", 3, len(shape[:3]))]
    except ValueError as error:
        assert "has 1 channel(s), the network takes 3" in str(error) and "_00" in names[0]
    else:
        assert found == [str(tmp_path / "a" / name) for name in names]


def test_the_folder_of_one_case_may_be_the_one_that_one_is_in(tmp_path, monkeypatch):
    brats(tmp_path, "p0", ["t1", "t2", "seg"])
    monkeypatch.chdir(tmp_path / "p0")
    assert image_datalist(".", 2, 3) == [{"image": ["p0_t1.nii.gz", "p0_t2.nii.gz"]}]


def test_all_cases_of_a_set_without_labels_are_segmented(tmp_path):
    """A rule for the cases that validate is for sets that are learned from."""
    files = [brats(tmp_path, f"BraTS2021_0000{number}") for number in range(7)]
    assert image_datalist(tmp_path, 4, 3) == [{"image": each} for each in files]
    (tmp_path / "splits.json").write_text(json.dumps({"train": [], "val": ["BraTS2021_00004"]}))
    assert image_datalist(tmp_path, 4, 3) == [{"image": files[4]}]
    (tmp_path / "splits.json").unlink()
    volume(tmp_path / "BraTS2021_00003" / "BraTS2021_00003_seg.nii.gz")
    assert len(image_datalist(tmp_path, 4, 3)) == 2


def test_every_third_case(tmp_path):
    root = pictures(tmp_path, "gkafbecdihj", image=".PNG")
    assert names(segmentation_datalist(root, "training", stride=3)) == "bei"
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        segmentation_datalist(root, "training", stride=0)


def test_pictures_without_splits(tmp_path):
    root = pictures(tmp_path, "gkafbecdihj", image=".PNG")
    (root / "images" / "notes.txt").write_text("")
    assert [names(picture_datalist(root, section)) for section in ("training", "validation")] == ["bcdeghij", "afk"]
    with pytest.raises(ValueError, match="holds no test case"):
        picture_datalist(root, "test")


def test_form_of_a_folder(tmp_path):
    """A dataset.json decides, whatever else lies there."""
    root = pictures(folder(tmp_path, "ab"), "cd")
    assert names(segmentation_datalist(root, "training", 1)) == "b"
    with pytest.raises(ValueError, match=r"has 1 channel\(s\), the network takes 3"):
        segmentation_datalist(root, "training", 3)


def test_bad_picture_folders(tmp_path):
    root = pictures(tmp_path, "ab", splits={"train": ["q"], "val": ["a"]})
    with pytest.raises(ValueError, match="names the case 'q', which its folder images lacks"):
        picture_datalist(root, "training")
    (root / "masks" / "a.bmp").write_bytes(b"")
    with pytest.raises(ValueError, match="masks' holds both 'a.bmp' and 'a.png' of one case"):
        picture_datalist(root, "training")
    for ending in ("bmp", "png"):
        (root / "masks" / f"a.{ending}").unlink()
    with pytest.raises(ValueError, match="The image .*a.jpg' has no mask: .*masks' holds no 'a'"):
        picture_datalist(root, "training")
    for path in (root / "masks").iterdir():
        path.unlink()
    (root / "masks").rmdir()
    with pytest.raises(ValueError, match="There is no folder .*masks"):
        segmentation_datalist(root, "training")
    with pytest.raises(ValueError, match="is not a folder"):
        segmentation_datalist(tmp_path / "nowhere", "training")
