"""Names of cases, from those of their files."""

from __future__ import annotations

import os
from pathlib import Path

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def case_name(path: str | os.PathLike) -> str:
    """Name of a file without its folder and ending: "imagesTr/case.1.nii.gz" -> "case.1"."""
    name = Path(path).name
    endings = [ending for ending in (".nii.gz", *NIFTI, *PICTURES) if name.lower().endswith(ending)]
    return name[: -len(endings[0])] if endings else name


def saved_name(path: str | os.PathLike) -> str:
    """Name that MONAI's `SaveImaged` gives the files of an image: a folder's name, too, ends before its last dot."""
    return Path(str(path).removesuffix(".gz")).stem
