"""Texts that MONAI's parser must leave as they are: it keeps them beside the configuration, which looks them up.

Nothing that a caller gives as a setting is a program, a reference or a macro to the parser. Of what stands in files,
MONAI 1.6.1 changes each "#" to "::", as in references, so plain texts with one are kept, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from medsegdiff_bundle.settings import is_program, parts, texts

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

NAME = "given"  # of the values among what the expressions of a configuration can name
SIGNS = ("$", "@", "%", "::", "#")  # that the parser acts on, at the beginning of a text or within it
SEPARATORS = ("#", "::")  # of the names of nested entries; the parser writes the second for the first in every text


def put_in(parser: ConfigParser, settings: Mapping[str, Any]) -> None:
    """Set entries of a configuration.

    A value with a text that MONAI's parser would act on, such as a path that begins with a dollar, is kept beside the
    configuration, whose entry then is an expression that looks it up: `$given[0]`.

    Args:
        parser: of the configuration.
        settings: values by the names of the entries.

    Raises:
        ValueError: what an entry would lie in is a number or nothing.
    """
    values = parser.globals.setdefault(NAME, [])
    for name, value in settings.items():
        if not _is_plain(value):
            values.append(value)
            value = f"${NAME}[{len(values) - 1}]"
        try:
            parser[name] = value
        except (LookupError, TypeError, ValueError) as error:
            before = "#".join(parts(name)[:-1])
            raise ValueError(f"There is no {name!r}: {before} is nothing that has parts.") from error


def texts_kept(config: Mapping[str, Any], parser: ConfigParser) -> dict[str, Any]:
    """A copy of a configuration in which every plain text that has a "#" is an expression that looks it up.

    Args:
        config: it stays as it is, also when the parser works on the copy.
        parser: that gets the copy, and keeps the texts.
    """
    values = parser.globals.setdefault(NAME, [])
    return {name: value if name == "_meta_" else _kept(value, values) for name, value in config.items()}


def texts_restored(config: Mapping[str, Any], sources: Iterable[Any]) -> dict[str, Any]:
    """A copy of a configuration that was parsed, with its plain texts as they were before.

    Args:
        config: it stays as it is.
        sources: all that was put into the configuration, as files and callers say it.
    """
    said = {text for source in sources for text in texts(source)}
    original = {text.replace("#", "::"): text for text in said if not is_program(text)}
    changed = {parsed: text for parsed, text in original.items() if parsed not in said}
    return _with_texts(config, lambda text: changed.get(text, text))


def as_said(parser: ConfigParser) -> dict[str, Any]:
    """A copy of a configuration as a file would say it: with the texts that the parser keeps beside it.

    Of these, such as would be programs are written as programs that give them.
    """
    values = parser.globals.get(NAME, [])

    def said(text: str) -> Any:
        place = re.fullmatch(rf"\${NAME}\[(\d+)\]", text)
        return _with_texts(values[int(place[1])], _quoted) if place else text

    return _with_texts(parser.get(), said)


def _quoted(text: str) -> str:
    return f"${text!r}" if is_program(text) else text


def _with_texts(value: Any, change: Callable[[str], Any]) -> Any:
    """A copy of a value with each text of it changed, names of entries aside."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _with_texts(each, change) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        changed = [_with_texts(each, change) for each in value]
        return changed if isinstance(value, list) else tuple(changed)
    return value


def _kept(value: Any, values: list[Any]) -> Any:
    if isinstance(value, str):
        found = "#" in value and not is_program(value)
    elif isinstance(value, Mapping) and "_target_" not in value:
        found = any(sign in name for name in value for sign in SEPARATORS) and not any(map(is_program, texts(value)))
    else:
        found = False
    if found:
        values.append(value)
        return f"${NAME}[{len(values) - 1}]"
    if isinstance(value, Mapping):
        return {name: each if name.startswith("_") else _kept(each, values) for name, each in value.items()}
    return [_kept(each, values) for each in value] if isinstance(value, list) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return not any(sign in value for sign in SIGNS)
    if isinstance(value, Mapping):
        return "_target_" in value or all(map(_is_plain, (*value, *value.values())))
    return not isinstance(value, (list, tuple)) or all(map(_is_plain, value))
