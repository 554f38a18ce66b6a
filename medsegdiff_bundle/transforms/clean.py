"""What is taken out of a fused mask, or filled in it, after the fusion."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform
from monai.utils import convert_to_tensor

from medsegdiff_bundle.remarks import add_processing


class Cleand(MapTransform):
    """Change a mask by transforms of MONAI, such as `KeepLargestConnectedComponentd`, and say how much.

    Members and uncertainty stay as they are: they tell what the networks found, not what a rule made of it.

    Args:
        keys: of the masks, (1, S), numbers of classes.
        transforms: of dictionaries with these keys; none changes nothing.

    Raises:
        ValueError: scikit-image is missing, with which MONAI finds components; or a mask holds regions that overlap.

    Shapes:
        (1, S) -> (1, S)
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
            if len(before) > 1:
                raise ValueError("Masks of regions that overlap are not cleaned: leave out the setting clean.")
            # A copy, as some of these transforms write into what they are given.
            cleaned = Compose(list(self.transforms))({key: mask.clone()})[key]
            after = convert_to_tensor(cleaned, track_meta=False).to(before.dtype)
            d[key] = MetaTensor(after).copy_meta_from(mask) if isinstance(mask, MetaTensor) else after
            names = ", ".join(type(each).__name__.removesuffix("d") for each in self.transforms)
            changed = int((after != before).sum())
            add_processing(d, f"The fused mask was cleaned ({names}): {changed} of its voxels changed.")
        return d
