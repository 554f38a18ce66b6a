"""DICOM series, each slice at its place and with its own scale of values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import ensure_tuple

from medsegdiff_bundle.datalist.series import series_files
from medsegdiff_bundle.datalist.slices import WITH_UNITS, Frame, Series, is_series, opened, read_series

from .volumes import Names, OneFileReader, Volume


class SeriesReader(OneFileReader):
    """A folder of slices, a zip of such a folder, or a file of many frames, in the order of the places of the slices.

    Pixels are decoded by GDCM, which SimpleITK brings, whatever their compression; those whose lowest value is white by
    pydicom, as GDCM turns them around before it rescales them, so that a CT is none in Hounsfield units; those with a
    table of values, too, which GDCM passes over. MONAI's
    `PydicomReader` stacks the slices by InstanceNumber, which is no place and may be missing; its `ITKReader` drops the
    tilt of a gantry.

    Raises:
        ValueError: see `medsegdiff_bundle.datalist.slices.read_series`; or a slice cannot be decoded.
    """

    def verify_suffix(self, filename: Names) -> bool:
        """Whether these are series."""
        return all(is_series(Path(name)) for name in ensure_tuple(filename))

    def volume(self, path: Path) -> Volume:
        """Read one series."""
        with opened(path) as place:
            series = read_series(path, series_files(place, path))
            values = _upright(np.stack(_pixels(series), axis=2), series)
        modality = series.frames[0].get("Modality")
        return Volume(values, 3, series.affine, series.warnings, series.processing, modality)


def _pixels(series: Series) -> list[np.ndarray]:
    """Values of each slice, (X, Y) or (X, Y, C) float32."""
    files: dict[Path, np.ndarray] = {}  # (frames, rows, columns), or with channels behind
    for frame in series.frames:
        if frame.file not in files:
            known = not frame.groups and not frame.inverted and not frame.has_table
            files[frame.file] = _decoded(frame) if known else _rescaled_frames(series, frame)
    return [files[frame.file][frame.number].swapaxes(0, 1) for frame in series.frames]


def _decoded(frame: Frame) -> np.ndarray:
    """Rescaled values of all frames of a file, by GDCM, or by pydicom what GDCM does not decode."""
    import pydicom
    import SimpleITK

    file = frame.file
    _check_length(frame)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = SimpleITK.ReadImage(str(file), imageIO="GDCMImageIO")
    except RuntimeError:
        slope, intercept = (float(frame.get(f"Rescale{what}") or (what == "Slope")) for what in ("Slope", "Intercept"))
        try:
            stored = pydicom.dcmread(file, force=True).pixel_array
        except Exception as error:  # whatever it lacks
            raise ValueError(f"{file.name!r} cannot be decoded: {str(error).partition('. ')[0]}") from error
        values = stored.astype(np.float32) * slope + intercept
        return values if int(frame.get("NumberOfFrames") or 1) > 1 else values[None]
    values = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    return values[None] if image.GetDimension() == 2 else values


def _check_length(frame: Frame) -> None:
    """Refuse a file that ends before its pixels do, whatever GDCM makes of the missing ones."""
    import pydicom

    with frame.file.open("rb") as stream:
        head = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=["Rows"], force=True)
        there = frame.file.stat().st_size - stream.tell() - 8  # bytes; tag and length stand before the pixels
    syntax: Any = getattr(head.file_meta, "TransferSyntaxUID", None)
    if syntax is not None and syntax.is_deflated:  # whose length tells nothing
        return
    plain = syntax is not None and not syntax.is_encapsulated
    sizes = [frame.get(tag) for tag in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")]
    expected = math.prod(int(size or 1) for size in sizes) // 8
    if there <= 0 or plain and there < expected:
        raise ValueError(f"{frame.file.name!r} is truncated or damaged: it lacks pixels")


def _rescaled_frames(series: Series, frame: Frame) -> np.ndarray:
    """Values of a file whose frames may have scales of their own, or white as their lowest value, by pydicom.

    GDCM does not know such scales.
    """
    import pydicom

    numbered = [each for each in series.frames if each.file == frame.file]
    scales = {
        each.number: [float(each.get(f"Rescale{what}") or (what == "Slope")) for what in ("Slope", "Intercept")]
        for each in numbered
    }
    try:
        whole = pydicom.dcmread(frame.file)
        stored = whole.pixel_array
        if frame.has_table:
            return _by_table(whole, stored, frame)
    except Exception as error:  # whatever is missing for its compression
        if len(set(map(tuple, scales.values()))) > 1 or frame.inverted or frame.has_table:
            raise ValueError(f"{frame.file.name!r} needs another decoder: {error}") from error
        return _decoded(frame)
    values = np.asarray(stored[None] if len(numbered) == 1 and stored.ndim == 2 else stored, dtype=np.float32)
    turned = frame.inverted and frame.get("Modality") not in WITH_UNITS
    ends = -1 if frame.get("PixelRepresentation") else 2 ** int(frame.get("BitsStored") or 16) - 1  # lowest and highest
    for number, (slope, intercept) in scales.items():
        values[number] = (ends - values[number] if turned else values[number]) * slope + intercept
    return values


def _by_table(whole: Any, stored: np.ndarray, frame: Frame) -> np.ndarray:
    """Values of a file of one slice by its table, which GDCM passes over, (1, rows, columns)."""
    from pydicom.pixels import apply_modality_lut

    values = np.asarray(apply_modality_lut(stored, whole), dtype=np.float32)
    if frame.inverted and frame.get("Modality") not in WITH_UNITS:
        values = 2 ** int(whole.ModalityLUTSequence[0].LUTDescriptor[2]) - 1 - values
    return values[None]


def _upright(values: np.ndarray, series: Series) -> np.ndarray:
    """Slices (X, Y, Z) in the grid of the series, which is larger where their planes are shifted."""
    if not series.shifts.any():
        return values
    from scipy import ndimage  # takes a while, and few series need it

    lowest = values.min()
    upright = np.full((*series.shape, *values.shape[3:]), lowest, dtype=np.float32)
    upright[: values.shape[0], : values.shape[1]] = values
    for index, shift in enumerate(series.shifts):
        step: Any = (*shift, *[0] * (values.ndim - 3))
        upright[:, :, index] = ndimage.shift(upright[:, :, index], step, order=1, mode="constant", cval=lowest)
    return upright
