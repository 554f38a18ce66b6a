"""Whether a case is one that the weights can know."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from medsegdiff_bundle.case_numbers import Description, describe
from medsegdiff_bundle.grid import image_grid
from medsegdiff_bundle.known import Known, too_small, unlike
from medsegdiff_bundle.remarks import add_warning


class CheckKnownd(MapTransform):
    """Compare image and result with those that the weights know, and warn of a case that is unlike them, or refuse it.

    `data["result"]["known"]` gets `distance`, `limit` and `furthest`, see `medsegdiff_bundle.known.Known.compare`, if
    the weights have such a file.

    Args:
        keys: of the fused mask, (1, S), of regions (R, S), in the space of its image; it comes after
            `EnsembleStatisticsd`.
        known: what the weights know.
        windows: `roi_size` of the inferer.
        strict: refuse what would be a warning.
        uncertainty_key: of the map, (1, S).
        image_key: of the image as the network sees it, (C, S').
        original_key: of the image as in its file, (C, S), as `OriginalImaged` reads it.

    Raises:
        ValueError: if `strict`, naming an image that is unlike those that the weights know, or whose windows are too
            small for them.
    """

    def __init__(
        self,
        keys: KeysCollection,
        known: Known,
        windows: int | Sequence[int] | None = None,
        strict: bool = False,
        uncertainty_key: str = "uncertainty",
        image_key: str = "image",
        original_key: str = "original",
    ) -> None:
        super().__init__(keys)
        self.known = known
        self.windows = windows
        self.strict = strict
        self.uncertainty_key = uncertainty_key
        self.image_key = image_key
        self.original_key = original_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Compare each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            for sentence in self._found(d, key):
                if self.strict:
                    name = getattr(d[self.image_key], "meta", {}).get("filename_or_obj", self.image_key)
                    raise ValueError(f"{str(name)!r} is refused (strict): {sentence}")
                add_warning(d, sentence, self.image_key)
        return d

    def describe(self, d: Mapping[Hashable, Any], key: Hashable) -> Description:
        """Numbers of a case, with the mask of this key."""
        image, labels, uncertainty = (
            convert_to_tensor(d[name], track_meta=False) for name in (self.image_key, key, self.uncertainty_key)
        )
        original = d[self.original_key]
        return describe(image, original, labels, uncertainty[0], d["result"]["structures"], image_grid(original).affine)

    def _found(self, d: dict[Hashable, Any], key: Hashable) -> Iterable[str]:
        image = d[self.image_key]
        if (small := too_small(self.windows, self.known.patch_size, image.shape[1:])) is not None:
            yield small
        if self.known.missing is not None or self.original_key not in d:
            return
        numbers = self.describe(d, key)
        d["result"]["known"] = compared = self.known.compare(numbers)
        if compared is not None and (sentence := unlike(compared, self.known.cases)) is not None:
            yield sentence
