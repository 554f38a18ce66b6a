"""MONAI transforms from files to images and labels, and from the inferer's members to files.

Letters in shapes: R raters, E members, K classes. All work on one case (before collation or after decollation), and
their outputs carry the metadata and applied operations of the input, so that `Invertd` and `SaveImaged` work on them.
"""

from typing import Any

from .check_known import CheckKnownd
from .choose import RandAxesFlipd, for_image
from .clean import Cleand, RemoveSmallPartsd
from .colour import RandBorderDiscd, RandColourMixd, RandExposured, RandSaturationd
from .count import EnsembleStatisticsd
from .fuse import FuseEnsembled
from .intensity import CropMeasuredd, NormalizeIntensityd
from .invert import InvertLabelsd
from .label_files import CheckLabelsd, MapLabelsd, NamedSegmentsd, PictureLabelsd, RandRaterd, UnpackRatersd
from .load import LoadImaged, OriginalImaged, load_image
from .maps import EnsembleUncertaintyd
from .members import MemberLabelsd, SplitAnchord
from .placing import CheckGridd
from .plausible import CheckImaged, WarnUncertaind
from .regions import LabelRegionsd, MaskIgnoredd, OneMaskd
from .results import SaveImaged
from .save import PlaceByITKd, VolumeWriter
from .segments import SaveSegmentsd
from .spacing import Spacingd

__all__ = [
    "CheckGridd",
    "CheckImaged",
    "CheckKnownd",
    "CheckLabelsd",
    "Cleand",
    "CropMeasuredd",
    "EnsembleStatisticsd",
    "EnsembleUncertaintyd",
    "FuseEnsembled",
    "InvertLabelsd",
    "LabelRegionsd",
    "LoadImaged",
    "MapLabelsd",
    "MaskIgnoredd",
    "MemberLabelsd",
    "NamedSegmentsd",
    "NormalizeIntensityd",
    "OneMaskd",
    "OriginalImaged",
    "PictureLabelsd",
    "PlaceByITKd",
    "RandAxesFlipd",
    "RandBorderDiscd",
    "RandColourMixd",
    "RandExposured",
    "RandRaterd",
    "RandSaturationd",
    "RemoveSmallPartsd",
    "SaveImaged",
    "SaveSegmentsd",
    "Spacingd",
    "SplitAnchord",
    "UnpackRatersd",
    "VolumeWriter",
    "WarnUncertaind",
    "for_image",
    "load_image",
]


def __getattr__(name: str) -> Any:
    if name == "STAPLEEnsembled":  # which older configurations name
        raise ValueError("There is no STAPLEEnsembled any more: FuseEnsembled with the method 'staple' is the same.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
