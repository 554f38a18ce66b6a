"""Memory over many cases, and over larger volumes and more members, on the CPU.

First one process segments many small volumes with a tiny network, files in and files out: its resident memory and its
open files are printed on the way, and their growth from the fiftieth case to the last. Then a process each measures the
peak of `large_volume.py` for three sizes, each twice as large as the one before, and for more members. Linux alone.

    python scripts/memory_trials.py --cases 500
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

import medsegdiff_bundle
from medsegdiff_bundle import configuration
from medsegdiff_bundle.evaluation.of_networks import ROOT

NETWORK = {"network_def#channels": [4, 8, 8], "network_def#num_heads": 2, "network_def#token_size": 8}
WARM = 50  # cases after which memory is to stay
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


def many_cases(number: int) -> None:
    """Segment a folder, and print memory and open files on the way."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = write_cases(folder, number)
        found: list[tuple[float, int]] = []

        def note(result: object) -> None:
            found.append((resident(), len(os.listdir("/proc/self/fd"))))
            if len(found) % WARM == 0:
                print(f"| {len(found)} | {found[-1][0]:.1f} | {found[-1][1]} |", flush=True)

        print("| cases | resident memory, MB | open files |\n|---|---|---|")
        settings = {**NETWORK, "checkpoint": weights, "ensemble_size": 2, "device": "cpu"}
        medsegdiff_bundle.segment(folder / "images", output_dir=folder / "out", on_result=note, **settings)
        after, last = found[min(WARM, len(found)) - 1], found[-1]
        growth = 100 * (last[0] / after[0] - 1)
        print(f"\nFrom case {WARM} on: memory {growth:+.1f} %, open files {last[1] - after[1]:+d}")


def peak(size: tuple[int, ...], members: int) -> float:
    """Peak of inference, fusion, map and volumes of five classes in a process of its own, in GB."""
    words = ["--size", *map(str, size), "--members", str(members), "--classes", "5", "--roi_size", "48"]
    command = [sys.executable, str(ROOT / "scripts" / "large_volume.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(re.findall(r"peak ([\d.]+) GB", done.stdout)[-1])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--members", type=int, nargs="+", default=[5, 10, 20])
    options = parser.parse_args()
    many_cases(options.cases)
    print("\nPeak memory in GB, five classes\n")
    print(f"| million voxels | {' | '.join(f'{members} members' for members in options.members)} |")
    print("|---" * (len(options.members) + 1) + "|")
    for size in SIZES:
        cells = [f"{peak(size, members):.2f}" for members in options.members]
        print(f"| {np.prod(size) / 1e6:.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
