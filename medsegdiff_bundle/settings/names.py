"""Names of settings: their parts, what refers to them, and those that no configuration has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from medsegdiff_bundle.components import parameters

from .programs import elsewhere, is_program, texts

# What MONAI's `tracking` adds to a configuration, and its command line takes.
TRACKING = ("tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0", "tracking")


def parts(name: str) -> list[str]:
    """Names on the way to a setting: `a#b` and `a::b` are b in a; a plus sign before it asks MONAI to add to it."""
    return re.split("#|::", name.removeprefix("+"))


def check_names(given: Mapping[str, Any], config: Mapping[str, Any], merged: Any = None, files: str = "") -> None:
    """Refuse settings that a configuration does not have.

    Args:
        given: values by name.
        config: the content of the configuration files.
        merged: the same with what is given in it. A name that it refers to is known.
        files: their names, for the sentence.

    Raises:
        ValueError: naming the setting, and the nearest one there is.
    """
    referred = set(references(config if merged is None else merged))
    for name, value in given.items():
        if not name.startswith("_"):
            _check_name(name, value, config, referred, files)


def _check_name(name: str, value: Any, config: Any, referred: set[str], files: str) -> None:
    where, steps = config, parts(name)
    for depth, step in enumerate(steps):
        if isinstance(where, Mapping) and step not in where:
            if not _is_new("#".join(steps[: depth + 1]), where, referred):
                before = "#".join([*steps[:depth], ""])
                raise ValueError(_unknown(name, before, step, where, files))
            return
        if isinstance(where, Sequence) and not isinstance(where, str):
            if not step.isdigit() or int(step) >= len(where):
                raise ValueError(f"There is no {name!r}: {'#'.join(steps[:depth])} has {len(where)} entries, from 0.")
            where = where[int(step)]
        elif isinstance(where, Mapping):
            where = where[step]
        elif isinstance(where, str):
            raise ValueError(f"There is no {name!r}: {elsewhere('#'.join(steps[:depth]), where)}")
        else:
            return  # nothing, or a number, in the place of what it may hold
    if isinstance(value, Mapping) and isinstance(where, Mapping) and "_target_" not in value:
        for key, inner in value.items():
            _check_name(f"{name}#{key}", inner, config, referred, files)


def _is_new(name: str, where: Mapping[str, Any], referred: set[str]) -> bool:
    """Whether a name that a part of a configuration lacks is one that it may get."""
    step = parts(name)[-1]
    if name in referred or step.startswith("_") or step in TRACKING and step == name:
        return True
    if "_target_" in where:
        accepted = parameters(str(where["_target_"]))
        return step in accepted or "**" in accepted and not nearest(step, where)
    return step != name and not nearest(step, where)


def check_spelling(merged: Mapping[str, Any], known: Iterable[Mapping[str, Any]], extra: Iterable[str] = ()) -> None:
    """Refuse entries of a merged configuration that nothing refers to and that are nearly the name of a setting.

    For files of the user's own, which may add entries as they like.

    Args:
        merged: all of it.
        known: contents of files whose entries are right.
        extra: other names that are right.

    Raises:
        ValueError: naming the entry, and the nearest one there is.
    """
    right = {name for content in known for name in content}
    referred = set(references(merged))
    for name, value in merged.items():
        if name in right or name in referred or name in TRACKING or name in extra or name.startswith(("_", "+")):
            continue
        if "#" not in name and "::" not in name and (similar := nearest(name, right)) and not isinstance(value, list):
            raise ValueError(f"There is no setting {name!r}: did you mean {similar!r}?")


def check_components(merged: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> None:
    """Refuse texts and numbers where the bundle's own files have a component, or a list or dictionary of components.

    What refers to another entry, an expression, None, and components of other kinds may stand there.

    Args:
        merged: configuration.
        known: contents of the bundle's files.

    Raises:
        ValueError: naming the entry.
    """
    for name, value in merged.items():
        _check_component(name, value, [content[name] for content in known if name in content])


def _check_component(name: str, value: Any, known: Sequence[Any]) -> None:
    if isinstance(value, (str, int, float)):
        made = known and all(
            isinstance(each, (dict, list)) or isinstance(each, str) and is_program(each) for each in known
        )
        if made and "_target_" in texts(known) and not (isinstance(value, str) and is_program(value)):
            raise ValueError(f"{name} must be a component, or what refers to one, got {value!r}.")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            below = [each[key] for each in known if isinstance(each, Mapping) and key in each]
            _check_component(f"{name}#{key}", inner, below)


def references(config: Any) -> Iterator[str]:
    """Names that a configuration refers to by `@name`, with those that they lie in."""
    if isinstance(config, str):
        for found in re.findall(r"@((?:\w|#|::)+)", config) if config[:1] in ("$", "@") else []:
            steps = parts(found)
            yield from ("#".join(steps[:end]) for end in range(1, len(steps) + 1))
    elif isinstance(config, (Mapping, list, tuple)):
        for each in config.values() if isinstance(config, Mapping) else config:
            yield from references(each)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of some names, if any is nearly the same, in capitals or not."""
    plain = {each.lower(): each for each in names if not each.startswith("_")}
    found = difflib.get_close_matches(name.lower(), plain, n=1, cutoff=0.75)
    return plain[found[0]] if found else None


def _unknown(name: str, before: str, step: str, where: Mapping[str, Any], files: str) -> str:
    known = {*where, *(parameters(str(where["_target_"])) - {"**"} if "_target_" in where else ())}
    similar = nearest(step, known)
    hint = f": did you mean {before + similar!r}?" if similar else "."
    return f"{files or 'The configuration'} has no setting {name!r}{hint}"
