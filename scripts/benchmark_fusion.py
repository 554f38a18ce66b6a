"""STAPLE against SimpleITK, the mask of highest expected Dice beside it, and metrics of 16 samples against 4 raters.

    OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 python scripts/benchmark_fusion.py

Members are nested ovals; `--edges` sets the size of pictures and volumes. Every number is the median of the repeats, in
time of the processor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import SimpleITK
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from medsegdiff_bundle.fusion import expected_dice, staple
from medsegdiff_bundle.metrics import generalized_energy_distance, hungarian_matched_iou
from medsegdiff_bundle.metrics.overlap import dice, shared_voxels

SPREAD = 0.015  # of the members' boundaries: their pairwise Dice is 0.9


def ovals(members: int, size: tuple[int, ...], classes: int, spread: float) -> Tensor:
    """Nested ovals whose boundaries every member draws its own way, off by `spread` of the size, (E, ...), uint8."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, edge) for edge in size], indexing="ij")
    radius = torch.stack(axes).square().sum(0).sqrt()
    coarse = torch.randn(members, 1, *[max(edge // 8, 2) for edge in size])
    smooth = interpolate(coarse, size=size, mode="bicubic" if len(size) == 2 else "trilinear")
    thresholds = torch.linspace(0.3, 0.7, classes - 1)
    return (classes - 1 - torch.bucketize((radius + 2 * spread * smooth.squeeze(1)).contiguous(), thresholds)).to(
        torch.uint8
    )


def itk(members: Tensor, classes: int) -> None:
    """SimpleITK's fusion of labels (E, ...)."""
    images = [SimpleITK.GetImageFromArray(member.numpy()) for member in members]
    fuse = SimpleITK.STAPLEImageFilter() if classes == 2 else SimpleITK.MultiLabelSTAPLEImageFilter()
    if classes == 2:
        fuse.SetForegroundValue(1)
    fuse.Execute(images)


def median(call: Callable[[], Any], count: int) -> float:
    """Median seconds of some calls, after one that is not counted."""
    times = []
    for _ in range(count + 1):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return statistics.median(times[1:])


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, nargs=2, default=[256, 128], help="of a picture and of a volume")
    picture, volume = parser.parse_args().edges
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for size, count in (((picture,) * 2, 3), ((volume,) * 3, 1)):
        for classes in (2, 4):
            members = ovals(10, size, classes, SPREAD)
            theirs, ours = median(partial(itk, members, classes), count), median(partial(staple, members, classes), 9)
            print(
                f"STAPLE, 10 members of {' x '.join(map(str, size))}, {classes} classes: SimpleITK "
                f"{theirs * 1e3:.0f} ms, ours {ours * 1e3:.1f} ms, {theirs / ours:.0f} times   (target: at least 40)"
            )
            best = median(partial(expected_dice, members, classes), 9)
            print(f"    expected Dice {best * 1e3:.1f} ms, {best / ours:.2f} times STAPLE's   (target: at most 1)")
            pairs = shared_voxels(members[:5], members[5:], classes, False)
            agreement = dice(pairs)[:, :5, 5:].mean()
            print(f"    pairwise Dice of the members {agreement:.2f}, {staple(members, classes).iterations} EM steps")
    samples = ovals(20, (128, 128), 2, SPREAD)
    for metric in (generalized_energy_distance, hungarian_matched_iou):
        spent = median(partial(metric, samples[:16], samples[16:]), 50)
        print(f"{metric.__name__}, 16 samples, 4 raters, 128 x 128: {spent * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
