"""Peak memory of `medsegdiff segment` on a full-size CT, files in and files out, as a user types it.

    python scripts/full_size_ct.py                                 # 512 x 512 x 300, 15 classes, 5 members
    python scripts/full_size_ct.py --spacing 0.7 0.7 1.25          # resampled, and the results back
    python scripts/full_size_ct.py --size 128 128 75 --size 256 256 150  # how it grows
    python scripts/full_size_ct.py --size 128 128 75 --all_windows  # the network in all windows

A small CT set of 15 classes in the raw form of nnU-Net is made, `medsegdiff configure --memory 6GB` writes its
settings, and `medsegdiff train` trains one epoch of it. Then a CT of one window and one of each size are made, and each
is segmented by `medsegdiff segment`, without a word on memory, in a process of its own, whose largest resident memory
is printed. Mask and report are looked at: grid, place, and numbers of the classes.

A CT of this size takes a slow CPU hours. So only the first windows go through the network that `configure` chose, with
as many members at once as all others would have, and the rest through a stand-in that works voxel by voxel: this is
about memory. Reading, resampling, windows, fusion, the way back, statistics, pictures and saving are all there. With
`--all_windows` there is no stand-in. Linux alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from torch import Tensor

from medsegdiff_bundle.evaluation.of_networks import ROOT
from medsegdiff_bundle.inferers.windows import window_starts
from medsegdiff_bundle.networks import ConditionFeatures, MedSegDiff

CLASSES = 15
SPACING = (0.8, 0.8, 2.5)  # mm, of the set
SHAPE = (160, 160, 64)  # of its volumes
CASES = 5
THROUGH = 8  # encodings that are the network's: two windows, each with its mirror image, encoded twice at most


class FirstWindows(MedSegDiff):
    """A network for the first windows, and a stand-in for the others."""

    encoded = 0

    def encode(self, image: Tensor) -> ConditionFeatures:
        """The network's features, then logits from the image's values alone: (1, K, S)."""
        self.encoded += 1
        if self.encoded <= THROUGH:
            return super().encode(image)
        middles = torch.linspace(-2, 2, self.out_channels).reshape(-1, *[1] * (image.ndim - 2))
        return ConditionFeatures((image - middles).square_().neg_(), None, [], None, None, None)

    def denoise(self, mask: Tensor, timesteps: Tensor, features: ConditionFeatures) -> Tensor:
        """The network's prediction, then one from the mask and the logits: (N, K, S)."""
        if self.encoded <= THROUGH:
            return super().denoise(mask, timesteps, features)
        return (mask + features.logits).tanh_()


class Peak(NamedTuple):
    """What a process took."""

    seconds: float
    gigabytes: float


