"""Folders in the form of the Medical Segmentation Decathlon (medicaldecathlon.com): dataset.json lists the cases."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

from ..naming import case_name
from .description import Case, DataSet, modality_of, numbered_folds, read_any_json, read_json

GROUPS = (str, int, NoneType)  # what names a patient


def is_decathlon(path: Path) -> bool:
    """Whether a JSON file is a list for `read_decathlon`, as MONAI's, which have names of their own."""
    content = read_any_json(path)
    return isinstance(content, dict) and "training" in content and "cases" not in content


def read_decathlon(source: Path) -> DataSet:
    """Describe a folder with a `dataset.json` of the entries {"image": path, "label": path}, or another such file.

    `image` may also be a list, of a file for each channel; or a file that is there as that of each channel, with their
    numbers behind its name, as in the first nnU-Net. `fold` is that in which a case validates, as in MONAI's lists.

    Args:
        source: the folder or the file, to which paths are relative.

    Raises:
        ValueError: an entry names no image, or classes have no numbers.
    """
    file = source if source.is_file() else source / "dataset.json"
    content = read_json(file)
    where = f"{file.name} in {str(file.parent)!r}"
    names, values = _classes(where, content.get("labels", {}))
    channels = _numbered(content.get("modality", content.get("channel_names", {})))
    entries = [
        (section, entry)
        for section in ("training", "validation")
        for entry in _entries(where, section, content.get(section, []))
    ]
    cases = [_case(file.parent, entry, section, max(len(channels), 1)) for section, entry in entries]
    if all(section == "training" for section, _ in entries):  # all are of one list, which a split divides
        cases = [replace(case, section=None) for case in cases]
    folds = [None if entry.get("fold") in (None, "") else str(entry["fold"]) for _, entry in entries]
    return DataSet(
        source,
        "Decathlon",
        tuple(cases),
        names,
        values,
        channel_names=channels,
        modality=modality_of(channels),
        licence=content.get("licence", content.get("license")),
        listing=file.name,
        folds=numbered_folds(where, folds, cases),
    )


def _entries(where: str, section: str, entries: Any) -> list[dict[str, Any]]:
    """A list of dataset.json in order."""
    where = f"{where} has in the place of {section}"
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


def _case(root: Path, entry: dict[str, Any], section: str, channels: int) -> Case:
    images = tuple(root / file for file in _files(entry["image"]))
    name = case_name(images[0])
    of_channels = tuple(_of_channel(images[0], name, channel) for channel in range(channels))
    if len(images) == 1 and not os.path.exists(images[0]) and os.path.isfile(of_channels[0]):
        images = of_channels
    label = entry.get("label")
    group = entry.get("group")
    return Case(name, images, root / label if label else None, section, None if group is None else str(group))


def _of_channel(image: Path, name: str, channel: int) -> Path:
    """File of a channel of an image, as nnU-Net calls it."""
    return image.parent / f"{name}_{channel:04d}{image.name[len(name) :]}"


def _classes(where: str, labels: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and values of the classes of {"0": "background", "1": "liver"}, {"liver": 1} or ["background", "liver"]."""
    if isinstance(labels, list):
        labels = dict(enumerate(labels))
    if not isinstance(labels, dict) or not labels:
        return (), ()
    turned = {value: name for name, value in labels.items() if type(value) is int}
    try:
        numbered = sorted((int(value), str(name)) for value, name in (turned or labels).items())
    except ValueError as error:
        raise ValueError(f"{where} has the labels {labels!r}: their keys are no numbers.") from error
    if turned and len(turned) < len(labels):
        raise ValueError(f"{where} has the labels {labels!r}, which give each name no number of its own.")
    if numbered[0][0] != 0:
        numbered.insert(0, (0, "background"))
    return tuple(name for _, name in numbered[1:]), tuple(value for value, _ in numbered)


def _numbered(channels: Any) -> tuple[str, ...]:
    """Names of channels of {"0": "FLAIR", "1": "T1w"}."""
    if not isinstance(channels, dict) or not all(str(key).isdecimal() for key in channels):
        return ()
    return tuple(str(channels[key]) for key in sorted(channels, key=int))
