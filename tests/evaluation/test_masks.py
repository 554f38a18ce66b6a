"""Masks against labels, without a network: `medsegdiff evaluate`."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image

from medsegdiff_bundle import cli
from medsegdiff_bundle.evaluation import compare_masks, find_names, find_pairs
from medsegdiff_bundle.transforms import PictureLabelsd, load_image
from medsegdiff_bundle.transforms.results import name_labels


def box(shape, *ranges, value=1):
    mask = np.zeros(shape, dtype=np.uint8)
    mask[tuple(slice(*each) for each in ranges)] = value
    return mask


def save(array, file, affine=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1, 3, 1]) if affine is None else affine), file)


def run(*words):
    try:
        return cli.main(["evaluate", *map(str, words)])
    except SystemExit as ended:
        return ended.code


def scores(prediction, label, spacing, **options):
    (row,) = compare_masks(torch.as_tensor(prediction), torch.as_tensor(label), spacing, **options)
    return row


def test_masks_of_other_shapes_are_not_compared():
    with pytest.raises(ValueError, match=r"The masks have different shapes, \(2, 3\) and \(3, 2\)."):
        compare_masks(torch.zeros(2, 3), torch.zeros(3, 2), (1.0, 1.0))


def test_masks_that_do_not_tell_their_case(tmp_path):
    """A file against a folder, and two files of one case."""
    mask = box((4, 4, 4), (1, 3), (1, 3), (1, 3))
    for name in ("p/a.nii.gz", "l/a.nii.gz"):
        save(mask, tmp_path / name)
    assert [pair.name for pair in find_pairs(tmp_path / "p", tmp_path / "l")[0]] == ["a"]
    with pytest.raises(ValueError, match="a.nii.gz' is a file and the other is none: give two files, or two folders."):
        find_pairs(tmp_path / "p" / "a.nii.gz", tmp_path / "l")
    save(mask, tmp_path / "p" / "a_seg.nii.gz")
    save(mask, tmp_path / "p" / "a_mask.nii.gz")
    with pytest.raises(ValueError, match="a_mask.nii.gz' and '.*a_seg.nii.gz' would both be masks of 'a'."):
        find_pairs(tmp_path / "p", tmp_path / "l")


def test_images_beside_their_labels_are_no_labels(tmp_path):
    """As in the folder of a patient of ACDC."""
    mask = box((4, 4, 4), (1, 3), (1, 3), (1, 3))
    for name in ("p/patient1_frame01_seg", "l/patient1_frame01", "l/patient1_frame01_gt"):
        save(mask, tmp_path / f"{name}.nii.gz")
    (pair,), predictions, labels = find_pairs(tmp_path / "p", tmp_path / "l")
    assert pair.label.name == "patient1_frame01_gt.nii.gz" and not predictions and not labels


def test_values_by_hand():
    """A box shifted by one voxel of 3 mm along the last axis."""
    shape = (12, 12, 12)
    label, prediction = box(shape, (2, 8), (2, 8), (2, 8)), box(shape, (2, 8), (2, 8), (3, 9))
    row = scores(prediction, label, (1.0, 1.0, 3.0), case="a", tolerance=3.0)
    assert (row.found, row.dice) == ("both", pytest.approx(2 * 180 / 432))
    assert row.hd95 == pytest.approx(3.0)  # along the axis of 3 mm; 1 in voxels
    assert (row.volume, row.label_volume, row.volume_error) == (pytest.approx(0.648), pytest.approx(0.648), 0)
    assert row.surface_dice == 1.0
    assert scores(label, label, (1.0, 1.0, 3.0)).surface_dice == 1.0
    # Of the same boxes by DeepMind's surface-distance 0.1, whose elements of a surface have areas.
    for size, tolerance, expected in ((1.0, 0.5, 0.6652), (3.0, 0.5, 0.8178), (3.0, 1.0, 0.8526)):
        found = scores(prediction, label, (1.0, 1.0, size), tolerance=tolerance).surface_dice
        assert found == pytest.approx(expected, abs=5e-5)


def test_the_border_of_an_image_and_an_offset_change_nothing():
    label, prediction = box((8, 8, 8), (0, 4), (0, 8), (1, 5)), box((8, 8, 8), (0, 5), (1, 8), (1, 5))
    wide = [np.pad(mask, 7) for mask in (prediction, label)]
    first, second = scores(prediction, label, (1.0, 2.0, 1.5)), scores(*wide, (1.0, 2.0, 1.5))
    assert first[4:7] == pytest.approx(second[4:7])


@pytest.mark.parametrize(
    ("marked", "found", "values"),
    [
        ((True, False), "prediction only", (0, 0, np.sqrt(64 + 64 + 576))),
        ((False, True), "label only", (0, 0, np.sqrt(64 + 64 + 576))),
        ((False, False), "neither", (None, None, None)),
    ],
)
def test_empty_masks(marked, found, values):
    """A missed structure has the worst score there is; of one that nobody marks there is none."""
    masks = [box((8, 8, 8), (1, 3), (1, 3), (1, 3)) * each for each in marked]
    row = scores(*masks, (1.0, 1.0, 3.0), names={1: "tumour"})
    assert row.found == found and row[4:7] == (values if values[0] is None else pytest.approx(values))


@pytest.fixture
def folders(tmp_path):
    """Three cases: one good; one whose tumour is missed; one without a tumour, and with nothing said of it."""
    shape = (10, 10, 10)
    liver, tumour = box(shape, (1, 7), (1, 7), (1, 7)), box(shape, (7, 9), (7, 9), (7, 9), value=2)
    for case, prediction, label in (
        ("a", liver + tumour, liver + tumour),
        ("b", liver, liver + tumour),
        ("c", liver, liver),
    ):
        save(prediction, tmp_path / "out" / f"{case}_seg.nii.gz")
        save(np.zeros(shape, np.float32), tmp_path / "out" / f"{case}_uncertainty.nii.gz")
        save(label, tmp_path / "labels" / f"{case}.nii.gz")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "out" / "a_overlay.png")
    return tmp_path


def test_both_conventions(folders, capsys):
    (folders / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "liver", "2": "tumour"}}))
    assert run(folders / "out", folders / "labels", "-o", folders / "scores") == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "tumour" in captured.out
    summary = json.loads((folders / "scores" / "summary.json").read_text())
    tumour = summary["classes"]["tumour"]
    assert (tumour["both"], tumour["label only"], tumour["prediction only"], tumour["neither"]) == (1, 1, 0, 1)
    assert tumour["left_out"]["dice"] == pytest.approx(0.5) and tumour["counted"]["dice"] == pytest.approx(2 / 3)
    diagonal = np.sqrt(100 + 100 + 900)
    assert tumour["left_out"]["hd95"] == pytest.approx(diagonal / 2)  # the missed one does not vanish
    assert tumour["counted"]["hd95"] == pytest.approx(diagonal / 3)
    assert tumour["volume_error"] == pytest.approx(-0.012) == -tumour["absolute_volume_error"]
    assert summary["classes"]["liver"]["left_out"]["dice"] == 1 and summary["units"] == "mm, ml"
    assert summary["mean"]["left_out"]["dice"] == pytest.approx(0.75)
    rows = list(csv.DictReader((folders / "scores" / "scores.csv").open()))
    assert [(row["case"], row["name"]) for row in rows][:2] == [("a", "liver"), ("a", "tumour")] and len(rows) == 6
    assert (rows[5]["found"], rows[5]["dice"], rows[5]["hd95"]) == ("neither", "", "")
    assert float(rows[3]["volume_error"]) == pytest.approx(-0.024)


def test_other_cases_go_on(folders, capsys):
    """One on another grid, one torn, one of other classes; and files that do not match."""
    save(box((9, 10, 10), (1, 2), (1, 2), (1, 2)), folders / "out" / "b_seg.nii.gz")
    save(box((10, 10, 10), (1, 2), (1, 2), (1, 2)), folders / "out" / "c_seg.nii.gz", np.diag([1, 1, 2.0, 1]))
    save(box((10, 10, 10), (1, 2), (1, 2), (1, 2)), folders / "out" / "extra_seg.nii.gz")
    for name in "de":
        save(box((10, 10, 10), (1, 2), (1, 2), (1, 2), value=7), folders / "labels" / f"{name}.nii.gz")
    save(box((10, 10, 10), (1, 2), (1, 2), (1, 2), value=7), folders / "out" / "e_seg.nii.gz")
    assert run(folders / "out", folders / "labels", "--classes", "liver", "tumour", "-o", folders / "s") == 1
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert "has the shape (10, 10, 10), the prediction" in errors[0] and "lies elsewhere than the pred" in errors[1]
    assert "holds 7, which is none of the classes 1 liver, 2 tumour." in errors[2]
    assert "1 prediction(s) without a label: extra_seg.nii.gz" in said.err
    assert "1 label(s) without a prediction: d.nii.gz" in said.err
    summary = json.loads((folders / "s" / "summary.json").read_text())
    assert summary["unmatched"]["labels"] == ["d.nii.gz"] and sorted(summary["refused"]) == ["b", "c", "e"]
    assert summary["classes"]["liver"]["cases"] == 1


def test_the_same_voxels_in_another_order(folders):
    """A label whose axes run the other way lies where the prediction does."""
    file = folders / "labels" / "a.nii.gz"
    image = nibabel.load(file)
    before = np.array(image.dataobj)
    nibabel.save(image.as_reoriented(nibabel.orientations.axcodes2ornt("LPS")), file)
    assert not np.array_equal(nibabel.load(file).dataobj, before)
    assert run(folders / "out" / "a_seg.nii.gz", file, "-o", folders / "s", "-q") == 0
    assert {row["dice"] for row in csv.DictReader((folders / "s" / "scores.csv").open())} == {"1"}


def test_names(folders):
    pairs, _, _ = find_pairs(folders / "out", folders / "labels")
    assert [(pair.name, pair.prediction.name, pair.label.name) for pair in pairs] == [
        (name, f"{name}_seg.nii.gz", f"{name}.nii.gz") for name in "abc"
    ]
    assert find_names(pairs) == {}
    data_set = folders / "labels" / "dataset.json"
    data_set.write_text(json.dumps({"labels": {"background": 0, "organ": 1, "lesion": 2}}))  # as nnU-Net
    assert find_names(pairs) == {1: "organ", 2: "lesion"}
    name_labels(pairs[0].prediction, ["liver", "tumour"])
    assert find_names(pairs) == {1: "liver", 2: "tumour"}
    data_set.write_text(json.dumps({"labels": {"background": 0, "whole": [1, 2]}}))
    assert find_names(pairs[1:]) == {}


@pytest.mark.parametrize(
    ("result", "label"),
    [
        ("img000{}_seg.nii.gz", "label000{}.nii.gz"),
        ("volume-{}_seg.nii.gz", "segmentation-{}.nii.gz"),
        ("liver-orig00{}_seg.nii.gz", "liver-seg00{}.nii.gz"),
        ("case{}_image_seg.nii.gz", "case{}_mask.nii.gz"),
    ],
    ids=["BTCV", "LiTS", "SLIVER07", "endings"],
)
def test_labels_whose_names_differ_in_words(tmp_path, result, label):
    for folder, name in (("out", result), ("labels", label)):
        (tmp_path / folder).mkdir()
        for number in (1, 2):
            save(np.zeros((3, 3, 3), np.uint8), tmp_path / folder / name.format(number))
    pairs, predictions, labels = find_pairs(tmp_path / "out", tmp_path / "labels")
    found = [(pair.prediction.name, pair.label.name) for pair in pairs]
    assert found == [(result.format(n), label.format(n)) for n in (1, 2)] and not predictions and not labels
    save(np.zeros((3, 3, 3), np.uint8), tmp_path / "labels" / label.format("1").replace("1", "3"))
    assert len(find_pairs(tmp_path / "out", tmp_path / "labels")[2]) == 1


def test_results_of_the_first_channel(folders):
    """Results of nnU-Net's images carry the number of the channel, their labels do not; what fits goes first."""
    for file in list((folders / "out").iterdir()):
        if file.name[0] in "ac":
            file.rename(file.with_name(f"{file.name[0]}_0000{file.name[1:]}"))
    (folders / "labels" / "c.nii.gz").rename(folders / "labels" / "c_0000.nii.gz")
    save(np.zeros((10, 10, 10), np.float32), folders / "out" / "b_0000_seg.nii.gz")
    pairs, predictions, labels = find_pairs(folders / "out", folders / "labels")
    assert [(pair.name, pair.prediction.name, pair.label.name) for pair in pairs] == [
        ("a", "a_0000_seg.nii.gz", "a.nii.gz"),
        ("b", "b_seg.nii.gz", "b.nii.gz"),
        ("c_0000", "c_0000_seg.nii.gz", "c_0000.nii.gz"),
    ]
    assert [file.name for file in predictions] == ["b_0000_seg.nii.gz"] and labels == []


