"""Memory over many cases, over many epochs of a training, and over larger volumes and more members, on the CPU.

First one process segments many small volumes with a tiny network, files in and files out: its resident memory and its
open files are printed on the way, and their growth from the fiftieth case to the last. Then one process trains the tiny
network for many epochs, each with a validation, a checkpoint, a picture and curves, and prints the same. Then a process
each measures the peak of `large_volume.py` for three sizes, each twice as large as the one before, and for more
members. Linux alone.

    python scripts/memory_trials.py --cases 500
    python scripts/memory_trials.py --cases 0 --epochs 1440 --members  # a day of epochs of a minute
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import create_workflow

import medsegdiff_bundle
from medsegdiff_bundle import configuration
from medsegdiff_bundle.evaluation.of_networks import ROOT

NETWORK = {"network_def#channels": [4, 8, 8], "network_def#num_heads": 2, "network_def#token_size": 8}
WARM = 50  # cases, or epochs, after which memory is to stay
SIZES = ((128, 128, 64), (128, 128, 128), (256, 128, 128))


def resident() -> float:
    """Memory of this process now, in MB, after its C library gave back what it keeps of freed memory. glibc alone."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_cases(folder: Path, number: int) -> Path:
    """Weights of a tiny network, and a folder of volumes whose sizes differ."""
    parser = configuration.load([ROOT / "configs" / "inference.json"], {**NETWORK, "bundle_root": str(ROOT)})
    torch.manual_seed(1)
    weights = folder / "weights.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), weights)
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    for index in range(number):
        values = random.random(random.integers(20, 36, 3), dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / "images" / f"case_{index:04d}.nii.gz")
    return weights


class Notes:
    """Memory and open files of this process after each of many cases or epochs, some of them printed.

    Args:
        what: that is counted: "case" or "epoch".
        rows: of what number each line is printed.
    """

    def __init__(self, what: str, rows: int) -> None:
        self.what, self.rows = what, rows
        self.found: list[tuple[float, int]] = []
        print(f"| {what}s | resident memory, MB | open files |\n|---|---|---|")

    def note(self, *_: object) -> None:
        """After one more of them."""
        self.found.append((resident(), len(os.listdir("/proc/self/fd"))))
        if len(self.found) % self.rows == 0:
            print(f"| {len(self.found)} | {self.found[-1][0]:.1f} | {self.found[-1][1]} |", flush=True)

    def growth(self) -> str:
        """From where memory is to stay to the last."""
        start = min(WARM, len(self.found))
        (before, files), (after, more) = self.found[start - 1], self.found[-1]
        change = 100 * (after / before - 1)
        return f"\nFrom {self.what} {start} on: memory {change:+.1f} %, open files {more - files:+d}\n"


def many_cases(number: int) -> None:
    """Segment a folder, and print memory and open files on the way."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = write_cases(folder, number)
        notes = Notes("case", WARM)
        settings = {**NETWORK, "checkpoint": weights, "ensemble_size": 2, "device": "cpu"}
        medsegdiff_bundle.segment(folder / "images", output_dir=folder / "out", on_result=notes.note, **settings)
        print(notes.growth())


def many_epochs(number: int) -> None:
    """Train on the sample data, and print memory and open files on the way."""
    with tempfile.TemporaryDirectory() as temporary:
        settings = {
            **NETWORK,
            **{"patch_size": [16, 16, 16], "val_stride": 4, "ensemble_size": 2, "val_interval": 1, "epochs": number},
            **{"dataset_dir": str(ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"), "device": "cpu"},
            **{"bundle_root": str(ROOT), "output_dir": temporary},
        }
        workflow = create_workflow(config_file=str(ROOT / "configs" / "train.json"), workflow_type="train", **settings)
        notes = Notes("epoch", max(1, number // 10))
        trainer: Engine = workflow.parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(Events.EPOCH_COMPLETED, notes.note)
        workflow.run()
        workflow.finalize()
        print(notes.growth())


def peak(size: tuple[int, ...], members: int) -> float:
    """Peak of inference, fusion, map and volumes of five classes in a process of its own, in GB."""
    words = ["--size", *map(str, size), "--members", str(members), "--classes", "5", "--roi_size", "48"]
    command = [sys.executable, str(ROOT / "scripts" / "large_volume.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(re.findall(r"peak ([\d.]+) GB", done.stdout)[-1])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100, help="0 for none")
    parser.add_argument("--epochs", type=int, default=0, help="of the training; 0 for none")
    parser.add_argument("--members", type=int, nargs="*", default=[5, 10, 20], help="of large volumes; none for none")
    options = parser.parse_args()
    if options.cases:
        many_cases(options.cases)
    if options.epochs:
        many_epochs(options.epochs)
    if not options.members:
        return
    print("Peak memory in GB, five classes\n")
    print(f"| million voxels | {' | '.join(f'{members} members' for members in options.members)} |")
    print("|---" * (len(options.members) + 1) + "|")
    for size in SIZES:
        cells = [f"{peak(size, members):.2f}" for members in options.members]
        print(f"| {np.prod(size) / 1e6:.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
