"""The paper's tasks on miniatures of their sets: one epoch, an evaluation and masks, with both recipes."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff_bundle import Segmenter, cli

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
    size = {"picture_size": [16, 16]} if "picture_size" in content else {"patch_size": [12, 12, 8]}
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


@pytest.mark.parametrize("name", ["btcv", "brats2021"])
def test_volumes_slice_by_slice(name, find_layout, tmp_path):
    """What is found in a slice depends on that slice alone, and comes back on the grid of the volume."""
    layout = find_layout(name)
    words = ["--task", layout.task, "-d", "cpu", "-q", "--config", "recipes/slices", "--config", "recipes/paper"]
    words += words_of({**SMALL, "slice_size": [20, 24]})
    training = ["train", str(layout.root), "-o", str(tmp_path / "training"), "--epochs", "2", "--batch-size", "3"]
    assert cli.main([*training, *words, "--set", "val_interval=2"]) == 0
    weights = tmp_path / "training" / "model.pt"
    described = json.loads(weights.with_suffix(".model.json").read_text())["configuration"]
    assert described["network_def"]["kernel_sizes"] == [[3, 3, 1]] * 2
    segmenter = Segmenter(checkpoint=weights, device="cpu", anchor_only=True)
    channels = 4 if name == "brats2021" else 1
    image = np.random.default_rng(0).normal(100, 50, (16, 14, 6, channels)).astype(np.float32)
    other = image.copy()
    other[:, :, 3] = image[::-1, :, 3]  # of the same mean and deviation
    first, second = (segmenter(values, return_members=True).members for values in (image, other))
    changed = np.abs(first - second).max(axis=(0, 1, 2, 3))
    assert first.shape[2:] == (16, 14, 6) and changed[3] > 1e-4 and np.delete(changed, 3).max() < 1e-6
