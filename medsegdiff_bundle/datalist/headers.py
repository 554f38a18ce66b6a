"""Headers of image files: what can be said of a file without its voxels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .naming import FORMATS, NIFTI, PAIRS, PICTURES, VOLUMES, printable
from .slices import is_series

IMAGE_IO = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}

NOWHERE = {  # what ITK says of places that are none
    "determinant is 0": "its axes lie in one plane",
    "Refusing to change spacing": "a voxel has no size",
    "Zero-valued spacing": "a voxel has no size",
}


def axes_and_channels(shape: Sequence[int]) -> tuple[int, int]:
    """Spatial axes, up to three, and channels of an array with the axes of a file; behind them length 1 does not count.

    Raises:
        ValueError: there are more axes, fewer than two, or one without a voxel.
    """
    if not len(shape) or min(shape) < 1:
        raise ValueError(f"its header tells {' x '.join(map(str, shape)) or 'no'} voxels: there is nothing to read")
    if len(shape) < 2:
        raise ValueError(f"its header tells one axis, of {shape[0]} voxels: an image has two or three")
    more = [length for length in shape[3:] if length != 1]
    if len(more) > 1:
        raise ValueError(f"it has {len(shape)} axes, {' x '.join(map(str, shape))}: three and one of channels are read")
    return min(len(shape), 3), (more or [1])[0]


def file_axes_and_channels(file: Path) -> tuple[int, int]:
    """Spatial axes and channels of a volume's file.

    Raises:
        ValueError: the file cannot be read; the text does not name it.
    """
    if not is_of_nibabel(file):
        reader = itk_reader(file)
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise ValueError(itk_reason(error)) from error
        axes, channels = axes_and_channels(reader.GetSize())
        components = reader.GetNumberOfComponents()
        if min(channels, components) > 1:
            raise ValueError(f"it holds {channels} images of {components} channels: one image is read")
        return axes, max(channels, components)
    import nibabel

    try:
        shape = nibabel.load(file).shape  # type: ignore[attr-defined]
    except Exception as error:  # whatever its reader and its decompressor raise
        raise ValueError(nibabel_reason(error)) from error
    return axes_and_channels(shape)


def is_of_nibabel(file: Path) -> bool:
    """Whether nibabel reads a volume: NIfTI of one or two files, MGH. The others are read as ITK reads them."""
    name = file.name.lower()
    return name.endswith((*NIFTI, ".mgz", ".mgh")) or (name.endswith(PAIRS) and is_nifti_pair(file))


def is_nifti_pair(file: Path) -> bool:
    """Whether an .img or .hdr file belongs to an image in NIfTI: Analyze's header has the same name and size."""
    import nibabel

    try:
        return isinstance(nibabel.load(file), nibabel.Nifti1Pair)  # type: ignore[attr-defined]
    except Exception:  # as whatever it is read then, that reader says what is wrong with it
        return False


def itk_reader(file: Path) -> Any:
    """SimpleITK's reader of one file, with the reader of ITK that its name stands for.

    Raises:
        ValueError: no reader of ITK takes a file of that name.
    """
    import SimpleITK

    name = file.name.lower()
    if not file.is_file():
        raise ValueError("it does not exist")
    if not file.stat().st_size:
        raise ValueError("it is empty")
    for ending in (".img.gz", ".img"):
        stem = file.name[: -len(ending)]
        others = [file.parent / f"{stem}{other}" for other in (".hdr", ".HDR", ".hdr.gz")]
        if name.endswith(ending) and not any(other.is_file() for other in others):
            raise ValueError(f"its header {stem + '.hdr'!r} is missing")
    if name.endswith(".hdr"):
        others = [file.with_suffix(ending) for ending in (".img", ".IMG", ".img.gz")]
        if not any(other.is_file() for other in others):  # of which the reader of ITK talks
            raise ValueError(f"its values {others[0].name!r} are missing")
    if name.endswith((".mha", ".mhd")) and not file.name.endswith((".mha", ".mhd")):
        raise ValueError("files of MetaImage end in .mha or .mhd, in small letters: rename it")
    if name.endswith((".mha", ".mhd")):
        with file.open("rb") as stream:
            head = stream.read(1 << 16)
        for field in (b"NDims", b"DimSize", b"ElementType", b"ElementDataFile"):
            if field not in head:  # of which ITK talks at length
                raise ValueError(f"its header has no {field.decode()}")
        for axes in re.findall(rb"NDims[ \t]*=?[ \t]*([^\r\n]*)", head):
            if not re.fullmatch(rb"[1-9]\s*", axes):  # with which ITK's library writes where it must not
                raise ValueError(f"its header tells {printable(axes.decode(errors='replace'), 80)} axes")
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(file))
    reader.SetImageIO(next((io for ending, io in IMAGE_IO.items() if name.endswith(ending)), "NiftiImageIO"))
    return reader


