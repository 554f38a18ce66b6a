"""The overlays of configs/baselines and configs/ablations: each network trains and is evaluated as MedSegDiff is."""

import json
import subprocess
from pathlib import Path

import baseline_table
import forks
import monai.bundle
import pytest
import torch
import train_networks

from medsegdiff_bundle import configuration

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
ABLATIONS = sorted(path.stem for path in (CONFIGS / "ablations").glob("*.json"))
NAMES = sorted(path.stem for path in (CONFIGS / "baselines").glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("tasks", "image"), [([], (1, 1, 35, 50, 36)), (["tasks/isic.json"], (1, 3, 100, 70))])
def test_it_segments_images_of_any_size(name, tasks, image):
    parser = configuration.load(
        [CONFIGS / file for file in ("train.json", *tasks, f"baselines/{name}.json")], {"bundle_root": str(ROOT)}
    )
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
    raw = [(tmp_path / f"{name}_raw.csv").read_text().splitlines()[1:] for name in ("anchor", "fused")]
    assert len(raw[0]) == 2 and raw[0] == raw[1]  # the network's own mask is all there is


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_the_network_or_its_loss(name):
    changes = json.loads((CONFIGS / "ablations" / f"{name}.json").read_text())
    parser = configuration.load(
        [CONFIGS / "train.json", CONFIGS / "ablations" / f"{name}.json"], {"bundle_root": str(ROOT)}
    )
    assert all(parser[key] == value for key, value in changes.items())
    whole = configuration.load([CONFIGS / "train.json"])
    assert all(not value or whole.get(key) != value for key, value in changes.items())
    network = parser.get_parsed_content("network_def")
    if "alpha" in changes:
        assert parser.get_parsed_content("loss").alpha is None
    image, mask = torch.rand(1, 1, 16, 16, 16), torch.rand(1, 3, 16, 16, 16)
    assert network(image, mask, torch.tensor([5])).shape == mask.shape


def test_several_networks_in_turn(run_script, small_dataset, tmp_path, monkeypatch):
    """A training that was cut off goes on, what is done is left alone, and the table tells steps and minutes."""
    settings = ["--dataset_dir", small_dataset, "--patch_size", "[16,16,16]", "--ensemble_size", "1"]
    settings += ["--network_def#network#features", "[4,4,4,4,4,4]"]
    folder = tmp_path / "basicunet"

    def trained(command, cwd, stdout, **options):
        done = forks.run(command, cwd)
        stdout.write(done.stdout + done.stderr)
        done.check_returncode()

    monkeypatch.setattr(subprocess, "run", trained)

    def epochs(number):
        words = ["--output", tmp_path, "--networks", "basicunet", "--", *settings, "--epochs", number]
        return run_script(train_networks, *words)

    epochs(1)
    first = json.loads((folder / "budget.json").read_text())
    (folder / "budget.json").unlink()
    epochs(2)
    second = json.loads((folder / "budget.json").read_text())
    assert second["steps"] == 2 * first["steps"] and second["minutes"] > first["minutes"] > 0
    assert "Resumed from" in (folder / "log.txt").read_text()
    assert "done before" in epochs(3)

    table = ["--dataset_dir", small_dataset, "--networks", folder / "model.pt", "--csv", tmp_path / "cases.csv"]
    table += ["--overrides", "network_def#network#features=[4,4,4,4,4,4]", "mirror_axes=[0]", "--together"]
    lines = run_script(baseline_table, *table).splitlines()
    lines = [line for line in lines if line.startswith("|")]  # MONAI before 1.6 prints the widths of its BasicUNet
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| basicunet",
        "| basicunet, mirrored",
        "| all together",
    ]
    assert lines[4].split(" | ")[1:3] == lines[3].split(" | ")[1:3]  # one network is its own mean
    assert f"| {second['steps']} | {second['minutes']} |" in lines[2]
    cases = (tmp_path / "cases.csv").read_text().splitlines()
    assert len(cases) == 1 + 3 * 2 * 2  # of three rows, cases and classes


def test_an_unknown_network(run_script, tmp_path):
    with pytest.raises(ValueError, match="There is no network 'vnet'"):
        run_script(train_networks, "--output", tmp_path, "--networks", "vnet")
    assert not list(tmp_path.iterdir())
