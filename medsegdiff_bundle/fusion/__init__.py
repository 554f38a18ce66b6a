"""One segmentation out of many: STAPLE, and the mask of highest expected Dice. Pure functions of tensors."""

from .expected_dice import ExpectedDice, expected_dice
from .patterns import distinct_patterns as _distinct_patterns
from .staple import StapleResult, staple

__all__ = ["ExpectedDice", "StapleResult", "_distinct_patterns", "expected_dice", "staple"]
