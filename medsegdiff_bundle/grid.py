"""Where the voxels of an image file lie."""

from __future__ import annotations

from typing import Any, NamedTuple

import nibabel
import numpy as np
from monai.data import MetaTensor

from medsegdiff_bundle.datalist.naming import PICTURES

MODALITY = "Modality"  # key of the metadata


class Grid(NamedTuple):
    """Grid of an image.

    Attributes:
        shape: voxels along each axis, S.
        affine: (4, 4), voxel to RAS in mm; None of a picture.
        spacing: of the voxels in mm, for each axis of S; None of a picture.
        orientation: nearest anatomical directions of the axes, such as "LPS"; None where they are not known.
        obliquity: largest angle between an axis and its nearest anatomical direction, in degrees.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None
    spacing: tuple[float, ...] | None
    orientation: str | None
    obliquity: float | None

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "shape": list(self.shape),
            "spacing": None if self.spacing is None else [round(size, 6) for size in self.spacing],
            "orientation": self.orientation,
            "obliquity": None if self.obliquity is None else round(self.obliquity, 2),
        }


def image_grid(image: MetaTensor) -> Grid:
    """Grid of an image (C, S) as its file has it; of two axes, too, unless it is a picture."""
    shape = tuple(image.shape[1:])
    if len(shape) == 2 and str(image.meta.get("filename_or_obj", "")).lower().endswith(PICTURES):
        return Grid(shape, None, None, None, None)
    affine = np.asarray(image.affine.cpu(), dtype=np.float64)
    spacing = tuple(np.linalg.norm(affine[:3, : len(shape)], axis=0).tolist())
    # A NIfTI file may give the size of its voxels and no directions, which each program then makes up.
    known = any(int(image.meta.get(code, 1)) > 0 for code in ("sform_code", "qform_code"))
    axes = nibabel.orientations.aff2axcodes(affine)[: len(shape)]
    if not known or None in axes:
        return Grid(shape, affine, spacing, None, None)
    return Grid(shape, affine, spacing, "".join(axes), float(np.degrees(nibabel.affines.obliquity(affine).max())))


def image_modality(image: MetaTensor) -> str | None:
    """What a DICOM file calls the kind of its image, such as "CT" or "MR"; None of other files."""
    for key in (MODALITY, "00080060", "0008|0060"):  # of our readers, of MONAI's PydicomReader, of ITK
        value = image.meta.get(key)
        value = value.get("Value") if isinstance(value, dict) else value
        value = value[0] if isinstance(value, (list, tuple)) and value else value
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None
