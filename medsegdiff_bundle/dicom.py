"""DICOM segmentation objects (SEG) of the masks of DICOM series, by highdicom; both are in the extra `dicom`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

import medsegdiff_bundle
from medsegdiff_bundle.datalist import SEGMENTATION, case_name, dicom_files
from medsegdiff_bundle.datalist.series import series_files
from medsegdiff_bundle.datalist.slices import Series, is_series, opened, read_series
from medsegdiff_bundle.files import FullDiskError, whole_file
from medsegdiff_bundle.labels import colour
from medsegdiff_bundle.remarks import add_warning

# For classes without codes: that it is some structure of the body, by its name, in a coding scheme of our own.
CATEGORY = ["91723000", "SCT", "Anatomical Structure"]
OWN_SCHEME = "99MEDSEGDIFF"


class UnwritableError(ValueError):
    """No segmentation object can be written, though the mask is right."""


class SaveDICOMSegmentationd(MapTransform):
    """Write the mask of a DICOM series as a segmentation object that refers to the slices it lies on.

    The file is `<folder of the series>_seg.dcm`. Masks of other images are passed over. Where none can be written there
    is a warning instead: highdicom is missing, the series lacks what a SEG repeats, as after a removal of names, or the
    file would lie among slices, whose readers would take it for one.

    Args:
        keys: of the masks, or regions, in the space of their images.
        output_dir: folder of the files; made if need be.
        class_names: of the classes 1 to K - 1.
        codes: by class name, {"type": [value, scheme, meaning], "modifier": the same, "category": the same}; the last
            two may be left out. What it does not name is written as an anatomical structure of that name.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (1, X, Y, Z) whole numbers from 0 to K - 1, or regions (R, X, Y, Z) of 0 and 1, returned as they are
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        class_names: Sequence[str],
        codes: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.class_names = class_names
        self.codes = codes or {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            series = Path(getattr(d[key], "meta", {}).get("filename_or_obj", ""))
            if series.name and is_series(series):
                try:
                    self._write(d[key], series)
                except FullDiskError:
                    raise
                except Exception as error:  # it is an extra, for whose sake no case ends
                    add_warning(d, f"No DICOM segmentation is written: {str(error) or type(error).__name__}")
        return d

    def _write(self, mask: MetaTensor, series: Path) -> None:
        if self.output_dir.is_dir() and dicom_files(self.output_dir):
            raise UnwritableError(f"It would lie among the slices in {str(self.output_dir)!r}.")
        labels = mask.detach().cpu().numpy()
        labels = labels[0] if len(labels) == 1 else labels
        written = dicom_segmentation(labels, mask.affine.cpu().numpy(), series, self.class_names, self.codes)
        with whole_file(self.output_dir / f"{case_name(series)}{SEGMENTATION}") as file:
            written.save_as(file)


def dicom_segmentation(
    mask: np.ndarray,
    affine: np.ndarray,
    series: Path,
    class_names: Sequence[str],
    codes: Mapping[str, Mapping[str, Sequence[str]]],
) -> Any:
    """Mask of a series as a DICOM dataset of the class Segmentation, one binary segment for each class.

    Args:
        mask: (X, Y, Z), whole numbers from 0 to K - 1, on the grid of the series (see `datalist.slices.Series`); or
            regions, which may overlap, (R, X, Y, Z) of 0 and 1.
        affine: (4, 4), voxel to RAS in mm.
        series: what stands for the series, see `datalist.slices.is_series`.
        class_names: of the classes 1 to K - 1.
        codes: see `SaveDICOMSegmentationd`.

    Returns:
        `highdicom.seg.Segmentation`.

    Raises:
        UnwritableError: highdicom is missing, or the series lacks what a SEG repeats.
        ValueError: the mask does not lie on the slices.
    """
    try:
        import highdicom
    except ImportError as error:
        raise UnwritableError("DICOM segmentations need: pip install 'medsegdiff-bundle[dicom]'.") from error
    with opened(series) as place:
        found = read_series(series, series_files(place, series))
        sources, frames = _sources(found)
    layers = []
    for layer in list(mask) if mask.ndim == 4 else [mask]:
        planes = on_slices(layer, affine, found)
        layers.append(np.stack([planes[index].T for index in frames]).astype(np.uint8))
    # (slices, rows, columns), of regions with an axis of the segments
    pixels = np.stack(layers, axis=-1) if mask.ndim == 4 else layers[0]
    try:
        return highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _description(number, name, codes.get(name, {})) for number, name in enumerate(class_names, start=1)
            ],
            series_instance_uid=highdicom.UID(),
            series_number=1000 + int(sources[0].get("SeriesNumber") or 0),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="medsegdiff-bundle",
            manufacturer_model_name="MedSegDiff-V2",
            software_versions=medsegdiff_bundle.__version__,
            device_serial_number="none",
            series_description="Segmentation by MedSegDiff-V2",
        )
    except AttributeError as error:
        raise UnwritableError(
            f"The DICOM series in {str(series)!r} lacks what a segmentation repeats: {error.name or error}."
        ) from error


