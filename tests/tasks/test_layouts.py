"""What is read of the paper's sets as they are handed out, with the settings of their tasks."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from medsegdiff_bundle import cli, configuration
from medsegdiff_bundle.datalist import folds_of, image_datalist, read_data_set

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "configs"


def config_of(layout, kind="train"):
    given = {"bundle_root": str(ROOT), "device": "cpu", "dataset_dir": str(layout.root)}
    return configuration.load([CONFIGS / f"{kind}.json", CONFIGS / "tasks" / f"{layout.task}.json"], given)


def names(cases):
    files = [case["image"] if isinstance(case["image"], str) else case["image"][0] for case in cases]
    return tuple(Path(file).name.split(".")[0] for file in files)


def test_each_task_without_weights_has_a_miniature(tasks_of_layouts):
    tasks = {*configuration.tasks(CONFIGS)} - {*configuration.tasks_with_weights(CONFIGS), configuration.OTHER}
    assert tasks_of_layouts == tasks


def test_what_is_read(any_layout):
    """Official sections, patients together, one modality, every class in a label, and its channels in an image."""
    layout = any_layout
    config = config_of(layout)
    assert names(config.get_parsed_content("train#dataset#data")) == layout.training
    cases = config.get_parsed_content("validate#dataset#data")
    assert names(cases) == layout.validation == names(config_of(layout, "inference").get_parsed_content("dataset#data"))
    read = config.get_parsed_content("validate#preprocessing")(cases[0])
    assert read["label"].unique().tolist() == list(range(len(layout.values)))
    assert len(read["image"]) == config.get_parsed_content("image_channels")
    assert torch.isfinite(read["image"]).all() and read["image"].std() > 0.1


@pytest.mark.parametrize(
    ("name", "values"), [("refuge2", [255, 128, 0]), ("refuge2_folders", [255, 128, 0]), ("brats2021", [0, 1, 2, 4])]
)
def test_what_stands_for_the_classes(name, values, find_layout):
    """Of REFUGE 255 is the background and 0 the cup."""
    config = config_of(find_layout(name))
    case = config.get_parsed_content("validate#dataset#data")[0]
    volume = case["label"].endswith(".nii.gz")
    stored = nibabel.load(case["label"]).get_fdata() if volume else np.asarray(Image.open(case["label"]))
    read = config.get_parsed_content("validate#preprocessing")(case)["label"]
    for number, value in enumerate(values):
        assert int((read == number).sum()) == (stored == value).sum() > 0


def test_nothing_is_mirrored_where_classes_are_left_or_right():
    for task in configuration.tasks(CONFIGS):
        content = json.loads((CONFIGS / "tasks" / f"{task}.json").read_text())
        if any("left" in name.split() for name in content.get("class_names", [])):
            assert content["mirror_axes"] == []


def test_hounsfield_units_are_clipped(find_layout):
    """-175 becomes -1 and 250 becomes 1, and air is below."""
    config = config_of(find_layout("btcv"))
    case = config.get_parsed_content("validate#dataset#data")[0]
    image = config.get_parsed_content("validate#preprocessing")(case)["image"]
    stored = torch.from_numpy(nibabel.load(case["image"]).get_fdata())
    expected = (stored.clip(-175, 250) + 175) / 212.5 - 1
    torch.testing.assert_close(image[0].as_tensor().double(), expected, atol=1e-5, rtol=0)
    assert image.min() == -1 and (stored == stored.min()).sum() < (image == -1).sum()


def test_pictures_of_two_sizes_become_one(find_layout):
    layout = find_layout("refuge2")
    config = config_of(layout)
    shapes = set()
    for section in ("train", "validate"):
        case = config.get_parsed_content(f"{section}#dataset#data")[0]
        shapes.add(Image.open(case["image"]).size)
        assert config.get_parsed_content(f"{section}#preprocessing")(case)["image"].shape == (3, 256, 256)
    assert shapes == {(42, 41), (33, 33)}


def test_official_folds_of_tn3k(find_layout):
    """By numbers, which the pictures of the test bear, too."""
    found = [[case.name for case in fold] for fold in folds_of(read_data_set(find_layout("tn3k").root))]
    assert found == [["0004"], ["0003"], ["0002"], ["0001"], ["0000"]]


@pytest.fixture
def pictures_of_tn3k(find_layout, tmp_path):
    """Its folders without its files of folds."""
    for part in ("image", "mask"):
        (tmp_path / f"trainval-{part}").symlink_to(find_layout("tn3k").root / f"trainval-{part}")
        (tmp_path / f"test-{part}").symlink_to(find_layout("tn3k").root / f"test-{part}")
    return tmp_path


def test_a_fold_of_a_stranger_is_named(pictures_of_tn3k):
    (pictures_of_tn3k / "tn3k-trainval-fold0.json").write_text(json.dumps({"train": [], "val": [0, 77]}))
    with pytest.raises(ValueError, match="names the case '77', which is none"):
        read_data_set(pictures_of_tn3k)


def test_folds_are_numbered_by_their_order_and_other_files_are_none(pictures_of_tn3k):
    for number in (1, 2, 10):
        content = {"train": [0], "val": [number % 5]}
        (pictures_of_tn3k / f"fold{number}.json").write_text(json.dumps(content))
    for content in ({"dice": 0.9}, [0.9], {"val": [0.9]}):
        (pictures_of_tn3k / "metrics_fold0.json").write_text(json.dumps(content))
        assert read_data_set(pictures_of_tn3k).folds == (("0001",), ("0002",), ("0000",))
    (pictures_of_tn3k / "other_fold_02.json").write_text(json.dumps({"train": [], "val": [0]}))
    with pytest.raises(ValueError, match="fold2.json' and .*other_fold_02.json' have both the fold 2."):
        read_data_set(pictures_of_tn3k)


def test_patients_stay_together_in_each_fold(find_layout):
    folds = folds_of(read_data_set(find_layout("brats2023").root))
    patients = [{case.name[:15] for case in fold} for fold in folds]
    assert sum(map(len, patients)) == 10 == len(set.union(*patients))


def test_editions_of_refuge_have_names_in_common(find_layout):
    """The folder that names its section comes before the name of the case, and parts the masks of the two editions."""
    root = find_layout("refuge2_editions").root
    found = {(case.section, case.name): case for case in read_data_set(root).cases}
    assert len(found) == 6 and {section for section, _ in found} == {"training", "validation", "test"}
    for section, folder in (("training", "Train"), ("validation", "Validation"), ("test", "Test")):
        cases = [case for (each, _), case in found.items() if each == section]
        assert all(file.is_relative_to(root / folder) for case in cases for file in (*case.images, case.label))
    assert found["test", "T0001"].label == root / "Test" / "Disc_Mask" / "T0001.png"


def test_twins_of_refuge_are_refused(tmp_path):
    for part in ("REFUGE-Test-GT", "old/REFUGE-Test-GT"):
        (tmp_path / part / "Disc_Cup_Masks").mkdir(parents=True)
        (tmp_path / part / "Disc_Cup_Masks" / "T0001.bmp").touch()
    with pytest.raises(ValueError, match="holds both .*T0001.bmp' and .*T0001.bmp' of one case"):
        read_data_set(tmp_path)


def test_a_mask_of_refuge_without_its_photograph_is_named(find_layout, tmp_path):
    for part in find_layout("refuge2").root.iterdir():
        if part.name != "REFUGE-Validation400":
            (tmp_path / part.name).mkdir()
            for folder in part.iterdir():
                shutil.copytree(folder, tmp_path / part.name / folder.name)
    with pytest.raises(ValueError, match="has masks without a photograph, 1 in all, such as .*V0001.bmp': unpack"):
        read_data_set(tmp_path)


def test_a_pattern_chooses_cases_of_a_set_alone(find_layout, tmp_path):
    layout = find_layout("amos22_mr")
    (scan,) = image_datalist(layout.root, 1, 3, "amos_0540")
    (tmp_path / "mine.nii.gz").symlink_to(scan["image"])
    assert len(image_datalist(tmp_path, 1, 3, "amos_0540")) == 1
    with pytest.raises(ValueError, match="No case of .* has a name that matches 'amos'"):
        image_datalist(layout.root, 1, 3, "amos")


WORDS = {"segment": ["{image}", "-o", "{out}"], "sweep": ["{data}"], "calibrate": ["{data}"], "export": ["-o", "{out}"]}


@pytest.mark.parametrize("command", WORDS)
def test_weights_that_nobody_trained_are_missing_in_a_sentence(command, find_layout, tmp_path, capsys):
    root = find_layout("btcv").root
    places = {"data": root, "image": root / "Training" / "img" / "img0001.nii.gz", "out": tmp_path / "out"}
    assert cli.main([command, *(word.format(**places) for word in WORDS[command]), "--task", "btcv"]) == 2
    named = "by -c, or as checkpoint" if command in ("sweep", "calibrate") else "as checkpoint"
    assert capsys.readouterr().err == f"error: There are no weights of the task 'btcv': name a file of them {named}.\n"
    assert not (tmp_path / "out").exists()


def test_a_task_says_only_what_is_known_of_it():
    """The rest is as of structures of which nothing is known."""
    known = json.loads((CONFIGS / "tasks" / "other.json").read_text())
    for task in {*configuration.tasks(CONFIGS)} - {*configuration.tasks_with_weights(CONFIGS), configuration.OTHER}:
        content = json.loads((CONFIGS / "tasks" / f"{task}.json").read_text())
        whole = configuration.read([CONFIGS / "inference.json", CONFIGS / "tasks" / f"{task}.json"])
        assert whole["task"] == task and whole["shipped_weights"] is None
        assert not [name for name in content if content[name] == known.get(name, ...)]


def test_help_names_the_tasks_with_weights_and_without(capsys):
    for command in ("train", "segment", "evaluate"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert all(task in said for task in configuration.tasks(CONFIGS))
