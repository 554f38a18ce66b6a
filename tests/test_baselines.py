"""The overlays of configs/baselines: each network trains and is evaluated as MedSegDiff is."""

import json
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "baselines").glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("tasks", "image"), [([], (1, 1, 35, 50, 36)), (["tasks/isic.json"], (1, 3, 100, 70))])
def test_it_segments_images_of_any_size(name, tasks, image):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / file) for file in ("train.json", *tasks, f"baselines/{name}.json")])
    parser["bundle_root"] = str(ROOT)
    network = parser.get_parsed_content("network_def").eval()
    with torch.no_grad():
        logits = network(torch.rand(image))
    assert logits.shape == (1, parser.get_parsed_content("num_classes"), *image[2:])


def test_they_change_the_network_alone():
    for name in NAMES:
        assert set(json.loads((CONFIGS / "baselines" / f"{name}.json").read_text())) <= {"network_def", "num_levels"}


def test_training(small_dataset, tmp_path, capsys):
    settings = {
        "bundle_root": str(ROOT),
        "dataset_dir": str(small_dataset),
        "device": "cpu",
        "output_dir": str(tmp_path),
        "mirror_axes": [],
        "network_def#network#features": [4, 4, 4, 4, 4, 4],
    }
    files = [str(CONFIGS / name) for name in ("train.json", "baselines/basicunet.json")]
    monai.bundle.run(
        run_id="training", config_file=files, epochs=1, val_interval=1, patch_size=[16, 16, 16], **settings
    )
    checkpoint = str(tmp_path / "model.pt")
    monai.bundle.run(config_file=[*files, str(CONFIGS / "evaluate.json")], checkpoint=checkpoint, **settings)
    assert "Dice: " in capsys.readouterr().out
    raw = [(tmp_path / f"{name}_raw.csv").read_text() for name in ("anchor", "fused")]
    assert raw[0] == raw[1]  # the network's own mask is all there is
