"""Folders in the form of the Medical Segmentation Decathlon (medicaldecathlon.com): dataset.json lists the cases."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any

from ..naming import case_name
from .description import Case, DataSet, modality_of, read_json

GROUPS = (str, int, NoneType)  # what names a patient


def read_decathlon(root: Path) -> DataSet:
    """Describe a folder with a `dataset.json` of the entries {"image": path, "label": path}.

    `image` may also be a list, of a file for each channel.

    Args:
        root: the folder.

    Raises:
        ValueError: an entry names no image, or classes have no numbers.
    """
    content = read_json(root / "dataset.json")
    cases = [
        _case(root, entry, section)
        for section in ("training", "validation")
        for entry in _entries(root, section, content.get(section, []))
    ]
    sections = {case.section for case in cases}
    if "validation" not in sections:  # all are of one list, which a split divides
        cases = [Case(case.name, case.images, case.label) for case in cases]
    names, values = _classes(root, content.get("labels", {}))
    channels = _numbered(content.get("modality", content.get("channel_names", {})))
    return DataSet(
        root,
        "Decathlon",
        tuple(cases),
        names,
        values,
        channel_names=channels,
        modality=modality_of(channels),
        licence=content.get("licence", content.get("license")),
        listing="dataset.json",
    )


def _entries(root: Path, section: str, entries: Any) -> list[dict[str, Any]]:
    """A list of dataset.json in order."""
    where = f"dataset.json in {str(root)!r} has in the place of {section}"
    if not isinstance(entries, list):
        raise ValueError(f"{where} {entries!r}, which is no list of cases.")
    for entry in entries:
        if not isinstance(entry, dict) or not _files(entry.get("image")):
            raise ValueError(f"{where} the entry {entry!r}, which names no image.")
        if not isinstance(entry.get("label"), (str, NoneType)) or not isinstance(entry.get("group"), GROUPS):
            raise ValueError(f"{where} the entry {entry!r}, whose label or group is no text.")
    return sorted(entries, key=lambda entry: (case_name(_files(entry["image"])[0]), _files(entry["image"])))


def _files(image: Any) -> list[str]:
    """Names of the files of an image, or none for what is no such thing."""
    if isinstance(image, str):
        return [image] if image else []
    several = isinstance(image, list) and len(image) > 1 and all(isinstance(each, str) and each for each in image)
    return list(image) if several else []


def _case(root: Path, entry: dict[str, Any], section: str) -> Case:
    images = tuple(root / file for file in _files(entry["image"]))
    label = entry.get("label")
    name = case_name(_files(entry["image"])[0])
    group = entry.get("group")
    return Case(name, images, root / label if label else None, section, None if group is None else str(group))


def _classes(root: Path, labels: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and values of the classes of {"0": "background", "1": "liver"}."""
    if not isinstance(labels, dict) or not labels:
        return (), ()
    try:
        numbered = sorted((int(value), str(name)) for value, name in labels.items())
    except ValueError as error:
        raise ValueError(
            f"dataset.json in {str(root)!r} has the labels {labels!r}: their keys are no numbers."
        ) from error
    if numbered[0][0] != 0:
        numbered.insert(0, (0, "background"))
    return tuple(name for _, name in numbered[1:]), tuple(value for value, _ in numbered)


def _numbered(channels: Any) -> tuple[str, ...]:
    """Names of channels of {"0": "FLAIR", "1": "T1w"}."""
    if not isinstance(channels, dict) or not all(str(key).isdecimal() for key in channels):
        return ()
    return tuple(str(channels[key]) for key in sorted(channels, key=int))
