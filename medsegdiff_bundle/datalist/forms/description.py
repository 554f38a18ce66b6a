"""What a data set is, whatever form it has on a disk: its cases, and what the values of its labels mean."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECTIONS = {"training": "train", "validation": "val", "test": "test"}  # and what splits.json calls them


@dataclass(frozen=True)
class Case:
    """One image with its label.

    Attributes:
        name: of the case, unique in most sets.
        images: its file, or one file for each channel in the order of the channels.
        label: file of its label; None if the set has none.
        section: "training", "validation" or "test", as the set itself says; None if it says nothing.
        group: what cases share that must not be parted by a split, such as the patient; None if that is not known.
        missing: channels that it lacks, by their names.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    section: str | None = None
    group: str | None = None
    missing: tuple[str, ...] = ()

    def entry(self) -> dict[str, Any]:
        """The case for a `Dataset` of MONAI: {"image": path or list of paths, "label": path}."""
        images = [str(image) for image in self.images]
        item: dict[str, Any] = {"image": images[0] if len(images) == 1 else images}
        return item if self.label is None else {**item, "label": str(self.label)}


@dataclass(frozen=True)
class DataSet:
    """A data set in one of the forms that `read_data_set` knows.

    K classes with the background, which is class 0. Class k is the k-th of `class_values`.

    Attributes:
        root: its folder, or the file of a table.
        form: "Decathlon", "nnU-Net", "pictures", "BIDS", "REFUGE", "case folders" or "table".
        cases: in the order of their names.
        class_names: of classes 1 to K - 1; empty if the set does not name them.
        class_values: what the files hold for each class, (K,) in ascending order of classes; empty stands for 0, 1, ...
        regions: by name the classes that make each region, if they overlap; then they are what is learned.
        region_order: classes to write for each region, one after the other over the earlier ones.
        ignore: value of what was not annotated, which neither loss nor metric counts.
        channel_names: of the image; empty if the set does not name them.
        modality: such as "CT", "MR" or "picture"; None if the set does not say.
        licence: as the set says.
        listing: where the cases are listed, for sentences.
        folds: names of the validation cases of each fold, if the set has its own.
        left_out: names of cases that are there and not asked for.
    """

    root: Path
    form: str
    cases: tuple[Case, ...]
    class_names: tuple[str, ...] = ()
    class_values: tuple[int, ...] = ()
    regions: tuple[tuple[str, tuple[int, ...]], ...] = ()
    region_order: tuple[int, ...] = ()
    ignore: int | None = None
    channel_names: tuple[str, ...] = ()
    modality: str | None = None
    licence: str | None = None
    listing: str = "its list of cases"
    folds: tuple[tuple[str, ...], ...] = ()
    left_out: frozenset[str] = frozenset()


def read_json(path: Path) -> dict[str, Any]:
    """Content of a file that must hold a JSON object.

    Raises:
        ValueError: naming the file.
    """
    content = read_any_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object, got a {type(content).__name__}.")
    return content


def read_any_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: naming the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of lists within lists within lists
        raise ValueError(f"{str(path)!r} is not a JSON file: {error}.") from error


def numbered_folds(what: str, words: Sequence[str | None], cases: Sequence[Case]) -> tuple[tuple[str, ...], ...]:
    """Names of the validation cases of each fold, of the numbers of the folds from 0 or 1 on that a list gives them.

    Args:
        what: holds the list, for sentences.
        words: the number that each case has there; None of one that trains in each fold.
        cases: likewise.

    Raises:
        ValueError: other numbers, or several cases of one name.
    """
    numbers = {word for word in words if word is not None}
    first = 0 if "0" in numbers else 1
    folds = [str(fold) for fold in range(first, first + len(numbers))]
    if numbers != set(folds):
        raise ValueError(f"{what} has the folds {', '.join(sorted(numbers))}: they must be numbered from 0 on.")
    names = Counter(case.name for case in cases)
    for case, word in zip(cases, words, strict=True):
        if word is not None and names[case.name] > 1:
            raise ValueError(f"{what} has folds and {names[case.name]} cases {case.name!r}: name each its own.")
    return tuple(tuple(case.name for case, word in zip(cases, words, strict=True) if word == fold) for fold in folds)


def modality_of(channel_names: Sequence[str]) -> str | None:
    """Modality that the names of channels stand for: "CT", "MR", "picture", or another as it is called.

    CT is where nnU-Net sees it, and a channel "R" or "rgb_to_0_1" is of a colour picture. Names of MR sequences, and
    "MRI" of the Decathlon, stand for MR.
    """
    words = [name.strip().lower() for name in channel_names]
    if not words:
        return None
    if all(word in ("r", "g", "b", "red", "green", "blue", "a", "alpha") or word.startswith("rgb") for word in words):
        return "picture"
    if all(word in ("ct", "cect", "ncct", "cta") for word in words):
        return "CT"
    sequences = ("mr", "t1", "t2", "flair", "adc", "dwi", "pd", "bold", "swi", "cine", "lge", "dti", "fa")
    if all(word.startswith(sequences) for word in words):
        return "MR"
    return channel_names[0] if len(channel_names) == 1 else None
