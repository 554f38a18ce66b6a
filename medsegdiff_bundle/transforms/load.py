"""Reading of files, with errors that name them."""

from __future__ import annotations

import functools
import gzip
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import monai.transforms
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, NumpyReader
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor, ensure_tuple

from medsegdiff_bundle.datalist.headers import check_format
from medsegdiff_bundle.readers import NiftiReader, PictureReader, SeriesReader, VolumeReader
from medsegdiff_bundle.remarks import KINDS


class LoadImaged(monai.transforms.LoadImaged):
    """MONAI's `LoadImaged`, of the same name because others look for it by that, whose error names the case's files.

    Args:
        keys: of the files.
        channels: of pictures; see `medsegdiff_bundle.readers.PictureReader`.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: a file cannot be read, or holds a value that is not finite. A truncated one shows only here, after
            its header was found to be right.
    """

    def __init__(self, keys: KeysCollection, channels: int | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        # The last that takes a file reads it, and no other after it.
        self._loader.readers = [NumpyReader(), SeriesReader(), VolumeReader(), NiftiReader(), PictureReader(channels)]

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Read the file of each key."""
        try:
            for key in self.key_iterator(dict(data)):
                for file in map(Path, ensure_tuple(data[key])):
                    check_format(file)
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


def _check_compression(file: Path) -> None:
    """Read a .gz file to its checksum, at its very end, which nibabel never reaches."""
    if file.name.lower().endswith((".gz", ".mgz")):
        with gzip.open(file) as stream:
            try:
                while stream.read(1 << 20):
                    pass
            except gzip.BadGzipFile as error:
                if not str(error).startswith("Not a gzipped file"):  # what follows the end does no harm
                    raise


@functools.cache
def _loader(channels: int | None) -> LoadImaged:
    return LoadImaged("image", channels)


def load_image(path: str | os.PathLike, channels: int | None = None) -> MetaTensor:
    """One image as `LoadImaged` reads it, (C, S)."""
    image = _loader(channels)({"image": path})["image"]
    return MetaTensor(monai.transforms.EnsureChannelFirst()(image))


class OriginalImaged(MapTransform):
    """Read the file of an image again, whose own values and grid have been normalised, turned or resampled.

    Args:
        keys: of the image.
        output_key: of the image as in its file; an image that is of none gets none.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, ...) with the name of its file -> (C, S) of the file
    """

    def __init__(self, keys: KeysCollection, output_key: str = "original", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read."""
        d = dict(data)
        for key in self.key_iterator(d):
            if file := getattr(d[key], "meta", {}).get("filename_or_obj"):
                d[self.output_key] = load_image(file, len(d[key]))
        return d
