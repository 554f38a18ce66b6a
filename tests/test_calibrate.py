"""`medsegdiff calibrate`: from cases with labels to what weights say of other images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureTyped
from PIL import Image

from medsegdiff_bundle import cli, model_file
from medsegdiff_bundle.case_numbers import describe
from medsegdiff_bundle.evaluation.calibration import COLUMNS, measured, predicted_dice_lines
from medsegdiff_bundle.evaluation.sweep import Sweep
from medsegdiff_bundle.planning import plan
from medsegdiff_bundle.planning.measure import Cost
from medsegdiff_bundle.settings import bundle_root

SMALL = {"network_def#channels": [4, 8], "network_def#denoiser_channels": [4, 8], "network_def#num_heads": 2}
SMALL |= {"network_def#strides": None, "network_def#kernel_sizes": None, "epochs": 1, "val_interval": 1}
VOXEL = 2.0  # mm3


def case_of(probabilities, label):
    """A segmented case: of anchor and members (1 + E, K, S), without a preprocessing, with voxels of 2 mm3."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    preprocessing = Compose([EnsureTyped("image")])
    image = preprocessing({"image": MetaTensor(torch.zeros(1, *label.shape[1:]), affine=affine)})["image"]
    held = {"pred": MetaTensor(probabilities, affine=affine), "label": MetaTensor(label.float(), affine=affine)}
    return {**held, "image": image, "preprocessing": preprocessing}


def columns(case, *arguments):
    names = [f"structure {number}" for number in range(2)]
    return [dict(zip(COLUMNS, row, strict=True)) for row in measured(case, names, *arguments)]


def test_what_is_measured_of_classes():
    """Two classes of 3 and 2 voxels; members mark 2 and 4, and 2 and 2; the anchor is half sure of one more."""
    label = torch.zeros(1, 3, 3, 3, dtype=torch.long)
    label[0, 0, 0], label[0, 1, 1, :2] = 1, 2
    members = [label[0].clone(), label[0].clone()]
    members[0][0, 0, 0], members[1][2, 2, 2] = 0, 1
    stacked = torch.stack(
        [torch.nn.functional.one_hot(each, 3).movedim(-1, 0).float() for each in (label[0], *members)]
    )
    stacked[0, :, 2, 2, 2] = torch.tensor([0.5, 0.5, 0.0])
    first, second = columns(case_of(stacked, label))
    ml = VOXEL / 1000
    assert first["true"] == pytest.approx(3 * ml) and second["true"] == pytest.approx(2 * ml)
    assert first["mean"] == pytest.approx(3 * ml) and first["deviation"] == pytest.approx(np.std([2, 4], ddof=1) * ml)
    assert first["anchor"] == pytest.approx(3.5 * ml) and first["anchor_error"] == pytest.approx(0.5 * ml)
    assert second["anchor_error"] == 0 and second["size"] == 1
    assert second["pairwise"] == second["expected"] == second["dice"] == 1
    assert first["pairwise"] == pytest.approx(2 * 2 / (2 + 4))
    with_readers = columns(case_of(stacked, torch.cat([label, torch.zeros_like(label)])))
    assert with_readers[0]["true"] == pytest.approx(1.5 * ml)  # the mean of the readers
    assert with_readers[1]["dice"] == 0.5


def test_what_is_measured_of_regions():
    """Each by itself, from the classes that make it; what nobody annotated counts nowhere."""
    label = torch.zeros(1, 3, 3, 3, dtype=torch.long)
    label[0, 0], label[0, 0, 0, 0] = 1, 2
    whole, core = (label[0] > 0).float(), (label[0] == 2).float()
    stacked = torch.stack([torch.stack([whole, core])] * 3)
    stacked[2, 0, 1] = 1.0  # the second member marks as much again
    regions = [[1, 2], [2]]
    ml = VOXEL / 1000
    first, second = columns(case_of(stacked, label), regions)
    assert first["true"] == pytest.approx(9 * ml) and first["mean"] == pytest.approx(13.5 * ml)
    assert second["true"] == second["mean"] == second["anchor"] == pytest.approx(ml)
    assert second["dice"] == 1 and first["pairwise"] == pytest.approx(2 * 9 / 27)
    label[0, 1] = 3
    (ignored, _) = columns(case_of(stacked, label), regions, 3)
    assert ignored["mean"] == ignored["true"] == pytest.approx(9 * ml)


