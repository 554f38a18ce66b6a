"""Transforms that are described once, for training and for inference, and transforms along axes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform, RandFlipd


def for_image(transforms: Sequence[Any], key: str = "image") -> list[MapTransform]:
    """The same transforms for the image alone: what they do to other keys, such as the label, is left out.

    Args:
        transforms: of the training, in their order. Where one takes several keys, that of the image is the first, as
            modes and other values of each key go by the place.
        key: of the image.

    Returns:
        Copies, without those that do nothing to the image.

    Raises:
        ValueError: the key of the image comes after another.
    """
    chosen: list[MapTransform] = []
    for transform in transforms:
        if isinstance(transform, Compose):
            chosen += for_image(transform.transforms, key)
            continue
        if key not in transform.keys:
            continue
        if transform.keys[0] != key:
            raise ValueError(f"{type(transform).__name__} must name {key!r} first of its keys, got {transform.keys}.")
        alone = copy.copy(transform)
        alone.keys = (key,)
        chosen.append(alone)
    return chosen


class RandAxesFlipd(Compose):
    """MONAI's `RandFlipd` along each of some axes by itself.

    Args:
        keys: of what is flipped alike, channels first.
        axes: spatial axes, from 0; none for no flips.
        prob: of a flip along an axis.

    Shapes:
        (C, S) -> the same
    """

    def __init__(self, keys: KeysCollection, axes: Sequence[int], prob: float = 0.5) -> None:
        super().__init__([RandFlipd(keys, prob=prob, spatial_axis=axis) for axis in axes])
