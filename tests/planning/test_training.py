"""What `configure` wrote trains, in folds too, and segments."""

import csv
import json

import pytest
import torch

from medsegdiff_bundle import cli
from medsegdiff_bundle.cli import bundle, folds
from medsegdiff_bundle.handlers.record import TrainingRecord, read_history
from medsegdiff_bundle.model_file import read_model, write_model


@pytest.fixture
def configured(tmp_path, make_ct_set, no_measurements):
    """Volumes that are larger than the patch, so that patches are centred on classes."""
    root = make_ct_set(tmp_path / "set", (40, 48, 16), cases=4)
    words = ["configure", str(root), "-o", str(tmp_path / "mine.json"), "--hours", "0.001", "-d", "cpu", "-q"]
    assert cli.main(words) == 0
    entries = json.loads((tmp_path / "mine.json").read_text())
    assert entries["class_ratios"][2] > 0
    return tmp_path / "mine.json"


def test_train_and_segment(configured, tmp_path, capsys):
    assert cli.main(["train", str(configured), "--epochs", "2", "--set", "val_interval=1", "-q"]) == 0
    where = tmp_path / "mine_training"
    rows = read_history(where / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"loss diffusion", "loss anchor", "val_fused liver", "val_anchor tumour"} <= set(rows[0])
    for name in ("model.pt", "curves.png", "settings.json", "done", "training.log"):
        assert (where / name).is_file(), name
    settings = json.loads((where / "settings.json").read_text())
    assert settings["epochs"] == 2 and settings["class_names"] == ["liver", "tumour"] and "inferer" in settings
    assert "Epoch 2/2" in (where / "training.log").read_text()
    image = tmp_path / "set" / "imagesTr" / "c0_0000.nii.gz"
    words = ["segment", str(image), "-o", str(tmp_path / "out"), "-t", str(configured), "-m", "1"]
    capsys.readouterr()
    assert cli.main(words) == 0
    assert "liver" in capsys.readouterr().out and (tmp_path / "out" / "c0_0000_seg.nii.gz").is_file()


def test_an_old_training_says_nothing_of_a_new_one(configured, tmp_path):
    """The file names the weights that are replaced, or that a kill left without the file beside them."""
    where = tmp_path / "mine_training"
    where.mkdir()
    (where / "model.pt").write_bytes(b"old")
    old = {"class_names": ["lung"], "spatial_dims": 3, "image_channels": 1, "roi_size": [64, 64, 64]}
    write_model(where / "model.pt", {"task": "lung", "version": "0.13.0", "configuration": old})
    words = ["train", str(configured), "--epochs", "1", "--set", "val_interval=1", "-q"]
    assert cli.main([*words, "--overwrite"]) == 0
    entries = json.loads((where / "model.model.json").read_text())["configuration"]
    assert entries["class_names"] == ["liver", "tumour"] and entries["roi_size"] != [64, 64, 64]
    (where / "model.model.json").write_text(json.dumps({"sha256": "0", "task": None, "configuration": old}))
    assert cli.main([*words, "--epochs", "2", "--resume"]) == 0
    assert read_model(where / "model.pt")["configuration"]["class_names"] == ["liver", "tumour"]


