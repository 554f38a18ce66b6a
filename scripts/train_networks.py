r"""Train several networks one after the other, each with the same data, augmentation, seed and number of steps.

A network is "ours", a file of configs/baselines or one of configs/ablations. Each gets a folder with its log, weights
and `budget.json`: steps, and minutes of processor time. What was cut off goes on where it stopped, and what is done is
left alone, so the same command can be given again. Arguments after `--` go to the training. Example:

    OMP_NUM_THREADS=1 python scripts/train_networks.py --output output/comparison \
        --networks ours dynunet basicunet no_transformer -- --dataset_dir FOLDER --epochs 4
    python scripts/baseline_table.py --dataset_dir FOLDER --networks \
        output/comparison/{ours,dynunet,basicunet,no_transformer}/model.pt
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from medsegdiff_bundle.evaluation.of_networks import ROOT, overlay, training_files
from medsegdiff_bundle.files import whole_file


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="hippocampus", help="of configs/tasks; hippocampus by default")
    parser.add_argument("--networks", nargs="+", default=["ours"], help="ours, or of configs/baselines and ablations")
    parser.add_argument("--recipe", default=None, help="of configs/recipes; that of train.json by default")
    parser.add_argument("--output", required=True, type=Path, help="folder of their folders")
    parser.add_argument("training", nargs=argparse.REMAINDER, help="-- and arguments of the training")
    return parser.parse_args()


def train(task: str, recipe: str | None, name: str, folder: Path, settings: list[str]) -> None:
    """Train one network, unless it is done.

    Raises:
        subprocess.CalledProcessError: the training failed; its log says why.
    """
    budget = folder / "budget.json"
    if budget.is_file():
        print(f"{name}: done before")
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "monai.bundle", "run", "training"]
    command += ["--config_file", str(training_files(task, name, recipe))]
    command += ["--output_dir", str(folder), "--resume", "auto", *settings]
    with open(folder / "log.txt", "a") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=True)
    state = torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)
    with whole_file(budget) as file:
        file.write_text(json.dumps({"steps": state["iteration"], "minutes": round(state["cpu_seconds"] / 60, 2)}))
    print(f"{name}: {budget.read_text()}", flush=True)


def main() -> None:
    """Train them all."""
    options = arguments()
    options.output = Path(os.path.abspath(options.output))  # the training runs in the bundle's folder
    settings = options.training[1:] if options.training[:1] == ["--"] else options.training
    for name in options.networks:
        overlay(name)  # all names are known before the first hour of training
    for name in options.networks:
        train(options.task, options.recipe, name, options.output / name, settings)


if __name__ == "__main__":
    main()
