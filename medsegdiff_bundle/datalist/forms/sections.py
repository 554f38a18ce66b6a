"""Which cases train, which validate, and which test: as the set says, or by a rule that gives the same each time."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from ..naming import case_name
from .description import SECTIONS, Case, DataSet, read_json

FEWEST_GROUPS = 10  # that names must make to be taken for those of patients


def cases_of(data_set: DataSet, section: str, fold: int | None = None, num_folds: int = 5) -> list[Case]:
    """The cases of one section.

    `splits.json` in the folder of the set comes first (`train`, `val`, `test`); then the sections that the set itself
    names; then the first of its own folds, if that leaves cases to train; otherwise every fifth case validates, the
    others train, and there is no test. Where the set names no validation but other sections, every fifth training case
    validates. Cases of one group, see `groups_by_name`, count as one there.

    Args:
        data_set: whose cases.
        section: "training", "validation" or "test".
        fold: of a cross-validation over all cases but those of the test, see `folds_of`: its cases validate, all
            others train, also those that are in no fold of the set. None for the one split.
        num_folds: their number, unless the set has its own folds.

    Raises:
        ValueError: the section is unknown or empty, or `splits.json` or the fold is wrong.
    """
    if section not in SECTIONS:
        raise ValueError(f"section must be 'training', 'validation' or 'test', got {section!r}.")
    if fold is not None and section != "test":
        folds = folds_of(data_set, num_folds)
        if not 0 <= fold < len(folds):
            raise ValueError(f"fold must be from 0 to {len(folds) - 1}, got {fold}.")
        chosen = folds[fold] if section == "validation" else _others(data_set, folds[fold])
    else:
        chosen = _section(data_set, section)
    if not chosen:
        raise ValueError(f"dataset_dir {str(data_set.root)!r} holds no {section} case.")
    return sorted(chosen, key=_order)


def cases_to_segment(data_set: DataSet) -> list[Case]:
    """The validation cases, as far as the set says which they are or has labels to learn from; otherwise all cases."""
    labels = (case.label is not None and case.label.is_file() for case in data_set.cases)
    to_learn_from = any(labels) or any(case.section == "validation" for case in data_set.cases)
    if to_learn_from or data_set.folds or (Path(data_set.root) / "splits.json").is_file():
        return cases_of(data_set, "validation")
    return list(data_set.cases)


def folds_of(data_set: DataSet, num_folds: int = 5) -> list[list[Case]]:
    """Parts of the cases, all but those of the test, of which each validates once.

    The folds of the set, if it has any. Otherwise cases of one group stay together, and groups are dealt out, the
    largest first, to the fold with the fewest cases, in an order that a fixed seed shuffles. Groups are those that the
    set names, or that the names of its cases show, see `groups_by_name`.

    Args:
        data_set: whose cases.
        num_folds: number of parts.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    cases = _others(data_set, [])
    if data_set.folds:
        by_name = {case.name: case for case in cases}
        unknown = [name for names in data_set.folds for name in names if name not in by_name]
        if unknown:
            raise ValueError(f"The folds of {str(data_set.root)!r} name the case {unknown[0]!r}, which is none.")
        return [[by_name[name] for name in names] for names in data_set.folds]
    groups: dict[str, list[Case]] = {}
    for case, group in zip(cases, case_groups(cases), strict=True):
        groups.setdefault(group, []).append(case)
    if num_folds < 2 or len(groups) < num_folds:
        raise ValueError(f"{num_folds} folds cannot be made of {len(groups)} cases or groups of cases.")
    ordered = sorted(groups)
    random.Random(12345).shuffle(ordered)
    parts: list[list[Case]] = [[] for _ in range(num_folds)]
    for group in sorted(ordered, key=lambda name: -len(groups[name])):
        min(parts, key=len).extend(groups[group])
    return [sorted(part, key=_order) for part in parts]


def _others(data_set: DataSet, left_out: Sequence[Case]) -> list[Case]:
    """All cases but those of the test and some others, in their order."""
    gone = {*left_out, *(_section(data_set, "test") if _has_test(data_set) else [])}
    return sorted((case for case in data_set.cases if case not in gone), key=_order)


def case_groups(cases: Sequence[Case]) -> list[str]:
    """The group of each case: as the set says, as the names show, or each its own."""
    by_name = groups_by_name([case.name for case in cases])
    return [
        case.group
        if case.group is not None
        else by_name[i]
        if by_name is not None
        else f"{case.name}\n{case.images[0]}"
        for i, case in enumerate(cases)
    ]


def groups_by_name(names: Sequence[str]) -> list[str] | None:
    """What names share that end in numbers, as slices of a patient do: "p01_s003" and "p01_s004" are of "p01".

    Numbers with what stands before them are cut off at the end again and again, as long as at least ten different names
    stay. None where already the first cut leaves fewer, as of case_001, case_002, or where no two names share anything.
    """
    found = None
    stems = list(names)
    while True:
        stems = [re.sub(r"[-_. ]*[A-Za-z]*[-_. ]?\d+[A-Za-z]?$", "", stem) for stem in stems]
        if len(set(stems)) < FEWEST_GROUPS or "" in stems or stems == found:
            break
        found = stems
    return found if found is not None and len(set(found)) < len(names) else None


def _has_test(data_set: DataSet) -> bool:
    splits = Path(data_set.root) / "splits.json"
    return any(case.section == "test" for case in data_set.cases) or splits.is_file() and "test" in read_json(splits)


def _section(data_set: DataSet, section: str) -> list[Case]:
    if (Path(data_set.root) / "splits.json").is_file():
        return _named(data_set, SECTIONS[section])
    sections = {case.section for case in data_set.cases}
    chosen = [case for case in data_set.cases if case.section == section]
    if "validation" in sections or section == "test":
        return chosen
    first = folds_of(data_set)[0] if data_set.folds else []
    if rest := _others(data_set, first) if first else []:
        return first if section == "validation" else rest
    undecided = sorted((case for case in data_set.cases if case.section in (None, "training")), key=_order)
    groups = case_groups(undecided)
    every_fifth = set(list(dict.fromkeys(groups))[::5])
    return [
        case
        for case, group in zip(undecided, groups, strict=True)
        if (group in every_fifth) == (section == "validation")
    ]


def _named(data_set: DataSet, subset: str) -> list[Case]:
    """The cases that one list of splits.json names."""
    root = data_set.root
    splits = read_json(root / "splits.json")
    if subset not in splits:
        raise ValueError(f"splits.json in {str(root)!r} has no list {subset!r}.")
    if not isinstance(splits[subset], list) or not all(isinstance(name, str) for name in splits[subset]):
        raise ValueError(f"splits.json in {str(root)!r} has {splits[subset]!r} in the place of a list of names.")
    cases: dict[str, Case] = {}
    for case in data_set.cases:
        other = cases.setdefault(case.name, case)
        if other.images != case.images:
            first, second = (_shown(root, each) for each in (other, case))
            raise ValueError(
                f"splits.json in {str(root)!r} cannot tell {first!r} from {second!r}: both are the case {case.name!r}."
            )
    named = [name for name in splits[subset] if name not in data_set.left_out]
    missing = [name for name in named if name not in cases]
    if missing:
        raise ValueError(f"splits.json in {str(root)!r} names the case {missing[0]!r}, which {data_set.listing} lacks.")
    return [cases[name] for name in named]


def _shown(root: Path, case: Case) -> str:
    image = case.images[0]
    return str(image.relative_to(root)) if image.is_relative_to(root) else str(image)


def _order(case: Case) -> tuple[str, str]:
    return case_name(case.images[0]), str(case.images[0])
