"""Slices of a DICOM series in their places, by their headers alone."""

from __future__ import annotations

import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .naming import printable

# Elements of the group 0008 that a file without preamble may begin with.
FIRST = [bytes([number, 0]) for number in (0x00, 0x01, 0x05, 0x08, 0x12, 0x13, 0x14, 0x16, 0x18)]
# Objects that refer to images and are none.
NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "SR", "PR", "KO", "REG", "RWV", "FID", "DOC", "M3D")
WHERE = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
# What tells apart slices at one place, and how it is called.
APART = {
    "EchoTime": "echoes",
    "EffectiveEchoTime": "echoes",
    "EchoNumbers": "echoes",
    "DiffusionBValue": "b-values",
    "TemporalPositionIdentifier": "times",
    "TemporalPositionIndex": "times",
    "TriggerTime": "times",
    "InversionTime": "inversion times",
    "ImageType": "kinds of images, such as magnitude and phase",
    "AcquisitionNumber": "acquisitions",
    "AcquisitionTime": "times",
}
NUMBERS = {"Rows": 1, "Columns": 1, "PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3}
SIZES = ("Rows", "Columns", "PixelSpacing")
TAGS = ["Modality", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "NumberOfFrames", "Rows", "Columns"]
TAGS += ["SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation"]
TAGS += [
    "FrameOfReferenceUID",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
TAGS += [*WHERE, *APART]
WITH_UNITS = ("CT", "PT")  # modalities whose values are quantities, however they are shown


class Frame(NamedTuple):
    """One slice: a file, or a frame of one."""

    file: Path
    number: int  # of the frame in its file, from 0
    header: Any  # pydicom's dataset of the file, without pixels
    groups: tuple[Any, ...]  # functional groups of the frame, its own first; none of a file of one slice

    def get(self, tag: str) -> Any:
        """Value of an attribute, wherever it stands; None if it is missing or empty.

        Raises:
            ValueError: it is none, which pydicom finds out here.
        """
        try:
            for group in self.groups:
                for sequence in group:
                    if sequence.VR == "SQ" and sequence.value and sequence.value[0].get(tag) not in (None, ""):
                        return sequence.value[0].get(tag)
            value = self.header.get(tag)
        except Exception as error:
            raise ValueError(f"{str(self.file)!r} is a damaged DICOM file: {tag}: {printable(str(error))}.") from error
        return None if value in (None, "") else value

    @property
    def inverted(self) -> bool:
        """Whether its lowest stored value is white (PS3.3, C.7.6.3.1.2)."""
        return bool(self.get("PhotometricInterpretation") == "MONOCHROME1")

    @property
    def has_table(self) -> bool:
        """Whether a table gives its values in the place of slope and intercept (PS3.3, C.11.1)."""
        return bool(self.header.get("ModalityLUTSequence"))


class Series(NamedTuple):
    """Slices that make one volume.

    The grid has right angles: the slices of a tilted gantry are shifted in their planes, each by its own part.
    """

    frames: tuple[Frame, ...]  # along the normal of the slices, which is rows x columns
    shape: tuple[int, int, int]  # of the grid: columns, rows, slices
    affine: np.ndarray  # (4, 4), voxel of the grid to RAS in mm
    shifts: np.ndarray  # (slices, 2), columns and rows: where the first pixel of each slice lies in the grid
    orientation: np.ndarray  # (6,), ImageOrientationPatient of all slices
    thickness: float  # mm between two slices
    warnings: tuple[str, ...]
    processing: tuple[str, ...]


def is_dicom(file: Path) -> bool:
    """Whether a file begins as DICOM files do, also those of before the preamble; needs no pydicom."""
    with file.open("rb") as stream:
        head = stream.read(132)
    return head[128:] == b"DICM" or (head[:2] == b"\x08\x00" and head[2:4] in FIRST)


def is_series(path: Path) -> bool:
    """Whether a path stands for one DICOM series: its folder, a zip of it, or a DICOM file."""
    return path.is_dir() or is_zip(path) or (path.is_file() and is_dicom(path))


def is_zip(path: Path) -> bool:
    """Whether a path is that of a zip."""
    return path.is_file() and path.suffix.lower() == ".zip"


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """A series' folder, or that of the files of a zip for as long as they are needed."""
    if not is_zip(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise ValueError(f"{str(path)!r} is no zip that can be opened: {error}.") from error
        yield Path(folder)


def read_series(path: Path, files: Sequence[Path]) -> Series:
    """Slices of one series in order, once they are known to make one volume.

    Args:
        path: of the series, for sentences.
        files: DICOM files, in any order; what is no image is passed over.

    Returns:
        The series.

    Raises:
        ValueError: pydicom is missing, there are several series, or slices that make no volume, or a header is damaged.
    """
    what = f"The DICOM series in {str(path)!r}"
    frames, warnings = _distinct(_one_series(_frames(path, files), path))
    _check_alike(frames, what)
    rows, columns, normal = _directions(frames, what)
    positions = np.array([frame.get("ImagePositionPatient") for frame in frames], dtype=float)
    order = np.argsort(positions @ normal, kind="stable")
    frames, positions = [frames[index] for index in order], positions[order]
    heights = positions @ normal
    if len(frames) < 2:
        if path.is_file() and path == frames[0].file:
            raise ValueError(f"{str(path)!r} is a DICOM file of one slice: give the folder that holds its series.")
        raise ValueError(f"{what} has one slice only, which is no volume.")
    thickness = _step(frames, np.diff(heights), what)
    row_spacing, column_spacing = (float(value) for value in frames[0].get("PixelSpacing"))
    moved = _moved((positions - positions[0]) @ np.array([rows / column_spacing, columns / row_spacing]).T, what)
    lowest = moved.min(axis=0)
    size = np.array([frames[0].get("Columns"), frames[0].get("Rows")]) + np.ceil(np.ptp(moved, axis=0) - 1e-6)
    lps = np.eye(4)
    lps[:3, :3] = np.stack([rows * column_spacing, columns * row_spacing, normal * thickness], axis=1)
    lps[:3, 3] = positions[0] + lps[:3, :2] @ lowest
    return Series(
        frames=tuple(frames),
        shape=(int(size[0]), int(size[1]), len(frames)),
        affine=np.diag([-1.0, -1, 1, 1]) @ lps,
        shifts=moved - lowest,
        orientation=np.concatenate([rows, columns]),
        thickness=thickness,
        warnings=tuple(warnings),
        processing=tuple(_processing(frames, moved * [column_spacing, row_spacing], heights[-1] - heights[0])),
    )


def _check_alike(frames: Sequence[Frame], what: str) -> None:
    """Refuse slices that do not say where they lie, or not in one space and with the same pixels."""
    for frame in frames:
        for tag, count in NUMBERS.items():
            _check_numbers(frame, tag, count, what)
    for tag in ("SamplesPerPixel", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        first = frames[0].get(tag)
        other = next((frame for frame in frames if not _same(frame.get(tag), first)), None)
        if other is not None:
            raise ValueError(
                f"{what} has slices of different {tag}: {_said(first)} in {frames[0].file.name!r}, "
                f"{_said(other.get(tag))} in {other.file.name!r}."
            )
    spaces = Counter(str(uid) for frame in frames if (uid := frame.get("FrameOfReferenceUID")) is not None)
    if len(spaces) > 1:
        raise ValueError(f"{what} has slices of {len(spaces)} spaces (FrameOfReferenceUID), whose places say nothing.")


def _moved(moved: np.ndarray, what: str) -> np.ndarray:
    """Shifts of the slices in their planes, in pixels along rows and columns; none where all are less than 1/4."""
    line = np.linspace(0, 1, len(moved))[:, None] * moved[-1]
    if np.abs(moved - line).max() > 0.5:
        raise ValueError(f"{what} has slices that are shifted against one another in their planes, not along a line.")
    return np.zeros_like(moved) if np.abs(moved).max() < 0.25 else moved


def _processing(frames: Sequence[Frame], shifts: np.ndarray, height: float) -> Iterator[str]:
    """What is done to the slices, in sentences, by their shifts in mm, and the height of the last above the first."""
    if shifts.any():
        angle = np.degrees(np.arctan(np.linalg.norm(shifts[-1] / height)))
        yield (
            f"The gantry was tilted by {angle:.1f} degrees: the slices were shifted in their planes to a grid with "
            "right angles, in which the results lie. A DICOM segmentation lies on the slices as they are."
        )
    if any(frame.inverted for frame in frames) and frames[0].get("Modality") not in WITH_UNITS:
        yield "The lowest stored value is white (MONOCHROME1): values are turned around, as viewers do."


def _check_numbers(frame: Frame, tag: str, count: int, what: str) -> None:
    """Refuse a frame that does not say where it lies."""
    found = frame.get(tag)
    if found is None:
        raise ValueError(f"{what} cannot be placed in space: {frame.file.name!r} has no {tag}.")
    try:
        numbers = np.atleast_1d(np.asarray(found, dtype=float))
    except (TypeError, ValueError):  # of words
        numbers = np.array([])
    if numbers.shape != (count,) or not np.isfinite(numbers).all() or tag in SIZES and numbers.min() <= 0:
        raise ValueError(f"{what} cannot be placed in space: {frame.file.name!r} has the {tag} {_said(found)}.")


def _frames(path: Path, files: Sequence[Path]) -> list[Frame]:
    """Every slice of some files."""
    try:
        import pydicom
    except ImportError as error:
        raise ValueError(
            f"{str(path)!r} holds DICOM files, which need: pip install 'medsegdiff-bundle[dicom]'."
        ) from error
    frames = []
    others: set[str] = set()
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS, force=True)
            if header.get("Modality") in NO_IMAGES or "Rows" not in header:
                others |= {header.get("Modality")} & set(NO_IMAGES)
                continue
            each = header.get("PerFrameFunctionalGroupsSequence")
            shared = header.get("SharedFunctionalGroupsSequence") or []
            number_of_frames = int(header.get("NumberOfFrames") or 1)
            _ = [header.get(tag) for tag in ("SeriesInstanceUID", "SeriesDescription", "SOPInstanceUID")]  # decoded
        except Exception as error:  # whatever a damaged file leads to
            raise ValueError(f"{str(file)!r} is a damaged DICOM file: {printable(str(error))}.") from error
        if each:
            frames += [Frame(file, number, header, (group, *shared)) for number, group in enumerate(each)]
        elif number_of_frames > 1:
            raise ValueError(f"{str(file)!r} holds {number_of_frames} frames without their places: it is no volume.")
        else:
            frames.append(Frame(file, 0, header, ()))
    if not frames:
        found = (
            f", only {', '.join(sorted(others))}: save masks and contours as NIfTI, as 3D Slicer does" if others else ""
        )
        raise ValueError(f"{str(path)!r} holds DICOM files, but no image among them{found}.")
    return frames


def _one_series(frames: list[Frame], path: Path) -> list[Frame]:
    """The frames, once they are known to be of one series."""
    series = Counter(str(frame.header.get("SeriesInstanceUID", "")) for frame in frames)
    if len(series) > 1:
        names = {
            str(frame.header.get("SeriesInstanceUID", "")): str(
                frame.header.get("SeriesDescription") or "no description"
            )
            for frame in frames
        }
        listed = ", ".join(f"{names[uid]!r} of {number} slices" for uid, number in series.items())
        raise ValueError(
            f"{str(path)!r} holds {len(series)} DICOM series, {listed}: put each into a folder of its own."
        )
    return frames


def _distinct(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """Each slice once, and a sentence on files that are there twice."""
    found: dict[tuple[str, int, str], Frame] = {}
    for frame in frames:  # whose number in the world may be given to several, by programs that remove names
        place = str(frame.get("ImagePositionPatient"))
        found.setdefault((str(frame.header.get("SOPInstanceUID", frame.file)), frame.number, place), frame)
    twice = len(frames) - len(found)
    said = f"{twice} slices of the series are there twice, and count once."
    if twice == 1:
        said = "One slice of the series is there twice, and counts once."
    return list(found.values()), [said] if twice else []


def _directions(frames: list[Frame], what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One direction of rows, of columns and of the normal for all slices, at right angles, in LPS."""
    mean = np.mean([np.asarray(frame.get("ImageOrientationPatient"), dtype=float) for frame in frames], axis=0)
    rows, columns = mean.reshape(2, 3)
    if abs(rows @ columns) > 0.01 or not np.allclose([np.linalg.norm(rows), np.linalg.norm(columns)], 1, atol=0.01):
        raise ValueError(f"{what} has an ImageOrientationPatient that is none: {_said(mean.round(4))}.")
    rows = rows / np.linalg.norm(rows)
    columns = columns - (columns @ rows) * rows
    columns /= np.linalg.norm(columns)
    return rows, columns, np.cross(rows, columns)


def _step(frames: list[Frame], steps: np.ndarray, what: str) -> float:
    """Distance of two slices, once all are known to have it."""
    usual = float(np.median(steps))
    at = int(np.argmin(steps))
    if steps[at] < max(0.01, 0.05 * usual):
        first, second = frames[at], frames[at + 1]
        for tag, name in APART.items():
            values = {_said(frame.get(tag)) for frame in frames} - {"None"}
            if not _same(first.get(tag), second.get(tag)) and len(values) < len(frames):
                apart = "save each as a file" if first.file == second.file else "put each into a folder"
                raise ValueError(
                    f"{what} holds several {name} ({tag} {_said(first.get(tag))} and {_said(second.get(tag))}): "
                    f"{apart} of its own."
                )
        raise ValueError(f"{what} has two slices at one place, {_two(first, second)}: keep one of them.")
    wrong = np.abs(steps - usual) > 0.05 * usual
    if wrong.any():
        at = int(np.argmax(np.abs(steps - usual)))
        number = steps[at] / usual
        lost = round(number) - 1
        reason = f"{lost} missing there" if lost > 0 and abs(number - round(number)) < 0.1 else "which is no grid"
        raise ValueError(
            f"{what} has slices that are not at equal distances: {steps[at]:.3g} mm between "
            f"{_two(frames[at], frames[at + 1])}, {usual:.3g} mm elsewhere, {reason}."
        )
    return float(steps.mean())


def _two(first: Frame, second: Frame) -> str:
    """Names of two slices: of their files, or of the frames of one."""
    if first.file == second.file:
        return f"the frames {first.number + 1} and {second.number + 1} of {first.file.name!r}"
    return f"{first.file.name!r} and {second.file.name!r}"


def _same(first: Any, second: Any) -> bool:
    if first is None or second is None or isinstance(first, str) or isinstance(second, str):
        return bool(first == second)
    try:
        return np.allclose(np.asarray(first, dtype=float), np.asarray(second, dtype=float), atol=1e-3)
    except (TypeError, ValueError):  # of words, or of other lengths
        return bool(first == second)


def _said(value: Any) -> str:
    several = not isinstance(value, str) and hasattr(value, "__iter__")
    return printable("\\".join(map(str, value)) if several else str(value), 80)
