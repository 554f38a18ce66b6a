"""Volumes in the files of 3D Slicer, ITK-SNAP, FreeSurfer and others."""

from __future__ import annotations

import os
import re
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import ImageReader
from monai.data.image_reader import _copy_compatible_dict, _stack_images
from monai.data.utils import orientation_ras_lps
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from medsegdiff_bundle.datalist.headers import axes_and_channels, is_of_nibabel, itk_reader, itk_reason
from medsegdiff_bundle.datalist.naming import METAIMAGE, NRRD, PAIRS, VOLUMES
from medsegdiff_bundle.grid import MODALITY
from medsegdiff_bundle.remarks import add_processing, add_warning

from .nifti import SHEARED, fill_outside, invertible, is_sheared
from .text_headers import header_unit, nrrd_fields, unpacked_metaimage

# Of Analyze 7.5, whose field of orientation ITK passes over, as most programs that write it do.
WITHOUT_DIRECTIONS = (
    "The header gives the axes of the volume no directions: here they are taken to point left, to the back and up, as "
    "in programs built on ITK, such as 3D Slicer; nibabel and others take other ones."
)

PLACED_BY_SPM = (
    "The volume is placed by {name!r}, as in SPM; programs built on ITK, such as 3D Slicer, pass over it and show the "
    "file elsewhere."
)
NOT_OF_SPM = "{name!r}, which lies beside it, holds no place of SPM's and is passed over."

# Of an NRRD file without the field `space`, or with one that is not that of a body, and of MGH without directions.
WITHOUT_SPACE = (
    "The header gives the axes of the volume no directions in a body: here they are taken as in programs built on ITK, "
    "such as 3D Slicer."
)
WITHOUT_RAS = "The header gives the axes of the volume no directions: here they are taken as in nibabel."
# Spaces of a body, as NRRD spells them.
SPACES = ("right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps")

SEGMENTS = "segments"  # key of the metadata

Names = Sequence[str | os.PathLike] | str | os.PathLike


class Volume(NamedTuple):
    """What was read from one file or folder."""

    values: np.ndarray  # (X, Y), (X, Y, Z), or with channels behind
    axes: int  # spatial ones, 2 or 3
    affine: np.ndarray  # (4, 4), voxel to RAS in mm
    warnings: tuple[str, ...] = ()  # for the reader of the report
    processing: tuple[str, ...] = ()  # likewise: what was done to the image
    modality: str | None = None  # such as "CT", if the file says so
    segments: tuple[tuple[int, str], ...] = ()  # of a segmentation of 3D Slicer: its numbers and what they are called


class OneFileReader(ImageReader):
    """What readers of MONAI's interface have in common: a subclass says which files it takes and reads one of them.

    Several files are the channels of one image.
    """

    @abstractmethod
    def volume(self, path: Path) -> Volume:
        """Read one file or folder."""

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Read files; the result is for `get_data`."""
        volumes = [self.volume(Path(name)) for name in ensure_tuple(data)]
        return volumes if len(volumes) > 1 else volumes[0]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Values (X, Y, Z), (X, Y) or with channels behind, and metadata with the affine from voxel to RAS in mm."""
        metadata: dict[Any, Any] = {}
        volumes = [img] if isinstance(img, Volume) else img
        for volume in volumes:
            alone = volume.values.ndim == volume.axes
            header = {
                MetaKeys.AFFINE: volume.affine.copy(),
                MetaKeys.ORIGINAL_AFFINE: volume.affine.copy(),
                MetaKeys.SPATIAL_SHAPE: np.array(volume.values.shape[: volume.axes]),
                MetaKeys.SPACE: SpaceKeys.RAS,
                MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if alone else -1,
            }
            _copy_compatible_dict(header, metadata)
            if volume.segments:
                metadata[SEGMENTS] = dict(volume.segments)
            if volume.modality is not None:
                metadata[MODALITY] = volume.modality
            for sentence in volume.warnings:
                add_warning(metadata, sentence)
            for sentence in volume.processing:
                add_processing(metadata, sentence)
        return _stack_images([volume.values for volume in volumes], metadata), metadata