def test_the_numbers_of_a_region_within_another():
    """Its place and size are its own, and its contrast is with the rest of the region around it."""
    masks = torch.zeros(2, 20, 20, dtype=torch.uint8)
    masks[0, 2:18, 2:18], masks[1, 8:12, 8:12] = 1, 1
    picture = masks.sum(0, keepdim=True).float() + 0.01 * torch.rand(1, 20, 20)
    structures = {
        name: {"volume": size, "pairwise_dice": 1.0, "components": 1} for name, size in (("disc", 256), ("cup", 16))
    }
    found = describe(picture, picture, masks, torch.zeros(20, 20), structures, None).shown
    assert found["share of disc"] == 0.64 and found["share of cup"] == 0.04
    assert found["place of cup along axis 1, share"] == pytest.approx(0)
    assert found["contrast of cup"] * picture.std() == pytest.approx(1, abs=0.05)
    with_nothing = describe(picture, picture, torch.zeros_like(masks), torch.zeros(20, 20), structures, None).shown
    assert "contrast of cup" not in with_nothing and with_nothing["uncertainty inside the mask"] == 0


@pytest.mark.filterwarnings("error")
def test_what_is_the_same_in_all_cases_has_no_rank():
    """As the Dice of a structure that is always missed."""
    table = {"dice": np.zeros(10), "pairwise": np.linspace(0, 1, 10), "expected": np.ones(10)}
    assert list(predicted_dice_lines({"cup": table}))[-1] == "| cup | 0.0000 | - | - |"
    table |= {"dice": np.linspace(0, 1, 10)}
    assert list(predicted_dice_lines({"cup": table}))[-1] == "| cup | 0.5000 | +1.00 | - |"


def write_pictures(root, number):
    """Grey pictures of a disc and the cup in it, in nnU-Net's form, with the folds that it makes."""
    random = np.random.default_rng(0)
    labels = {"background": 0, "disc": [1, 2], "cup": 2}
    described = {
        "channel_names": {"0": "X-ray"},
        "labels": labels,
        "file_ending": ".png",
        "regions_class_order": [1, 2],
    }
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps(described))
    for index in range(number):
        label = np.zeros((16, 16), np.uint8)
        row, column = random.integers(1, 6, 2)
        label[row : row + 9, column : column + 8] = 1
        label[row + 3 : row + 6, column + 2 : column + 6] = 2
        values = random.integers(0, 40, label.shape) + 80 * label
        Image.fromarray(values.astype(np.uint8)).save(root / "imagesTr" / f"c{index:02d}_0000.png")
        Image.fromarray(label).save(root / "labelsTr" / f"c{index:02d}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a set with regions, what `configure` wrote for it, and weights of one epoch."""

    def cost(network, batch_size, patch, device, amp, limit, recycling=0.5):
        return Cost(1e-3, 1000, 1000)

    folder = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "training_cost", cost)
        root = write_pictures(folder / "set", 52)
        words = ["configure", str(root), "-o", str(folder / "mine.json"), "--hours", "0.001", "-d", "cpu", "-q"]
        assert cli.main(words) == 0
    entries = json.loads((folder / "mine.json").read_text())
    (folder / "mine.json").write_text(json.dumps({**entries, **SMALL}))
    assert cli.main(["train", str(folder / "mine.json"), "-q"]) == 0
    return folder


def test_own_weights_get_intervals_and_alarms(trained, tmp_path, capsys):
    """By the file of settings alone; `segment` then says that the interval is calibrated, and how far the case is."""
    weights = trained / "mine_training" / "model.pt"
    before = weights.read_bytes()
    assert cli.main(["calibrate", str(trained / "mine.json"), "--set", "device=cpu"]) == 0
    printed = capsys.readouterr().out
    assert "| disc | 11 |" in printed and "| cup | 11 |" in printed and "41 training cases" in printed
    assert weights.read_bytes() == before
    image = trained / "set" / "imagesTr" / "c00_0000.png"
    assert cli.main(["segment", str(image), "-o", str(tmp_path), "-c", str(weights), "-d", "cpu", "-q"]) == 0
    report = json.loads((tmp_path / "c00_0000_report.json").read_text())
    assert report["interval"] == {"calibrated": True} and report["coverage"] == 0.9
    assert 0 < report["known"]["distance"] and report["known"]["limit"] > 0
    assert any("cup" in name for name in json.loads(weights.with_suffix(".known.json").read_text())["numbers"])


