"""Files as MONAI's readers hand them on: values, and metadata with the place of each voxel in RAS, in mm."""

from .pictures import PictureReader

__all__ = ["PictureReader"]
