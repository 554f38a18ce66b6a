"""Settings as values: nothing that a caller gives is a program, a reference or a macro to MONAI's parser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser

NAME = "given"  # of the values among what the expressions of a configuration can name
SIGNS = ("$", "@", "%", "::", "#")  # that the parser acts on, at the beginning of a text or within it


def put_in(parser: ConfigParser, settings: Mapping[str, Any]) -> None:
    """Set entries of a configuration.

    A value with a text that MONAI's parser would act on, such as a path that begins with a dollar, is kept beside the
    configuration, whose entry then is an expression that looks it up: `$given[0]`.

    Args:
        parser: of the configuration.
        settings: values by the names of the entries.
    """
    values = parser.globals.setdefault(NAME, [])
    for name, value in settings.items():
        if _is_plain(value):
            parser[name] = value
        else:
            values.append(value)
            parser[name] = f"${NAME}[{len(values) - 1}]"


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return not any(sign in value for sign in SIGNS)
    if isinstance(value, Mapping):
        return "_target_" in value or all(map(_is_plain, (*value, *value.values())))
    return not isinstance(value, (list, tuple)) or all(map(_is_plain, value))