def test_too_few_cases_are_said_and_nothing_is_written(trained, capsys):
    weights = trained / "mine_training" / "model.pt"
    beside = {file.name: file.read_bytes() for file in weights.parent.glob("model.*")}
    words = ["calibrate", str(trained / "mine.json"), "-d", "cpu", "--cases", "9", "--training_cases"]
    assert cli.main([*words, "29"]) == 2
    assert (
        "Nothing can be written: intervals take 10 cases or more, got 9 and numbers of training cases take 30 cases or "
        "more, got 29." in capsys.readouterr().err
    )
    assert {file.name: file.read_bytes() for file in weights.parent.glob("model.*")} == beside
    assert cli.main([*words, "30"]) == 0
    told = capsys.readouterr()
    assert (
        told.err.endswith("Not written: intervals take 10 cases or more, got 9.\n") and "30 training cases" in told.out
    )


def test_what_was_not_asked_for_is_not_missed(trained, capsys):
    words = ["calibrate", str(trained / "mine.json"), "-d", "cpu", "--training_cases", "0", "--cases"]
    assert cli.main([*words, "9"]) == 2
    assert capsys.readouterr().err.endswith("Nothing can be written: intervals take 10 cases or more, got 9.\n")
    assert cli.main([*words, "0"]) == 2
    assert capsys.readouterr().err.endswith("Nothing can be written: no cases are asked for.\n")


