"""Voxel sizes that a network knows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import monai.transforms
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor

from medsegdiff_bundle.readers.nifti import is_sheared
from medsegdiff_bundle.remarks import add_processing

from .resample import SpatialResample

MOST = 2**31  # voxels of a grid, which PyTorch counts in 32 bits
TOLERANCE = 0.01  # relative, of a voxel size that is taken for the same


class Spacingd(monai.transforms.Spacingd):
    """MONAI's `Spacingd`, which leaves an image alone whose voxels have the size already, within 1 %.

    An image whose axes are not at right angles, as after a gantry tilt, is brought into a grid where they are. Of the
    same name as MONAI's, as others look for it by that. MONAI's writes the metadata of a NIfTI file into whatever has a
    name that begins with that of a key and "_", such as MONAI Label's text `image_path`; here such items stay as they
    are.

    Args:
        keys: of images, channels first; all of one grid.
        pixdim: voxel size in mm along each axis, or one for all.
        mode: "bilinear", or "nearest" for labels; one for each key, or one for all.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: the new grid would have 2^31 voxels or more.

    Shapes:
        (C, X, Y, Z) -> (C, X', Y', Z')
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixdim: Sequence[float] | float,
        mode: Sequence[str] | str = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        pixdim = [float(pixdim)] * 3 if isinstance(pixdim, (int, float)) else list(pixdim)
        super().__init__(keys, pixdim, mode=mode, allow_missing_keys=allow_missing_keys)
        own = self.spacing_transform.sp_resample
        self.spacing_transform.sp_resample = SpatialResample(own.mode, own.padding_mode, own.align_corners, own.dtype)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample each key."""
        d = dict(data)
        first = next(iter(self.key_iterator(d)), None)
        if first is None or self._fits(d[first].affine.cpu().numpy(), d[first].ndim - 1):
            return d
        self._check_size(d[first])
        before = " x ".join(f"{size:.3g}" for size in d[first].pixdim)
        result: dict[Hashable, Any] = super().__call__({key: d[key] for key in self.key_iterator(d)}, lazy)
        after = " x ".join(f"{size:.3g}" for size in result[first].pixdim)
        add_processing(result, f"Resampled from voxels of {before} mm to {after} mm, and the results back.", first)
        return {**d, **result}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring each key back that was resampled."""
        d = dict(data)
        for key in self.key_iterator(d):
            done = d[key].applied_operations
            if done and done[-1]["class"] == type(self.spacing_transform.sp_resample).__name__:
                d[key] = self.spacing_transform.inverse(d[key])
        return d

    def _check_size(self, image: MetaTensor) -> None:
        sizes, wanted = image.pixdim, self.spacing_transform.pixdim[: image.ndim - 1]
        voxels = np.prod([n * float(size) / new for n, size, new in zip(image.shape[1:], sizes, wanted, strict=True)])
        if not voxels < MOST:
            said = [" x ".join(f"{float(size):.3g}" for size in each) for each in (wanted, sizes)]
            raise ValueError(f"spacing {said[0]} mm makes {voxels:.2g} voxels of an image whose own are {said[1]} mm")

    def _fits(self, affine: np.ndarray, axes: int) -> bool:
        sizes = np.linalg.norm(affine[:3, :axes], axis=0)
        return bool(np.allclose(sizes, self.spacing_transform.pixdim[:axes], rtol=TOLERANCE)) and not is_sheared(affine)
