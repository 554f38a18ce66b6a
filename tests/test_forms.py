"""Forms of data sets: what each says about cases, classes, channels and sections."""

import json
import re

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff_bundle.datalist import image_datalist, read_data_set, segmentation_datalist
from medsegdiff_bundle.datalist.forms.description import modality_of
from medsegdiff_bundle.datalist.forms.sections import cases_of, folds_of, groups_by_name
from medsegdiff_bundle.transforms import LoadImaged


def volume(path, value=0, shape=(2, 3, 4), affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.full(shape, value, np.uint8), np.eye(4) if affine is None else affine), path)
    return path


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(path)
    return path


def nnunet(root, names="abcdef", channels=("T1", "T2"), **content):
    root.mkdir(exist_ok=True)
    labels = {"background": 0, "core": 1, "edema": 2}
    described = {"channel_names": dict(enumerate(channels)), "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described | content))
    for name in names:
        for channel in range(len(channels)):
            volume(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz", channel + 1)
        volume(root / "labelsTr" / f"{name}.nii.gz")
    return root


# nnU-Net 2


def test_channels_of_nnunet_are_one_image(tmp_path):
    root = nnunet(tmp_path)
    case = segmentation_datalist(root, "training", 2, 3)[0]
    assert [file.rpartition("/")[2] for file in case["image"]] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    image = LoadImaged("image")(case)["image"]
    assert image.shape == (2, 2, 3, 4) and [float(channel.mean()) for channel in image] == [1, 2]
    described = read_data_set(root)
    assert (described.form, described.class_names, described.class_values) == ("nnU-Net", ("core", "edema"), (0, 1, 2))
    assert (described.channel_names, described.modality) == (("T1", "T2"), "MR")


def test_missing_channel_is_a_sentence(tmp_path):
    root = nnunet(tmp_path)
    (root / "imagesTr" / "c_0001.nii.gz").unlink()
    with pytest.raises(ValueError, match="The case 'c' lacks the channel T2: .*c_0001.nii.gz' does not exist"):
        segmentation_datalist(root, "training", 2)


def test_regions_and_ignore_of_nnunet(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    described = read_data_set(nnunet(tmp_path, labels=labels, regions_class_order=[1, 2, 3]))
    assert described.class_names == ("value 1", "value 2", "enhancing") and described.ignore == 4
    assert described.regions == (("whole", (1, 2, 3)), ("core", (2, 3)), ("enhancing", (3,)))
    assert (described.region_order, described.class_values) == ((1, 2, 3), (0, 1, 2, 3))
    with pytest.raises(ValueError, match="regions_class_order must have a value for each of the 3, got None"):
        read_data_set(nnunet(tmp_path, labels=labels))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"labels": ["core", "edema"]}, "has the labels ['core', 'edema'], which give no names numbers."),
        ({"labels": {"core": 1.5}}, "has the label 1.5, which is no whole number and no list of some."),
        ({"channel_names": {"1": "T1"}}, "has the channel_names {'1': 'T1'}: they are numbered from 0."),
        ({"channel_names": {"0": "T1"}}, "has 2 channels in files of their own, 'a_0000.nii.gz' to 'a_0001.nii.gz'"),
    ],
)
def test_a_description_of_nnunet_that_is_none(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        read_data_set(nnunet(tmp_path, **content))
    assert repr(str(tmp_path)) in str(raised.value)


def test_listed_cases_of_nnunet(tmp_path):
    """Which may lie anywhere, one file for each channel; of a photograph one file holds all."""
    listed = {"b": {"images": ["x/b1.nii.gz", "x/b2.nii.gz"], "label": "y/b.nii.gz"}, "a": {"images": ["1", "2"]}}
    described = read_data_set(nnunet(tmp_path, names="", dataset=listed))
    assert [case.name for case in described.cases] == ["a", "b"]
    assert described.cases[0].label is None and described.cases[1].label == tmp_path / "y" / "b.nii.gz"
    assert described.cases[1].images == (tmp_path / "x" / "b1.nii.gz", tmp_path / "x" / "b2.nii.gz")
    photograph = {"a": {"images": ["a.png"], "label": "a_mask.png"}}
    described = read_data_set(nnunet(tmp_path, names="", channels="RGB", dataset=photograph))
    assert described.cases[0].images == (tmp_path / "a.png",)
    with pytest.raises(ValueError, match="The case 'a' in .* has 1 images: dataset.json names 2 channels."):
        read_data_set(nnunet(tmp_path, names="", dataset=photograph))


def test_nnunet_without_its_folders(tmp_path):
    (nnunet(tmp_path) / "labelsTr").rename(tmp_path / "labels")
    with pytest.raises(ValueError, match="has a dataset.json of nnU-Net and no folder 'labelsTr'."):
        read_data_set(tmp_path)


def test_more_values_than_regions(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3]}
    described = read_data_set(nnunet(tmp_path, labels=labels, regions_class_order=[1, 2]))
    assert described.class_names == ("value 1", "value 2", "value 3") and described.class_values == (0, 1, 2, 3)


