"""The class that `BundleGen` looks for."""

from medsegdiff_bundle.auto3dseg.algo import MedsegdiffAlgo

__all__ = ["MedsegdiffAlgo"]
