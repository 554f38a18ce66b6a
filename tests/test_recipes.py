"""The paper's recipe over every task: what it sets, and that it trains, evaluates and segments."""

import json
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
from monai.transforms import RandFlipd
from PIL import Image

from medsegdiff_bundle import configuration
from medsegdiff_bundle.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
PAPER = "recipes/paper.json"
TASKS = {task: [f"tasks/{task}.json"] for task in configuration.tasks(CONFIGS) if task != configuration.OTHER}
TINY = {
    "bundle_root": str(ROOT),
    "device": "cpu",
    "network_def#channels": [4, 8, 8],
    "network_def#denoiser_channels": [4, 8, 8],
    "network_def#num_heads": 2,
    "network_def#token_size": 2,
    "displayable_configs#num_inference_steps": 2,
    "displayable_configs#ensemble_size": 2,
}


def parser(kind, *files, **settings):
    config = configuration.load(
        [CONFIGS / file for file in (f"{kind}.json", *files)],
        {"bundle_root": str(ROOT), "device": "cpu", "amp": False, **settings},
    )
    return config


@pytest.mark.parametrize("paper_last", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_what_it_sets_in_training_and_in_inference(task, paper_last):
    """In either order of the files, but for what a task sets itself."""
    files = [*TASKS[task], PAPER] if paper_last else [PAPER, *TASKS[task]]
    for kind, prefix in (("train", "validate#"), ("inference", "")):
        config = parser(kind, *files)
        if not paper_last and task in ("hippocampus", "isic"):
            with pytest.raises(RuntimeError) as refused:
                config.get_parsed_content("network_def")
            assert "needs prediction_type 'sample'" in str(refused.value.__cause__)  # of their denoisers
            continue
        scheduler = config.get_parsed_content("scheduler")
        own = DDPMScheduler if paper_last or task != "lidc" else DDIMScheduler
        assert type(scheduler) is own and scheduler.prediction_type == "epsilon"
        assert scheduler.signal_scale == 1 and scheduler.num_train_timesteps == 1000
        assert scheduler.betas[-1] == pytest.approx(0.02)  # linear
        with torch.device("meta"):  # without values, whose drawing takes longest
            network = config.get_parsed_content("network_def")
        assert network.image_stem is None and not network.anchor_residual and network.prediction_type == "epsilon"
        assert list(config.get_parsed_content(f"{prefix}inferer").mirror_axes) == []
        if paper_last:
            inferer = config.get_parsed_content(f"{prefix}inferer")
            assert (inferer.num_inference_steps, inferer.ensemble_size) == (100, 10)
            assert config.get_parsed_content("fusion") == "staple"
    config = parser("train", *TASKS[task], PAPER)
    values = {"alpha": 5, "beta": 10, "dice_weight": 1, "recycling": 0, "batch_size": 32, "learning_rate": 1e-4}
    assert {name: config.get_parsed_content(name) for name in values} == values
    assert config.get_parsed_content("ema_decay") == 0.9999
    plain = parser("train", *TASKS[task])
    size = [256, 256] if plain.get_parsed_content("spatial_dims") == 2 else plain.get_parsed_content("patch_size")
    assert config.get_parsed_content("patch_size") == size


@pytest.mark.parametrize("task", TASKS)
def test_the_recipe_in_which_the_condition_alone_guides(task):
    for kind, prefix in (("train", "validate#"), ("inference", "")):
        config = parser(kind, *TASKS[task], "recipes/conditional.json")
        with torch.device("meta"):  # without values, whose drawing takes longest
            network = config.get_parsed_content("network_def")
        assert network.image_stem is None and not network.anchor_residual and network.prediction_type == "sample"
        assert len(network.anchor_gates) == 2 and network.denoiser.transformer is not None
        inferer = config.get_parsed_content(f"{prefix}inferer")
        assert (inferer.num_inference_steps, inferer.start_from_anchor, list(inferer.mirror_axes)) == (5, None, [])
    assert config.get_parsed_content("fusion") == "mean"
    assert parser("train", *TASKS[task], "recipes/conditional.json").get_parsed_content("recycling") == 0


@pytest.mark.parametrize("task", TASKS)
def test_flips_of_the_training_are_no_mirror_images_of_the_sampler(task):
    def flips(config):
        return [each for each in config.get_parsed_content("flips").transforms if isinstance(each, RandFlipd)]

    axes = parser("train", *TASKS[task]).get_parsed_content("mirror_axes")
    assert len(flips(parser("train", *TASKS[task], PAPER))) == len(axes)
    off = parser("train", *TASKS[task], mirror_axes=[])  # of structures that are left or right
    assert flips(off) == [] and list(off.get_parsed_content("validate#inferer").mirror_axes) == []


def test_eta_is_a_setting_of_ddim_alone():
    scheduler = parser("inference", "tasks/lidc.json").get_parsed_content("scheduler")
    assert type(scheduler) is DDIMScheduler and scheduler.eta == 0.25
    assert parser("inference", "tasks/lidc.json", eta=0.5).get_parsed_content("scheduler").eta == 0.5
    other = {"scheduler#_target_": "medsegdiff_bundle.schedulers.DPMSolverMultistepScheduler"}
    assert type(parser("inference", **other).get_parsed_content("scheduler")) is DPMSolverMultistepScheduler


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five pictures of a bright box, for both tasks of pictures: of nodules the masks of four readers in a byte."""
    folders = {}
    for task, mark in (("isic", 255), ("lidc", 15)):
        data = folders[task] = tmp_path_factory.mktemp(task)
        for part in ("images", "masks"):
            (data / part).mkdir()
        for seed, name in enumerate("abcde"):
            mask = np.zeros((32, 32), dtype=bool)
            mask[4 + seed : 14, 4:16] = True
            grey = (60 + 140 * mask).astype(np.uint8)
            Image.fromarray(grey if task == "lidc" else np.stack([grey] * 3, axis=2)).save(
                data / "images" / f"{name}.png"
            )
            Image.fromarray((mask * mark).astype(np.uint8)).save(data / "masks" / f"{name}.png")
        (data / "splits.json").write_text(json.dumps({"train": list("abc"), "val": ["d"], "test": ["e"]}))
    return folders


@pytest.mark.parametrize("task", configuration.tasks_with_weights(CONFIGS))  # others: see tests/tasks/test_runs.py
def test_it_trains_and_segments(task, pictures, small_dataset, tmp_path):
    data = pictures.get(task, small_dataset)
    sizes = {"hippocampus": {"patch_size": [16, 16, 16]}, "isic": {"picture_size": [16, 16]}}
    settings = {**TINY, **sizes.get(task, {"picture_size": [16, 16], "max_shift": 4}), "dataset_dir": str(data)}
    common = {"meta_file": str(CONFIGS / "metadata.json"), "logging_file": str(CONFIGS / "logging.conf")}
    files = {
        kind: [str(CONFIGS / file) for file in (f"{kind}.json", *TASKS[task], PAPER)] for kind in ("train", "inference")
    }
    run = {"epochs": 1, "val_interval": 1, "batch_size": 3, "output_dir": str(tmp_path / "training")}
    monai.bundle.run(run_id="training", config_file=files["train"], **common, **settings, **run)
    weights = tmp_path / "training" / "model.pt"
    assert not any("image_stem" in name for name in torch.load(weights, weights_only=True))
    segment = {
        name: value for name, value in settings.items() if name not in ("max_shift", "patch_size")
    }  # of training
    segment |= {"checkpoint": str(weights), "output_dir": str(tmp_path / "masks")}
    monai.bundle.run(run_id="run", config_file=files["inference"], **common, **segment)
    reports = list((tmp_path / "masks").glob("*_report.json"))
    assert reports and all(json.loads(path.read_text())["ensemble_size"] == 2 for path in reports)
