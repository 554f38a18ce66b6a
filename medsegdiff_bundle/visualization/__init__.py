"""Pictures for people: image, mask and uncertainty side by side, and the contours of the members.

Volumes are drawn by their affine in radiological convention, along the nearest anatomical axes, at their true shape.

Letters in shapes: E members, C channels, S spatial axes, H and W rows and columns of a picture.
"""

from .greys import GreyWindow, grey_window
from .marks import as_image
from .pictures import INFERNO, PALETTE, ContourPictures, contour_pictures, overlay_picture, uncertainty_colours
from .planes import Plane, planes

__all__ = [
    "INFERNO",
    "PALETTE",
    "ContourPictures",
    "GreyWindow",
    "Plane",
    "as_image",
    "contour_pictures",
    "grey_window",
    "overlay_picture",
    "planes",
    "uncertainty_colours",
]
