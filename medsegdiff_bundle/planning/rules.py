"""Rules that turn the fingerprint of a data set into settings: pure functions of numbers.

Spacing, poolings and kernels for voxels that are longer along an axis follow Isensee et al., "nnU-Net: a
self-configuring method for deep learning-based biomedical image segmentation", Nature Methods 18 (2021), supplementary
note 2. Axes of volumes are those of RAS.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .fingerprint import Fingerprint

ANISOTROPIC = 3.0  # times longer than the others is a voxel that is treated as such
SAME = 2.0  # voxels of axes that differ by less are pooled together
DEEPEST = 4  # voxels that every axis keeps at the deepest level, at least
MOST_LEVELS = {2: 6, 3: 5}
WIDEST = 256  # channels of a level
NARROWEST_PATCH = 32  # voxels along an axis
WIDEST_PICTURE = 256  # pixels, as in the paper


class Topology(NamedTuple):
    """Levels of both U-Nets.

    Attributes:
        strides: from each level to the next, a number for each axis.
        kernels: of the convolutions of each level, likewise.
        channels: of the Condition Model.
        denoiser_channels: of the denoiser.
        patch: voxels along each axis, multiples of what the strides need.
    """

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    channels: tuple[int, ...]
    denoiser_channels: tuple[int, ...]
    patch: tuple[int, ...]


def target_spacing(fingerprint: Fingerprint) -> tuple[float, ...]:
    """Voxel size that all volumes are brought to, in mm: the median.

    Along an axis whose voxels are more than three times as long as the others', and which has less than a third of
    their number, the 10th percentile, but no less than the longest of the others: the median would blur the finer ones.
    """
    target = np.median(fingerprint.spacings, axis=0)
    shape = np.median(fingerprint.shapes, axis=0)
    longest = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != longest]
    long = target[longest] > ANISOTROPIC * max(target[axis] for axis in others)
    few = shape[longest] * ANISOTROPIC < min(shape[axis] for axis in others)
    if long and few:
        finer = float(np.percentile(fingerprint.spacings[:, longest], 10))
        target[longest] = max(finer, max(target[axis] for axis in others))
    return tuple(round(float(size), 4) for size in target)


def resampled_shape(fingerprint: Fingerprint, spacing: Sequence[float]) -> tuple[int, ...]:
    """Median number of voxels along each axis after the resampling."""
    shapes = fingerprint.shapes * fingerprint.spacings / np.asarray(spacing)
    return tuple(max(1, round(float(size))) for size in np.median(shapes, axis=0))


def topology(patch: Sequence[int], spacing: Sequence[float], base: int) -> Topology:
    """Levels for patches of a size.

    An axis is halved as long as it keeps four voxels, and only while its voxels are not twice as long as the shortest
    ones (the others catch up first). Along such an axis kernels have one voxel until then, and three afterwards.

    Args:
        patch: voxels along each axis, at least; it grows to the multiples that are needed.
        spacing: of the voxels, in mm.
        base: channels of the finest level.
    """
    dims = len(patch)
    edges, sizes = [float(edge) for edge in patch], list(spacing)
    kernel = [1] * dims
    strides: list[tuple[int, ...]] = []
    kernels: list[tuple[int, ...]] = []
    while True:
        for axis in range(dims):
            if sizes[axis] / min(sizes) < SAME and patch[axis] > 1:
                kernel[axis] = 3
        kernels.append(tuple(kernel))
        able = [axis for axis in range(dims) if edges[axis] >= 2 * DEEPEST]
        if not able or len(kernels) == MOST_LEVELS[dims]:
            break
        shortest = min(sizes[axis] for axis in able)
        chosen = [axis for axis in able if sizes[axis] / shortest < SAME]
        strides.append(tuple(2 if axis in chosen else 1 for axis in range(dims)))
        for axis in chosen:
            edges[axis], sizes[axis] = edges[axis] / 2, sizes[axis] * 2
    if not strides:  # both U-Nets have two levels at least
        strides.append(tuple(2 if edge > 1 else 1 for edge in patch))
        kernels.append(tuple(kernel))
    levels = len(kernels)
    channels = tuple(min(base * 2**level, WIDEST) for level in range(levels))
    narrow = tuple(min(base * (level + 1), 128) for level in range(levels))
    factors = [math.prod(stride[axis] for stride in strides) for axis in range(dims)]
    whole = tuple(math.ceil(edge / factor) * factor for edge, factor in zip(patch, factors, strict=True))
    return Topology(tuple(strides), tuple(kernels), channels, channels if dims == 3 else narrow, whole)


def patch_sizes(shape: Sequence[int], spacing: Sequence[float]) -> list[tuple[int, ...]]:
    """Sizes of patches to try, from the whole median volume down.

    The axis that is longest in mm is cut first, by an eighth, so that the patch becomes a cube; none goes below 32
    voxels, or the volume.

    Args:
        shape: median number of voxels along each axis.
        spacing: of the voxels.
    """
    least = [min(NARROWEST_PATCH, size) for size in shape]
    patch = list(shape)
    sizes = [tuple(patch)]
    while True:
        able = [axis for axis in range(len(shape)) if patch[axis] > least[axis]]
        if not able:
            return sizes
        longest = max(able, key=lambda axis: patch[axis] * spacing[axis])
        patch[longest] = max(least[longest], patch[longest] - max(1, patch[longest] // 8))
        sizes.append(tuple(patch))


def picture_sizes(fingerprint: Fingerprint) -> list[tuple[int, ...]]:
    """Sizes to try that all pictures are brought to, largest first, all of one shape.

    The median, its longer edge cut to 256 pixels as in the paper, and down to half of that by eighths.
    """
    median = np.median(fingerprint.shapes, axis=0)
    scale = min(1.0, WIDEST_PICTURE / float(median.max()))
    return [tuple(max(8, round(float(size) * scale * eighths / 8)) for size in median) for eighths in (8, 7, 6, 5, 4)]


def has_sides(class_names: Sequence[str]) -> bool:
    """Whether a class is the left or the right one of two, which a mirror image makes the other."""
    words = [word for name in class_names for word in re.split(r"[^a-z]+", name.lower())]
    return any(word in ("left", "right", "l", "r", "lt", "rt", "sin", "dex") for word in words)


def class_ratios(class_shares: Sequence[float]) -> list[float]:
    """How often a patch is centred on each class: the background half as often as all others together.

    All classes but the background alike, so that a rare one is in as many patches as a frequent one. Those that no case
    holds count for nothing.
    """
    held = [share > 0 for share in class_shares[1:]]
    each = round(2 / 3 / max(1, sum(held)), 4)
    return [round(1 / 3, 4), *(each if holds else 0.0 for holds in held)]