@pytest.mark.parametrize("labels", [{"liver": 1, "tumour": 2}, {"whole": [1, 2], "tumour": 2}])
def test_what_nobody_annotated_does_not_count(labels, folders):
    """It is no class, and a prediction there is neither right nor wrong."""
    (folders / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **labels, "ignore": 3}}))
    for name in "abc":
        file = folders / "labels" / f"{name}.nii.gz"
        values = np.asarray(nibabel.load(file).dataobj).copy()
        values[7:] = 3  # where the tumours are
        values[:, :, 5:] = 3  # and part of the liver
        save(values, file)
    assert run(folders / "out", folders / "labels", "-o", folders / "s", "-q") == 0
    rows = list(csv.DictReader((folders / "s" / "scores.csv").open()))
    assert "ignore" not in {row["name"] for row in rows} and "3" not in {row["label"] for row in rows}
    assert {row["dice"] for row in rows if row["label"] == "1"} == {"1"}
    assert {row["found"] for row in rows if row["label"] == "2"} <= {"neither"}


def test_pictures(tmp_path, capsys):
    """Masks as programs save them, 0 and 255, in grey or three equal channels; distances and areas in pixels."""
    mask = box((20, 30), (5, 15), (5, 15), value=255)
    for folder, values in (("out", mask), ("labels", np.stack([np.roll(mask, 2, 1)] * 3, axis=-1))):
        (tmp_path / folder).mkdir()
        name = "x_seg.png" if folder == "out" else "x_segmentation.png"
        Image.fromarray(values).save(tmp_path / folder / name)
    assert run(tmp_path / "out", tmp_path / "labels", "-o", tmp_path / "s") == 0
    assert "HD95 (pixels)" in capsys.readouterr().out
    (row,) = csv.DictReader((tmp_path / "s" / "scores.csv").open())
    assert (row["label"], row["dice"], row["hd95"], row["volume"]) == ("1", "0.8", "2", "100")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out"], "Two folders are compared: PREDICTIONS LABELS; or a data set: --data FOLDER."),
        (["none", "labels"], "There is no file or folder 'none'."),
        (["out", "empty"], "There are no masks in 'empty'."),
        (["out", "others"], "No mask in 'out', such as 'a_seg.nii.gz', is called like a label in 'others', such as"),
        (["out", "labels", "--tolerance", "-1"], "--tolerance: must be a distance in mm of at least 0, got -1."),
        (["out", "labels", "--regions", "1,x", "--classes", "c"], "--regions must be numbers from 1 on, such as 1,2,3"),
        (["out", "labels", "--regions", "0,1", "--classes", "c"], "--regions must be numbers from 1 on, such as 1,2,3"),
        (["out", "labels", "--classes", "c", "c"], "--classes must be names, each of them once, got ['c', 'c']."),
        (["out", "labels", "--regions", "1,2", "2"], "--classes must name each of 2 regions, got None."),
        (["out", "labels", "--task", "isic"], "Weights, tasks and settings are for --data"),
        (["out", "labels", "--data", "x"], "--data compares weights with a data set: it takes no folders of masks."),
        (["--data", ".", "--task", "liver"], "There is no task 'liver': choose from"),
        (["--data", ".", "--config", "baselines/dynunets"], "did you mean 'baselines/dynunet'?"),
        (["--data", ".", "-c", "none.pt"], "The weights 'none.pt' do not exist."),
    ],
)
def test_asked_wrongly(words, said, folders, monkeypatch, capsys):
    monkeypatch.chdir(folders)
    Path("empty").mkdir()
    save(box((4, 4, 4), (1, 2), (1, 2), (1, 2)), folders / "others" / "z.nii.gz")
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_comparison(folders, capsys):
    """Of the cases that both have; the first is better by what it finds in the case that it does not miss."""
    for case in "ab":
        image = nibabel.load(folders / "labels" / f"{case}.nii.gz")
        save(np.asarray(image.dataobj), folders / "perfect" / f"{case}.nii.gz")
    words = ["compare", folders / "labels", f"ours={folders / 'out'}", folders / "perfect", "-o", folders / "s"]
    assert cli.main([*map(str, words), "--classes", "liver", "tumour"]) == 0
    said = capsys.readouterr()
    assert "1 label(s) without a prediction: c.nii.gz" in said.err and said.out.endswith("\n2 cases\n")
    found = json.loads((folders / "s" / "comparison.json").read_text())
    assert found["ours"]["mean"]["left_out"]["dice"] == pytest.approx(0.75)
    perfect = found["perfect"]
    assert perfect["mean"]["left_out"]["dice"] == 1 and (perfect["better"], perfect["worse"]) == (1, 0)
    # Case by case the other is better by 0 and by 0.5: mean 0.25, standard error 0.25.
    assert (perfect["difference"], perfect["standard_error"]) == (pytest.approx(0.25), pytest.approx(0.25))
    assert (folders / "s" / "ours.csv").is_file() and "+0.2500 ± 0.2500" in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["labels", "out"], "One alone, 'out', is compared with nothing"),
        (["labels", "out", "nowhere"], "There is no folder of masks or file of weights 'nowhere'."),
        (["labels", "out", "./out"], "Two are called 'out': give them names, as NAME=./out."),
        (["labels", "out", "dataset.pt"], "dataset.pt is a file of weights: --images and -o FOLDER are needed."),
    ],
)
def test_comparison_asked_wrongly(words, said, folders, monkeypatch, capsys):
    monkeypatch.chdir(folders)
    Path("dataset.pt").write_text("none")
    assert cli.main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_a_mask_in_jpeg_is_what_training_takes_it_for(tmp_path):
    """Its compression smears the outline: it is 1 from half of 255 on."""
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[10:30, 12:28] = 255
    Image.fromarray(mask).save(tmp_path / "a.jpg", quality=60)
    Image.fromarray(mask).save(tmp_path / "b.png")
    assert run(tmp_path / "a.jpg", tmp_path / "b.png", "-o", tmp_path / "out") == 0
    (row,) = csv.DictReader((tmp_path / "out" / "scores.csv").open())
    assert float(row["dice"]) > 0.99


