"""Files as MONAI's readers hand them on: values, and metadata with the place of each voxel in RAS, in mm.

Each kind of file has one reader, and no other behind it whose excuse would hide the reason.
"""

from .arrays import ArrayReader
from .held import HeldImage, held_image
from .nifti import NiftiReader
from .pictures import PictureReader
from .series import SeriesReader
from .text_headers import header_unit
from .volumes import VolumeReader, itk_place

__all__ = [
    "ArrayReader",
    "HeldImage",
    "NiftiReader",
    "PictureReader",
    "SeriesReader",
    "VolumeReader",
    "header_unit",
    "held_image",
    "itk_place",
]
