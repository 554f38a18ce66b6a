"""Files as MONAI's readers hand them on: values, and metadata with the place of each voxel in RAS, in mm.

Each kind of file has one reader, and no other behind it whose excuse would hide the reason.
"""

from .nifti import NiftiReader
from .pictures import PictureReader
from .series import SeriesReader
from .volumes import VolumeReader, itk_place, nrrd_unit

__all__ = ["NiftiReader", "PictureReader", "SeriesReader", "VolumeReader", "itk_place", "nrrd_unit"]