def test_channels_on_other_grids_are_refused(tmp_path):
    root = nnunet(tmp_path)
    moved = np.diag([1.0, 1, 1, 1])
    moved[0, 3] = 5
    volume(root / "imagesTr" / "b_0001.nii.gz", affine=moved)
    with pytest.raises(ValueError, match="channel .*b_0001.nii.gz' lies elsewhere than .*b_0000.* up to 5 voxels"):
        LoadImaged("image")(segmentation_datalist(root, "training")[0])
    volume(root / "imagesTr" / "b_0001.nii.gz", shape=(2, 3, 5))
    with pytest.raises(ValueError, match=r"channel .*b_0001.nii.gz' has the shape \(2, 3, 5\), .*\(2, 3, 4\)"):
        LoadImaged("image")(segmentation_datalist(root, "training")[0])


def test_channels_stored_in_another_order_are_turned(tmp_path):
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 1
    first, second = volume(tmp_path / "a_0000.nii.gz"), tmp_path / "a_0001.nii.gz"
    values = np.zeros((2, 3, 4), np.uint8)
    values[0] = 7
    nibabel.save(nibabel.Nifti1Image(values, flipped), second)
    image = LoadImaged("image")({"image": [str(first), str(second)]})["image"]
    assert float(image[1, 1].min()) == 7 and float(image[1, 0].max()) == 0


def test_images_to_segment_have_their_channels(tmp_path):
    root = nnunet(tmp_path)
    expected = [str(root / "imagesTr" / f"a_000{channel}.nii.gz") for channel in range(2)]
    assert image_datalist(root, 2, 3)[0]["image"] == expected
    found = image_datalist(root / "imagesTr", 2, 3)
    assert len(found) == 6 and found[0]["image"] == expected
    (root / "imagesTr" / "b_0001.nii.gz").unlink()
    refused = [case for case in image_datalist(root / "imagesTr", 2, 3) if "refused" in case]
    assert len(refused) == 1 and "has 1 channel(s), the network takes 2" in refused[0]["refused"]


def test_folds_of_nnunet(tmp_path):
    folds = [{"train": list("cdef"), "val": list("ab")}, {"train": list("abef"), "val": list("cd")}]
    root = nnunet(tmp_path)
    (root / "splits_final.json").write_text(json.dumps(folds))
    data_set = read_data_set(root)
    assert [case.name for case in cases_of(data_set, "validation", 1)] == ["c", "d"]
    assert [case.name for case in cases_of(data_set, "training", 1)] == list("abef"), "also those of no fold"


def test_folds_of_a_table(tmp_path):
    """A case of no fold trains in each; numbers begin at 0, and names tell the cases apart."""
    rows = [
        {"image": f"{name}.nii.gz", "label": f"{name}_l.nii.gz", "fold": fold}
        for name, fold in zip("abcd", (1, 0, 0, ""), strict=True)
    ]
    table = tmp_path / "list.json"
    table.write_text(json.dumps({"cases": rows}))
    data_set = read_data_set(table)
    assert data_set.folds == (("b", "c"), ("a",))
    assert [case.name for case in cases_of(data_set, "training", 0)] == ["a", "d"]
    for number, folds, sentence in ((0, 3, "numbered from 0 on"), (3, 0, "folds and 2 cases 'a'")):
        changed = [dict(row) for row in rows]
        changed[number]["fold"] = folds
        if "2 cases" in sentence:
            changed[3]["image"] = "other/a.nii.gz"
        table.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=sentence):
            read_data_set(table)


# Pictures


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.jpg", "masks/{}.png"),
        ("img/{}.png", "labels/{}.png"),
        ("Images/{}.png", "GT/{}_segmentation.png"),
        ("train/images/{}.png", "train/masks/{}_mask.png"),
        ("images/train/{}.png", "labels/train/{}.png"),
        ("{}.png", "{}_mask.png"),
        ("Original/{}.jpg", "Ground Truth/{}.png"),
        ("images/{}_img.png", "masks/{}_mask.png"),
        ("imagesTr/{}_0000.png", "labelsTr/{}.png"),
    ],
)
def test_folders_of_pictures(tmp_path, image, mask):
    for name in ("a1", "b", "c", "d", "e", "f"):
        picture(tmp_path / image.format(name))
        picture(tmp_path / mask.format(name), 255)
    data_set = read_data_set(tmp_path)
    assert [re.sub("_(img|0000)$", "", case.name) for case in data_set.cases] == ["a1", "b", "c", "d", "e", "f"]
    assert [case.label.name.split(".")[0].split("_")[0] for case in data_set.cases] == ["a1", "b", "c", "d", "e", "f"]
    assert (data_set.form, data_set.modality) == ("pictures", "picture")
    assert len(segmentation_datalist(tmp_path, "training", 3, 2)) == 4


