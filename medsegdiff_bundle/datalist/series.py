"""DICOM series to segment, checked by their headers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .naming import SEGMENTATION, check_names


def series_datalist(
    folder: str | os.PathLike, in_channels: int | None = None, spatial_dims: int | None = None
) -> list[dict[str, str]]:
    """DICOM series to segment: this folder, if it holds slices, otherwise each folder below it that does.

    MONAI's `PydicomReader` stacks whatever a folder holds, in the order of InstanceNumber. So what would give a wrong
    volume is refused here, from the headers alone.

    Args:
        folder: of one series, or of folders of one series each, at any depth.
        in_channels: samples that every pixel must have; None skips that check.
        spatial_dims: axes that the network takes, of which a series has 3; None skips that check.

    Returns:
        [{"image": folder of a series}], in the order of their names.

    Raises:
        ValueError: there is no image, pydicom is missing, a folder holds several series or slices that make no volume,
            or two series would be written to files of one name.
    """
    root = Path(os.path.abspath(folder))  # whose name the files get, also for "."
    here = dicom_files(root)
    found = {root: here} if here else {}
    for below in sorted(path for path in root.rglob("*") if not found and path.is_dir()):
        if files := dicom_files(below):
            found[below] = files
    if not found:
        raise ValueError(f"The folder {str(folder)!r} holds no image file and no DICOM series.")
    if spatial_dims not in (None, 3):
        raise ValueError(f"{str(folder)!r} holds a DICOM series, which has 3 axes, the network takes {spatial_dims}.")
    for series, files in found.items():
        _check_series(series, files, in_channels)
    check_names(found)
    return [{"image": str(series)} for series in found]


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files of a folder but its DICOMDIR, an index of them; none where all are results of earlier runs."""
    files = [file for file in folder.iterdir() if file.is_file() and file.name != "DICOMDIR" and is_dicom(file)]
    return [] if all(file.name.endswith(SEGMENTATION) for file in files) else sorted(files)


def is_dicom(file: Path) -> bool:
    """Whether a file begins as DICOM files do; needs no pydicom."""
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _check_series(folder: Path, files: list[Path], in_channels: int | None) -> None:
    """Refuse slices that do not make one volume with parallel slices at equal distances."""
    try:
        import pydicom
    except ImportError as error:
        raise ValueError(
            f"{str(folder)!r} holds DICOM files, which need: pip install 'medsegdiff-bundle[dicom]'."
        ) from error
    tags = ["SeriesInstanceUID", "InstanceNumber", "Rows", "Columns", "PixelSpacing", "SamplesPerPixel"]
    tags += ["ImagePositionPatient", "ImageOrientationPatient"]
    slices = [pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags) for file in files]
    what = f"The DICOM series in {str(folder)!r}"
    number = len({item.get("SeriesInstanceUID") for item in slices})
    if number > 1:
        raise ValueError(f"{str(folder)!r} holds {number} DICOM series: put each into a folder of its own.")
    for file, item in zip(files, slices, strict=True):
        for tag in tags:
            if item.get(tag) in (None, ""):
                raise ValueError(f"{what} cannot be placed in space: {file.name!r} has no {tag}.")
    first = slices[0]
    if in_channels not in (None, first.SamplesPerPixel):
        raise ValueError(f"{what} has {first.SamplesPerPixel} channel(s), the network takes {in_channels}.")
    if len(slices) < 2:
        raise ValueError(f"{what} has one slice only, which is no volume.")
    for tag in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        if not all(np.allclose(item[tag].value, first[tag].value, atol=1e-3) for item in slices):
            raise ValueError(f"{what} has slices of different {tag}.")
    ordered = sorted(slices, key=lambda item: item.InstanceNumber)
    positions = np.array([item.ImagePositionPatient for item in ordered], dtype=float)
    steps = np.diff(positions, axis=0)
    length = np.linalg.norm(steps.mean(axis=0))
    if length < 1e-3 or np.linalg.norm(steps - steps.mean(axis=0), axis=1).max() > 0.05 * length:
        raise ValueError(
            f"{what} has slices that are not at equal distances in the order of their InstanceNumber: "
            "one is missing, or they are numbered out of order."
        )
