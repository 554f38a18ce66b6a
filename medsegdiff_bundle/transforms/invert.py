"""Back into the space of the image file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor

from medsegdiff_bundle.labels import likely, most_probable

TOLERANCE = 1e-3  # of an edge of a voxel, by which two grids may differ and still count as the same


class InvertLabelsd(MapTransform):
    """Undo the preprocessing of the image on probabilities or labels, and give the labels in the space of its file.

    Where the preprocessing interpolates, as a picture is resized, probabilities are interpolated back first and the
    class is chosen after, so that outlines are smooth in a file of more voxels. Where it only turns, flips, crops or
    pads, both orders give the same, and labels are taken back, which are K times fewer numbers. So are labels that are
    given as such. What the preprocessing cut off is background. Regions go back one by one, and are where they are
    more probable than not.

    Args:
        keys: of the probabilities or labels.
        transform: the preprocessing of the image.
        orig_keys: key of the image after it.
        allow_missing_keys: whether a missing key is passed over.
        multi_label: whether the channels are regions, which may overlap.

    Shapes:
        (K, ...) probabilities or (1, ...) labels -> (1, ...) labels, float32
        with `multi_label` (R, ...) probabilities -> (R, ...) of 0 and 1, float32
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Compose,
        orig_keys: str = "image",
        allow_missing_keys: bool = False,
        multi_label: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.multi_label = multi_label
        self.orig_keys = orig_keys
        self.inverted = {
            nearest: Invertd("values", transform, orig_keys=orig_keys, nearest_interp=nearest)
            for nearest in (False, True)
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Take each key back."""
        d = dict(data)
        image = d[self.orig_keys]
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False)
            if self.multi_label:
                d[key] = self._regions(values, d[key], image)
            elif len(values) > 1 and interpolated(image):
                d[key] = self._most_probable(values, d[key], image)
            else:
                labels = most_probable(values, 0).unsqueeze(0) if len(values) > 1 else values
                d[key] = self._invert(labels, d[key], image, nearest=True)
        return d

    def _most_probable(self, probabilities: Tensor, like: Any, image: Any) -> Any:
        """The most probable class of probabilities (K, ...) in the space of the file, one class at a time."""
        if probabilities.isnan().any():
            most_probable(probabilities, 0)  # which says so
        found = self._invert(probabilities[:1], like, image, nearest=False)
        highest = convert_to_tensor(found, track_meta=False)
        labels = torch.zeros_like(highest)  # also where no class has anything
        for label in range(1, len(probabilities)):
            found = self._invert(probabilities[label : label + 1], like, image, nearest=False)
            values = convert_to_tensor(found, track_meta=False)
            labels.masked_fill_(values > highest, label)
            highest = torch.maximum(highest, values)
        return convert_to_dst_type(labels, found)[0]

    def _regions(self, probabilities: Tensor, like: Any, image: Any) -> Any:
        """Regions (R, ...) in the space of the file, 0 or 1."""
        masks = likely(probabilities)  # which also says if some are NaN
        if not interpolated(image):
            return self._invert(masks, like, image, nearest=True)
        found = [self._invert(region[None], like, image, nearest=False) for region in probabilities]
        plain = torch.cat([likely(convert_to_tensor(each, track_meta=False)) for each in found])
        return convert_to_dst_type(plain, found[0], dtype=torch.float32)[0]

    def _invert(self, values: Tensor, like: Any, image: Any, nearest: bool) -> Any:
        value = convert_to_dst_type(values, like, dtype=torch.float32)[0]
        return self.inverted[nearest]({self.orig_keys: image, "values": value})["values"]


def interpolated(image: Any) -> bool:
    """Whether the voxels of an image, as they are after its preprocessing, are others than those of its file.

    Those that a turn by quarters, a flip, a crop or a padding brought elsewhere are the same.

    Args:
        image: (C, S); a `MetaTensor`, or nothing is known and the answer is no. Without `original_affine` in its
            metadata its file had none, as a picture.
    """
    if not isinstance(image, MetaTensor):
        return False
    axes = image.ndim - 1
    before = torch.as_tensor(image.meta.get("original_affine", torch.eye(4)), dtype=torch.float64)[:axes, :axes]
    steps = torch.linalg.solve(image.affine.double().cpu()[:axes, :axes], before).abs()  # of the file, in those of now
    return bool(((steps - steps.round()).abs() > TOLERANCE).any() or (steps.round() > 1).any())
