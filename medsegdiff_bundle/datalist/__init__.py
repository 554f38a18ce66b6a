"""Which files to work on. Every check of the data that needs no voxel happens here, before any work starts."""

from .forms import Case, DataSet, cases_of, folds_of, read_data_set
from .naming import CONTOURS, SEGMENTATION, case_name, result_ending
from .sections import channels_entry, decathlon_datalist, image_datalist, picture_datalist, segmentation_datalist
from .series import dicom_files, find_series, series_datalist

__all__ = [
    "CONTOURS",
    "Case",
    "DataSet",
    "SEGMENTATION",
    "case_name",
    "cases_of",
    "channels_entry",
    "decathlon_datalist",
    "dicom_files",
    "find_series",
    "folds_of",
    "image_datalist",
    "picture_datalist",
    "read_data_set",
    "result_ending",
    "segmentation_datalist",
    "series_datalist",
]
