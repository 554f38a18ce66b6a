"""How a large image is taken so that its segmentation stays within some memory: in windows, and as labels."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .windows import kept_voxels

logger = logging.getLogger(__name__)

WINDOW = {2: 512, 3: 96}  # voxels along an axis
LEAST = 32  # of a window along an axis
WORK_SHARE = 1 / 2  # of the memory, for the network and for what windows keep for the next
RESULT_SHARE = 1 / 4  # of the memory, for the members' probabilities
FEATURES = 18  # tensors of the finest level whose memory encoding or denoising a window of 96 voxels takes, measured
BYTES = 4  # of a number, float32
# Of what windows keep for the next, by what is returned.
PRECISION = {"probabilities": torch.float32, "labels": torch.float16}


def window_that_fits(
    size: Sequence[int], network: Any, channels: int, overlap: float, num_members: int, memory: int, output: str
) -> list[int] | None:
    """Window that takes a part of the memory with what is kept for the next, or None where the whole image does.

    Args:
        size: of the image, S.
        network: whose first layer says how many features a voxel has at the finest level.
        channels: K of the results.
        overlap: of windows.
        num_members: M.
        memory: bytes.
        output: what is returned, "probabilities" or "labels".
    """
    width = finest_channels(network)
    if width is None or _network_bytes(size, width) <= WORK_SHARE * memory:
        return None
    window = [min(WINDOW.get(len(size), 96), edge) for edge in size]
    while (
        max(window) > LEAST
        and _network_bytes(window, width) + kept_bytes(size, window, channels, overlap, num_members, output)
        > WORK_SHARE * memory
    ):
        window = [max(min(LEAST, edge), edge * 3 // 4) for edge in window]
    return window


def kept_bytes(
    size: Sequence[int], window: Sequence[int], channels: int, overlap: float, num_members: int, output: str
) -> int:
    """What `blend_windows` keeps for the next windows; the arguments are those of `window_that_fits`."""
    return PRECISION[output].itemsize * channels * num_members * kept_voxels(size, window, overlap)


def _network_bytes(size: Sequence[int], width: int) -> int:
    """Memory of a network of so many features at its finest level, about."""
    return FEATURES * BYTES * width * math.prod(size)


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
    return "probabilities" if needed <= RESULT_SHARE * memory else "labels"


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
