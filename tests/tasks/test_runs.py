"""The paper's tasks on miniatures of their sets: one epoch, an evaluation and masks, with both recipes."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff_bundle import cli

CONFIGS = Path(__file__).parent.parent.parent / "configs"
RECIPES = {"default": [], "paper": ["--config", "recipes/paper"]}
FEW = {"num_inference_steps": 2, "ensemble_size": 2}
SMALL = {"network_def#channels": [4, 8], "network_def#denoiser_channels": [4, 8], "network_def#num_heads": 2}
SMALL |= {"network_def#token_size": 2, **FEW}


def words_of(settings):
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


@pytest.mark.parametrize("recipe", RECIPES)
def test_train_evaluate_and_segment(layout, recipe, tmp_path, capsys):
    content = json.loads((CONFIGS / "tasks" / f"{layout.task}.json").read_text())
    size = {"picture_size": [16, 16]} if "picture_size" in content else {"patch_size": [8, 8, 8]}
    words = ["--task", layout.task, "-d", "cpu", "-q", *RECIPES[recipe], *words_of({**SMALL, **size})]
    training = ["train", str(layout.root), "-o", str(tmp_path / "training"), "--epochs", "1", "--batch-size", "2"]
    assert cli.main([*training, *words, "--set", "val_interval=1"]) == 0
    weights = ["-c", str(tmp_path / "training" / "model.pt")]
    assert json.loads((tmp_path / "training" / "model.model.json").read_text())["task"] == layout.task
    capsys.readouterr()
    assert cli.main(["evaluate", "--data", str(layout.root), "-o", str(tmp_path / "scores"), *weights, *words]) == 0
    assert "\nDice: " in capsys.readouterr().out
    segmentation = ["segment", str(layout.root), "-o", str(tmp_path / "masks"), *weights, *words_of(FEW)]
    assert cli.main([*segmentation, "--task", layout.task, "-d", "cpu", "-q"]) == 0
    masks = sorted((tmp_path / "masks").glob("*_seg*"))
    assert [mask.name.split("_seg")[0] for mask in masks] == list(layout.validation)
    for mask in masks:
        stored = nibabel.load(mask).get_fdata() if mask.suffix == ".gz" else np.asarray(Image.open(mask))
        assert {*np.unique(stored)} <= {*layout.values}
