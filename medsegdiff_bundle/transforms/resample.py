"""Resampling of volumes that would not fit in memory many times over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import monai.transforms
import numpy as np
import torch
import torch.nn.functional as F
from monai.config import DtypeLike
from monai.data import MetaTensor
from monai.networks.utils import to_norm_affine
from monai.utils import TraceKeys, get_equivalent_dtype, get_torch_dtype_from_string
from torch import Tensor

SLAB = 2**18  # voxels of the result that are made at once
MODES = ("bilinear", "nearest")


class SpatialResample(monai.transforms.SpatialResample):
    """MONAI's `SpatialResample`, which makes a volume on the CPU channel by channel and slab by slab.

    To the last bit the same, and of the same name, as others look for it by that. MONAI's holds the place of each voxel
    of the result in seven numbers of eight bytes, and all channels in as long ones: of 512 x 512 x 300 voxels 5 GB, and
    for the labels of five members 6 GB more. Labels of bytes stay bytes, where MONAI's become float32.
    """

    def __call__(
        self,
        img: torch.Tensor,
        dst_affine: torch.Tensor | None = None,
        spatial_size: Sequence[int] | torch.Tensor | int | None = None,
        mode: str | int | None = None,
        padding_mode: str | None = None,
        align_corners: bool | None = None,
        dtype: DtypeLike = None,
        lazy: bool | None = None,
    ) -> torch.Tensor:
        """Resample; the arguments are those of MONAI's."""
        mode = self.mode if mode is None else mode
        in_slabs = isinstance(img, MetaTensor) and img.ndim == 4 and img.device.type == "cpu" and str(mode) in MODES
        sized = dst_affine is not None and isinstance(spatial_size, Sequence) and list(spatial_size) != [*img.shape[1:]]
        if not (in_slabs and sized) or (self.lazy if lazy is None else lazy):
            return super().__call__(img, dst_affine, spatial_size, mode, padding_mode, align_corners, dtype, lazy)
        assert isinstance(img, MetaTensor) and isinstance(spatial_size, Sequence) and dst_affine is not None
        kind: Any = get_equivalent_dtype(dtype or self.dtype or img.dtype, torch.Tensor)
        align_corners = self.align_corners if align_corners is None else align_corners
        padding_mode = self.padding_mode if padding_mode is None else padding_mode
        # One voxel by MONAI's own, for what it notes of itself.
        noted = super().__call__(img[:, :1, :1, :1], dst_affine, [1, 1, 1], mode, padding_mode, align_corners, dtype)
        assert isinstance(noted, MetaTensor)
        if self.tracing:
            noted.applied_operations[-1][TraceKeys.ORIG_SIZE] = tuple(img.shape[1:])
        matrix = torch.as_tensor(np.linalg.solve(_plain(img.affine), _plain(dst_affine)))
        values = _resampled(img.as_tensor(), matrix, spatial_size, str(mode), str(padding_mode), align_corners, kind)
        return MetaTensor(values).copy_meta_from(noted)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Resample back; as in MONAI's, whose own would call itself."""
        transform = self.pop_transform(data)
        done = transform[TraceKeys.EXTRA_INFO]
        aligned = done["align_corners"]
        dtype: Any = get_torch_dtype_from_string(done["dtype"])
        with self.trace_transform(False):
            return self(
                data,
                done["src_affine"],
                transform[TraceKeys.ORIG_SIZE],
                done["mode"],
                done["padding_mode"],
                False if aligned == TraceKeys.NONE else aligned,
                dtype,
            )


def _plain(affine: Tensor) -> np.ndarray:
    return np.asarray(affine.detach().cpu().to(torch.float64))


def _resampled(
    img: Tensor,
    matrix: Tensor,
    size: Sequence[int],
    mode: str,
    padding_mode: str,
    align_corners: bool,
    precision: torch.dtype,
) -> Tensor:
    """What MONAI's `AffineTransform` makes of (C, X, Y, Z), from voxels of the result to those of the image."""
    theta = to_norm_affine(matrix[None].to(precision), img.shape[1:], size, align_corners)
    theta = theta[:, [2, 1, 0, 3]][:, :, [2, 1, 0, 3]][:, :3]  # of (Z, Y, X), as PyTorch has it
    places = [_places(int(edge), align_corners, precision) for edge in size]
    kind = img.dtype if mode == "nearest" and not img.is_floating_point() else torch.float32
    result = torch.empty((len(img), *size), dtype=kind)
    thick = max(1, SLAB // math.prod(size[1:]))
    for channel, into in zip(img, result, strict=True):
        source = channel.to(precision).contiguous()[None, None]
        for start in range(0, int(size[0]), thick):
            grid = _grid([places[0][start : start + thick], *places[1:]], theta)
            slab = F.grid_sample(source, grid, mode, padding_mode, align_corners)
            into[start : start + thick] = slab[0, 0]
    return result


def _places(size: int, align_corners: bool, precision: torch.dtype) -> Tensor:
    """Places of the voxels along an axis, from -1 to 1, as PyTorch's `affine_grid` rounds them."""
    if size <= 1:
        return torch.zeros(1, dtype=precision)
    places = torch.linspace(-1, 1, size, dtype=precision)
    return places if align_corners else places * (size - 1) / size


def _grid(places: Sequence[Tensor], theta: Tensor) -> Tensor:
    """PyTorch's `affine_grid` of a part of the voxels, (1, X, Y, Z, 3)."""
    base = torch.ones(*map(len, places), 4, dtype=theta.dtype)
    for axis, along in enumerate(places):
        base[..., 2 - axis] = along.reshape([-1 if other == axis else 1 for other in range(3)])
    return (base.reshape(1, -1, 4) @ theta.transpose(1, 2)).reshape(1, *base.shape[:3], 3)
