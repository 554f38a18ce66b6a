"""What the commands share: settings by their names, and their defaults."""

from __future__ import annotations

import argparse
import ast
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff_bundle import configuration, settings
from medsegdiff_bundle.meanings import MEANINGS
from medsegdiff_bundle.settings.kinds import boolean


def add_settings(parser: argparse.ArgumentParser, *files: str) -> None:
    """Let a command take settings, as `--set name=value`, and as `--name value` as MONAI's runner takes them.

    Args:
        parser: of the command.
        files: of `configs`, whose entries are the settings.
    """
    parser.add_argument(
        "--set",
        dest="pairs",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f'any other setting of {" or ".join(f"configs/{file}" for file in files)}, as --set roi_size="[96,96,96]"',
    )
    parser.set_defaults(files=files)


def add_setting(parser: argparse.ArgumentParser, *flags: str, name: str, metavar: str | None = None) -> None:
    """Add a setting with an option of its own.

    Args:
        parser: of a command that takes settings.
        flags: of the option, such as "-n", "--steps".
        name: of the setting.
        metavar: word for its value.
    """
    default = shown_default(name, parser.get_default("files"))
    parser.add_argument(
        *flags,
        dest=name,
        type=value,
        metavar=metavar,
        help=f"{MEANINGS[name].text} (default: {default})".replace("%", "%%"),
    )


def content(files: Sequence[str]) -> dict[str, Any]:
    """Entries of some files of `configs`, to be read and not changed."""
    return _content(tuple(files))


@functools.cache  # as each option of a command asks for its default
def _content(files: tuple[str, ...]) -> dict[str, Any]:
    return configuration.read([settings.bundle_root() / "configs" / file for file in files])


def shown_default(name: str, files: Sequence[str]) -> str:
    """Default of a setting, with those of tasks with weights that have another; an expression in words."""
    if MEANINGS[name].default:
        return MEANINGS[name].default
    of_all = _default(content(files), name)
    of_tasks = {
        path.stem: _default(content([*files, f"tasks/{path.name}"]), name) for path in task_files(with_weights=True)
    }
    others = [f"{each} {found}" for each, found in of_tasks.items() if found != of_all]
    return "; ".join([of_all, *others])


def _default(config: dict[str, Any], name: str) -> str:
    found = config[name]
    while isinstance(found, str) and found.startswith("@") and "$" not in found:
        way, found = settings.parts(found[1:]), config
        for step in way:
            found = found[step]
    return str(found)


def task_files(with_weights: bool = False) -> list[Path]:
    """The configuration files of tasks, of all or of those whose weights come with the bundle."""
    configs = settings.bundle_root() / "configs"
    names = configuration.tasks_with_weights(configs) if with_weights else configuration.tasks(configs)
    return [configs / "tasks" / f"{name}.json" for name in names]


def value(word: str) -> Any:
    """A word of the command line as the Python literal that it is, or as text."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def by_name(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Words of a command with `--set name=value` in the place of `--name value`, which argparse does not know.

    It would take the value for an argument of the command. A flag that is a setting of true or false may have a value,
    too: `--resume auto`, `--overwrite True`; and another setting of these, `--strict`, may have none.

    Args:
        words: without the name of the command.
        parser: of the command.
    """
    if parser.get_default("files") is None:
        return list(words)
    options = argparse.Namespace(files=parser.get_default("files"), flags=parser.get_default("flags"))
    switches = {flag: action.dest for action in parser._actions if action.nargs == 0 for flag in action.option_strings}
    found: list[str] = []
    left = list(words)
    while left and left[0] != "--":
        word = left.pop(0)
        flag, equals, given = word.partition("=")
        name = switches.get(flag) if flag in options.flags else _setting(flag, options)
        if not equals and left and name is not None:
            is_value = _switches(name, left[0]) if flag in switches else _is_value(left[0], options.flags)
            equals, given = ("=", left.pop(0)) if is_value else ("", "")
        if not equals and name is not None and settings.KINDS.get(name) is boolean and flag not in switches:
            equals, given = "=", "true"
        found += ["--set", f"{name}={given}"] if equals and name is not None else [word]
    return found + left


def _setting(word: str, options: argparse.Namespace) -> str | None:
    """The setting that a word names, if it does."""
    try:
        return _checked(word, options) if word.startswith("--") else None
    except ValueError:
        return None


def _is_value(word: str, flags: Sequence[str]) -> bool:
    """Whether a word can be the value of a setting before it."""
    return not word.startswith("--") and word not in flags


def _switches(name: str, word: str) -> bool:
    """Whether a word turns a setting on or off, or is another word that it takes; a number may be a folder's name."""
    try:
        return name in settings.KINDS and len(word) > 1 and settings.typed(name, word) in (True, False, "auto")
    except ValueError:
        return False


def take_settings(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Read the settings that were given by their names into `options.settings`.

    An option that has a default, such as a flag, takes the setting of its name itself.

    Args:
        options: as the parser of the command left them.
        words: that it does not know, see `by_name`.

    Raises:
        ValueError: a word is no option and no setting, or a setting has no value or is given twice.
    """
    found: dict[str, Any] = {}
    for word, given in _pairs(getattr(options, "pairs", [])):
        name = _checked(word, options)
        default = options.defaults.get(name)
        if name in found or getattr(options, name, None) != default:
            raise ValueError(f"{name} is given twice.")
        if default is None:
            found[name] = value(given)
        else:
            setattr(options, name, settings.typed(name, value(given), programs=False))
    for word in words:
        if not word.startswith("-"):
            raise ValueError(f"What is {word!r}? The command has what it takes without it.")
        raise ValueError(f"{_checked(word.partition('=')[0], options)} needs a value.")
    options.settings = found


def check_filled(options: argparse.Namespace) -> None:
    """Refuse an empty word, as it is of a variable of a shell that is not set, which would stand for a default.

    Raises:
        ValueError: naming the option.
    """
    for name, value in vars(options).items():
        if value == "" and name != "pretrained":  # none
            raise ValueError(f"{name.removesuffix('_dir')} is empty.")


def _pairs(pairs: Sequence[str]) -> list[tuple[str, str]]:
    """Names and values of `--set name=value`."""
    split = [pair.partition("=") for pair in pairs]
    for name, equals, _ in split:
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, got {name!r}.")
    return [(name, given) for name, _, given in split]


def _checked(word: str, options: argparse.Namespace) -> str:
    """The setting that a word names."""
    name = word.removeprefix("--").replace("-", "_")
    config = content(options.files) if hasattr(options, "files") else {}
    flags = {flag.removeprefix("--").replace("-", "_"): flag for flag in options.flags if flag.startswith("--")}
    try:
        if word.startswith("-") and not word.startswith("--"):
            raise ValueError("of one letter, none of which is left")
        settings.check_names({name: None}, config)
    except ValueError:
        if "#" in name:  # of which one step is wrong
            raise
        similar = settings.nearest(name, [*flags, *config])
        hint = f": did you mean {flags.get(similar, similar)!r}?" if similar else "."
        kind = "setting" if config else "option"
        raise ValueError(f"There is no {kind} {word!r}{hint}") from None
    return name