def test_a_negative_number_is_no_class(tmp_path, capsys):
    save(box((6, 7, 8), (1, 4), (1, 4), (1, 4)).astype(np.int16) * -1, tmp_path / "a.nii.gz")
    save(box((6, 7, 8), (1, 4), (1, 4), (1, 4)), tmp_path / "b.nii.gz")
    assert run(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz") != 0
    assert "a.nii.gz' holds -1, which is no number of a class" in capsys.readouterr().err


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("names", [(), ("--classes", "liver", "spleen")])
def test_one_channel_for_each_class(background, names, tmp_path, capsys):
    mask = box((8, 9, 10), (1, 4), (2, 6), (3, 7)) + box((8, 9, 10), (5, 7), (2, 6), (3, 7), value=2)
    channels = np.stack([mask == n for n in ([0, 1, 2] if background else [1, 2])], axis=-1).astype(np.uint8)
    save(channels, tmp_path / "mask.nii.gz")
    save(mask, tmp_path / "label.nii.gz")
    assert run(tmp_path / "mask.nii.gz", tmp_path / "label.nii.gz", "-o", tmp_path, *names) == 0
    found = json.loads((tmp_path / "summary.json").read_text())["classes"]
    assert [each["counted"]["dice"] for each in found.values()] == [1, 1]
    assert list(found) == (list(names[1:]) or ["1", "2"])
    channels[..., -1] = 1
    save(channels, tmp_path / "mask.nii.gz")
    assert run(tmp_path / "mask.nii.gz", tmp_path / "label.nii.gz", *names) == 1
    assert "mask.nii.gz' puts a voxel into several of its" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2])
