"""Configurations that leave to others what those say already; nothing here needs torch.

    train.json  --"base"-->  inference.json  --"task"-->  tasks/<task>.json

`train.json` names another file by `base`: what it refers to by `@name` and does not say itself is as in that file, and
"..." stands for what is written there, in a dictionary as a key, in a list as an element. What is still missing, such
as the names of the classes, is as the file of the task says. So each fact stands once, and settings and overlays change
it by its name wherever it stands. `medsegdiff_bundle.workflow.begin` completes the configuration of a run; the packages
of the model zoo hold complete files, which `complete` leaves as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsegdiff_bundle import settings
from medsegdiff_bundle.given import texts_kept

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

BASE, REST = "base", "..."
WEIGHTS = "MEDSEGDIFF_WEIGHTS"  # variable that names where weights lie that take the place of the shipped ones
ELSEWHERE = "weights_elsewhere"
OTHER = "other"  # the task of structures of which nothing is known


def complete(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration with what it leaves to others.

    Args:
        config: merged from files and settings; it stays as it is.
        folder: of the configuration files.

    Raises:
        ValueError: a file that it needs is not there, or regions and their names do not fit one another.
    """
    whole = dict(config)
    if base := whole.pop(BASE, None):
        if not isinstance(base, str):
            raise ValueError(f"{BASE} must be the name of a file, got {base!r}.")
        below = _read(folder / base)
        for name, value in whole.items():
            whole[name] = _over(value, below.get(name), f"{name} of {base}")
        take(whole, below)
        whole.setdefault("task", below.get("task"))
    for name, value in whole.items():
        if REST in settings.texts(value):
            raise ValueError(f"{REST!r} stands within {name}, where there is nothing for which it would stand.")
    of_task = _of_task(whole, folder)
    if _missing(whole) & of_task.keys():
        take(whole, of_task)
        _take_parts(whole, of_task, folder)
        whole["task"] = of_task["task"] or whole["task"]
    settings.check_regions(whole)
    return whole


def read(files: Iterable[Path], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Complete content of configuration files, the first in the folder of all; later ones over earlier ones.

    Args:
        files: of the configuration.
        given: settings in place of theirs, of which the names of the classes decide what the task is.
    """
    paths = [Path(file) for file in files]
    given = given or {}
    classes = {name: settings.typed(name, given[name], programs=False) for name in ["class_names"] if name in given}
    return complete({**settings.read_files(paths), **classes}, paths[0].parent)


def load(files: Iterable[Path], given: Mapping[str, Any] | None = None) -> ConfigParser:
    """MONAI's parser of complete files, as `begin` makes them of those of a run.

    Args:
        files: the first in the folder of all configurations; later ones over earlier ones.
        given: settings in place of theirs.
    """
    from monai.bundle import ConfigParser

    paths = [Path(file) for file in files]
    found = ConfigParser()
    found.read_config([str(path) for path in paths])
    for name, value in (given or {}).items():
        found.set(value, name)
    found.set(texts_kept(with_weights_elsewhere(complete(dict(found.get()), paths[0].parent)), found))
    return found


def with_weights_elsewhere(config: dict[str, Any]) -> dict[str, Any]:
    """A complete configuration whose checkpoint lies elsewhere, if it would be that which is shipped for its task.

    See `medsegdiff_bundle.elsewhere`, which fetches it once it is asked for.
    """
    task = config.get("task")
    if config.get("checkpoint") != "@shipped_weights" or not os.environ.get(WEIGHTS) or not isinstance(task, str):
        return config
    there = {"_target_": "medsegdiff_bundle.elsewhere.weights_elsewhere", "task": task}
    return {**config, "checkpoint": f"@{ELSEWHERE}", ELSEWHERE: there}


def behind(names: Iterable[str], config: Mapping[str, Any]) -> set[str]:
    """Entries of a configuration that some of them refer to, directly or by others, and they themselves."""
    found: set[str] = set()
    left = list(names)
    while left:
        if (name := left.pop()) not in found and name in config:
            found.add(name)
            left += [settings.parts(each)[0] for each in settings.references(config[name])]
    return found


def tasks(folder: Path) -> list[str]:
    """Names of the tasks that have a file."""
    return sorted(path.stem for path in (folder / "tasks").glob("*.json"))


def tasks_with_weights(folder: Path) -> list[str]:
    """Names of the tasks whose weights come with the bundle."""
    return [name for name in tasks(folder) if _read(folder / "tasks" / f"{name}.json").get("shipped_weights")]


def _over(value: Any, below: Any, name: str) -> Any:
    """A value with what its "..." stands for."""
    if REST not in value if isinstance(value, (dict, list)) else True:
        return value
    if type(below) is not type(value):
        raise ValueError(f"There is no {name}, for which {REST!r} would stand.")
    if isinstance(value, list):
        place = value.index(REST)
        return [*value[:place], *below, *value[place + 1 :]]
    return {**below, **{key: each for key, each in value.items() if key != REST}}


def _take_parts(config: dict[str, Any], source: Mapping[str, Any], folder: Path) -> None:
    """Add arguments `a#b` of another to the component a of a configuration, if it is that of the base, without a b."""
    nested = {name: settings.parts(name) for name in source if len(settings.parts(name)) == 2}
    base = _read(folder / "inference.json") if nested else {}
    for name, (place, argument) in nested.items():
        component = config.get(place)
        if isinstance(component, dict) and component.get("_target_") == base[place]["_target_"]:
            config[place] = {argument: source[name], **component}


def take(config: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Add entries of another that a configuration refers to and lacks, and those that they refer to."""
    while found := _missing(config) & source.keys():
        config.update({name: source[name] for name in sorted(found)})


def _missing(config: Mapping[str, Any]) -> set[str]:
    return {settings.parts(name)[0] for name in settings.references(config)} - config.keys() - {""}


def _of_task(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the file of a configuration's task says, and for the rest that of an unknown one.

    If its classes are others than the task's, it is an unknown one.
    """
    file, other = (folder / "tasks" / f"{name}.json" for name in (config.get("task"), OTHER))
    unknown = _read(other) if other.is_file() else {}
    if file.is_file():
        content = _read(file)
        classes = content.get("class_names")
        said = config.get("class_names", classes)
        same = (list(said) if isinstance(said, tuple) else said) == classes
        return {**unknown, **content} if same else unknown
    # The packages of the model zoo are complete, and a task that has a name but no file keeps its name.
    return {**unknown, "task": None} if unknown else {}


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"There is no configuration file {str(file)!r}.")
    return settings.read_object(file)
