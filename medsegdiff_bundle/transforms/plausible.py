"""Whether an image is one that the weights can know, and whether the result looks like that of one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from medsegdiff_bundle.grid import image_modality
from medsegdiff_bundle.measured import is_magnitude, unmeasured
from medsegdiff_bundle.remarks import add_warning

LOWEST_OF_MR = -500  # magnitudes are not negative, and values that someone has normalised are small; air in CT is -1000
LEAST_COLOUR = 0.01  # mean difference of two channels of a picture in colour, as a share of its range


class CheckImaged(MapTransform):
    """Refuse an image of one value or colour, and warn about one of another modality than the weights know.

    Args:
        keys: of the images.
        modality: what the weights know: "MR" and "CT" warn about DICOM files that say something else, "MR" also about
            values as of CT, "dermoscopy" about pictures without colours. None, and any other, warns about nothing.
        force: warn about an image of one value or colour, too, instead of an error.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: each channel of an image has the same value everywhere, so that nothing can be found in it.

    Shapes:
        (C, S), returned as it is
    """

    def __init__(
        self, keys: KeysCollection, modality: str | None = None, force: bool = False, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modality = modality
        self.force = force

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False).cpu()
            lowest, highest = (value.item() for value in values.aminmax()) if values.numel() else (0, 0)
            colours = values.flatten(1)
            if lowest == highest or colours.numel() and bool((colours == colours[:, :1]).all()):
                each = [f"{value:g}" for value in (colours[:, 0].tolist() if lowest < highest else [lowest])]
                said = (
                    f"has the value{'s' * (len(each) > 1)} {', '.join(each)} everywhere: there is nothing to find in it"
                )
                if not self.force:
                    name = getattr(d[key], "meta", {}).get("filename_or_obj", key)
                    raise ValueError(f"{str(name)!r} {said} (force takes it all the same).")
                add_warning(d, f"The image {said}.", key)
            elif self.modality in ("MR", "CT") and (named := _modality(d[key])) not in (None, self.modality):
                add_warning(d, f"The file says that it is {named}; the weights know {self.modality}.", key)
            elif self.modality == "MR" and lowest < LOWEST_OF_MR and not _is_padded_magnitude(values):
                add_warning(
                    d,
                    f"The image has values from {lowest:g} to {highest:g}, as CT has in Hounsfield units; the weights "
                    "know MR.",
                    key,
                )
            elif self.modality == "dermoscopy" and not _has_colours(values.float(), highest - lowest):
                add_warning(d, "The picture has no colours; the weights know photographs of skin in colour.", key)
        return d


def _modality(image: Any) -> str | None:
    return image_modality(image) if isinstance(image, MetaTensor) else None


def _is_padded_magnitude(image: torch.Tensor) -> bool:
    """Whether all that was measured in an image (C, S) is hardly negative, and only padding is far below 0."""
    return all(is_magnitude(channel[~unmeasured(channel)]) for channel in image.numpy())


def _has_colours(picture: torch.Tensor, span: float) -> bool:
    return len(picture) == 3 and (picture - picture.roll(1, 0)).abs().mean().item() > LEAST_COLOUR * span


class WarnUncertaind(MapTransform):
    """Warn where the members are far less sure than in images such as the weights know.

    That is so in noise, in other parts of the body and in photographs of something else, though not in all of them.

    Args:
        keys: of the fused mask, (1, S); or of regions, (R, S).
        limit: of the mean uncertainty inside the mask, 0 to 1; None warns about nothing.
        uncertainty_key: of the map, (1, S).
        image_key: of the image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        limit: float | None = None,
        uncertainty_key: str = "uncertainty",
        image_key: str = "image",
    ) -> None:
        super().__init__(keys)
        self.limit = limit
        self.uncertainty_key = uncertainty_key
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Compare."""
        d = dict(data)
        for key in self.key_iterator(d):
            mask, uncertainty = (convert_to_tensor(d[name], track_meta=False) for name in (key, self.uncertainty_key))
            if self.limit is None:
                continue
            # By numpy, as torch would list the places of all voxels that are marked, with 32 bytes for each.
            inside = torch.from_numpy(uncertainty.cpu().numpy()[(mask > 0).any(dim=0, keepdim=True).cpu().numpy()])
            if len(inside) and (found := inside.mean().item()) > self.limit:
                sentence = (
                    f"The mean uncertainty inside the mask is {found:.2f}, and at most {self.limit:.2f} in images such "
                    "as the weights know: this may be none."
                )
                add_warning(d, sentence, self.image_key)
        return d