def itk_reason(error: RuntimeError) -> str:
    """What an error of ITK says, without where in its code it was raised."""
    for found, why in NOWHERE.items():
        if found in str(error):
            return f"its header places the voxels nowhere: {why}"
    text = re.split(r"ERROR: (?:\w+\(0x\w+\): )?", str(error), maxsplit=1)[-1]
    lines = [re.sub(r"^\[nrrd\] \w+:?", "", line).strip() for line in text.strip().splitlines()]
    said = [line for line in lines if line and not line.startswith(("trouble", "File cannot be read"))]
    # What is behind "Reason:" is the last error of the process, which often has nothing to do with this one.
    said = [line for line in said if not line.startswith("Reason:") or "denied" in line]
    if not said or re.search(r"fread got only|expected \d+ bytes but|data read error", said[-1]):
        return "it is truncated or damaged"
    return printable(said[-1].rstrip("."))


def nibabel_reason(error: Exception) -> str:
    """What an error of nibabel says."""
    if "w2 should be positive" in str(error):
        return "its header places the voxels nowhere: the quaternion of its qform is no rotation"
    if re.search("cannot convert float|data code .* not recognized", str(error)):
        return f"its header is damaged, or of a kind that is not read ({printable(str(error))})"
    if isinstance(error, FileNotFoundError) and str(error.filename or "").lower().endswith((".img", ".img.gz")):
        return f"its values {Path(error.filename).name!r} are missing"
    if "Cannot work out file type" in str(error):
        return "it is no NIfTI file, or a compressed one, whose name must end in .nii.gz"
    if "is not a gzip file" in str(error):
        return "it is not compressed, so its name must end in .nii"
    if "Not a gzipped file" in str(error):
        return "it is not compressed, as its name says: files of MGH end in .mgh then, others do without .gz"
    return printable(str(error).rstrip(".")) or type(error).__name__


def kind_of(file: Path) -> str:
    """'volume', 'picture', or '' for a file that is none of both by its name."""
    name = file.name.lower()
    return "volume" if name.endswith(VOLUMES) else "picture" if name.endswith(PICTURES) else ""


def is_part(file: Path) -> bool:
    """Whether a file holds the values of another that stands for both: the .img of an .hdr, the .raw of an .mhd."""
    for ending in (".img.gz", ".raw.gz", ".img", ".raw", ".zraw", ".hdr.gz"):
        if file.name.lower().endswith(ending):
            stem = file.name[: -len(ending)]
            headers = (".img.gz",) if ending == ".hdr.gz" else (".hdr", ".HDR", ".mhd", ".nhdr")
            return any((file.parent / f"{stem}{header}").is_file() for header in headers)
    return False


def check_format(path: Path) -> None:
    """Refuse a file that no reader takes, in the place of the excuse of the last reader that is tried.

    Raises:
        ValueError: listing what is read.
    """
    if path.is_file() and not kind_of(path) and path.suffix.lower() not in (".npy", ".npz") and not is_series(path):
        raise ValueError(f"{path.name!r} is none of the files that are read: {FORMATS}")
