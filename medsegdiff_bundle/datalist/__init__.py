"""Which files to work on. Every check of the data that needs no voxel happens here, before any work starts."""

from .naming import SEGMENTATION, case_name, output_name
from .sections import decathlon_datalist, image_datalist, picture_datalist, segmentation_datalist
from .series import dicom_files, series_datalist

__all__ = [
    "SEGMENTATION",
    "case_name",
    "decathlon_datalist",
    "dicom_files",
    "image_datalist",
    "output_name",
    "picture_datalist",
    "segmentation_datalist",
    "series_datalist",
]