def test_sections_of_folders(tmp_path):
    for part, name in (("train", "a"), ("val", "b"), ("test", "c")):
        picture(tmp_path / part / "images" / f"{name}.png")
        picture(tmp_path / part / "masks" / f"{name}.png")
    for section, name in (("training", "a"), ("validation", "b"), ("test", "c")):
        assert [case.name for case in cases_of(read_data_set(tmp_path), section)] == [name]


@pytest.mark.parametrize(
    ("image", "mask", "view"),
    [
        ("training/images/{}_training.tif", "training/1st_manual/{}_manual1.gif", "training/mask/{}_training_mask.gif"),
        ("images/{}_h.jpg", "manual1/{}_h.tif", "mask/{}_h_mask.tif"),
    ],
    ids=["DRIVE", "HRF"],
)
def test_fields_of_view_of_the_retina_are_no_masks(tmp_path, image, mask, view):
    for number in (21, 22):
        for file in (image, mask, view):
            picture(tmp_path / file.format(number))
    for file in (image, view):  # of a test whose vessels are kept aside
        if file.startswith("training"):
            picture(tmp_path / file.replace("training", "test").format(1))
    assert [case.label for case in read_data_set(tmp_path).cases] == [tmp_path / mask.format(n) for n in (21, 22)]


@pytest.mark.parametrize(
    ("image", "mask", "others"),
    [
        ("volume-{}.nii", "segmentation-{}.nii", ()),
        ("Training Batch 1/volume-{}.nii", "Training Batch 1/segmentation-{}.nii", ()),
        ("liver-orig00{}.nii", "liver-seg00{}.nii", ()),
        ("Image_{}L.nii", "Image_{}L_1stHO.nii", ("Image_{}L_2ndHO.nii",)),
        ("p{0}/p{0}_frame0{0}.nii.gz", "p{0}/p{0}_frame0{0}_gt.nii.gz", ("p{0}/p{0}_4d.nii.gz",)),
        ("A{0}/A{0}_sa.nii.gz", "A{0}/A{0}_sa_gt.nii.gz", ()),
        ("kaggle/TCGA_{0}/TCGA_{0}_1.nii", "kaggle/TCGA_{0}/TCGA_{0}_1_mask.nii", ()),
    ],
    ids=["LiTS", "its archives", "SLIVER07", "CHASE_DB1", "ACDC", "M&Ms", "LGG"],
)
def test_masks_beside_their_images(tmp_path, image, mask, others):
    """In one folder or in those of patients, as such sets are handed out."""
    for number in (1, 2, 3):
        for file in (image, mask, *others):
            volume(tmp_path / file.format(number))
    data_set = read_data_set(tmp_path)
    found = [(case.images, case.label) for case in data_set.cases]
    assert found == [((tmp_path / image.format(n),), tmp_path / mask.format(n)) for n in (1, 2, 3)]


def test_folders_of_patients_and_of_classes(tmp_path):
    """Slices of a patient stay together; two or three folders, as of BUSI, are no patients."""
    for patient in range(10):
        for part in ("", "_mask"):
            picture(tmp_path / "lgg" / f"p{patient}" / f"slice{part}.png")
    cases = read_data_set(tmp_path / "lgg").cases
    assert [(case.name, case.group) for case in cases] == [(f"p{n}_slice", f"p{n}") for n in range(10)]
    for kind in ("benign", "malignant"):
        for part in ("", "_mask"):
            picture(tmp_path / "busi" / kind / f"{kind} (1){part}.png")
    assert [(case.name, case.group) for case in read_data_set(tmp_path / "busi").cases] == [
        ("benign (1)", None),
        ("malignant (1)", None),
    ]
    picture(tmp_path / "busi" / "benign" / "benign (1)_mask_1.png")
    with pytest.raises(ValueError, match=r"benign \(1\).png' has several masks, 'benign \(1\)_mask_1.png' among them"):
        read_data_set(tmp_path / "busi")
    rows = "image,label\nbenign/benign (1).png,benign/benign (1)_mask.png\n"
    (tmp_path / "busi" / "cases.csv").write_text(rows)
    assert read_data_set(tmp_path / "busi").form == "table", "which says more than folders in folders"


# BIDS


def bids(root, subjects=("01", "02", "03")):
    for subject in subjects:
        for suffix in ("T1w", "FLAIR"):
            volume(root / f"sub-{subject}" / "anat" / f"sub-{subject}_{suffix}.nii.gz")
        volume(root / "derivatives" / "manual" / f"sub-{subject}" / "anat" / f"sub-{subject}_desc-manual_dseg.nii.gz")
    (root / "derivatives" / "manual" / "desc-manual_dseg.tsv").write_text("index\tname\n0\tBackground\n1\tGM\n5\tWM\n")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0", "License": "CC0"}))
    return root