class VolumeReader(OneFileReader):
    """NRRD, MetaImage and Analyze as ITK reads them, and FreeSurfer's MGH as nibabel does.

    MONAI's own `NrrdReader` takes each space but the one that is spelt "left-posterior-superior" for RAS, so that left
    and right change places in a file that says "LPS"; its `NibabelReader` refuses the ending .mgz.

    Raises:
        ValueError: a file is damaged, holds complex numbers or too many axes; the text does not name it.
    """

    def verify_suffix(self, filename: Names) -> bool:
        """Whether these are files of volumes."""
        return all(Path(name).name.lower().endswith(VOLUMES) for name in ensure_tuple(filename))

    def volume(self, path: Path) -> Volume:
        """Read one file."""
        if is_of_nibabel(path):
            import nibabel

            image: Any = nibabel.load(path)  # type: ignore[attr-defined]
            volume = _squeezed(fill_outside(np.asanyarray(image.dataobj)), np.asarray(image.affine))
            return volume if _has_directions(image) else volume._replace(warnings=(WITHOUT_RAS,))
        reader = itk_reader(path)
        unpacked = unpacked_metaimage(path) if path.name.lower().endswith(METAIMAGE) else None
        try:
            read = reader.Execute() if unpacked is None else _executed(reader, unpacked)
        except RuntimeError as error:
            raise ValueError(itk_reason(error)) from error
        if "complex" in read.GetPixelIDTypeAsString():
            raise ValueError("it holds complex numbers: save their magnitude")
        values = fill_outside(_labels_of_layers(read, *itk_arrays(read)))
        volume = _squeezed(values, itk_affine(read), read.GetDimension())._replace(segments=_segments(read))
        if path.name.lower().endswith(PAIRS) and volume.axes > 2:
            matrix = path.with_name(re.sub(r"(?i)\.(img|hdr|img\.gz)$", ".mat", path.name))
            placed = volume._replace(warnings=(WITHOUT_DIRECTIONS,))
            volume = _placed_by_spm(placed, path, matrix) if matrix.is_file() else placed
        if path.name.lower().endswith(NRRD) and volume.axes > 2:
            space = nrrd_fields(path).get("space", "").lower().removesuffix("-time").removesuffix("t")
            volume = volume if space in SPACES else volume._replace(warnings=(WITHOUT_SPACE,))
        if is_sheared(volume.affine):
            volume = volume._replace(warnings=(*volume.warnings, SHEARED))
        millimetres, unit = header_unit(path)
        if millimetres != 1:
            said = f"Lengths in the header are in {unit}; here they are in mm."
            affine = np.diag([*[millimetres] * 3, 1.0]) @ volume.affine
            volume = volume._replace(affine=affine, processing=(said,))
        return volume


def _placed_by_spm(volume: Volume, path: Path, matrix: Path) -> Volume:
    """A volume of Analyze at the place that SPM wrote into a file of MATLAB beside it."""
    import nibabel

    try:
        affine = np.asarray(nibabel.load(path).affine)  # type: ignore[attr-defined]
        placed = bool(matrix.stat().st_size) and invertible(affine, 3)
    except Exception:  # whatever its readers raise of other files of MATLAB
        placed = False
    if not placed:
        return volume._replace(warnings=(*volume.warnings, NOT_OF_SPM.format(name=matrix.name)))
    return volume._replace(affine=affine, warnings=(PLACED_BY_SPM.format(name=matrix.name),))


def _has_directions(image: Any) -> bool:
    """Whether an MGH file says where its axes point: nibabel sets the flag goodRASFlag of one that does not."""
    with image.file_map["image"].get_prepare_fileobj("rb") as file:
        return bool(any(file.read(30)[28:]))


