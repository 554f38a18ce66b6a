"""Regions that may overlap, and voxels that nobody annotated, in the results of a case. R: regions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from medsegdiff_bundle.labels import one_mask, region_channels


class LabelRegionsd(MapTransform):
    """The regions of a label, which metrics compare with those of a result.

    Args:
        keys: of the labels.
        regions: classes that make each region.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (1, S) classes -> (R, S) of 0 and 1, float32
    """

    def __init__(
        self, keys: KeysCollection, regions: Sequence[Sequence[int]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.regions = regions

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Encode each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            channels = region_channels(convert_to_tensor(d[key], track_meta=False), self.regions)
            d[key] = convert_to_dst_type(channels, d[key], dtype=torch.float32)[0]
        return d


class MaskIgnoredd(MapTransform):
    """Background where a label has the ignored value, in the label and in results, so that no metric counts it.

    Args:
        keys: of the results, and of the label itself.
        ignore_label: value of what was not annotated.
        label_key: of the label; of several raters a voxel is ignored that one of them ignores.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, S) -> the same
    """

    def __init__(
        self, keys: KeysCollection, ignore_label: int, label_key: str = "label", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ignore_label = ignore_label
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mask each key."""
        d = dict(data)
        label = convert_to_tensor(d[self.label_key], track_meta=False)
        ignored = (label == self.ignore_label).any(dim=0, keepdim=True)
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False)
            masked = values.masked_fill(ignored.to(values.device), 0)
            d[key] = convert_to_dst_type(masked, d[key], dtype=values.dtype)[0]
        return d


class OneMaskd(MapTransform):
    """Regions as one mask of numbers, as files have it; each is written over those before it, as in nnU-Net.

    Args:
        keys: of the regions.
        order: number that each region is written as, nnU-Net's `regions_class_order`.
        output_key: where the regions themselves go.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (R, S) of 0 and 1 -> (1, S), float32 as other labels
    """

    def __init__(
        self,
        keys: KeysCollection,
        order: Sequence[int],
        output_key: str = "regions",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must be the one key of the regions, got {keys!r}.")
        self.order = order
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write each region."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.output_key] = d[key]
            mask = one_mask(convert_to_tensor(d[key], track_meta=False), self.order)
            d[key] = convert_to_dst_type(mask, d[key], dtype=torch.float32)[0]
        return d