def test_all_folds(configured, tmp_path, capsys):
    """A fold that is done is not trained again; the summary has each fold, mean and deviation, by class names."""
    done = tmp_path / "mine_training" / "fold_0"
    record = TrainingRecord(str(done))
    record.add(1, {"loss anchor": 1.0, "val_fused": 0.5, "val_fused liver": 0.6})
    (done / "done").touch()
    words = ["train", str(configured), "--epochs", "1", "--fold", "all", "--set", "num_folds=2"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 of 2 folds: Dice 0.")
    rows = list(csv.DictReader((tmp_path / "mine_training" / "folds.csv").open()))
    assert [row["fold"] for row in rows] == ["0", "1", "mean", "deviation"]
    assert rows[0]["val_fused liver"] == "0.6" and float(rows[1]["val_fused liver"]) >= 0
    settings = json.loads((tmp_path / "mine_training" / "fold_1" / "settings.json").read_text())
    assert (settings["fold"], settings["num_folds"]) == (1, 2)
    image = tmp_path / "set" / "imagesTr" / "c0_0000.nii.gz"
    assert cli.main(["segment", str(image), "-o", str(tmp_path / "out"), "-t", str(configured)]) == 2
    said = capsys.readouterr().err
    weights = tmp_path / "mine_training" / "fold_1" / "model.pt"
    assert f"There are those of folds, to be named as checkpoint, or all by --folds all: {weights}." in said
    summary = json.loads((tmp_path / "mine_training" / "folds.json").read_text())
    assert summary["folds"][0]["val_fused liver"] == 0.6 and set(summary) == {"folds", "mean", "deviation"}
    assert summary["mean"]["val_fused"] == pytest.approx((0.5 + summary["folds"][1]["val_fused"]) / 2)

    state = torch.load(weights)  # folds are of several trainings
    name = next(name for name in state if name.startswith("denoiser"))
    torch.save({**state, name: state[name] + 0.1}, done / "model.pt")
    about = json.loads(weights.with_name("model.model.json").read_text())
    write_model(done / "model.pt", {name: value for name, value in about.items() if name != "sha256"})
    words = ["segment", str(image), "-o", str(tmp_path / "out"), "-t", str(configured), "-m", "2", "--folds"]
    assert cli.main([*words, "all"]) == 0
    report = json.loads((tmp_path / "out" / "c0_0000_report.json").read_text())
    assert report["weights"]["file"] == "fold_0/model.pt, fold_1/model.pt" and report["networks"] == 2
    assert report["views"] == [2, 2] and len(report["structures"]["liver"]["member_volumes"]) == 4
    assert "They are of 2 networks" in (tmp_path / "out" / "c0_0000_report.html").read_text()
    for folds_named, sentence in (("x", "takes numbers from 0, or all"), ("3", "There are no weights of folds")):
        assert cli.main([*words, folds_named]) == 2 and sentence in capsys.readouterr().err


@pytest.fixture
def runs(monkeypatch):
    """Settings of each training, which none does."""
    found = []
    monkeypatch.setattr(bundle, "run_bundle", lambda files, settings, *rest: found.append(settings))
    return found


def test_done_folds(configured, tmp_path, runs, capsys):
    """A fold that is done is named and left, unless it is to be replaced."""
    done = tmp_path / "mine_training" / "fold_0"
    done.mkdir(parents=True)
    (done / "done").touch()
    assert cli.main(["train", str(configured), "--fold", "all", "--set", "num_folds=2"]) == 0
    assert [(each["fold"], each["resume"]) for each in runs] == [(1, "auto")]
    assert f"Fold 0 is done ({done}): --overwrite trains it anew." in capsys.readouterr().err
    runs.clear()
    assert cli.main(["train", str(configured), "--fold", "all", "--set", "num_folds=2", "--overwrite"]) == 0
    assert [each["fold"] for each in runs] == [0, 1]
    assert all("resume" not in each and each["overwrite"] is True for each in runs)


@pytest.mark.parametrize("number", [1, 3, 6])
@pytest.mark.parametrize("named", ["settings", "folder"])
def test_folds_of_the_set(named, number, tmp_path, make_ct_set, no_measurements, runs):
    """There are as many folds as the set has."""
    root = make_ct_set(tmp_path / "set", cases=6)
    names = [f"c{case}" for case in range(6)]
    (root / "splits_final.json").write_text(json.dumps([{"val": names[k::number]} for k in range(number)]))
    data = [str(root), "-o", str(tmp_path / "out")]
    if named == "settings":
        data = [str(tmp_path / "mine.json")]
        assert cli.main(["configure", str(root), "-o", *data, "--hours", "0.001", "-d", "cpu", "-q"]) == 0
    assert cli.main(["train", *data, "--fold", "all"]) == 0
    assert [each["fold"] for each in runs] == list(range(number))
    assert cli.main(["train", *data, "--fold", str(number)]) == 2


@pytest.mark.parametrize("word", ["5", "-1", "x"])
def test_no_such_fold(word):
    with pytest.raises(ValueError, match="--fold must be from 0 to 4, or all"):
        folds.chosen(word, {}, {"num_folds": 5})


def test_the_record_of_a_resumed_training_goes_on(tmp_path):
    record = TrainingRecord(str(tmp_path))
    for epoch in (1, 2, 3, 2):
        record.add(epoch, {"loss anchor": epoch / 10, **({"val_fused": float("nan")} if epoch == 2 else {})})
    rows = read_history(tmp_path / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2] and "val_fused" in rows[1]
