"""MONAI transforms of the raters of a label, and between the inferer's members and the files that are saved.

Letters in shapes: R raters, E members, K classes. All work on one case (before collation or after decollation), and
their outputs carry the metadata and applied operations of the input, so that `Invertd` and `SaveImaged` work on them.
"""

from .fusion import FuseEnsembled, STAPLEEnsembled
from .labels import CheckLabelsd, RandRaterd, UnpackRatersd
from .load import LoadImaged
from .members import MemberLabelsd, SplitAnchord
from .uncertainty import EnsembleStatisticsd, EnsembleUncertaintyd

__all__ = [
    "CheckLabelsd",
    "EnsembleStatisticsd",
    "EnsembleUncertaintyd",
    "FuseEnsembled",
    "LoadImaged",
    "MemberLabelsd",
    "RandRaterd",
    "STAPLEEnsembled",
    "SplitAnchord",
    "UnpackRatersd",
]