def weights_at(file, trained, **entries):
    """A copy of the weights, and of what they say, with other entries."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(trained / "mine_training" / "model.pt", file)
    said = json.loads((trained / "mine_training" / "model.model.json").read_text())
    model_file.write_model(file, {**{name: said[name] for name in ("task", "version", "configuration")}, **entries})
    return file


def test_weights_of_a_fold_are_calibrated_with_its_cases(trained, tmp_path, monkeypatch, capsys):
    """Or with those of the fold that is asked for; the one split would calibrate with cases that trained them."""
    seen = []

    def keep(config, checkpoint, number, options):
        cases = config.get_parsed_content("validate#dataset#data")
        seen.append([Path(case["label"]).name for case in cases])

    monkeypatch.setattr("medsegdiff_bundle.cli.calibrate._write_intervals", keep)
    weights = weights_at(tmp_path / "fold_3" / "model.pt", trained, fold=3, num_folds=5)
    words = ["calibrate", str(trained / "mine.json"), "-d", "cpu", "--training_cases", "0", "-c", str(weights)]
    for more in ([], ["--set", "fold=3"], ["--set", "fold=none"]):
        assert cli.main([*words, *more]) == 0, capsys.readouterr().err
    assert seen[0] == seen[1] != seen[2]


def test_weights_of_a_folder_know_their_patches(trained, tmp_path):
    """A data set without the file of settings does: the weights say what they were trained on."""
    weights = weights_at(tmp_path / "model.pt", trained)
    words = ["calibrate", str(trained / "set"), "-d", "cpu", "--cases", "0", "--training_cases", "30", "-c"]
    assert cli.main([*words, str(weights), "-q"]) == 0
    patches = json.loads((trained / "mine.json").read_text())["patch_size"]
    assert json.loads((tmp_path / "model.known.json").read_text())["patch_size"] == patches
    assert cli.main(["evaluate", "--data", str(trained / "set"), "-c", str(weights), "-d", "cpu", "-q"]) == 0


def test_what_replaces_what_ships_is_said(trained, monkeypatch, capsys):
    """Before any work, and nothing else is said of a copy."""

    def load(*arguments):
        raise ValueError("enough")

    monkeypatch.setattr("medsegdiff_bundle.evaluation.of_networks.load_files", load)
    assert cli.main(["calibrate", str(trained / "set"), "-t", "isic"]) == 2
    file = str(bundle_root() / "models" / "isic.pt")
    assert f"What comes with the weights {file!r} is replaced: -c names others, or a copy." in capsys.readouterr().err
    assert cli.main(["calibrate", str(trained / "mine.json")]) == 2
    assert capsys.readouterr().err == "error: ValueError: enough\n"


def test_one_file_of_weights_at_a_time(trained, tmp_path, capsys):
    """A list, and folds alone: what can be named is said."""
    entries = json.loads((trained / "mine.json").read_text())
    both = [str(weights_at(tmp_path / f"fold_{fold}" / "model.pt", trained)) for fold in (0, 1)]
    for checkpoint, sentence in (
        (both, "Weights are taken one file at a time, and here are 2: name one of them by -c."),
        (str(tmp_path / "model.pt"), f"name a file of them by -c, such as that of a fold, {both[0]!r}."),
        (None, "names no weights: name a file of them by -c."),
    ):
        (tmp_path / "mine.json").write_text(json.dumps({**entries, "checkpoint": checkpoint}))
        assert cli.main(["calibrate", str(tmp_path / "mine.json")]) == 2
        assert capsys.readouterr().err.endswith(f"{sentence}\n")


def test_one_broken_training_case_is_one_sentence(trained, tmp_path, capsys, caplog):
    shutil.copytree(trained / "set", tmp_path / "set")
    broken = tmp_path / "set" / "imagesTr" / "c03_0000.png"
    broken.write_bytes(b"no picture")
    weights = weights_at(tmp_path / "model.pt", trained)
    words = ["calibrate", str(tmp_path / "set"), "-d", "cpu", "--cases", "0", "-c", str(weights)]
    assert cli.main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {str(broken)!r} cannot be read") and err.count("\n") == 1
    assert not caplog.messages and not (tmp_path / "model.known.json").exists()


@pytest.mark.parametrize(("more", "fold"), [([], 3), (["--set", "fold=1"], 1), (["--set", "fold=none"], None)])
def test_weights_of_a_fold_are_evaluated_on_its_cases(more, fold, trained, tmp_path, monkeypatch):
    """Those of other folds have trained them."""
    made = []
    monkeypatch.setattr(ConfigWorkflow, "initialize", lambda run: made.append(run.parser))
    monkeypatch.setattr(ConfigWorkflow, "run", lambda run: None)
    monkeypatch.setattr(ConfigWorkflow, "finalize", lambda run: None)
    monkeypatch.setattr(Sweep, "__init__", lambda self, config, *others: made.append(config))
    monkeypatch.setattr(Sweep, "rows", lambda *others: [])
    monkeypatch.setattr(Sweep, "without_label", 0, raising=False)
    weights = ["-c", str(weights_at(tmp_path / "fold_3" / "model.pt", trained, fold=3, num_folds=5))]
    for words in (["evaluate", "--data", str(trained / "set"), "-o", str(tmp_path)], ["sweep", str(trained / "set")]):
        assert cli.main([*words, *weights, *more]) == 0
    assert [(config["fold"], config["num_folds"]) for config in made] == [(fold, 5)] * 2


@pytest.mark.parametrize("value", ["ensemble_size=1", "anchor_only=true"])
def test_intervals_take_members_that_differ(value, trained, capsys):
    weights = trained / "mine_training" / "model.pt"
    before = {file.name: file.read_bytes() for file in weights.parent.glob("model.*")}
    words = ["calibrate", str(trained / "mine.json"), "-d", "cpu", "--cases", "10", "--training_cases", "0"]
    assert cli.main([*words, "--set", value]) == 2
    assert "Intervals take two members or more" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in weights.parent.glob("model.*")} == before


def test_regions_are_swept(trained, capsys):
    """A Dice of each, and what the members and the labels mark of both together."""
    weights, folder = str(trained / "mine_training" / "model.pt"), str(trained / "set")
    words = ["sweep", folder, "-c", weights, "--steps", "1", "--members", "2", "--starts", "200", "--cases", "2"]
    values = ["--set", "regions=[[1,2],[2]]", "--set", "device=cpu", "--fusions", "mean", "staple"]
    assert cli.main([*words, *values]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    assert [row["fusion"] for row in table] == ["mean", "staple"]
    for row in table:
        disc, cup = map(float, row["Dice per class"].split(" / "))
        assert float(row["fused"]) == pytest.approx((disc + cup) / 2, abs=1e-4)
        assert 0 < float(row["matched IoU"]) < 1 and 0 <= float(row["GED^2"]) < 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "There is no data set or file of settings 'nowhere'."),
        (["DATA", "--cases", "-1"], "--cases must be at least 0, got -1."),
        (["DATA", "-c", "none.pt"], "There are no weights 'none.pt': name a file of them by -c."),
        (["DATA", "-t", "other"], "There are no weights of the task 'other': name a file of them by -c, or as check"),
        (["DATA", "-t", "liver"], "There is no task 'liver'"),
        (["DATA", "-d", "abacus"], "There is no device 'abacus' here."),
    ],
)
def test_what_cannot_be(words, sentence, trained, capsys):
    assert cli.main(["calibrate", *(str(trained / "set") if word == "DATA" else word for word in words)]) == 2
    assert sentence in capsys.readouterr().err
