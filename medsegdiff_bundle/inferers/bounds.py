"""How a large image is taken so that its segmentation stays within some memory: in windows, and as labels."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)

WINDOW = {2: 512, 3: 96}  # voxels along an axis
LEAST = 32  # of a window along an axis
SHARE = 1 / 4  # of the memory for the network, and for the results; the rest is for the image and what is made of it
FEATURES = 10  # tensors of the finest level that live at a time, of encoding or denoising without gradients
BYTES = 4  # of a number, float32


def window_that_fits(
    size: Sequence[int], network: Any, channels: int, overlap: float, num_members: int, memory: int
) -> list[int] | None:
    """Window of which the network's features take a part of the memory, or None where the whole image does.

    Args:
        size: of the image, S.
        network: whose first layer says how many features a voxel has at the finest level.
        channels: K of the results.
        overlap: of windows.
        num_members: M.
        memory: bytes.
    """
    width = finest_channels(network)
    if width is None or FEATURES * BYTES * width * math.prod(size) <= SHARE * memory:
        return None
    window = [min(WINDOW.get(len(size), 96), edge) for edge in size]
    while (
        max(window) > LEAST
        and max(
            FEATURES * BYTES * width * math.prod(window), overlap_bytes(size, window, channels, overlap, num_members)
        )
        > SHARE * memory
    ):
        window = [max(min(LEAST, edge), edge * 3 // 4) for edge in window]
    return window


def overlap_bytes(size: Sequence[int], window: Sequence[int], channels: int, overlap: float, num_members: int) -> int:
    """What `blend_windows` keeps between two layers of windows across the longest axis, about."""
    longest = max(size)
    across = math.prod(size) // longest
    return int(BYTES * num_members * channels * across * math.ceil(overlap * max(window)))


def output_that_fits(size: Sequence[int], channels: int, num_members: int, images: int, memory: int) -> str:
    """Whether the members' probabilities take no more than a part of the memory, or their labels are to be kept.

    Args:
        size: of the image, S.
        channels: K.
        num_members: M.
        images: N.
        memory: bytes.
    """
    needed = BYTES * images * num_members * channels * math.prod(size)
    return "probabilities" if needed <= SHARE * memory else "labels"


def finest_channels(network: Any) -> int | None:
    """Channels of the finest level: those of the first convolution; None where there is none to be found."""
    if not isinstance(network, nn.Module):
        return None
    layers = (module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d)))
    first = next(layers, None)
    return None if first is None else first.out_channels


def say_bounds(size: Sequence[int], window: Sequence[int] | None, labels: bool, memory: int) -> None:
    """Log what is done to keep to a memory."""
    done = []
    if window is not None:
        done.append(f"windows of {' x '.join(map(str, window))}")
    if labels:
        done.append("the members' labels in the place of their probabilities")
    if done:
        shape = " x ".join(map(str, size))
        logger.info("An image of %s voxels in %.3g GB: %s.", shape, memory / 10**9, " and ".join(done))