def test_bids_derivatives(tmp_path):
    data_set = read_data_set(bids(tmp_path))
    assert (data_set.form, data_set.class_names, data_set.class_values) == ("BIDS", ("GM", "WM"), (0, 1, 5))
    assert (data_set.channel_names, data_set.modality, data_set.licence) == (("FLAIR", "T1w"), "MR", "CC0")
    case = data_set.cases[0]
    assert [image.name for image in case.images] == ["sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz"]
    assert case.label.name == "sub-01_desc-manual_dseg.nii.gz" and case.group == "sub-01"


def test_bids_case_without_a_channel(tmp_path):
    root = bids(tmp_path)
    (root / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz").unlink()
    with pytest.raises(ValueError, match="The case 'sub-02' lacks the channel FLAIR"):
        segmentation_datalist(root, "training", 2)


def test_bids_images_of_another_space_are_none(tmp_path):
    root = bids(tmp_path)
    volume(root / "derivatives" / "manual" / "sub-01" / "anat" / "sub-01_space-MNI_T1w.nii.gz", shape=(5, 5, 5))
    assert [image.name for image in read_data_set(root).cases[0].images] == ["sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz"]


def test_bids_labels_that_give_way(tmp_path):
    """One in a space that has no image, and the mask of a brain."""
    root = bids(tmp_path)
    folder = root / "derivatives" / "manual"
    for n in ("01", "02", "03"):
        volume(folder / f"sub-{n}" / "anat" / f"sub-{n}_space-MNI_dseg.nii.gz")
    assert [case.label.name for case in read_data_set(root).cases][0] == "sub-01_desc-manual_dseg.nii.gz"
    without("*_dseg.nii.gz")(root)
    for n in ("01", "02", "03"):
        for kind in ("desc-brain", "label-lesion"):
            volume(folder / f"sub-{n}" / "anat" / f"sub-{n}_{kind}_mask.nii.gz")
    data_set = read_data_set(root)
    assert data_set.class_names == ("lesion",) and data_set.cases[0].label.name == "sub-01_label-lesion_mask.nii.gz"


@pytest.mark.parametrize("ending", ["T1w_seg-manual", "T1w_label-SC_seg"])
def test_bids_labels_of_one_image(tmp_path, ending):
    root = bids(tmp_path)
    without("*_dseg.nii.gz")(root)
    for n in ("01", "02", "03"):
        volume(root / "derivatives" / "labels" / f"sub-{n}" / "anat" / f"sub-{n}_{ending}.nii.gz")
    data_set = read_data_set(root)
    assert (data_set.channel_names, data_set.cases[0].label.name) == (("T1w",), f"sub-01_{ending}.nii.gz")


def without(*patterns):
    """What removes the files of some patterns."""

    def change(root):
        for path in [path for pattern in patterns for path in root.rglob(pattern)]:
            path.unlink()

    return change


def with_a_second_label(root):
    volume(root / "derivatives" / "other" / "sub-01" / "sub-01_dseg.nii.gz")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("*_dseg.nii.gz"), "is BIDS and holds no *_dseg.nii.gz and no *_mask.nii.gz."),
        (without("*_T1w.nii.gz", "*_FLAIR.nii.gz"), "has no image that most of its 3 labels have."),
        (with_a_second_label, "has two labels of 'sub-01': "),
        (with_a_second_label, "sub-01_dseg.nii.gz; keep one, or give a table that names those that count."),
    ],
)
def test_bids_without_labels_or_with_too_many(tmp_path, change, sentence):
    change(bids(tmp_path))
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        read_data_set(tmp_path)
    assert repr(str(tmp_path)) in str(raised.value)


# Tables


def test_table_of_files(tmp_path):
    for name in "abcd":
        volume(tmp_path / f"{name}.nii")
    rows = ["image_T1,image_T2,label,split,patient", "a.nii,b.nii,c.nii,train,p1", "b.nii,a.nii,d.nii,val,p2"]
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    data_set = read_data_set(tmp_path)
    assert data_set.channel_names == ("T1", "T2") and data_set.cases[1].group == "p2"
    assert [case.name for case in cases_of(data_set, "validation")] == ["b"]
    assert read_data_set(tmp_path / "cases.csv").cases == data_set.cases
    described = {"cases": [{"image": ["a.nii", "b.nii"], "label": "c.nii"}], "class_names": ["x"], "ignore": 3}
    (tmp_path / "other.json").write_text(json.dumps(described))
    data_set = read_data_set(tmp_path / "other.json")
    assert (data_set.class_names, data_set.ignore, len(data_set.cases[0].images)) == (("x",), 3, 2)


