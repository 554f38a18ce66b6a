"""Settings as values: nothing that a caller gives is a program, a reference or a macro to MONAI's parser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medsegdiff_bundle import model_file
from medsegdiff_bundle.settings import parts

NAME = "given"  # of the values among what the expressions of a configuration can name
SIGNS = ("$", "@", "%", "::", "#")  # that the parser acts on, at the beginning of a text or within it


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


def load(files: Iterable[Path], settings: Mapping[str, Any]) -> ConfigParser:
    """MONAI's parser of complete files, see `complete_with_weights`, with settings that are values.

    Args:
        files: the first in the folder of all configurations; later ones over earlier ones.
        settings: in place of theirs.
    """
    paths = [Path(file) for file in files]
    parser = ConfigParser()
    parser.read_config([str(path) for path in paths])
    put_in(parser, settings)
    model_file.complete_with_weights(parser, paths[0].parent, settings)
    return parser


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return not any(sign in value for sign in SIGNS)
    if isinstance(value, Mapping):
        return "_target_" in value or all(map(_is_plain, (*value, *value.values())))
    return not isinstance(value, (list, tuple)) or all(map(_is_plain, value))
