"""From probabilities to labels, regions of classes, and how labels look.

Classes are exclusive: each voxel belongs to one, and labels are their numbers, (1, S). Regions are sets of classes and
may overlap, such as a tumour and its core: each is a channel of 0 and 1, (R, S), as of MONAI's multi-label tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from medsegdiff_bundle.visualization import PALETTE


def most_probable(probabilities: Tensor, dim: int) -> Tensor:
    """Class of the highest probability; in a tie the lowest.

    Args:
        probabilities: of the classes along one axis.
        dim: that axis.

    Returns:
        int64 labels.

    Raises:
        ValueError: a probability is NaN, which would pass for a sure class 0.
    """
    highest, labels = probabilities.max(dim)  # the indices of argmax, many times faster
    if highest.isnan().any():
        raise ValueError("The probabilities hold NaN: the weights are not finite, or the values of the image overflow.")
    return labels


def likely(probabilities: Tensor) -> Tensor:
    """Which regions are more probable than not.

    Args:
        probabilities: of each region, any shape.

    Returns:
        The same shape, bool.

    Raises:
        ValueError: a probability is NaN.
    """
    if probabilities.isnan().any():
        raise ValueError("The probabilities hold NaN: the weights are not finite, or the values of the image overflow.")
    return probabilities > 0.5


def region_channels(labels: Tensor, regions: Sequence[Sequence[int]], dim: int = 0) -> Tensor:
    """Which regions each voxel belongs to.

    Args:
        labels: numbers of classes, with one channel. What is in no region, such as the background or an ignored
            value, belongs to none.
        regions: classes that make each of the R regions.
        dim: axis of the channel.

    Returns:
        The same with R channels, bool.
    """
    channels = [reduce(torch.Tensor.logical_or, (labels == number for number in region)) for region in regions]
    return torch.cat(channels, dim=dim)


def without_ignored(labels: Tensor, ignore_label: int | None) -> Tensor:
    """Labels with the background in the place of what nobody annotated.

    Args:
        labels: numbers of classes, any shape.
        ignore_label: value of what was not annotated; None if there is none.
    """
    return labels if ignore_label is None else labels.masked_fill(labels == ignore_label, 0)


def one_mask(masks: Tensor, order: Sequence[int]) -> Tensor:
    """Regions in one mask of numbers: each is written over those before it, as nnU-Net's `regions_class_order` says.

    Args:
        masks: of the regions, (R, S), 0 or 1.
        order: number that each of them is written as, up to 255.

    Returns:
        (1, S), uint8.
    """
    result = torch.zeros_like(masks[:1], dtype=torch.uint8)
    for mask, number in zip(masks, order, strict=True):
        result[0].masked_fill_(mask > 0, number)
    return result


def marked(labels: Tensor, number: int) -> Tensor:
    """Where a class or region lies, (S) bool.

    Args:
        labels: numbers of classes, (1, S); or regions, (R, S), of 0 and 1. Of one region both are the same.
        number: of the class, or of the region, from 1 on.
    """
    return labels[0] == number if len(labels) == 1 else labels[number - 1] > 0


def colour(label: int) -> tuple[float, float, float]:
    """Red, green and blue, 0 to 1, of a label from 1 on: the colours of all pictures and files, over and over."""
    red, green, blue = PALETTE[(label - 1) % len(PALETTE)].tolist()
    return red, green, blue
