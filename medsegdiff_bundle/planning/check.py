"""All that is wrong with a data set, before any training, in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from medsegdiff_bundle.datalist import DataSet, cases_of
from medsegdiff_bundle.datalist.forms.sections import case_groups

from .inspection import CaseFacts, Fault, inspect_case

MOST_CLASSES = 150  # that values of labels may make without a list of names


def numbered_names(data_set: DataSet) -> Sequence[str]:
    """Names of the classes that the files number from 1 on; none of other values, or of regions."""
    counted = data_set.class_values in ((), tuple(range(len(data_set.class_values))))
    return data_set.class_names if counted and not data_set.regions else ()


def check_data_set(data_set: DataSet, advance: Callable[[], None] | None = None) -> tuple[list[CaseFacts], list[Fault]]:
    """Read every file of a data set, and say what is wrong with each case and with the set.

    Files that cannot be read, channels, geometry of label and image, values of labels, empty cases, images that are
    there twice, and sections that share cases or patients; compare `verify_dataset_integrity` of nnU-Net.

    Args:
        data_set: to be looked at.
        advance: called after each case.

    Returns:
        what was found in each case, in the order of `data_set.cases`; and the faults.
    """
    facts = []
    names = numbered_names(data_set)
    for case in data_set.cases:
        facts.append(inspect_case(case, names, data_set.ignore))
        if advance is not None:
            advance()
    faults = [fault for case in facts for fault in case.faults]
    for look in (_names, _channels, _values, _duplicates):
        faults += look(data_set, facts)
    faults += _sections(data_set)
    order = {case.name: index for index, case in enumerate(data_set.cases)}
    return facts, sorted(faults, key=lambda fault: (order.get(fault.case, -1), not fault.fatal))


def found_values(data_set: DataSet, facts: Iterable[CaseFacts]) -> tuple[int, ...]:
    """Values of the classes, background first: as the set says, or those that its labels hold.

    Where the set says nothing, 0 is the background, or the lowest value if no label holds 0.
    """
    if data_set.class_values:
        return data_set.class_values
    values = {value for case in facts for value in case.counts} - {data_set.ignore}
    numbered = sorted(value for value in values if value is not None)
    if data_set.class_names:
        return tuple(range(len(data_set.class_names) + 1))
    return tuple(numbered if not numbered or numbered[0] == 0 else [0, *numbered])


def _names(data_set: DataSet, facts: Sequence[CaseFacts]) -> list[Fault]:
    if not data_set.cases:
        return [Fault("", "list", f"{str(data_set.root)!r} holds no case.")]
    counts = Counter(case.name for case in data_set.cases)
    return [Fault(name, "list", f"{count} cases have this name.", False) for name, count in counts.items() if count > 1]


def _channels(data_set: DataSet, facts: Sequence[CaseFacts]) -> list[Fault]:
    """Cases whose channels or axes are not those of the others, or not those that the set names."""
    read = [case for case in facts if case.shape]
    if not read:
        return []
    faults = []
    axes = Counter(len(case.shape) for case in read).most_common(1)[0][0]
    channels = Counter(case.channels for case in read if case.spacing).most_common(1)
    expected = len(data_set.channel_names) or (channels[0][0] if channels else 0)
    for case in read:
        if len(case.shape) != axes:
            faults.append(Fault(case.name, "channels", f"The image has {len(case.shape)} axes, most others {axes}."))
        elif case.spacing and case.channels != expected:  # pictures are converted to one number of channels
            who = "the set names" if data_set.channel_names else "most others have"
            faults.append(Fault(case.name, "channels", f"The image has {case.channels} channels, {who} {expected}."))
    return faults


def _values(data_set: DataSet, facts: Sequence[CaseFacts]) -> list[Fault]:
    """Values that are no class, cases without any class, classes without any case."""
    known = found_values(data_set, facts)
    if not data_set.class_values and not data_set.class_names and len(known) > MOST_CLASSES:
        text = f"The labels hold {len(known)} different values and the set names no class: are they labels?"
        return [Fault("", "labels", text)]
    faults = []
    held: set[int] = set()
    for case in facts:
        unknown = sorted(set(case.counts) - set(known) - {data_set.ignore})
        if unknown:
            shown = ", ".join(f"{value} ({case.counts[value]} voxels)" for value in unknown[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            text = f"The label holds {shown}{more}: the set knows {', '.join(map(str, known))}."
            faults.append(Fault(case.name, "labels", text))
        classes = set(case.counts) & set(known[1:])
        if case.counts and not classes and not unknown:
            faults.append(Fault(case.name, "empty", "The label holds nothing but background.", False))
        held |= classes
    names = data_set.class_names if not data_set.regions and data_set.class_names else [f"{v}" for v in known[1:]]
    for name, value in zip(names, known[1:], strict=False):
        if value not in held:
            faults.append(Fault("", "labels", f"No case holds the class {name} (value {value}).", False))
    if len(known) < 2:
        faults.append(Fault("", "labels", "No label holds anything but background."))
    return faults


def _duplicates(data_set: DataSet, facts: Sequence[CaseFacts]) -> list[Fault]:
    """Images that are there twice: in two sections they make the validation look better than it is."""
    first: dict[str, str] = {}
    faults = []
    for case in facts:
        if not case.digest:
            continue
        other = first.setdefault(case.digest, case.name)
        if other != case.name:
            faults.append(Fault(case.name, "duplicate", f"The image has the same values as that of {other!r}."))
    return faults


def _sections(data_set: DataSet) -> list[Fault]:
    """A split that cannot be made, or that parts what belongs together."""
    sections = {}
    faults = []
    for section in ("training", "validation"):
        try:
            sections[section] = {(case.name, case.images) for case in cases_of(data_set, section)}
        except ValueError as error:
            faults.append(Fault("", "split", str(error)))
    if len(sections) < 2:
        return faults
    both = sections["training"] & sections["validation"]
    faults += [Fault(name, "split", "It trains and validates.") for name, _ in sorted(both)]
    groups = case_groups(data_set.cases)
    of_section = {
        section: {
            group for case, group in zip(data_set.cases, groups, strict=True) if (case.name, case.images) in cases
        }
        for section, cases in sections.items()
    }
    shared = sorted(of_section["training"] & of_section["validation"] - {case.name for case in data_set.cases})
    shared = [group for group in shared if "\n" not in group]
    if shared and not both:
        text = f"{len(shared)} patients or groups are in training and in validation, such as {shared[0]!r}."
        faults.append(Fault("", "split", text, False))
    return faults
