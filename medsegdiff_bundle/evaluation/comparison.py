"""Several sets of masks against the same labels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .scores import Scores
from .summary import CONVENTIONS, completed, shown, summarize, text_table


def common_cases(rows: Mapping[str, Sequence[Scores]]) -> dict[str, list[Scores]]:
    """Of each method the rows of the cases that all have, with the classes of all.

    Args:
        rows: by the method's name.
    """
    cases = set.intersection(*({row.case for row in each} for each in rows.values()))
    names = {row.label: row.name for each in rows.values() for row in each}
    return {method: completed([row for row in each if row.case in cases], names) for method, each in rows.items()}


def dice_of_cases(rows: Sequence[Scores]) -> dict[str, float]:
    """Mean Dice over the classes of each case; two empty masks have 1."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row.case, []).append(CONVENTIONS["counted"]["dice"] if row.dice is None else row.dice)
    return {case: statistics.fmean(values) for case, values in found.items()}


def compare(rows: Mapping[str, Sequence[Scores]]) -> dict[str, Any]:
    """Summaries of several methods, and how far each is from the first, case by case.

    Args:
        rows: by the method's name, of the same cases, see `common_cases`.

    Returns:
        {name: {**summarize, "difference": mean of Dice less that of the first method in the same case, two empty masks
        having 1, "standard_error": of that mean, "better": cases, "worse": cases}}. The standard error is None of fewer
        than two cases.
    """
    first = dice_of_cases(next(iter(rows.values())))
    found = {}
    for method, each in rows.items():
        dices = dice_of_cases(each)
        apart = [dices[case] - first[case] for case in first]
        found[method] = {
            **summarize(each),
            "difference": statistics.fmean(apart),
            "standard_error": statistics.stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else None,
            "better": sum(value > 0 for value in apart),
            "worse": sum(value < 0 for value in apart),
        }
    return found


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """The means over classes of each method as a table of text."""
    unit = next(iter(comparison.values()))["units"].split(", ")[0]
    lines = [["", "Dice", "Dice, empty 1", f"HD95 ({unit})", "surface Dice", "less the first's", "better", "worse"]]
    for number, (method, found) in enumerate(comparison.items()):
        one, counted = found["mean"]["left_out"], found["mean"]["counted"]
        error = found["standard_error"]
        apart = f"{found['difference']:+.4f}" + ("" if error is None else f" ± {error:.4f}")
        against = [apart, str(found["better"]), str(found["worse"])] if number else ["", "", ""]
        scores = [shown(one["dice"]), shown(counted["dice"]), shown(one["hd95"], 2), shown(one["surface_dice"])]
        lines.append([method, *scores, *against])
    return text_table(lines)
