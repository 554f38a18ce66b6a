"""What `configure` wrote trains, in folds too, and segments."""

import csv
import json

import pytest

from medsegdiff_bundle import cli
from medsegdiff_bundle.cli import folds
from medsegdiff_bundle.handlers.record import TrainingRecord, read_history


@pytest.fixture
def configured(tmp_path, make_ct_set, no_measurements):
    """Volumes that are larger than the patch, so that patches are centred on classes."""
    root = make_ct_set(tmp_path / "set", (40, 48, 16), cases=4)
    words = ["configure", str(root), "-o", str(tmp_path / "mine.json"), "--hours", "0.001", "-d", "cpu", "-q"]
    assert cli.main(words) == 0
    entries = json.loads((tmp_path / "mine.json").read_text())
    assert any(each["_target_"] == "RandCropByLabelClassesd" for each in entries["patches"])
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