@pytest.mark.parametrize(
    "text",
    [
        "image;label;split\na.nii;x.nii;Train\nb.nii;y.nii;Val\n",
        "image\tlabel\tsplit\na.nii\tx.nii\ttrain\nb.nii\ty.nii\tval\n",
        '"Image", "Mask" ,"Split"\n" a.nii", "x.nii","train"\n"b.nii","y.nii","val"\n',
        "id,image_path,mask_path,split\na,a.nii,x.nii,train\n,,,\nb,.\\b.nii,.\\y.nii,val\n",
    ],
    ids=["semicolons", "tabs", "quotes and spaces", "names of columns, an empty row, backslashes"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_spreadsheet_programs(tmp_path, text, encoding):
    (tmp_path / "cases.csv").write_text(text, encoding=encoding)
    found = [(case.name, case.images, case.label, case.section) for case in read_data_set(tmp_path).cases]
    assert found == [
        ("a", (tmp_path / "a.nii",), tmp_path / "x.nii", "training"),
        ("b", (tmp_path / "b.nii",), tmp_path / "y.nii", "validation"),
    ]


def test_folds_of_a_table_from_one(tmp_path):
    (tmp_path / "cases.csv").write_text("image,label,fold\na.nii,x.nii,2\nb.nii,y.nii,1\n")
    assert read_data_set(tmp_path).folds == (("b",), ("a",))


def test_a_table_that_is_no_text(tmp_path):
    (tmp_path / "cases.csv").write_bytes("image,label\nä.nii,x.nii\n".encode("latin-1"))
    with pytest.raises(ValueError, match="cases.csv' is no text in UTF-8: save it in that encoding."):
        read_data_set(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image,mask,label\na.nii,x.nii,benign\n", "has the column 'mask' and the column 'label': call the one"),
        ("image,mask_of_reader\na.nii,x.nii\n", "has the column 'mask_of_reader': call the one of the labels 'label'"),
        ("label\nx.nii\n", "has no column 'image', only label"),
        ("image,label\n,x.nii\n", "names no image in row 1"),
        ("image,label,split\na.nii,x.nii,tuning\n", "has the section 'tuning' in row 1"),
        ("image,label\n", "has no row"),
    ],
)
def test_bad_tables(tmp_path, text, sentence):
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_data_set(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"training": None}, "has in the place of training None, which is no list"),
        ({"training": [{}]}, "has in the place of training the entry {}, which names no image"),
        ({"training": [{"image": ""}]}, "which names no image"),
        ({"training": [{"image": "a.nii", "label": 3}]}, "whose label or group is no text"),
        ({"training": [{"image": "a.nii", "group": {}}]}, "whose label or group is no text"),
        ({"channel_names": {"0": "CT"}, "dataset": 3}, "has in the place of its dataset 3"),
        ({"channel_names": {"0": "CT"}, "dataset": {"a": {"images": [3]}}}, "which names no images"),
        ({"channel_names": {"0": "CT"}, "dataset": {"a": {"images": ["a.nii"], "label": 3}}}, "which names no images"),
        ({"channel_names": {"0": "CT"}, "file_ending": "**"}, "has the file_ending '**'"),
        ("[" * 100000, "is not a JSON file"),
    ],
)
def test_lists_that_are_none(content, said, tmp_path):
    (tmp_path / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        cases_of(read_data_set(tmp_path), "training")
    assert "dataset.json" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"cases": 3}, "is no list of cases, and no object with a list 'cases'."),
        ([3], "is no list of cases, and no object with a list 'cases'."),
        ({"cases": [{"image": "a.nii"}], "names": ["x"]}, "has 'names', which is none of cases, channel_names, "),
    ],
)
def test_json_that_is_no_table(tmp_path, content, sentence):
    (tmp_path / "cases.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        read_data_set(tmp_path / "cases.json")
    assert repr(str(tmp_path / "cases.json")) in str(raised.value)


def test_regions_of_a_table(tmp_path):
    content = {"cases": [{"image": "a.nii"}], "class_names": ["x", "y"], "regions": {"all": [1, 2], "core": [2]}}
    (tmp_path / "cases.json").write_text(json.dumps({**content, "region_order": [1, 2]}))
    described = read_data_set(tmp_path / "cases.json")
    assert described.regions == (("all", (1, 2)), ("core", (2,))) and described.region_order == (1, 2)


def test_classes_of_a_decathlon(tmp_path):
    """In the order of their numbers, with the background that the file leaves out; keys are numbers."""
    content = {"training": [{"image": "a.nii", "label": "b.nii"}], "modality": {"1": "T2", "0": "FLAIR"}}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "labels": {"2": "core", "1": "edema"}}))
    described = read_data_set(tmp_path)
    assert (described.class_names, described.class_values) == (("edema", "core"), (0, 1, 2))
    assert described.channel_names == ("FLAIR", "T2")
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "labels": {"core": "rim"}}))
    with pytest.raises(ValueError, match="has the labels {'core': 'rim'}: their keys are no numbers."):
        read_data_set(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "labels": {"core": 1, "rim": 1}}))
    with pytest.raises(ValueError, match="which give each name no number of its own."):
        read_data_set(tmp_path)


