"""Tables of scores over cases."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff_bundle.files import whole_file

from .scores import FOUND, NEITHER, Scores

CONVENTIONS = {"left_out": {}, "counted": {"dice": 1.0, "surface_dice": 1.0, "hd95": 0.0}}  # of what neither marks
MEASURES = ("dice", "surface_dice", "hd95")


def completed(
    rows: Sequence[Scores], names: Mapping[int, str] | None = None, cases: Iterable[str] | None = None
) -> list[Scores]:
    """The rows with one for each class of each case, as some classes are in other cases alone.

    Args:
        rows: of cases.
        names: of the classes by number; None or empty takes those of the rows.
        cases: of which some may have no class that is marked, and so no row; None takes those of the rows.
    """
    names = dict(sorted((names or {row.label: row.name for row in rows}).items()))
    found = {(row.case, row.label): row for row in rows}
    cases = list(dict.fromkeys((row.case for row in rows) if cases is None else cases))
    empty = (NEITHER, None, None, None, 0.0, 0.0, rows[0].units if rows else "")
    return [
        found.get((case, label), Scores(case, label, name, *empty)) for case in cases for label, name in names.items()
    ]


def summarize(rows: Sequence[Scores]) -> dict[str, Any]:
    """Means over cases, of each class and over the classes.

    Args:
        rows: of all cases, see `completed`.

    Returns:
        {"units": "mm, ml", "classes": {name: {...}}, "mean": {...}}. Of each class how many cases are of which kind
        (`cases`, `both`, `label only`, ...), `volume_error` and `absolute_volume_error`, and the means of Dice, surface
        Dice and HD95 in two conventions: `left_out`, of the cases in which prediction or label mark it, and `counted`,
        of all, where two empty masks agree: 1, 1 and 0. None where there is no case.
    """
    by_class: dict[str, list[Scores]] = {}
    for row in rows:
        by_class.setdefault(row.name, []).append(row)
    classes = {name: _of_class(each) for name, each in by_class.items()}
    mean = {
        convention: {measure: _mean([found[convention][measure] for found in classes.values()]) for measure in MEASURES}
        for convention in CONVENTIONS
    }
    units = dict.fromkeys(row.units for row in rows)
    return {"units": "mixed, mixed" if len(units) > 1 else next(iter(units)), "classes": classes, "mean": mean}


def _of_class(rows: Sequence[Scores]) -> dict[str, Any]:
    errors = [row.volume_error for row in rows if row.found != NEITHER]
    return {
        "cases": len(rows),
        **{kind: sum(row.found == kind for row in rows) for kind in FOUND},
        **{
            convention: {
                measure: _mean([filled.get(measure) if row.found == NEITHER else getattr(row, measure) for row in rows])
                for measure in MEASURES
            }
            for convention, filled in CONVENTIONS.items()
        },
        "volume_error": _mean(errors),
        "absolute_volume_error": _mean([abs(error) for error in errors]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(known) if known else None


def write_scores(rows: Sequence[Scores], file: Path) -> None:
    """Write a CSV with a line for each class of each case."""
    with whole_file(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*Scores._fields, "volume_error"])
        for row in rows:
            writer.writerow([_rounded(value) for value in (*row, row.volume_error)])


def write_summary(summary: Mapping[str, Any], file: Path) -> None:
    """Write a JSON."""
    with whole_file(file) as temporary:
        temporary.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


def summary_table(summary: Mapping[str, Any]) -> str:
    """The means of each class as a table of text."""
    unit, volume_unit = summary["units"].split(", ")
    lines = [
        ["class", "Dice", "Dice, empty 1", f"HD95 ({unit})", "surface Dice", f"volume error ({volume_unit})"]
        + ["missed", "invented", "cases"]
    ]
    for name, found in summary["classes"].items():
        one, all_cases = found["left_out"], found["counted"]
        lines.append(
            [
                name,
                *(shown(value) for value in (one["dice"], all_cases["dice"])),
                shown(one["hd95"], 2),
                shown(one["surface_dice"]),
                shown(found["volume_error"], 3, "+"),
                *(str(found[kind]) for kind in ("label only", "prediction only")),
                f"{found['cases'] - found[NEITHER]} of {found['cases']}",
            ]
        )
    if len(lines) > 2:
        mean, counted = summary["mean"]["left_out"], summary["mean"]["counted"]
        means = [shown(mean["dice"]), shown(counted["dice"]), shown(mean["hd95"], 2), shown(mean["surface_dice"])]
        lines.append(["mean", *means, "", "", "", ""])
    return text_table(lines)


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells under one another, the first to the left and the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = [
        "  ".join(f"{cell:{'<' if i == 0 else '>'}{w}}" for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join(row.rstrip() for row in rows)


def shown(value: float | None, digits: int = 4, sign: str = "") -> str:
    """A number for a table."""
    return "-" if value is None else f"{value:{sign}.{digits}f}"
