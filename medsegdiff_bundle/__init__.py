"""MedSegDiff-V2 as a MONAI bundle: networks, schedulers, inferers and transforms for diffusion segmentation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medsegdiff_bundle.segmentation import Segmentation, segment
    from medsegdiff_bundle.segmenter import Segmenter

__version__ = "0.20.0"
__all__ = ["Segmentation", "Segmenter", "__version__", "segment"]


def __getattr__(name: str) -> Any:
    """Import `segment` and `Segmenter` when they are first asked for: torch and MONAI take seconds to import."""
    if name in ("Segmentation", "segment"):
        from medsegdiff_bundle import segmentation

        return getattr(segmentation, name)
    if name == "Segmenter":
        from medsegdiff_bundle.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