@pytest.mark.parametrize("labels", [["background", "edema", "core"], {"edema": 1, "core": 2, "background": 0}])
def test_classes_of_a_decathlon_as_others_write_them(tmp_path, labels):
    content = {"training": [{"image": "a.nii", "label": "b.nii"}], "channel_names": {"0": "T1"}, "labels": labels}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    described = read_data_set(tmp_path)
    assert (described.class_names, described.class_values) == (("edema", "core"), (0, 1, 2))


def test_classes_of_nnunet_by_number(tmp_path):
    described = read_data_set(nnunet(tmp_path, labels={"0": "background", "1": "core", "3": "rim", "4": "ignore"}))
    assert (described.class_names, described.class_values) == (("core", "rim"), (0, 1, 3)) and described.ignore == 4


def test_a_list_of_monai(tmp_path):
    """Which has any name, folds, and patients."""
    rows = [{"image": [f"{n}_t1.nii", f"{n}_t2.nii"], "label": f"{n}.nii", "fold": n % 2} for n in range(4)]
    rows[2]["group"] = rows[3]["group"] = "p"
    (tmp_path / "datalist.json").write_text(json.dumps({"training": rows, "testing": [{"image": "x.nii"}]}))
    data_set = read_data_set(tmp_path / "datalist.json")
    assert data_set.folds == (("0_t1", "2_t1"), ("1_t1", "3_t1")) and data_set.cases[3].group == "p"
    assert data_set.cases[1].images == (tmp_path / "1_t1.nii", tmp_path / "1_t2.nii")
    assert [case.name for case in cases_of(data_set, "validation", 1)] == ["1_t1", "3_t1"]
    rows[0]["fold"] = 7
    (tmp_path / "dataset.json").write_text(json.dumps({"training": rows}))
    with pytest.raises(ValueError, match="dataset.json in .* has the folds 0, 1, 7: they must be numbered from 0 on."):
        read_data_set(tmp_path)


