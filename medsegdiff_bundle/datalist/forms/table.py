"""A table of files, as CSV or JSON, for whatever lies in another way."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..naming import case_name
from .description import Case, DataSet, modality_of, read_any_json

NAMES = ("name", "case", "id")
SECTIONS_OF = ("section", "split", "subset")
GROUPS = ("group", "patient", "subject", "patient_id")
FOLDS = ("fold",)
WORDS = {"train": "training", "val": "validation", "valid": "validation"}


def is_table(path: Path) -> bool:
    """Whether a path is a file for `read_table`."""
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".json")


def read_table(path: Path) -> DataSet:
    """Describe a table: a row for each case.

    Columns of a CSV file, or keys of the entries of a JSON list: `image`, or several that begin so, such as `image_T1`
    and `image_T2`, one for each channel; `label`; and, if they are there, `name`, `section` (training, validation or
    test), `group` (what a split must not part, such as the patient), `fold` (from 0, in which the case validates; one
    that has none trains in each). Files are relative to the table. In a JSON object
    the list is `cases`, and beside it may stand `class_names`, `class_values`, `channel_names`, `modality`, `ignore`,
    `regions` ({"name": [classes]}) and `region_order`, as `DataSet` has them.

    Args:
        path: the file.

    Raises:
        ValueError: a row names no image, or a column is missing.
    """
    more: dict[str, Any] = {}
    if path.suffix.lower() == ".json":
        content = read_any_json(path)
        if isinstance(content, dict):
            more = {name: value for name, value in content.items() if name != "cases"}
            content = content.get("cases")
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ValueError(f"{str(path)!r} is no list of cases, and no object with a list 'cases'.")
        rows = content
    else:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    if not rows:
        raise ValueError(f"{str(path)!r} has no row.")
    columns = [str(name) for name in rows[0] if re.match(r"image", str(name), re.IGNORECASE)]
    if not columns:
        raise ValueError(f"{str(path)!r} has no column 'image', only {', '.join(map(str, rows[0]))}.")
    cases = tuple(_case(path, row, number, columns) for number, row in enumerate(rows, 1))
    channels = tuple(more.pop("channel_names", _channels(columns)))
    return DataSet(
        path,
        "table",
        cases,
        channel_names=channels,
        listing=path.name,
        folds=_folds(path, rows, cases),
        **{"modality": modality_of(channels), **_meaning(path, more)},
    )


def _case(path: Path, row: dict[str, Any], number: int, columns: list[str]) -> Case:
    files = [row.get(column) for column in columns]
    if isinstance(files[0], list):  # of a JSON file, one for each channel
        files = [*files[0], *files[1:]]
    if not all(isinstance(file, str) and file for file in files):
        raise ValueError(f"{str(path)!r} names no image in row {number}: {row!r}.")
    label = row.get("label") or row.get("mask")
    section = _first(row, SECTIONS_OF)
    section = WORDS.get(section.lower(), section.lower()) if section else None
    if section not in (None, "training", "validation", "test"):
        raise ValueError(f"{str(path)!r} has the section {section!r} in row {number}: training, validation or test.")
    images = tuple(path.parent / str(file) for file in files)
    name = _first(row, NAMES) or case_name(images[0])
    return Case(name, images, path.parent / label if label else None, section, _first(row, GROUPS))


def _folds(path: Path, rows: list[dict[str, Any]], cases: Sequence[Case]) -> tuple[tuple[str, ...], ...]:
    """Names of the cases of each fold that the rows name."""
    words = [_first(row, FOLDS) for row in rows]
    numbers = {word for word in words if word is not None}
    if numbers != {str(fold) for fold in range(len(numbers))}:
        raise ValueError(f"{str(path)!r} has the folds {', '.join(sorted(numbers))}: they must be numbered from 0 on.")
    names = Counter(case.name for case in cases)
    for case, word in zip(cases, words, strict=True):
        if word is not None and names[case.name] > 1:
            raise ValueError(f"{str(path)!r} has folds and {names[case.name]} cases {case.name!r}: name each its own.")
    return tuple(
        tuple(case.name for case, word in zip(cases, words, strict=True) if word == str(fold))
        for fold in range(len(numbers))
    )


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """Value of the first of some columns that a row fills."""
    return next((str(row[name]) for name in names if row.get(name) not in (None, "")), None)


def _channels(columns: list[str]) -> tuple[str, ...]:
    """Names of channels in names of columns, such as T1 of `image_T1`; none of a single one."""
    names = [re.sub(r"^images?[_:. -]*", "", column, flags=re.IGNORECASE) for column in columns]
    return tuple(name or column for name, column in zip(names, columns, strict=True)) if len(columns) > 1 else ()


def _meaning(path: Path, more: dict[str, Any]) -> dict[str, Any]:
    """What a JSON table says about its classes."""
    known = ("class_names", "class_values", "ignore", "modality", "regions", "region_order", "licence")
    if unknown := sorted(set(more) - set(known)):
        raise ValueError(
            f"{str(path)!r} has {unknown[0]!r}, which is none of cases, channel_names, {', '.join(known)}."
        )
    meaning = {name: tuple(value) if isinstance(value, list) else value for name, value in more.items()}
    regions = more.get("regions")
    if isinstance(regions, dict):
        meaning["regions"] = tuple((name, tuple(classes)) for name, classes in regions.items())
    return meaning
