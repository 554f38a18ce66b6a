"""Transforms of what a label file holds. R: raters."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from .members import check_num_classes


class UnpackRatersd(MapTransform):
    """Separate the masks of several raters that one file holds: its value is the sum over r of (marked by r) << r.

    Args:
        keys: of the packed masks.
        num_raters: R, 1 to 8.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (1, ...) whole numbers below 2^R -> (R, ...) uint8 masks {0, 1}, rater 0 first
    """

    def __init__(self, keys: KeysCollection, num_raters: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 1 <= num_raters <= 8:
            raise ValueError(f"num_raters must be from 1 to 8, got {num_raters}.")
        self.num_raters = num_raters

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Unpack each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False)
            packed = values.long()
            lowest, highest = (value.item() for value in values.aminmax())
            if len(values) != 1 or lowest < 0 or highest >= 2**self.num_raters or not torch.equal(packed, values):
                raise ValueError(
                    f"{key} must hold whole numbers below {2**self.num_raters} in one channel, the bits of "
                    f"{self.num_raters} raters, got shape {tuple(values.shape)} and values {lowest:g} to {highest:g}."
                )
            bits = torch.arange(self.num_raters, device=packed.device).reshape(-1, *[1] * (packed.ndim - 1))
            d[key] = convert_to_dst_type((packed >> bits) & 1, d[key], dtype=torch.uint8)[0]
        return d


class RandRaterd(RandomizableTransform, MapTransform):
    """Keep the mask of one rater, each time another: raters are an unordered set, and a model of them learns from all.

    Args:
        keys: of the masks; all get the same rater.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (R, ...) -> (1, ...)
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Choose."""
        d = dict(data)
        share = self.R.random()  # of the way through the raters
        for key in self.key_iterator(d):
            rater = int(share * len(d[key]))
            d[key] = d[key][rater : rater + 1]
        return d


class CheckLabelsd(MapTransform):
    """Refuse a label that holds something else than the classes, with the name of its file.

    Early in the deterministic part of a pipeline: a `CacheDataset` then finds bad labels before training starts.

    Args:
        keys: of the labels.
        num_classes: K, background included.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: a value is no whole number from 0 to K - 1.
    """

    def __init__(self, keys: KeysCollection, num_classes: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        check_num_classes(num_classes)
        self.num_classes = num_classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False)
            bad = (values < 0) | (values >= self.num_classes) | (values != values.round())
            if bad.any():
                file = getattr(d[key], "meta", {}).get("filename_or_obj", key)
                raise ValueError(
                    f"The label {str(file)!r} holds {values[bad][0].item():g}, which is none of the {self.num_classes} "
                    f"classes (0 to {self.num_classes - 1})."
                )
        return d