def contours(masks: Iterable[tuple[str, np.ndarray]], affine: np.ndarray, series: Path) -> Any:
    """Masks of a series as a DICOM dataset of the class RT Structure Set, by rt-utils: contours on the slices.

    Args:
        masks: name of each structure, and where it is, (X, Y, Z) bool; see `dicom_segmentation`.
        affine: likewise.
        series: likewise.

    Returns:
        pydicom's dataset. A hole in a structure is a contour of its own in it.

    Raises:
        UnwritableError: the series is one file of many frames, or its gantry was tilted.
        ValueError: the mask does not lie on the slices.
    """
    from rt_utils import RTStruct
    from rt_utils.ds_helper import create_rtstruct_dataset

    with opened(series) as place:
        found = read_series(series, series_files(place, series))
        if found.frames[0].groups:
            raise UnwritableError("Contours refer to slices that are files of their own.")
        sources, _ = _sources(found)
    if found.shifts.any():
        raise UnwritableError("Contours of a tilted gantry are not written.")
    _check_spacing(sources, found)
    structures = RTStruct(sources, create_rtstruct_dataset(sources))
    for number, (name, mask) in enumerate(masks, start=1):
        planes = np.stack([plane.T for plane in on_slices(mask, affine, found)], axis=2)  # (rows, columns, slices)
        shown = [round(255 * value) for value in colour(number)]
        if planes.any():
            structures.add_roi(planes, color=shown, name=name, approximate_contours=False)
    structures.ds.StructureSetLabel = "MedSegDiff-V2"
    return structures.ds


def _check_spacing(sources: list[Any], series: Series) -> None:
    """Let rt-utils place pixels where they are: its version 1.2.7 takes the distance of rows for that of columns."""
    from rt_utils.image_helper import get_pixel_to_patient_transformation_matrix

    lps = np.diag([-1.0, -1, 1, 1]) @ series.affine
    for _ in range(2):
        if np.allclose(get_pixel_to_patient_transformation_matrix(sources), lps, atol=1e-3):
            return
        for header in sources:
            header.PixelSpacing = header.PixelSpacing[::-1]
    raise UnwritableError("The library of contours places the pixels of the series elsewhere.")


def on_slices(mask: np.ndarray, affine: np.ndarray, series: Series) -> list[np.ndarray]:
    """The mask at the pixels of each slice, (columns, rows), in the order of the series.

    Args:
        mask: (X, Y, Z), on the grid of the series, its axes in any order and direction.
        affine: (4, 4), of the mask, voxel to RAS in mm.
        series: the slices.

    Raises:
        ValueError: the mask does not lie on them.
    """
    to_mask = np.linalg.inv(affine) @ series.affine
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(series.shape) - 1)
    there = corners @ to_mask[:3, :3].T + to_mask[:3, 3]
    outside = (np.rint(there) < 0) | (np.rint(there) >= mask.shape)
    if sorted(mask.shape) != sorted(series.shape) or outside.any() or np.abs(there - np.rint(there)).max() > 0.05:
        raise ValueError("The mask does not lie on the slices of the DICOM series.")
    planes = []
    for index, (frame, shift) in enumerate(zip(series.frames, series.shifts, strict=True)):
        columns, rows = np.meshgrid(*(np.arange(frame.get(tag)) for tag in ("Columns", "Rows")), indexing="ij")
        pixels = np.stack([columns + shift[0], rows + shift[1], np.full(rows.shape, index)], axis=-1)
        voxels = np.rint(pixels @ to_mask[:3, :3].T + to_mask[:3, 3]).astype(int)
        planes.append(mask[tuple(np.moveaxis(voxels.clip(0, np.array(mask.shape) - 1), -1, 0))])
    return planes


def _sources(series: Series) -> tuple[list[Any], list[int]]:
    """Headers of the files of a series, and for each frame in their order its place in the series.

    What a segmentation repeats of them is made the same for all slices: highdicom refuses orientations that differ in
    their last digit, and writes an empty SliceThickness, which it cannot read: that is the distance of the slices
    (PS3.3, C.7.6.16.2.1).
    """
    import pydicom
    from pydicom.valuerep import DSfloat

    # Of type 2 in each image (PS3.3, C.7.1.1 and C.7.2.1): it may be empty, and is missing where names were removed.
    empty = (
        *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber"),
        *("StudyDate", "StudyTime", "ReferringPhysicianName"),
    )
    files = list(dict.fromkeys(frame.file for frame in series.frames))
    headers = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in files]
    for header in headers:
        for name in empty:
            if name not in header:
                setattr(header, name, "")
    if series.frames[0].groups:
        if len(files) > 1:
            raise UnwritableError("The slices of the series lie in several files of many frames.")
        return headers, np.argsort([frame.number for frame in series.frames]).tolist()
    for header in headers:
        header.ImageOrientationPatient = [DSfloat(value, auto_format=True) for value in series.orientation]
        header.PixelSpacing = headers[0].PixelSpacing
        if header.get("SliceThickness") in (None, ""):
            header.SliceThickness = DSfloat(series.thickness, auto_format=True)
    return headers, list(range(len(headers)))


def _description(number: int, name: str, codes: Mapping[str, Sequence[str]]) -> Any:
    """Description of one segment."""
    import highdicom
    from pydicom.sr.codedict import codes as dictionary

    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=highdicom.sr.CodedConcept(*codes.get("category", CATEGORY)),
        segmented_property_type=highdicom.sr.CodedConcept(*codes.get("type", [name[:64], OWN_SCHEME, name[:64]])),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="MedSegDiff-V2",
            family=dictionary.DCM.ArtificialIntelligence,
            version=medsegdiff_bundle.__version__,
        ),
    )
    if "modifier" in codes:
        modifier = highdicom.sr.CodedConcept(*codes["modifier"])
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description
