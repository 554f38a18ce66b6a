"""Reading of files, with errors that name them."""

from __future__ import annotations

import functools
import gzip
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.transforms
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys, convert_to_dst_type, convert_to_tensor, ensure_tuple

from medsegdiff_bundle.datalist.headers import check_format
from medsegdiff_bundle.datalist.naming import printable
from medsegdiff_bundle.readers import ArrayReader, HeldImage, NiftiReader, PictureReader, SeriesReader, VolumeReader
from medsegdiff_bundle.readers.pictures import MODES
from medsegdiff_bundle.remarks import KINDS

from .placing import apart, turned

SMALLEST, LARGEST = 1e-7, 1e5  # mm; electron microscopes have voxels of 1e-6 mm
FARTHEST = 2**23  # voxel sizes from the origin, where float32, in which headers tell places, is as coarse as voxels
AS_READ = "as_read"  # key of an image, (C, S), that is no file which could be read again


class LoadImaged(monai.transforms.LoadImaged):
    """MONAI's `LoadImaged`, of the same name because others look for it by that, whose error names the case's files.

    A list of files is one image of one channel each, (C, S) in their order, on the grid of the first.

    The name of a file stays as `file_of_<key>` beside its image, whose metadata a training drops.

    Args:
        keys: of the files.
        channels: of a picture that is one file; see `medsegdiff_bundle.readers.PictureReader`.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: a file cannot be read, holds a value that is not finite, or has voxels of no size; the channels of
            an image differ in their grids. A truncated file shows only here, after its header was found to be right.
    """

    def __init__(self, keys: KeysCollection, channels: int | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.channels = channels
        self._loader.readers = _readers(channels)
        self._loader_of_channels = monai.transforms.LoadImage()
        self._loader_of_channels.readers = _readers(1)

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Read the file of each key; a `HeldImage` is read in its place, and is alone."""
        result = dict(data)
        channels: dict[Hashable, list[Any]] = {}
        try:
            for key in self.key_iterator(dict(data)):
                if isinstance(data[key], HeldImage):
                    reader = data[key].reader(self.channels)
                    continue
                for name in ensure_tuple(data[key]):
                    if name == "":  # for which the current folder would stand
                        raise ValueError("the name is empty")
                    file = Path(name)
                    check_format(file)
                    _check_compression(file)
            for key, meta_key, postfix in self.key_iterator(dict(data), self.meta_keys, self.meta_key_postfix):
                if isinstance(data[key], (list, tuple)) and len(data[key]) > 1:  # MONAI stacks them wherever they lie
                    channels[key] = [self._loader_of_channels(file, reader) for file in data[key]]
                    continue
                with np.errstate(over="ignore"):  # of a scale: values that are not finite are refused below, by name
                    result[key] = self._loader(data[key], reader)
                if not self._loader.image_only:  # which MONAI Label sets
                    result[key], result[meta_key or f"{key}_{postfix}"] = result[key]
        except Exception as error:  # each reader has its own kinds
            named = (file for key in self.key_iterator(dict(data)) for file in ensure_tuple(data[key]))
            files = " or ".join(repr(str(file)) for file in named)
            raise ValueError(f"{files} cannot be read: {_reason(error)}.") from error
        for key, images in channels.items():
            result[key] = _joined(images, data[key])
        for key in self.key_iterator(dict(data)):
            for kind in KINDS:  # of every image, as a batch keeps the metadata that all of its images have
                result[key].meta.setdefault(kind, "")
            result[f"file_of_{key}"] = "; ".join(map(str, ensure_tuple(data[key])))  # which outlives the metadata
            _check_place(result[key], str(data[key]))
            if not torch.isfinite(convert_to_tensor(result[key], track_meta=False)).all():
                raise ValueError(f"{str(data[key])!r} holds NaN or infinite values.")
        return result


def _readers(channels: int | None) -> list[Any]:
    """Of all kinds of files; the last that takes a file reads it, and no other after it."""
    return [ArrayReader(), SeriesReader(), VolumeReader(), NiftiReader(), PictureReader(channels)]


def _reason(error: Exception) -> str:
    """What the error of a reader says, without the full stop."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "there is no room in memory for as many voxels as its header tells"
    return printable((str(error).strip().split("\n")[0] or type(error).__name__).rstrip("."))


def _check_place(image: MetaTensor, file: str) -> None:
    """Refuse sizes and places that no voxels have, of which neither a volume nor another grid can be made."""
    axes = min(len(image.meta[MetaKeys.SPATIAL_SHAPE]), 3)
    sizes = image.affine[:3, :axes].norm(dim=0)
    if image.affine.shape != (4, 4):
        return
    said = " x ".join(f"{size:.3g}" for size in sizes.tolist())
    if not ((sizes > SMALLEST) & (sizes < LARGEST)).all():
        raise ValueError(f"{file!r} cannot be read: its header gives voxels of {said} mm.")
    away = image.affine[:3, 3].norm()
    if not away < FARTHEST * sizes.min():
        raise ValueError(
            f"{file!r} cannot be read: its header places the volume {away:.3g} mm from the origin, where voxels of "
            f"{said} mm are not told apart."
        )


def _joined(images: Sequence[MetaTensor], files: Sequence[Any]) -> MetaTensor:
    """The channels of an image of several files, (C, S), with the metadata of the first."""
    channel_first = monai.transforms.EnsureChannelFirst()
    channels = [MetaTensor(channel_first(image)) for image in images]
    for file, channel in zip(files, channels, strict=True):
        if len(channel) != 1:
            raise ValueError(f"{str(file)!r} holds {len(channel)} channels, where an image has a file for each.")
    first = channels[0]
    on_grid = [turned(channel, first) for channel in channels]
    for file, channel, placed in zip(files, channels, on_grid, strict=True):
        if channel.shape != first.shape and placed is None:
            shapes = tuple(channel.shape[1:]), tuple(first.shape[1:])
            raise ValueError(f"The channel {str(file)!r} has the shape {shapes[0]}, {str(files[0])!r} {shapes[1]}.")
        if placed is None:
            distance = apart(first.affine, channel.affine, first.shape[1:])
            raise ValueError(
                f"The channel {str(file)!r} lies elsewhere than {str(files[0])!r}: up to {distance:.3g} voxels apart."
            )
    values = torch.cat([convert_to_tensor(placed, track_meta=False) for placed in on_grid])
    joined: MetaTensor = convert_to_dst_type(values, first)[0]
    joined.meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
    return joined


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


def load_image(path: str | os.PathLike | HeldImage, channels: int | None = None) -> MetaTensor:
    """One image as `LoadImaged` reads it, (C, S)."""
    image = _loader(channels)({"image": path})["image"]
    return MetaTensor(monai.transforms.EnsureChannelFirst()(image))


def load_again(image: MetaTensor) -> MetaTensor:
    """The file of an image (C, ...) as it is, (C, S); of an image of several files the first, whatever its channels."""
    channels = len(image) if len(image) in MODES else 1
    return load_image(image.meta["filename_or_obj"], channels)


class OriginalImaged(MapTransform):
    """Read the file of an image again, whose own values and grid have been normalised, turned or resampled.

    Args:
        keys: of the image.
        output_key: of the image as in its file, or of that under the key `AS_READ`; any other that is of no file gets
            none.
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
            if AS_READ in d:
                d[self.output_key] = d[AS_READ]
            elif getattr(d[key], "meta", {}).get("filename_or_obj"):
                d[self.output_key] = load_again(d[key])
        return d
