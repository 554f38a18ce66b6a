"""Masks against labels: which files belong together, the scores of a case, and tables of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .folders import Pair, find_names, find_pairs

if TYPE_CHECKING:
    from .scores import Scores, compare_masks
    from .summary import summarize, write_scores, write_summary

__all__ = [
    "Pair",
    "Scores",
    "compare_masks",
    "find_names",
    "find_pairs",
    "summarize",
    "write_scores",
    "write_summary",
]

LATER = {
    "Scores": "scores",
    "compare_masks": "scores",
    **dict.fromkeys(("summarize", "write_scores", "write_summary"), "summary"),
}


def __getattr__(name: str) -> Any:
    """Import what needs torch and MONAI, which take seconds, when it is first asked for."""
    if name in LATER:
        return getattr(importlib.import_module(f".{LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
