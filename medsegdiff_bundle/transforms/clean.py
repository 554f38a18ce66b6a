"""What is taken out of a fused mask, or filled in it, after the fusion."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform
from monai.utils import convert_to_tensor

from medsegdiff_bundle.remarks import add_processing


class Cleand(MapTransform):
    """Change a mask by transforms of MONAI, such as `KeepLargestConnectedComponentd`, and say how much.

    Members and uncertainty stay as they are: they tell what the networks found, not what a rule made of it. Of regions
    that overlap each is cleaned as a mask by itself, which holds its number, from 1 on, and 0.

    Args:
        keys: of the masks: numbers of classes, (1, S), or regions, (R, S) of 0 and 1.
        transforms: of dictionaries with these keys, for masks (1, S); none changes nothing.

    Raises:
        ValueError: scikit-image is missing, with which MONAI finds components.

    Shapes:
        (1, S) -> (1, S); (R, S) -> (R, S)
    """

    def __init__(self, keys: KeysCollection, transforms: Sequence[Callable] = ()) -> None:
        super().__init__(keys)
        self.transforms = tuple(transforms)
        if self.transforms and importlib.util.find_spec("skimage") is None:
            raise ValueError("Cleaning of masks needs scikit-image: pip install 'medsegdiff-bundle[surfaces]'.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clean each key."""
        d = dict(data)
        if not self.transforms:
            return d
        for key in self.key_iterator(d):
            mask = d[key]
            before = convert_to_tensor(mask, track_meta=False)
            if len(before) == 1:
                after = self._cleaned(key, mask)
            else:
                numbered = (mask[number - 1 : number] * number for number in range(1, len(before) + 1))
                after = (torch.cat([self._cleaned(key, each) for each in numbered]) > 0).to(before.dtype)
            d[key] = MetaTensor(after).copy_meta_from(mask) if isinstance(mask, MetaTensor) else after
            names = ", ".join(type(each).__name__.removesuffix("d") for each in self.transforms)
            changed = int((after != before).sum())
            add_processing(d, f"The fused mask was cleaned ({names}): {changed} of its voxels changed.")
        return d

    def _cleaned(self, key: Hashable, mask: Any) -> torch.Tensor:
        """A mask (1, S) after the transforms. They are given a copy, as some of them write into what they are given."""
        cleaned = Compose(list(self.transforms))({key: mask.clone()})[key]
        return convert_to_tensor(cleaned, track_meta=False).to(mask.dtype)


class RemoveSmallPartsd(MapTransform):
    """Remove the connected parts of each class that are smaller than a size; voxels are connected by their faces.

    MONAI's `RemoveSmallObjectsd` removes parts of exactly that size, too, with scikit-image 0.26.0, and keeps them with
    0.25.2 (`findings/monai_remove_small_objects.sh`). It takes all parts of a class for one, unless masks are one-hot.

    Args:
        keys: of the masks, with numbers of classes.
        min_size: in the units of the voxels' sizes, such as mm3; in voxels of a mask without metadata.

    Shapes:
        (1, S) -> (1, S)
    """

    def __init__(self, keys: KeysCollection, min_size: float) -> None:
        super().__init__(keys)
        self.min_size = min_size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clean each key."""
        from scipy import ndimage  # takes a while, and few masks need it

        d = dict(data)
        for key in self.key_iterator(d):
            mask = d[key]
            unit = float(mask.pixdim.prod()) if isinstance(mask, MetaTensor) else 1.0
            smallest = self.min_size / unit * (1 - 1e-5)  # voxels; sizes of voxels are rounded in headers
            values = np.asarray(convert_to_tensor(mask, track_meta=False).cpu())
            small = np.zeros(values.shape, dtype=bool)
            for number in np.unique(values[values != 0]):
                parts, _ = ndimage.label(values == number)
                small |= (np.bincount(parts.ravel()) < smallest)[parts] & (parts > 0)
            d[key] = mask.masked_fill(torch.as_tensor(small, device=mask.device), 0)
        return d
