"""Slices of a volume as a radiologist expects them, whatever the order and direction of its axes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation
from torch import Tensor

# Through which anatomical axis (0 left-right, 1 posterior-anterior, 2 inferior-superior), its rows and its columns, and
# the letters of its edges: left, right, top, bottom. Sagittal slices look to the left, as in 3D Slicer.
ANATOMICAL = {
    "axial": (2, 1, 0, "RLAP"),
    "coronal": (1, 2, 0, "RLSI"),
    "sagittal": (0, 2, 1, "APSI"),
}


class Plane(NamedTuple):
    """One of the three ways to cut a volume, or the only one to see a picture.

    Attributes:
        name: "axial", "coronal" or "sagittal"; None of a picture.
        through: axis of the array that its slices lie along; None of a picture.
        ascending: whether the indices along that axis grow to the right, to the front or upwards.
        rows: axis of the array that runs from the top to the bottom.
        columns: axis of the array that runs from left to right.
        turned: whether the array's indices grow upwards, and whether they grow to the left.
        spacing: of rows and columns, in mm; 1 of a picture.
        letters: of the left, right, upper and lower edge; "" where the directions are not known; None where the size of
            the voxels is not known either.
    """

    name: str | None
    through: int | None
    ascending: bool
    rows: int
    columns: int
    turned: tuple[bool, bool]
    spacing: tuple[float, float]
    letters: str | None

    def cut(self, values: Tensor, index: int | None) -> Tensor:
        """Slice (..., H, W) of values (..., X, Y, Z), or (..., X, Y) of a picture."""
        picture = values
        rows, columns = self.rows, self.columns
        if self.through is not None and index is not None:
            picture = values.select(self.through - 3, index)
            rows, columns = (axis - (axis > self.through) for axis in (rows, columns))
        if rows > columns:
            picture = picture.transpose(-1, -2)
        turned = [axis for axis, turned in zip((-2, -1), self.turned, strict=True) if turned]
        return picture.flip(turned) if turned else picture


def planes(shape: tuple[int, ...], affine: npt.ArrayLike | None = None, letters: bool = True) -> list[Plane]:
    """Planes that show more than a line, in the order axial, coronal, sagittal; the largest one if none does.

    Along oblique axes of the array the nearest anatomical ones are shown, so that no voxel is resampled.

    Args:
        shape: S of the image: (X, Y, Z) or, of a picture, (X, Y).
        affine: (4, 4), voxel to RAS in mm; None draws a picture as it is, x to the right and y downwards, and a volume
            as if it were the identity.
        letters: whether the directions of the affine are known.
    """
    if len(shape) == 2:
        return [Plane(None, None, True, 1, 0, (False, False), (1.0, 1.0), None)]
    matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)
    order = io_orientation(matrix)  # of each axis of the array: anatomical axis, direction
    if np.isnan(order).any():  # a matrix without an inverse
        order = io_orientation(np.eye(4))
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    found = []
    for name, (through, rows, columns, edges) in ANATOMICAL.items():
        axes = [int(np.flatnonzero(order[:, 0] == wanted)[0]) for wanted in (through, rows, columns)]
        # Pictures run to the left, to the back and downwards, where the coordinates of RAS fall.
        ascending, *turned = (bool(order[axis, 1] > 0) for axis in axes)
        height, width = (float(spacing[axis] or 1) for axis in axes[1:])
        marks = None if affine is None else edges if letters else ""
        found.append(Plane(name, axes[0], ascending, axes[1], axes[2], (turned[0], turned[1]), (height, width), marks))
    flat = [plane for plane in found if min(shape[plane.rows], shape[plane.columns]) > 1]
    return flat or [max(found, key=lambda plane: shape[plane.rows] * shape[plane.columns])]
