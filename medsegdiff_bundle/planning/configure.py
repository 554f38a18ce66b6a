"""From the folder of a data set to a file of settings: check, count, choose, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from medsegdiff_bundle import settings
from medsegdiff_bundle.datalist import Case, DataSet, cases_of
from medsegdiff_bundle.inferers.memory import free_memory

from .check import check_data_set
from .duration import Budget, Plan
from .fingerprint import Fingerprint, take_fingerprint
from .inspection import Fault
from .page import page
from .plan import GIGABYTE, make_plan
from .task_file import overlay, write_overlay

UNASKED_MEMORY = 8 * GIGABYTE  # of a CPU, which others use, too


class FaultyDataError(ValueError):
    """A data set has faults.

    Attributes:
        faults: they.
    """

    def __init__(self, data_set: DataSet, faults: list[Fault]) -> None:
        fatal = [fault for fault in faults if fault.fatal]
        number = f"{len(fatal)} fault{'s' * (len(fatal) != 1)}"
        super().__init__(f"{str(data_set.root)!r} has {number}: mend or remove what the table names.")
        self.faults = faults


def configure(
    data_set: DataSet,
    target: Path,
    budget: Budget,
    class_names: list[str] | None = None,
    advance: Callable[[], None] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Plan:
    """Write the settings of a training on a data set, and the page that says why each is what it is.

    Args:
        data_set: from `read_data_set`.
        target: the JSON file; the page lies beside it.
        budget: what the training may take.
        class_names: of the classes without the background, in the place of those of the set.
        advance: called after each case that was read.
        say: told what is being done.

    Raises:
        FaultyDataError: before anything is written.
        ValueError: the names are not as many as the classes.
    """
    facts, faults = check_data_set(data_set, advance)
    if any(fault.fatal for fault in faults):
        raise FaultyDataError(data_set, faults)
    chosen = {section: cases_of(data_set, section) for section in ("training", "validation")}
    say("counting with MONAI's DataAnalyzer")
    counted: list[Case] = [case for cases in chosen.values() for case in cases]
    fingerprint = take_fingerprint(data_set, facts, counted)
    if class_names is not None:
        data_set = _renamed(data_set, class_names)
    names = data_set.class_names
    if names and len(names) != len(fingerprint.class_values) - 1:
        raise ValueError(
            f"class_names must be {len(fingerprint.class_values) - 1}, one for each value of the labels but "
            f"{fingerprint.class_values[0]}, got {list(names)}."
        )
    sections = len(chosen["training"]), len(chosen["validation"])
    command = f"medsegdiff train {target.name}"
    return write_plan(data_set, fingerprint, sections, budget, target, command, faults=faults, say=say)


def write_plan(
    data_set: DataSet,
    fingerprint: Fingerprint,
    sections: tuple[int, int],
    budget: Budget,
    target: Path,
    command: str,
    changes: Mapping[str, Any] | None = None,
    faults: Sequence[Fault] = (),
    say: Callable[[str], None] = lambda sentence: None,
) -> Plan:
    """Choose the settings that follow from the numbers of a data set, and write the file and its page.

    Args:
        data_set: described.
        fingerprint: of its cases.
        sections: cases that train and that validate.
        budget: what the training may take.
        target: the JSON file; the page lies beside it.
        command: that trains with the file, for the page.
        changes: entries in place of those that are chosen.
        faults: of the set, none of them fatal.
        say: told what is being measured.
    """
    plan = make_plan(data_set, fingerprint, sections, budget, target.absolute().parent, say)
    entries = {**overlay(plan, data_set, fingerprint, target), **(changes or {})}
    write_overlay(entries, page(plan, data_set, fingerprint, faults, budget, command, changes or {}), target)
    return plan


def _renamed(data_set: DataSet, names: list[str]) -> DataSet:
    """The same with other names of its classes, or of its regions if it has some."""
    if not data_set.regions:
        return dataclasses.replace(data_set, class_names=tuple(names))
    if len(names) != len(data_set.regions):
        raise ValueError(f"class_names must be {len(data_set.regions)}, one for each region, got {names}.")
    parts = [classes for _, classes in data_set.regions]
    return dataclasses.replace(data_set, regions=tuple(zip(names, parts, strict=True)))


def budget_of(memory: str | None, hours: float, device: str | None) -> Budget:
    """A budget from words.

    Args:
        memory: such as "8GB", "500MB" or "24GiB"; None takes all of a GPU, or 8 GB of a CPU, or what is free if less.
        hours: of training, see `Budget`.
        device: such as "cpu"; None takes a GPU if there is one.

    Raises:
        ValueError: one of them is no such thing.
    """
    if hours <= 0:
        raise ValueError(f"hours must be positive, got {hours:g}.")
    where = torch.device(device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
    if memory is not None:
        return Budget(settings.typed("memory", memory), hours, where)
    free = free_memory(where)
    if where.type == "cuda":
        return Budget(free or UNASKED_MEMORY, hours, where)
    return Budget(min(UNASKED_MEMORY, free or UNASKED_MEMORY), hours, where)
