"""DICOM series to segment, checked by their headers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from .naming import DICOM_RESULTS, check_names
from .several import usable_cases
from .slices import Series, is_dicom, opened, read_series

logger = logging.getLogger(__name__)


def series_datalist(
    folder: str | os.PathLike, in_channels: int | None = None, spatial_dims: int | None = None
) -> list[dict[str, str]]:
    """DICOM series to segment: this folder, if it holds slices, otherwise each folder below it that does.

    Args:
        folder: of one series, or of folders of one series each, at any depth.
        in_channels: samples that every pixel must have; None skips that check.
        spatial_dims: axes that the network takes, of which a series has 3; None skips that check.

    Returns:
        [{"image": folder of a series}], in the order of their names; of several, one with slices that make no volume
        has the entry `refused` too, a sentence.

    Raises:
        ValueError: there is no image, pydicom is missing, each folder holds several series or slices that make no
            volume, or two series would be written to files of one name.
    """
    root = Path(os.path.abspath(folder))  # whose name the files get, also for "."
    found = series_below(root)
    if not found:
        raise ValueError(f"The folder {str(folder)!r} holds no image file and no DICOM series.")
    if root in found:
        say_left_out(root, (below for below in found if below != root))
        found = [root]
    cases = usable_cases(found, lambda series: check_series(series, in_channels, spatial_dims))
    check_names(Path(case["image"]) for case in cases)
    return cases


def series_below(root: Path) -> list[Path]:
    """Folders that hold DICOM files, this one and those below it, in the order of their names."""
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir() and ".." not in path.parts)]
    return [folder for folder in folders if dicom_files(folder)]


def say_left_out(root: Path, left_out: Iterable[Path]) -> None:
    """List what of a folder is not segmented."""
    names = [repr(os.path.relpath(path, root)) for path in left_out]
    if names:
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        logger.warning("Left out of %r: %s.", str(root), shown)


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files of a folder but its DICOMDIR, an index of them; none where all are results of earlier runs."""
    files = [file for file in folder.iterdir() if file.is_file() and file.name != "DICOMDIR" and is_dicom(file)]
    return [] if all(file.name.endswith(DICOM_RESULTS) for file in files) else sorted(files)


def find_series(path: Path) -> Series:
    """The slices of what stands for one series: its folder, a zip of it, or a file of many frames.

    Those of a zip are there for their headers only: its files are gone when this returns.
    """
    with opened(path) as place:
        return read_series(path, series_files(place, path))


def series_files(place: Path, path: Path) -> list[Path]:
    """DICOM files of the one series in a folder, or below it in that of a zip; a file is one."""
    if place.is_file():
        return [place]
    folders = [place] if place == path else series_below(place)
    files = [file for folder in folders for file in dicom_files(folder)]
    if not files:
        raise ValueError(f"{str(path)!r} holds no DICOM series.")
    return files


def check_series(path: Path, in_channels: int | None, spatial_dims: int | None = None) -> None:
    """One sentence for what the network could not take."""
    if spatial_dims not in (None, 3):
        raise ValueError(
            f"{str(path)!r} holds a DICOM series, which has 3 axes, the network takes {spatial_dims}: save what it is "
            "to see as a picture, such as .png."
        )
    channels = int(find_series(path).frames[0].get("SamplesPerPixel") or 1)
    if in_channels not in (None, channels):
        raise ValueError(
            f"The DICOM series in {str(path)!r} has {channels} channel(s), the network takes {in_channels}."
        )
