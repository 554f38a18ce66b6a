"""Folders in the raw form of nnU-Net 2 (documentation/dataset_format.md and region_based_training.md there)."""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType
from typing import Any

from .description import Case, DataSet, modality_of, read_any_json, read_json


def is_nnunet(content: dict[str, Any]) -> bool:
    """Whether a dataset.json is one of nnU-Net 2, which lists no cases in a list and gives names numbers."""
    return "channel_names" in content and not isinstance(content.get("training"), list)


def read_nnunet(root: Path) -> DataSet:
    """Describe a folder of `imagesTr/<case>_<channel>.nii.gz`, `labelsTr/<case>.nii.gz` and `dataset.json`.

    `labels` may name regions, lists of classes, and `ignore`. `dataset`, if it is there, lists the files of each case.
    A `splits_final.json` beside it has the folds. Images without labels in `imagesTs` are no cases.

    Args:
        root: the folder.

    Raises:
        ValueError: what `dataset.json` says makes no sense; a case has more channels than it names.
    """
    content = read_json(root / "dataset.json")
    channels = _channel_names(root, content["channel_names"])
    cases = (
        _listed_cases(root, content["dataset"], channels) if "dataset" in content else _cases(root, content, channels)
    )
    return DataSet(
        root,
        "nnU-Net",
        tuple(cases),
        **_labels(root, content),
        channel_names=channels,
        modality=modality_of(channels),
        licence=content.get("licence", content.get("license")),
        listing="dataset.json",
        folds=_folds(root),
    )


def _channel_names(root: Path, names: Any) -> tuple[str, ...]:
    if not isinstance(names, dict) or sorted(map(str, names)) != sorted(str(i) for i in range(len(names))) or not names:
        raise ValueError(f"dataset.json in {str(root)!r} has the channel_names {names!r}: they are numbered from 0.")
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _cases(root: Path, content: dict[str, Any], channels: tuple[str, ...]) -> list[Case]:
    """The cases of labelsTr, with their images."""
    ending = content.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not re.fullmatch(r"\.[\w.]+", ending):
        raise ValueError(f"dataset.json in {str(root)!r} has the file_ending {ending!r}, which is none.")
    cases = []
    for folder in ("imagesTr", "labelsTr"):
        if not (root / folder).is_dir():
            raise ValueError(f"{str(root)!r} has a dataset.json of nnU-Net and no folder {folder!r}.")
    files: dict[str, dict[int, Path]] = {}
    for image in sorted((root / "imagesTr").iterdir()):
        found = re.fullmatch(r"(.+)_(\d{4})", image.name[: -len(ending)]) if image.name.endswith(ending) else None
        if found and not image.name.startswith("."):
            files.setdefault(found[1], {})[int(found[2])] = image
    for label in sorted((root / "labelsTr").glob(f"*{ending}")):
        if label.name.startswith("."):
            continue
        name = label.name[: -len(ending)]
        cases.append(_case(root, name, files.pop(name, {}), label, channels, ending))
    cases += [_case(root, name, found, None, channels, ending) for name, found in files.items()]
    return sorted(cases, key=lambda case: case.name)


def _case(
    root: Path, name: str, files: dict[int, Path], label: Path | None, channels: tuple[str, ...], ending: str
) -> Case:
    """One case of the files of its channels."""
    whole = sorted(files) == [0] and _is_colour(channels)
    wanted = range(1 if whole else len(channels))
    if more := sorted(set(files) - set(wanted)):
        raise ValueError(
            f"The case {name!r} in {str(root)!r} has {len(files)} channels in files of their own, "
            f"{files[min(files)].name!r} to {files[more[-1]].name!r}: dataset.json names {len(channels)}."
        )
    missing = tuple(channels[channel] for channel in wanted if channel not in files)
    images = tuple(files.get(channel, root / "imagesTr" / f"{name}_{channel:04d}{ending}") for channel in wanted)
    return Case(name, images, label, missing=missing)