def itk_arrays(image: Any) -> tuple[np.ndarray, int]:
    """Values of an image of SimpleITK, (X, Y, Z) with its components behind if it has several, and their number."""
    import SimpleITK

    values = SimpleITK.GetArrayFromImage(image)
    components = image.GetNumberOfComponentsPerPixel()
    axes = image.GetDimension()
    return values.transpose(*reversed(range(axes)), *range(axes, values.ndim)), components


def itk_affine(image: Any) -> np.ndarray:
    """Voxel to RAS in mm, (4, 4), of an image of SimpleITK, or of its reader that knows the header."""
    axes = image.GetDimension()
    used = min(axes, 3)
    direction = np.array(image.GetDirection()).reshape(axes, axes)[:used, :used]
    affine = np.eye(4)
    affine[:used, :used] = direction * np.array(image.GetSpacing())[:used]
    affine[:used, 3] = image.GetOrigin()[:used]
    return np.asarray(orientation_ras_lps(affine))


def itk_place(file: Path) -> np.ndarray | None:
    """Voxel to RAS in mm, (4, 4), by which programs built on ITK show a file; None of a file that ITK refuses.

    Of the two forms of a NIfTI header, where they differ, ITK takes the qform more often than nibabel does, and without
    both it takes other directions.
    """
    try:
        reader = itk_reader(file)
        reader.ReadImageInformation()
    except (RuntimeError, ValueError):
        return None
    return itk_affine(reader)


def _squeezed(values: np.ndarray, affine: np.ndarray, dimension: int | None = None) -> Volume:
    """A volume of an array with the axes of its file."""
    dimension = values.ndim if dimension is None else dimension
    if np.iscomplexobj(values):
        raise ValueError("it holds complex numbers: save their magnitude")
    axes, _ = axes_and_channels(values.shape[:dimension])
    kept = [n for n, length in enumerate(values.shape) if n < axes or n >= dimension or length != 1]
    values = values.reshape([values.shape[n] for n in kept])
    if values.ndim > axes + 1:
        raise ValueError(f"it holds {values.shape[-2]} images of {values.shape[-1]} channels: one image is read")
    return Volume(values, axes, affine)


def _segments(image: Any) -> tuple[tuple[int, str], ...]:
    """Numbers, see `_labels_of_layers`, and names of the segments of 3D Slicer's segmentation."""
    found: list[tuple[int, str]] = []
    layers = image.GetNumberOfComponentsPerPixel() > 1
    while image.HasMetaDataKey(f"Segment{len(found)}_Name"):
        name, value = (f"Segment{len(found)}_{what}" for what in ("Name", "LabelValue"))
        number = int(image.GetMetaData(value)) if image.HasMetaDataKey(value) and not layers else len(found) + 1
        found.append((number, image.GetMetaData(name).strip()))
    return tuple(found)


def _labels_of_layers(image: Any, values: np.ndarray, components: int) -> np.ndarray:
    """Labels of a segmentation of 3D Slicer, whose segments that overlap stand in layers of their own.

    They get the numbers that 3D Slicer's export to a label map gives them: 1, 2, ... in their order.
    """
    if components == 1 or not image.HasMetaDataKey("Segment0_ID"):
        return values
    labels = np.zeros(values.shape[:-1], dtype=np.int16)
    count = 0
    while image.HasMetaDataKey(f"Segment{count}_ID"):
        layer, value = (int(image.GetMetaData(f"Segment{count}_{what}")) for what in ("Layer", "LabelValue"))
        here = values[..., layer] == value
        if (labels[here] > 0).any():
            raise ValueError("its segments overlap, and a voxel has one class: export one label map from 3D Slicer")
        count += 1
        labels[here] = count
    return labels


def _executed(reader: Any, content: bytes) -> Any:
    """What a reader of SimpleITK makes of a file of this content."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "volume.mha"
        file.write_bytes(content)
        reader.SetFileName(str(file))
        return reader.Execute()
