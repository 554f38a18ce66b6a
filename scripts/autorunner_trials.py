"""Kill MONAI's AutoRunner in the training of each fold, and see whether the same command goes on where it stopped.

A small set of two folds is trained with the template of this package, once undisturbed and once killed (SIGKILL) in
each fold as soon as it has kept a second checkpoint. Afterwards the same command runs to its end: weights and scores of
both folds must be those of the undisturbed run, bit for bit, and the mean of the folds must be written. Linux alone.

    python scripts/autorunner_trials.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch

from medsegdiff_bundle.auto3dseg import TEMPLATES

SETTINGS = {
    "hours": 0.001,
    "num_epochs": 6,
    "num_epochs_per_validation": 1,
    "network_def#channels": [4, 8],
    "network_def#denoiser_channels": [4, 8],
    "network_def#strides": [[2, 2, 2]],
    "network_def#kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    "network_def#num_heads": 2,
    "network_def#token_size": 8,
    "patch_size": [16, 16, 16],
    "displayable_configs#ensemble_size": 2,
}
FOLDS = 2


def write_task(folder: Path) -> Path:
    """Four volumes of two folds with a cube each, and one without a label; returns AutoRunner's description of them."""
    random = np.random.default_rng(0)
    cases = []
    for number in range(5):
        label = np.zeros((20, 18, 16), np.uint8)
        label[4:12, 4:12, 4:12] = 1
        image = (random.normal(0, 10, label.shape) + 60 * label).astype(np.float32)
        for name, values in ((f"case{number}", image), (f"label{number}", label)):
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"{name}.nii.gz")
        cases.append({"image": f"case{number}.nii.gz", "label": f"label{number}.nii.gz", "fold": number % FOLDS})
    content = {"training": cases[:4], "testing": [{"image": cases[4]["image"]}]}
    (folder / "list.json").write_text(json.dumps(content))
    task = {"modality": "MRI", "datalist": str(folder / "list.json"), "dataroot": str(folder), "medsegdiff": SETTINGS}
    (folder / "task.json").write_text(json.dumps(task))
    return folder / "task.json"


def start(task: Path, work: Path) -> subprocess.Popen:
    """AutoRunner in a process group of its own, whose words go to a file."""
    command = [sys.executable, "-m", "monai.apps.auto3dseg", "AutoRunner", "run", "--input", str(task)]
    command += ["--work_dir", str(work), "--algos", "medsegdiff", "--templates_path_or_url", str(TEMPLATES)]
    with open(f"{work}.log", "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def kill_in(fold: int, task: Path, work: Path) -> bool:
    """Whether it was killed after the second checkpoint of a fold."""
    process, file, first = start(task, work), _model(work, fold) / "last.ckpt", None
    while process.poll() is None:
        if file.exists():
            kept = file.stat().st_mtime_ns
            if first is not None and kept != first:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return True
            first = kept
        time.sleep(0.05)
    return False


def alike(one: Path, other: Path) -> bool:
    """Whether weights and scores of a fold are the same."""
    first, second = (torch.load(folder / "model.pt", weights_only=True) for folder in (one, other))
    best, again = ((folder / "progress.yaml").read_text().splitlines()[-2:] for folder in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first) and bool(best) and best == again


def _model(work: Path, fold: int) -> Path:
    return work / f"medsegdiff_{fold}" / "model"


def main() -> None:
    """Print a Markdown table."""
    with tempfile.TemporaryDirectory() as temporary:
        task, undisturbed, killed = write_task(Path(temporary)), Path(temporary, "once"), Path(temporary, "killed")
        if start(task, undisturbed).wait():
            sys.exit(Path(f"{undisturbed}.log").read_text())
        where = [kill_in(fold, task, killed) for fold in range(FOLDS)]
        if start(task, killed).wait():
            sys.exit(Path(f"{killed}.log").read_text())
        print("| fold | killed in its training | as undisturbed |\n|---|---|---|")
        for fold, was in enumerate(where):
            print(f"| {fold} | {was} | {alike(_model(undisturbed, fold), _model(killed, fold))} |")
        print(f"\nThe mean of the folds is written: {any((killed / 'ensemble_output').rglob('*.nii.gz'))}")


if __name__ == "__main__":
    main()