def test_images_of_the_first_nnunet(tmp_path):
    """Its list names one file for each case, and the folder has one for each channel."""
    content = {
        "modality": {"0": "T1", "1": "T2"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./a.nii.gz"}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    files = [volume(tmp_path / "imagesTr" / f"a_000{channel}.nii.gz") for channel in (0, 1)]
    case = read_data_set(tmp_path).cases[0]
    assert (case.name, case.images) == ("a", tuple(files))
    whole = volume(tmp_path / "imagesTr" / "a.nii.gz")
    assert read_data_set(tmp_path).cases[0].images == (whole,)


@pytest.mark.parametrize(
    ("channels", "modality"),
    [
        (("T1", "FLAIR"), "MR"),
        (("R", "G", "B"), "picture"),
        (("rgb_to_0_1",), "picture"),
        (("CT",), "CT"),
        (("ultrasound",), "ultrasound"),
        (("CT", "PET"), None),
        ((), None),
    ],
)
def test_what_the_names_of_channels_stand_for(channels, modality):
    assert modality_of(channels) == modality


def test_a_folder_without_a_form(tmp_path):
    with pytest.raises(ValueError, match="holds no dataset.json .* and none of cases.csv.*: list its files in such a"):
        read_data_set(tmp_path)
    for part in ("images", "masks"):
        picture(tmp_path / "Kvasir-SEG" / part / "a.png")
    with pytest.raises(ValueError, match="cases.json: its folder 'Kvasir-SEG' does."):
        read_data_set(tmp_path)


def test_case_folders(tmp_path):
    """Of other tumours than gliomas the classes are not known; a case has one label."""
    for case in ("a", "b"):
        for part in ("t1", "t2", "seg"):
            volume(tmp_path / case / f"{case}_{part}.nii.gz")
    described = read_data_set(tmp_path)
    assert described.form == "case folders" and described.class_names == described.regions == ()
    assert [case.label.name for case in described.cases] == ["a_seg.nii.gz", "b_seg.nii.gz"]
    volume(tmp_path / "b" / "b_label.nii.gz")
    with pytest.raises(ValueError, match="The case 'b' in .* has two labels: b_label.nii.gz and b_seg.nii.gz."):
        read_data_set(tmp_path)


def test_case_folders_whose_files_are_called_alike(tmp_path):
    """As of KiTS; two sequences are channels."""
    for case in ("case_00000", "case_00001", "case_00002"):
        for part in ("imaging", "segmentation"):
            volume(tmp_path / "kits" / case / f"{part}.nii.gz")
        for part in ("t1", "t2", "label"):
            volume(tmp_path / "two" / case / f"{part}.nii.gz")
    one, two = read_data_set(tmp_path / "kits"), read_data_set(tmp_path / "two")
    assert (one.channel_names, two.channel_names) == ((), ("T1", "T2"))
    assert [(case.name, case.images[0].name, case.label.name) for case in one.cases] == [
        (f"case_0000{n}", "imaging.nii.gz", "segmentation.nii.gz") for n in range(3)
    ]
    (tmp_path / "two" / "case_00001" / "t2.nii.gz").unlink()
    case = read_data_set(tmp_path / "two").cases[1]
    assert case.missing == ("t2",) and case.images[1] == tmp_path / "two" / "case_00001" / "t2.nii.gz"


# Folds


@pytest.mark.parametrize("section", ["val", "all"])
def test_a_section_that_is_none(tmp_path, section):
    with pytest.raises(ValueError, match=f"section must be 'training', 'validation' or 'test', got '{section}'."):
        cases_of(read_data_set(nnunet(tmp_path)), section)


def test_folds_of_a_case_that_is_none(tmp_path):
    (nnunet(tmp_path) / "splits_final.json").write_text(json.dumps([{"val": ["a"]}, {"val": ["q"]}]))
    with pytest.raises(ValueError, match="The folds of .* name the case 'q', which is none."):
        folds_of(read_data_set(tmp_path))
    (tmp_path / "splits_final.json").write_text(json.dumps({"val": ["a"]}))
    with pytest.raises(ValueError, match="splits_final.json in .* is no list of folds with 'train' and 'val'."):
        read_data_set(tmp_path)


def test_folds_keep_patients_together(tmp_path):
    names = [f"p{patient:02d}_s{number:03d}" for patient in range(12) for number in range(patient + 1)]
    for name in names:
        picture(tmp_path / "images" / f"{name}.png")
        picture(tmp_path / "masks" / f"{name}.png")
    data_set = read_data_set(tmp_path)
    folds = folds_of(data_set)
    patients = [{case.name.split("_")[0] for case in fold} for fold in folds]
    assert sum(len(part) for part in patients) == 12 == len(set.union(*patients))
    assert sorted(case.name for fold in folds for case in fold) == sorted(names)
    assert max(map(len, folds)) - min(map(len, folds)) <= 3
    training = {case.name for case in cases_of(data_set, "training", 0)}
    assert training == set(names) - {case.name for case in folds[0]}


@pytest.mark.parametrize("number", [1, 7])
def test_as_many_folds_as_there_are_cases(tmp_path, number):
    data_set = read_data_set(nnunet(tmp_path))
    assert [len(fold) for fold in folds_of(data_set, 6)] == [1] * 6
    with pytest.raises(ValueError, match=f"{number} folds cannot be made of 6 cases or groups of cases."):
        folds_of(data_set, number)


def test_groups_that_names_show():
    numbers = range(12)
    assert groups_by_name([f"SC-HF-I-{p:02d}-IM-0001-{s:04d}" for p in numbers for s in (1, 2)]) == [
        f"SC-HF-I-{p:02d}" for p in numbers for _ in (1, 2)
    ]
    assert groups_by_name([f"{p:04d}_n{n:02d}_s{n:03d}" for p in numbers for n in (0, 1)])[0] == "0000"
    assert groups_by_name([f"case_{p:03d}" for p in numbers]) is None
    assert groups_by_name([f"BraTS-GLI-{p:05d}-{t:03d}" for p in numbers for t in (0, 1)])[-1] == "BraTS-GLI-00011"


def test_test_cases_are_in_no_fold(tmp_path):
    root = nnunet(tmp_path)
    (root / "splits.json").write_text(json.dumps({"train": list("abc"), "val": ["d"], "test": ["e", "f"]}))
    found = [case.name for fold in folds_of(read_data_set(root), 2) for case in fold]
    assert sorted(found) == list("abcd")


# As the tasks of the paper are distributed


def test_brats_of_both_naming_schemes(tmp_path):
    """2021: `BraTS2021_00000_t1ce`; 2023: `BraTS-GLI-00000-000-t1c`, whose last number is the time point."""
    for number in range(3):
        for part in ("flair", "t1", "t1ce", "t2", "seg"):
            name = f"BraTS2021_{number:05d}"
            volume(tmp_path / "2021" / name / f"{name}_{part}.nii.gz")
        for part in ("t1c", "t1n", "t2f", "t2w", "seg"):
            name = f"BraTS-GLI-{number:05d}-000"
            volume(tmp_path / "2023" / name / f"{name}-{part}.nii.gz")
    old, new = read_data_set(tmp_path / "2021"), read_data_set(tmp_path / "2023")
    assert old.channel_names == ("FLAIR", "T1", "T1 contrast", "T2") and old.modality == "MR"
    assert new.channel_names == ("T1 contrast", "T1", "FLAIR", "T2") and new.modality == "MR"
    assert [len(case.images) for case in (*old.cases, *new.cases)] == [4] * 6
    assert (old.class_values, new.class_values) == ((0, 1, 2, 4), (0, 1, 2, 3))
    assert old.class_names == new.class_names == ("necrotic core", "edema", "enhancing tumour")
    assert [name for name, _ in old.regions] == ["whole tumour", "tumour core", "enhancing tumour"]
    written = [old.class_values[number] for number in old.region_order]  # edema, necrotic core, enhancing tumour
    assert (written, old.regions[1][1], new.regions) == ([2, 1, 4], (1, 3), old.regions)
    assert new.cases[0].label.name == "BraTS-GLI-00000-000-seg.nii.gz"
    (tmp_path / "2021" / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz").unlink()
    with pytest.raises(ValueError, match="The case 'BraTS2021_00001' lacks the channel t2"):
        segmentation_datalist(tmp_path / "2021", "training", 4)


def test_btcv(tmp_path):
    """RawData/Training/img/img0001.nii.gz and label/label0001.nii.gz; the test has images alone."""
    for number in range(1, 4):
        volume(tmp_path / "Training" / "img" / f"img{number:04d}.nii.gz")
        volume(tmp_path / "Training" / "label" / f"label{number:04d}.nii.gz")
        volume(tmp_path / "Testing" / "img" / f"img{number + 60:04d}.nii.gz")
    data_set = read_data_set(tmp_path)
    assert [(case.name, case.label.name) for case in data_set.cases][0] == ("img0001", "label0001.nii.gz")
    assert {case.section for case in data_set.cases} == {"training"} and len(data_set.cases) == 3
    assert len(segmentation_datalist(tmp_path, "validation", 1, 3)) == 1


@pytest.mark.parametrize(
    ("training", "test"),
    [
        (("trainval-image/0000.jpg", "trainval-mask/0000.jpg"), ("test-image/0001.jpg", "test-mask/0001.jpg")),
        (
            ("ISBI2016_ISIC_Part1_Training_Data/a.jpg", "ISBI2016_ISIC_Part1_Training_GroundTruth/a_Segmentation.png"),
            ("ISBI2016_ISIC_Part1_Test_Data/b.jpg", "ISBI2016_ISIC_Part1_Test_GroundTruth/b_Segmentation.png"),
        ),
        (
            ("ISIC2018_Task1-2_Training_Input/a.jpg", "ISIC2018_Task1_Training_GroundTruth/a_segmentation.png"),
            ("ISIC2018_Task1-2_Test_Input/b.jpg", "ISIC2018_Task1_Test_GroundTruth/b_segmentation.png"),
        ),
        (("train/images/g0001.jpg", "train/mask/g0001.bmp"), ("test/images/T0001.jpg", "test/mask/T0001.bmp")),
    ],
    ids=["TN3K", "ISIC 2016", "ISIC 2018", "REFUGE-2"],
)
def test_pictures_of_the_paper(tmp_path, training, test):
    for file in (*training, *test):
        picture(tmp_path / file)
    data_set = read_data_set(tmp_path)
    found = {case.section: (case.images[0], case.label) for case in data_set.cases}
    expected = {"training": training, "test": test}
    assert found == {section: tuple(tmp_path / file for file in files) for section, files in expected.items()}


def test_amos(tmp_path):
    """dataset.json in Decathlon form, with validation cases of folders of their own, and tests that are plain names."""
    entries = [{"image": f"./imagesTr/amos_{n:04d}.nii.gz", "label": f"./labelsTr/amos_{n:04d}.nii.gz"} for n in (1, 4)]
    validation = [{"image": "./imagesVa/amos_0008.nii.gz", "label": "./labelsVa/amos_0008.nii.gz"}]
    labels = {"0": "background", "1": "spleen", "2": "right kidney"}
    content = {"labels": labels, "modality": {"0": "CT"}, "training": entries, "validation": validation}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "test": ["./imagesTs/amos_0002.nii.gz"]}))
    for entry in (*entries, *validation):
        for file in entry.values():
            volume(tmp_path / file)
    data_set = read_data_set(tmp_path)
    assert data_set.class_names == ("spleen", "right kidney") and data_set.modality == "CT"
    assert len(segmentation_datalist(tmp_path, "training", 1, 3)) == 2
    assert segmentation_datalist(tmp_path, "validation", 1, 3)[0]["label"].endswith("labelsVa/amos_0008.nii.gz")
