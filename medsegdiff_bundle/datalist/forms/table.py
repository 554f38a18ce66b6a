"""A table of files, as CSV or JSON, for whatever lies in another way."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from typing import Any

from ..naming import case_name
from .description import Case, DataSet, modality_of, numbered_folds, read_any_json

NAMES = ("name", "case", "id", "case_id", "image_id")
LABELS = tuple(name + what for what in ("", "_path", "_file") for name in ("label", "mask", "segmentation", "seg"))
SECTIONS_OF = ("section", "split", "subset")
GROUPS = ("group", "patient", "subject", "patient_id")
FOLDS = ("fold",)
WORDS = {"train": "training", "val": "validation", "valid": "validation", "testing": "test"}
SEPARATORS = ",;\t"  # also those of spreadsheet programs where the comma is in numbers


def is_table(path: Path) -> bool:
    """Whether a path is a file for `read_table`."""
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".json")


def read_table(path: Path) -> DataSet:
    """Describe a table: a row for each case.

    Columns of a CSV file, or keys of the entries of a JSON list, in capitals or not: `image`, or several that begin so,
    such as `image_T1` and `image_T2`, one for each channel; `label`; and, if they are there, `name`, `section`
    (training, validation or test), `group` (what a split must not part, such as the patient), `fold` (from 0 or 1, in
    which the case validates; one that has none trains in each). Files are relative to the table. In a JSON object
    the list is `cases`, and beside it may stand `class_names`, `class_values`, `channel_names`, `modality`, `ignore`,
    `regions` ({"name": [classes]}) and `region_order`, as `DataSet` has them.

    Args:
        path: the file.

    Raises:
        ValueError: a row names no image, a column is missing, or several hold labels.
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
        rows = _rows_of_text(path)
    tidy = enumerate(map(_tidy, rows), 1)
    numbered = {number: row for number, row in tidy if any(value not in ("", None) for value in row.values())}
    rows = list(numbered.values())
    if not rows:
        raise ValueError(f"{str(path)!r} has no row.")
    columns = [name for name in rows[0] if re.match(r"image", name, re.IGNORECASE) and name not in NAMES]
    if not columns:
        raise ValueError(f"{str(path)!r} has no column 'image', only {', '.join(rows[0])}.")
    labels = [name for name in rows[0] if name in LABELS]
    others = [name for name in rows[0] if re.match("label|mask|seg", name)]
    if len(labels) > 1 or others and not labels:
        raise ValueError(
            f"{str(path)!r} has the column {' and the column '.join(map(repr, labels or others))}: "
            "call the one of the labels 'label', and the others not like one."
        )
    cases = tuple(_case(path, row, number, columns) for number, row in numbered.items())
    channels = tuple(more.pop("channel_names", _channels(columns)))
    return DataSet(
        path,
        "table",
        cases,
        channel_names=channels,
        listing=path.name,
        folds=numbered_folds(repr(str(path)), [_first(row, FOLDS) for row in rows], cases),
        **{"modality": modality_of(channels), **_meaning(path, more)},
    )


def _rows_of_text(path: Path) -> list[dict[str, Any]]:
    """Rows of a table in text, whose values stand between those of `SEPARATORS` that its first line holds most of."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is no text in UTF-8: save it in that encoding.") from error
    text = text.lstrip("\r\n")
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))


def _tidy(row: dict[Any, Any]) -> dict[str, Any]:
    """A row without spaces around its values, whose columns are in small letters, but for names of channels."""
    names = {name: str(name).strip() for name in row if name is not None}  # of more values than columns
    names = {name: said if re.match(r"image.", said, re.IGNORECASE) else said.lower() for name, said in names.items()}
    return {said: row[name].strip() if isinstance(row[name], str) else row[name] for name, said in names.items()}


def _placed(path: Path, file: str) -> Path:
    """A file that the table names, also as Windows writes it."""
    place = path.parent / file
    return place if "\\" not in file or os.path.exists(place) else path.parent / file.replace("\\", "/")


def _case(path: Path, row: dict[str, Any], number: int, columns: list[str]) -> Case:
    files = [row.get(column) for column in columns]
    if isinstance(files[0], list):  # of a JSON file, one for each channel
        files = [*files[0], *files[1:]]
    if not all(isinstance(file, str) and file for file in files):
        raise ValueError(f"{str(path)!r} names no image in row {number}: {row!r}.")
    label = _first(row, LABELS)
    section = _first(row, SECTIONS_OF)
    section = WORDS.get(section.lower(), section.lower()) if section else None
    if section not in (None, "training", "validation", "test"):
        raise ValueError(f"{str(path)!r} has the section {section!r} in row {number}: training, validation or test.")
    images = tuple(_placed(path, str(file)) for file in files)
    name = _first(row, NAMES) or case_name(images[0])
    return Case(name, images, _placed(path, label) if label else None, section, _first(row, GROUPS))


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
