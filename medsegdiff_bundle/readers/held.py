"""Images in memory, read as a file of theirs would be."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.utils import ensure_tuple
from PIL import Image

from .nifti import NiftiReader, fill_outside, invertible
from .pictures import PictureReader

FOLDER = "<memory>"  # of no file


class HeldImage:
    """An image that a data list holds in the place of the name of its file.

    As a path it has a name that no file has, for what is said of it and for the names of its results.

    Args:
        image: of nibabel or Pillow.
    """

    def __init__(self, image: nibabel.Nifti1Image | Image.Image) -> None:
        self.image = image

    def __fspath__(self) -> str:
        """The name."""
        return f"{FOLDER}/image.{'png' if isinstance(self.image, Image.Image) else 'nii'}"

    __str__ = __fspath__

    def reader(self, channels: int | None) -> ImageReader:
        """The reader of its kind of file, which opens nothing.

        Args:
            channels: see `PictureReader`.
        """
        if isinstance(self.image, Image.Image):
            return _PictureReader(self.image, channels)
        return _VolumeReader(self.image)


class _VolumeReader(NiftiReader):
    """Of a volume in memory."""

    def __init__(self, image: nibabel.Nifti1Image) -> None:
        super().__init__()
        self.image = image

    def read(self, data: Any, **kwargs: Any) -> nibabel.Nifti1Image:
        """The volume, whatever its name."""
        self.filenames = ensure_tuple(data)
        return self.image


class _PictureReader(PictureReader):
    """Of a picture in memory."""

    def __init__(self, image: Image.Image, channels: int | None) -> None:
        super().__init__(channels)
        self.image = image

    def read(self, data: Any, **kwargs: Any) -> Image.Image:
        """The picture, whatever its name."""
        return self._convert(self.image)


def held_image(image: np.ndarray | torch.Tensor, spatial_dims: int, affine: np.ndarray | None = None) -> HeldImage:
    """An array or tensor as an image.

    Args:
        image: with the axes of a file, see `medsegdiff_bundle.segment`.
        spatial_dims: 3 for a volume, 2 for a picture.
        affine: voxel to RAS in mm, (4, 4), of a volume; None takes that of a `MetaTensor`, or 1 mm along each axis.

    Raises:
        ValueError: the array has other axes, or values that no such image has.
    """
    if isinstance(image, MetaTensor) and image.ndim in (spatial_dims, spatial_dims + 1):
        if spatial_dims == 3 and affine is None:
            affine = image.affine.cpu().numpy()
        if image.ndim == spatial_dims + 1:
            image = image[0] if len(image) == 1 else image.movedim(0, -1)
        image = image.swapaxes(0, 1) if spatial_dims == 2 else image
    if isinstance(image, torch.Tensor) and image.dtype == torch.bfloat16:
        image = image.float()  # numpy has no such numbers
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.ndim not in (spatial_dims, spatial_dims + 1) or array.size == 0:
        raise ValueError(f"The task takes arrays of {spatial_dims} axes, and one of channels, got {array.shape}.")
    array = fill_outside(array)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(f"The array must hold finite real numbers, got {array.dtype}.")
    return HeldImage(_volume(array, affine) if spatial_dims == 3 else _picture(array, affine))


def _volume(array: np.ndarray, affine: Any) -> nibabel.Nifti1Image:
    try:
        matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)
        right = matrix.shape == (4, 4) and np.array_equal(matrix[3], [0, 0, 0, 1])
    except (TypeError, ValueError):  # of no numbers
        right = False
    if not right or not invertible(matrix, 3):
        raise ValueError("affine must be an invertible matrix of shape (4, 4), whose last row is 0, 0, 0, 1.")
    return nibabel.Nifti1Image(array.astype(np.float32), matrix)  # type: ignore[no-any-return, no-untyped-call]


def _picture(array: np.ndarray, affine: Any) -> Image.Image:
    if affine is not None:
        raise ValueError("A picture has no affine.")
    if array.ndim == 3 and array.shape[2] != 3:
        raise ValueError(f"A picture must be (H, W) or (H, W, 3), got {array.shape}.")
    whole = array.astype(np.uint8)
    if not np.array_equal(whole, array):
        raise ValueError("A picture must hold whole numbers from 0 to 255.")
    return Image.fromarray(whole)
