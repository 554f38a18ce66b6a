"""Pictures: what cameras, phones and annotation tools save."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data import PILReader
from monai.utils import MetaKeys, ensure_tuple
from PIL import ExifTags, Image, ImageOps

from medsegdiff_bundle.datalist.naming import PICTURES
from medsegdiff_bundle.remarks import add_processing

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names by number of channels
PHOTOMETRIC = 262  # tag of TIFF: PhotometricInterpretation, which is 0 where the lowest value is white
TURNED = "turned"  # key of what is known of a picture, for the orientation that it had


class PictureReader(PILReader):
    """MONAI's `PILReader` for all pictures that the data lists know, in the channels that are asked for.

    A picture is turned as its Exif orientation says, as every viewer does: what follows lies in the grid that is seen.
    Grey values of more than 8 bits, which Pillow would cut off at 255, become 0 (the darkest of the picture) to 255
    (the brightest), with fractions. A normalisation of the image undoes that.

    Args:
        channels: 1, 3 or 4; None keeps what the file holds, such as the numbers of a mask, and those of a palette. The
            palette of a GIF is no choice of its author, so there its greys count.

    Raises:
        ValueError: a picture is to have other channels, a file holds several, or one of more pixels than Pillow opens.
    """

    def __init__(self, channels: int | None = None) -> None:
        super().__init__(converter=self._convert)
        self.channels = channels

    def verify_suffix(self, filename: Sequence[str | os.PathLike] | str | os.PathLike) -> bool:
        """Whether the data lists take these files for pictures."""
        return all(str(name).lower().endswith(PICTURES) for name in ensure_tuple(filename))

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Open the files."""
        try:
            return super().read(data, **kwargs)
        except Image.DecompressionBombError as error:
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
            raise ValueError(f"it has more than {limit} megapixels: make it smaller") from error

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Values (W, H) or (W, H, C) of one picture, and its metadata."""
        values, metadata = super().get_data(img)
        for turned in {picture.info[TURNED] for picture in ensure_tuple(img) if TURNED in picture.info}:
            add_processing(metadata, f"Turned as the Exif orientation {turned} says.")
        if self.channels is None or values.dtype == np.uint8:
            return values, metadata
        grey = values.astype(np.float64)
        grey -= grey.min()
        if grey.max() > 0:
            with np.errstate(invalid="ignore"):  # of infinite values, which LoadImaged refuses by name
                grey *= 255 / grey.max()
        if self.channels == 1:
            return grey, metadata
        opaque = [np.full_like(grey, 255)] * (self.channels - 3)
        return np.stack([grey, grey, grey, *opaque], axis=-1), {**metadata, MetaKeys.ORIGINAL_CHANNEL_DIM: -1}

    def _convert(self, picture: Image.Image) -> Image.Image:
        if self.channels not in (None, *MODES):
            raise ValueError(f"a picture has 1, 3 or 4 channels, not {self.channels}")
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # a photograph with previews or maps of depth behind it
            raise ValueError(f"it holds {frames} pictures, not one")
        if self.channels is not None and min(picture.size) < 2:
            raise ValueError(f"it has {picture.width} x {picture.height} pixels: there is nothing to find in it")
        kind = picture.format  # which a turned picture no longer knows
        if kind == "TIFF":  # Pillow 13.0 maps an uncompressed one into memory by the size that it has after its turn
            picture.filename = ""  # type: ignore[attr-defined]
        white_is_lowest = kind == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == 0  # type: ignore[attr-defined]
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        picture = ImageOps.exif_transpose(picture)
        if orientation in range(2, 9):
            picture.info[TURNED] = orientation
        if self.channels is not None:
            deep = picture.mode in ("I", "F") or picture.mode.startswith("I;")
            if deep and white_is_lowest:  # which Pillow 12.3 turns around in pictures of 8 bits alone
                values = np.asarray(picture)
                upright = Image.fromarray(values.max() - values)
                upright.info.update(picture.info)
                return upright
            return picture if deep else picture.convert(MODES[self.channels])
        if kind == "GIF" and picture.mode == "P":
            coloured = picture.convert("RGB")
            red, green, blue = (np.asarray(band) for band in coloured.split())
            return coloured if (red != green).any() or (red != blue).any() else picture.convert("L")
        return picture.convert("RGB") if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV") else picture
