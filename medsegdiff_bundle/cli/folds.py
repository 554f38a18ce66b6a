"""Trainings of a cross-validation: a folder for each fold, and what they say together."""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff_bundle.files import whole_file

TABLE, SUMMARY = "folds.csv", "folds.json"


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


def weights(words: Sequence[str], checkpoint: str) -> list[str]:
    """Files of the weights of some folds.

    Args:
        words: numbers from 0, or "all".
        checkpoint: where the weights of a training without folds are, or would be.

    Raises:
        ValueError: a word is none of these, or there are no such weights.
    """
    output, name = Path(checkpoint).parent, Path(checkpoint).name
    if list(words) != ["all"] and not all(word.isdigit() for word in words):
        raise ValueError(f"--folds takes numbers from 0, or all, got {' '.join(words)}.")
    numbers = sorted({int(word) for word in words}) if list(words) != ["all"] else _trained(output, name)
    files = [folder(output, fold) / name for fold in numbers]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise ValueError(f"There are no weights of folds in {str(output)!r}: {str([*missing, output][0])!r}.")
    for file in files:
        if not is_done(file.parent):
            print(f"warning: {file.parent} is of a training that has not come to its end.", file=sys.stderr)
    return [str(file) for file in files]


def _trained(output: Path, name: str) -> list[int]:
    """Numbers of the folds that have weights."""
    found = (path.parent.name.removeprefix("fold_") for path in output.glob(f"fold_*/{name}"))
    return sorted(int(number) for number in found if number.isdigit())


def is_done(where: Path) -> bool:
    """Whether the training in a folder has come to its end."""
    from medsegdiff_bundle.handlers.record import DONE as ended

    return (where / ended).is_file()


def summarise(output: Path, number: int) -> str:
    """Write `folds.csv` and `folds.json`: the best validation of each fold that has one, and their mean and deviation.

    The deviation is that of a sample, over the folds.

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
    of_all = {
        what: {name: of([row[name] for row in rows if name in row]) for name in names[2:]}
        for what, of in (("mean", statistics.fmean), ("deviation", _deviation))
    }
    with whole_file(output / SUMMARY) as file:
        file.write_text(json.dumps(_defined({"folds": rows, **of_all}), indent=2) + "\n", encoding="utf-8")
    with whole_file(output / TABLE) as file, file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows([f"{row[name]:.6g}" if name in row else "" for name in names] for row in rows)
        for what, values in of_all.items():
            writer.writerow([what, "", *(f"{values[name]:.6g}" for name in names[2:])])
    dice = [row[f"{VALIDATION}fused"] for row in rows]
    mean, deviation = statistics.fmean(dice), _deviation(dice)
    return f"{len(rows)} of {number} folds: Dice {mean:.4f} ± {deviation:.4f} ({output / TABLE})"


def _defined(value: Any) -> Any:
    """Numbers with null for what is undefined, which JSON has no number for."""
    if isinstance(value, dict):
        return {name: _defined(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_defined(each) for each in value]
    return value if math.isfinite(value) else None


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
