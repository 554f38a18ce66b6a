"""Reading of files, with errors that name them."""

from __future__ import annotations

import functools
import gzip
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import monai.transforms
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, PILReader
from monai.utils import MetaKeys, convert_to_tensor, ensure_tuple
from PIL import Image

from medsegdiff_bundle.datalist.naming import PICTURES
from medsegdiff_bundle.remarks import KINDS

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names by number of channels


class PictureReader(PILReader):
    """MONAI's `PILReader` for all pictures that the data lists know, also TIFF, in the channels that are asked for.

    Grey values of more than 8 bits, which Pillow would cut off at 255, become 0 (the darkest of the picture) to 255
    (the brightest), with fractions. A normalisation of the image undoes that.

    Args:
        channels: 1, 3 or 4; None keeps what the file holds, such as the numbers of a mask, and those of a palette.

    Raises:
        ValueError: a picture is to have other channels, or a TIFF file holds several.
    """

    def __init__(self, channels: int | None = None) -> None:
        super().__init__(converter=self._convert)
        self.channels = channels

    def verify_suffix(self, filename: Sequence[str | os.PathLike] | str | os.PathLike) -> bool:
        """Whether the data lists take these files for pictures."""
        return all(str(name).lower().endswith(PICTURES) for name in ensure_tuple(filename))

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Values (W, H) or (W, H, C) of one picture, and its metadata."""
        values, metadata = super().get_data(img)
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
        frames = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
        if frames > 1:
            raise ValueError(f"it holds {frames} pictures, not one")
        if self.channels is None or picture.mode in ("I", "F") or picture.mode.startswith("I;"):
            return picture
        return picture.convert(MODES[self.channels])


class LoadImaged(monai.transforms.LoadImaged):
    """MONAI's `LoadImaged`, of the same name because others look for it by that, whose error names the case's files.

    Args:
        keys: of the files.
        channels: of pictures; see `PictureReader`.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: a file cannot be read, or holds a value that is not finite. A truncated one shows only here, after
            its header was found to be right.
    """

    def __init__(self, keys: KeysCollection, channels: int | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.register(PictureReader(channels))

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Read the file of each key."""
        try:
            for key in self.key_iterator(dict(data)):
                for file in ensure_tuple(data[key]):
                    _check_compression(file)
            result: dict[Hashable, Any] = super().__call__(data, reader)
        except Exception as error:  # each reader has its own kinds
            files = " or ".join(repr(str(data[key])) for key in self.key_iterator(dict(data)))
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise ValueError(f"{files} cannot be read: {reason.rstrip('.')}.") from error
        for key in self.key_iterator(dict(data)):
            for kind in KINDS:  # of every image, as a batch keeps the metadata that all of its images have
                result[key].meta.setdefault(kind, "")
            if not torch.isfinite(convert_to_tensor(result[key], track_meta=False)).all():
                raise ValueError(f"{str(data[key])!r} holds NaN or infinite values.")
        return result


def _check_compression(file: str | os.PathLike) -> None:
    """Read a .gz file to its checksum, at its very end, which nibabel never reaches."""
    if str(file).lower().endswith(".gz"):
        with gzip.open(file) as stream:
            try:
                while stream.read(1 << 20):
                    pass
            except gzip.BadGzipFile as error:
                if not str(error).startswith("Not a gzipped file"):  # what follows the end does no harm
                    raise


@functools.cache
def _loader(channels: int | None) -> LoadImaged:
    # Each one that is made sets up all of MONAI's readers, some of which log what they lack.
    return LoadImaged("image", channels)


def load_image(path: str | os.PathLike, channels: int | None = None) -> MetaTensor:
    """One image as `LoadImaged` reads it, (C, S)."""
    image = _loader(channels)({"image": path})["image"]
    return MetaTensor(monai.transforms.EnsureChannelFirst()(image))