def ct(shape: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units (X, Y, Z), int16, of a body in air with organs that are ellipsoids, and their labels, uint8."""
    random = np.random.default_rng(seed)
    places = [np.linspace(-1, 1, size) for size in shape]
    organs = [(random.uniform(-0.6, 0.6, 3), random.uniform(0.1, 0.3, 3)) for _ in range(CLASSES)]
    image, label = np.empty(shape, np.int16), np.zeros(shape, np.uint8)
    for z, height in enumerate(places[2]):  # slice by slice, as floats of all would take gigabytes
        here = places[0][:, None], places[1], height
        body = (here[0] / 0.95) ** 2 + (here[1] / 0.8) ** 2 <= 1
        for number, (middle, radii) in enumerate(organs, start=1):
            distance = sum(((a - m) / r) ** 2 for a, m, r in zip(here, middle, radii, strict=True))
            label[..., z][(distance <= 1) & body] = number
        values = np.where(body, 12.0 * label[..., z], -1000.0)
        image[..., z] = values + random.normal(0, 20, values.shape)
    return image, label


def write(file: Path, values: np.ndarray, spacing: Sequence[float]) -> None:
    """Write a volume."""
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*spacing, 1.0])), file)


def write_set(root: Path) -> None:
    """A small data set in the raw form of nnU-Net."""
    names = {"background": 0, **{f"organ {number}": number for number in range(1, CLASSES + 1)}}
    described = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": CASES, "file_ending": ".nii.gz"}
    root.mkdir()
    (root / "dataset.json").write_text(json.dumps(described))
    for case in range(CASES):
        image, label = ct(SHAPE, case)
        write(root / "imagesTr" / f"ct_{case}_0000.nii.gz", image, SPACING)
        write(root / "labelsTr" / f"ct_{case}.nii.gz", label, SPACING)


def medsegdiff(*words: Any) -> Peak:
    """Run a command to its end, in a process of its own, which knows the stand-in."""
    begin = time.perf_counter()
    paths = os.pathsep.join([str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "medsegdiff_bundle", *map(str, words)]
    with subprocess.Popen(command, stdout=sys.stderr, env={**os.environ, "PYTHONPATH": paths}) as process:
        _, status, usage = os.wait4(process.pid, 0)  # of this process alone
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"medsegdiff {words[0]} failed.")
    return Peak(time.perf_counter() - begin, usage.ru_maxrss * 1024 / 1e9)


def segment(settings: Path, size: Sequence[int], spacing: Sequence[float], folder: Path) -> Peak:
    """Segment a CT, and look at what comes out."""
    file = folder / "images" / f"ct_{'x'.join(map(str, size))}.nii.gz"
    write(file, ct(size, CASES)[0], spacing)
    found = medsegdiff("segment", file, "-o", folder / "out", "--task", settings, "--device", "cpu", "--overwrite")
    name = file.name.removesuffix(".nii.gz")
    image, mask = (nibabel.load(each) for each in (file, folder / "out" / f"{name}_seg.nii.gz"))  # type: ignore[attr-defined]
    labels = np.asanyarray(mask.dataobj)  # type: ignore[attr-defined]
    report = json.loads((folder / "out" / f"{name}_report.json").read_text())
    if labels.shape != tuple(size) or not np.array_equal(image.affine, mask.affine):  # type: ignore[attr-defined]
        raise SystemExit(f"The mask of {file} is on another grid.")
    if labels.dtype != np.uint8 or labels.max() > CLASSES or len(report["structures"]) != CLASSES:
        raise SystemExit(f"The mask of {file} has other classes.")
    return found


def windows(settings: dict[str, Any], size: Sequence[int], spacing: Sequence[float]) -> int:
    """How many windows a CT is segmented in."""
    shape = [round(n * own / new) for n, own, new in zip(size, spacing, settings["spacing"], strict=True)]
    edges = zip(shape, settings["roi_size"] or shape, strict=True)
    return math.prod(len(window_starts(n, min(n, edge), 0.25)) for n, edge in edges)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, action="append", help="voxels of a CT; may be given several times")
    parser.add_argument("--spacing", type=float, nargs=3, default=SPACING, help="of the CTs' voxels, in mm")
    parser.add_argument("--all_windows", action="store_true", help="let all windows go through the network")
    parser.add_argument("--folder", type=Path, help="for the files; settings and weights that are there are taken")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        chosen = folder / "chosen.json"
        if not chosen.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_set(folder / "set")
            medsegdiff("configure", folder / "set", "-o", chosen, "--memory", "6GB", "--device", "cpu")
        settings = json.loads(chosen.read_text())
        if not Path(settings["checkpoint"]).exists():
            medsegdiff("train", chosen, "--epochs", 1, "--device", "cpu")
        used = chosen
        if not options.all_windows:
            used = folder / "stand_in.json"
            used.write_text(json.dumps({**settings, "network_def#_target_": "full_size_ct.FirstWindows"}))
        channels = "-".join(map(str, settings["network_def#channels"]))
        print(f"{settings['displayable_configs']['ensemble_size']} members, {CLASSES} classes, {channels} channels\n")
        print("| CT, voxels | voxels of, mm | windows | of them through the network | seconds | peak, GB |")
        print("|---|---|---|---|---|---|")
        one = settings["roi_size"] or settings["patch_size"]
        for size, spacing in [(one, SPACING), *((size, options.spacing) for size in options.size or [[512, 512, 300]])]:
            found, number = segment(used, size, spacing, folder), windows(settings, size, spacing)
            through = number if options.all_windows or number == 1 else "the first"
            cells = [" x ".join(map(str, size)), " x ".join(map(str, spacing)), number, through]
            print(f"| {' | '.join(map(str, cells))} | {found.seconds:.0f} | {found.gigabytes:.2f} |", flush=True)


if __name__ == "__main__":
    main()
