"""DICOM segmentation objects (SEG) of the masks of DICOM series, by highdicom; both are in the extra `dicom`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

import medsegdiff_bundle
from medsegdiff_bundle.datalist import SEGMENTATION, case_name, dicom_files
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
        keys: of the masks, in the space of their images.
        output_dir: folder of the files; made if need be.
        class_names: of the classes 1 to K - 1.
        codes: by class name, {"type": [value, scheme, meaning], "modifier": the same, "category": the same}; the last
            two may be left out. What it does not name is written as an anatomical structure of that name.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (1, X, Y, Z) whole numbers from 0 to K - 1, returned as they are
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
            if series.name and series.is_dir():
                try:
                    self._write(d[key], series)
                except UnwritableError as error:
                    add_warning(d, f"No DICOM segmentation is written: {error}")
        return d

    def _write(self, mask: MetaTensor, series: Path) -> None:
        if self.output_dir.is_dir() and dicom_files(self.output_dir):
            raise UnwritableError(f"It would lie among the slices in {str(self.output_dir)!r}.")
        labels = mask[0].detach().cpu().numpy()
        written = dicom_segmentation(labels, mask.affine.cpu().numpy(), series, self.class_names, self.codes)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        written.save_as(self.output_dir / f"{case_name(series)}{SEGMENTATION}")


def dicom_segmentation(
    mask: np.ndarray,
    affine: np.ndarray,
    series: Path,
    class_names: Sequence[str],
    codes: Mapping[str, Mapping[str, Sequence[str]]],
) -> Any:
    """Mask of a series as a DICOM dataset of the class Segmentation, one binary segment for each class.

    Args:
        mask: (X, Y, Z), whole numbers from 0 to K - 1: X columns, Y rows, Z slices of the series, in any order.
        affine: (4, 4), voxel to RAS in mm.
        series: folder of the slices.
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
        import pydicom
    except ImportError as error:
        raise UnwritableError("DICOM segmentations need: pip install 'medsegdiff-bundle[dicom]'.") from error
    slices = [
        pydicom.dcmread(file, stop_before_pixels=True) for file in series.iterdir() if pydicom.misc.is_dicom(file)
    ]
    slices = _ordered([item for item in slices if "ImagePositionPatient" in item], mask.shape, affine, series)
    try:
        return highdicom.seg.Segmentation(
            source_images=slices,
            pixel_array=mask.transpose(2, 1, 0).astype(np.uint8),  # (slices, rows, columns)
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _description(number, name, codes.get(name, {})) for number, name in enumerate(class_names, start=1)
            ],
            series_instance_uid=highdicom.UID(),
            series_number=1000 + int(slices[0].get("SeriesNumber") or 0),
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
            f"The DICOM series in {str(series)!r} lacks what a segmentation repeats: {error}."
        ) from error


def _ordered(slices: list[Any], shape: Sequence[int], affine: np.ndarray, series: Path) -> list[Any]:
    """Slices in the order of the last axis of the mask, once each is known to lie there."""
    to_voxel = np.linalg.inv(affine)

    def voxel(lps: np.ndarray) -> np.ndarray:
        index: np.ndarray = (to_voxel @ [-lps[0], -lps[1], lps[2], 1])[:3]
        return index

    found: dict[int, Any] = {}
    for item in slices:
        origin = np.array(item.ImagePositionPatient, dtype=float)
        along_row, along_column = np.array(item.ImageOrientationPatient, dtype=float).reshape(2, 3)
        row_spacing, column_spacing = (float(value) for value in item.PixelSpacing)
        last = origin + along_row * column_spacing * (item.Columns - 1) + along_column * row_spacing * (item.Rows - 1)
        index = round(voxel(origin)[2])
        corners = [voxel(origin) - [0, 0, index], voxel(last) - [shape[0] - 1, shape[1] - 1, index]]
        if np.abs(corners).max() > 0.05:  # voxels
            raise ValueError(f"The mask does not lie on the slices of the DICOM series in {str(series)!r}.")
        found[index] = item
    if sorted(found) != list(range(shape[2])) or len(slices) != shape[2]:
        raise ValueError(f"The mask has {shape[2]} slices, the DICOM series in {str(series)!r} {len(slices)}.")
    return [found[index] for index in range(shape[2])]


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
