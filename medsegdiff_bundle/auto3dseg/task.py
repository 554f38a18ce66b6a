"""What the file of a task and the report of its data say, in the words of this package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.auto3dseg.utils import datafold_read
from monai.bundle import ConfigParser
from monai.utils.enums import DataStatsKeys, LabelStatsKeys

from medsegdiff_bundle.datalist import case_name
from medsegdiff_bundle.datalist.forms.description import modality_of

from . import NAME


def read_task(file: str | Path) -> dict[str, Any]:
    """Content of the file of a task, or of the `input.yaml` that AutoRunner makes of it."""
    content = ConfigParser.load_config_file(str(file))
    own = content.get(NAME) or {}
    if not isinstance(own, dict):
        raise ValueError(f"{str(file)!r} has {own!r} as {NAME}: it must be a list of settings by their names.")
    return {**content, NAME: own}


def read_report(stats: str | Path) -> dict[str, Any]:
    """The report of DataAnalyzer that has each case, by the name of the one that has their summary.

    Raises:
        ValueError: there is none.
    """
    path = Path(stats)
    file = path.with_name(f"{path.stem}_by_case{path.suffix}")
    if not file.is_file():
        raise ValueError(f"There is no {str(file)!r}, which DataAnalyzer of MONAI 1.2 and later writes.")
    return dict(ConfigParser.load_config_file(str(file)))


def unfit(task: Mapping[str, Any]) -> str:
    """Why this algorithm cannot take a task; empty if it can."""
    if task.get("sigmoid"):
        return "its classes overlap (sigmoid), and here each voxel has one class."
    if task.get("extra_modalities"):
        return "it has images under further names (extra_modalities): list the channels as one image."
    named = [each for each in task.get("class_names") or [] if isinstance(each, dict)]
    if any(len(_listed(each.get("index"))) != 1 for each in named):
        return "some classes stand for several values of the labels."
    return ""


def table(task: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """A table of cases, see `medsegdiff_bundle.datalist`, of the training cases of a task.

    Args:
        task: from `read_task`.
        report: from `read_report`, whose labels say which values there are.

    Raises:
        ValueError: the classes of the task are not as many as the values of the labels.
    """
    entries, _ = datafold_read(str(task["datalist"]), str(Path(task["dataroot"]).absolute()), fold=-1)
    names = [case_name(Path(_listed(entry["image"])[0])) for entry in entries]
    counts = Counter(names)
    rows = [
        {
            "name": name if counts[name] == 1 else _long_name(entry, task),
            "image": entry["image"],
            "label": entry["label"],
            **({"fold": int(entry["fold"])} if "fold" in entry else {}),
        }
        for entry, name in zip(entries, names, strict=True)
    ]
    class_names, class_values = _classes(task, report)
    modality = modality_of([str(each) for each in _listed(task["modality"])])
    named = {"class_names": class_names} if class_names else {}
    return {"cases": rows, **named, "class_values": class_values, "modality": modality}


def _long_name(entry: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """A name with those of the folders."""
    file = Path(_listed(entry["image"])[0])
    root = Path(task["dataroot"]).absolute()
    folders = file.parent.relative_to(root).parts if file.is_relative_to(root) else file.parent.parts[1:]
    return "_".join([*folders, case_name(file)])


def _classes(task: Mapping[str, Any], report: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """Names of the classes, none if the task has none, and what the labels hold for them and the background."""
    labels = [case[DataStatsKeys.LABEL_STATS][LabelStatsKeys.LABEL_UID] for case in report[DataStatsKeys.BY_CASE]]
    found = sorted({0, *(int(value) for case in labels for value in case)})
    named = task.get("class_names") or []
    if any(isinstance(each, dict) for each in named):
        values = [0, *(int(_listed(each["index"])[0]) for each in named)]
        names = [str(each["name"]) for each in named]
    else:
        names = [str(each) for each in named]
        fewer = len(found) <= len(names) and found[-1] <= len(names)  # a class that no case holds
        values = list(range(len(names) + 1)) if fewer else found
    if names and len(values) != len(names) + 1 or set(found) - set(values):
        raise ValueError(f"class_names are {', '.join(names)}, but the labels hold {', '.join(map(str, found))}.")
    return names, values


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]