def _is_colour(channels: tuple[str, ...]) -> bool:
    """Whether one file holds all channels, as of a photograph."""
    return len(channels) in (3, 4) and modality_of(channels) == "picture"


def _listed_cases(root: Path, listed: Any, channels: tuple[str, ...]) -> list[Case]:
    """The cases of {"case": {"images": [path, ...], "label": path}}, which may lie anywhere."""
    cases = []
    if not isinstance(listed, dict):
        raise ValueError(f"dataset.json in {str(root)!r} has in the place of its dataset {listed!r}.")
    for name, entry in sorted(listed.items()):
        named = isinstance(entry, dict) and isinstance(entry.get("label"), (str, NoneType))
        if not named or not _are_files(entry.get("images")):
            raise ValueError(f"dataset.json in {str(root)!r} has the case {name!r}: {entry!r}, which names no images.")
        images = tuple(root / image for image in entry["images"])
        if len(images) != len(channels) and not (len(images) == 1 and _is_colour(channels)):
            raise ValueError(
                f"The case {name!r} in {str(root)!r} has {len(images)} images: dataset.json names {len(channels)} "
                "channels."
            )
        cases.append(Case(name, images, root / entry["label"] if entry.get("label") else None))
    return cases


def _are_files(names: Any) -> bool:
    """Whether a value is a list of names."""
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)


def _labels(root: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Classes, regions and the ignored value."""
    labels = content.get("labels", {})
    where = f"dataset.json in {str(root)!r}"
    if not isinstance(labels, dict):
        raise ValueError(f"{where} has the labels {labels!r}, which give no names numbers.")
    if labels and all(str(name).isdecimal() and isinstance(value, str) for name, value in labels.items()):
        labels = {value: int(number) for number, value in labels.items()}  # as in the Decathlon
    found = {str(name): _values(value, where) for name, value in labels.items()}
    ignore = found.pop("ignore", None)
    found = {name: values for name, values in found.items() if values != (0,)}
    if not any(len(values) > 1 for values in found.values()):
        ordered = sorted(found.items(), key=lambda item: item[1])
        return {
            "class_names": tuple(name for name, _ in ordered),
            "class_values": (0, *(values[0] for _, values in ordered)),
            "ignore": ignore[0] if ignore else None,
        }
    values = sorted({value for each in found.values() for value in each} - {0})
    order = content.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(found) or any(value not in values for value in order):
        raise ValueError(
            f"{where} has regions, so regions_class_order must have a value for each of the {len(found)}, "
            f"got {order!r}."
        )
    number = {value: index for index, value in enumerate(values, 1)}
    return {
        "class_names": tuple(_part_name(value, found) for value in values),
        "class_values": (0, *values),
        "regions": tuple((name, tuple(number[value] for value in each if value)) for name, each in found.items()),
        "region_order": tuple(number[value] for value in order),
        "ignore": ignore[0] if ignore else None,
    }


def _part_name(value: int, regions: dict[str, tuple[int, ...]]) -> str:
    """What one value stands for: a region of nothing else, or only itself, as regions that overlap name no part."""
    return next((name for name, values in regions.items() if values == (value,)), f"value {value}")


def _values(value: Any, where: str) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, int) and not isinstance(each, bool) for each in values):
        raise ValueError(f"{where} has the label {value!r}, which is no whole number and no list of some.")
    return tuple(values)


def _folds(root: Path) -> tuple[tuple[str, ...], ...]:
    """Validation cases of each fold."""
    if not (root / "splits_final.json").is_file():
        return ()
    folds = read_any_json(root / "splits_final.json")
    if not isinstance(folds, list) or not all(
        isinstance(fold, dict) and isinstance(fold.get("val"), list) for fold in folds
    ):
        raise ValueError(f"splits_final.json in {str(root)!r} is no list of folds with 'train' and 'val'.")
    return tuple(tuple(map(str, fold["val"])) for fold in folds)