def test_masks_of_which_none_marks_anything(count, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for case in range(count):
            save(np.zeros((4, 5, 6), np.uint8), tmp_path / folder / f"{case}.nii.gz")
    assert run(tmp_path / "a", tmp_path / "b", "-o", tmp_path) == 0
    (found,) = json.loads((tmp_path / "summary.json").read_text())["classes"].values()
    assert found["neither"] == count and found["counted"]["dice"] == 1 and found["left_out"]["dice"] is None
    assert "1" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".png", ".gif", ".bmp", ".tif"])
def test_a_mask_painted_in_a_colour(ending, tmp_path, capsys):
    """As drawing programs and web pages for annotation save one class; of two colours none is known to be the first."""
    mask = box((8, 9), (1, 4), (2, 6)).astype(bool)
    picture = np.zeros((8, 9, 3), np.uint8)
    picture[mask] = 200, 0, 30
    Image.fromarray(picture).save(tmp_path / f"mask{ending}")
    Image.fromarray(mask).save(tmp_path / "label.png")
    assert run(tmp_path / f"mask{ending}", tmp_path / "label.png", "-o", tmp_path) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["mean"]["counted"]["dice"] == 1
    label = PictureLabelsd("label", 2)({"label": load_image(tmp_path / f"mask{ending}")})["label"]
    np.testing.assert_array_equal(label[0].T, mask)
    picture[5, 5] = 0, 200, 0
    Image.fromarray(picture).save(tmp_path / f"mask{ending}")
    assert run(tmp_path / f"mask{ending}", tmp_path / "label.png") == 1
    assert f"mask{ending}' has 3 channels" in capsys.readouterr().err


def test_segments_of_3d_slicer_are_compared_by_their_names(tmp_path):
    """Whatever their numbers, as in a training."""
    mask = box((8, 9, 10), (1, 4), (2, 6), (3, 7)) + box((8, 9, 10), (5, 7), (2, 6), (3, 7), value=2)
    image = SimpleITK.GetImageFromArray(np.select([mask == 1, mask == 2], [2, 1], 0).astype(np.uint8).T)
    for index, (number, name) in enumerate(((1, "spleen"), (2, "liver"))):
        for key, value in {"ID": f"Segment_{index}", "Name": name, "LabelValue": str(number), "Layer": "0"}.items():
            image.SetMetaData(f"Segment{index}_{key}", value)
    SimpleITK.WriteImage(image, str(tmp_path / "label.seg.nrrd"))
    save(mask, tmp_path / "mask.nii.gz", np.diag([-1.0, -1, 1, 1]))
    pair = tmp_path / "mask.nii.gz", tmp_path / "label.seg.nrrd"
    assert run(*pair, "--classes", "liver", "spleen", "-o", tmp_path) == 0
    found = json.loads((tmp_path / "summary.json").read_text())["classes"]
    assert [found[name]["counted"]["dice"] for name in ("liver", "spleen")] == [1, 1]
