"""Inferers of MedSegDiff-V2."""

from .ensemble import EnsembleInferer
from .memory import tune_allocator
from .noise import member_noise

__all__ = ["EnsembleInferer", "member_noise", "tune_allocator"]
