"""Trainings of a cross-validation: a folder for each fold, and what they say together."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsegdiff_bundle.files import whole_file

TABLE = "folds.csv"


def chosen(word: str, given: Mapping[str, Any], configured: Mapping[str, Any] | None) -> tuple[list[int], int]:
    """Folds to train, and how many there are.

    Args:
        word: a number from 0, or "all".
        given: settings of the command line.
        configured: of a file.

    Raises:
        ValueError: there is no such fold.
    """
    settings = {**(configured or {}), **given}
    number = settings.get("num_folds", 5)
    if not isinstance(number, int) or number < 2:
        raise ValueError(f"num_folds must be a whole number of at least 2, got {number!r}.")
    number = _own_folds(settings.get("dataset_dir")) or number
    if word == "all":
        return list(range(number)), number
    if not word.isdigit() or int(word) >= number:
        raise ValueError(f"--fold must be from 0 to {number - 1}, or all, got {word!r}.")
    return [int(word)], number


def _own_folds(dataset_dir: Any) -> int:
    """How many folds a data set has of its own."""
    from medsegdiff_bundle.datalist import read_data_set

    try:
        return len(read_data_set(dataset_dir).folds) if isinstance(dataset_dir, str) else 0
    except ValueError:
        return 0  # the cases are of some other list, or the training says what is wrong


def folder(output: Path, fold: int) -> Path:
    """Folder of a fold's training."""
    return output / f"fold_{fold}"


def is_done(where: Path) -> bool:
    """Whether the training in a folder has come to its end."""
    from medsegdiff_bundle.handlers.record import DONE as ended

    return (where / ended).is_file()


def summarise(output: Path, number: int) -> str:
    """Write `folds.csv`: the best validation of each fold that has one, and their mean and deviation.

    Args:
        output: folder of the folders.
        number: of folds.

    Returns:
        The mean and deviation over the folds, in a line; nothing if none has a validation.
    """
    from medsegdiff_bundle.handlers.record import TABLE as HISTORY
    from medsegdiff_bundle.handlers.record import VALIDATION, read_history

    rows: list[dict[str, float]] = []
    for fold in range(number):
        validated = [row for row in read_history(folder(output, fold) / HISTORY) if f"{VALIDATION}fused" in row]
        if validated:
            best = max(validated, key=lambda row: row[f"{VALIDATION}fused"])
            scores = {name: value for name, value in best.items() if name.startswith(VALIDATION)}
            rows.append({"fold": fold, "epoch": best["epoch"], **scores})
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with whole_file(output / TABLE) as file, file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows([f"{row[name]:.6g}" if name in row else "" for name in names] for row in rows)
        for what, of in (("mean", statistics.fmean), ("deviation", _deviation)):
            values = {name: of([row[name] for row in rows if name in row]) for name in names[2:]}
            writer.writerow([what, "", *(f"{values[name]:.6g}" for name in names[2:])])
    dice = [row[f"{VALIDATION}fused"] for row in rows]
    mean, deviation = statistics.fmean(dice), _deviation(dice)
    return f"{len(rows)} of {number} folds: Dice {mean:.4f} ± {deviation:.4f} ({output / TABLE})"


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
