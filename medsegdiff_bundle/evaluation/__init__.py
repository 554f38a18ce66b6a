"""Masks against labels: which files belong together, the scores of a case, and tables of them."""

from .folders import Pair, find_names, find_pairs
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
