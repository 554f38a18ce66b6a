"""Which files to work on. Every check of the data that needs no voxel happens here, before any work starts."""

from .naming import CONTOURS, SEGMENTATION, case_name, result_ending
from .sections import decathlon_datalist, image_datalist, picture_datalist, segmentation_datalist
from .series import dicom_files, find_series, series_datalist

__all__ = [
    "CONTOURS",
    "SEGMENTATION",
    "case_name",
    "decathlon_datalist",
    "dicom_files",
    "find_series",
    "image_datalist",
    "picture_datalist",
    "result_ending",
    "segmentation_datalist",
    "series_datalist",
]
