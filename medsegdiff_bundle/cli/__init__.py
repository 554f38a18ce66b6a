"""The command line `medsegdiff COMMAND ...`: a module of this folder for each command, and none of them needs torch.

A command is a module with what `Command` names. Its function imports torch and MONAI once the words of the command line
are known to be right, so that help and a wrong word take no seconds.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol, cast

import medsegdiff_bundle

COMMANDS = {  # and what help says of each, in its order: so no module is imported for it
    "prepare": "bring a data set into a form that can be read",
    "check": "look at a whole data set before a training, and list its faults",
    "configure": "choose all settings of a training from the data, and say why",
    "train": "train the weights of a task, or of your own classes",
    "segment": "segment an image, or the images of a folder",
    "evaluate": "compare masks with labels, or weights with a data set",
    "calibrate": "intervals that hold, and alarms for images unlike the training, for weights",
    "clean": "choose by labels whether masks are cleaned: largest component, holes, small parts",
    "compare": "compare networks, or folders of masks, on the same cases",
    "sweep": "scores of a network against steps, members, fusion and start",
    "export": "the network as ONNX files, for software without torch",
    "package": "one zip of a task, as MONAI's model zoo wants it",
    "benchmark": "what a fused mask costs, against other networks",
    "info": "print versions, weights with their checksums, and devices",
}


class Command(Protocol):
    """What a module of a command holds.

    Attributes:
        DESCRIPTION: what it does and writes.
        EXAMPLES: two lines of arguments.
    """

    DESCRIPTION: str
    EXAMPLES: Sequence[str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add arguments and options; `options.add_settings` lets it take settings by their names, too."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it, and return the exit status: 0, or 1 if some cases failed. A `ValueError` says what was asked wrongly.

        `options.settings` holds the settings that were given by their names, unless it takes none.
        """


class Parser(argparse.ArgumentParser):
    """One whose errors are a sentence."""

    def error(self, message: str) -> NoReturn:
        """End the process."""
        self.exit(2, f"error: {message[:1].upper()}{message[1:]} ('{self.prog} --help' lists what there is)\n")


def command(name: str) -> Command:
    """The module of a command."""
    return cast(Command, importlib.import_module(f"{__name__}.{name}"))


def main(arguments: Sequence[str] | None = None, prog: str = "medsegdiff") -> int:
    """Run one command.

    Args:
        arguments: words of the command line; None takes those of this process.
        prog: what they follow.

    Returns:
        Exit status: 0; 1 if some cases failed; 2 if something was asked wrongly, before any work; 130 if the run was
        interrupted. What is wrong is said in a sentence on standard error.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argument_parser(prog, None if "--completion" in words[:1] else words[:1])
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        from medsegdiff_bundle.settings import nearest

        similar = nearest(words[0], COMMANDS)
        parser.error(f"there is no command {words[0]!r}" + (f": did you mean {similar!r}?" if similar else ""))
    if not words or words[0] not in COMMANDS:
        parser.parse_args(words)  # which prints and ends
    from medsegdiff_bundle.cli import options

    words[1:] = options.by_name(words[1:], parser_of(parser, words[0]))
    known, others = parser.parse_known_args(words)
    level = logging.getLogger().level
    _set_log_level(known.quiet, known.verbose)
    try:
        options.take_settings(known, others)
        options.check_filled(known)
        return command(known.command).run(known)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if known.debug:
            traceback.print_exc()
        from medsegdiff_bundle import errors

        cause = errors.root_cause(error)  # MONAI's parser puts others around it
        expected = isinstance(error, ValueError) or isinstance(cause, ValueError) and errors.is_own(cause)
        hint = "" if known.debug or expected else " (--debug shows where)"
        print(f"error: {errors.sentence(error)}{hint}", file=sys.stderr)
        return 1 if isinstance(error, errors.UnsegmentedError) or not expected else 2
    finally:
        logging.getLogger().setLevel(level)  # for a caller in the same process


def argument_parser(prog: str = "medsegdiff", chosen: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        prog: what their words follow.
        chosen: commands whose own words are needed, as modules take their time; None for all.
    """
    parser = Parser(
        prog=prog,
        description="Diffusion segmentation of medical images, with its uncertainty.",
        epilog="Exit status: 0, 1 if some cases failed, 2 if something was asked wrongly.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"medsegdiff {medsegdiff_bundle.__version__}")
    parser.add_argument(
        "--completion",
        choices=("bash", "zsh", "tcsh"),
        action=_PrintCompletion,
        help='print what lets a shell complete these words, such as `eval "$(medsegdiff --completion bash)"`',
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, line in COMMANDS.items():
        if chosen is not None and name not in chosen:
            commands.add_parser(name, help=line)
            continue
        module = command(name)
        examples = "\n".join(f"  {prog} {name} {words}" for words in module.EXAMPLES)
        each = commands.add_parser(
            name,
            help=line,
            description=module.DESCRIPTION,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(each)
        loudness = each.add_mutually_exclusive_group()
        loudness.add_argument("-q", "--quiet", action="store_true", help="print errors alone")
        loudness.add_argument("-v", "--verbose", action="store_true", help="print what MONAI logs, too")
        each.add_argument("--debug", action="store_true", help="show where an error comes from")
        each.set_defaults(
            flags=[flag for action in each._actions for flag in action.option_strings],
            defaults={action.dest: action.default for action in each._actions},
        )
    return parser


def parser_of(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """The parser of one command, in that of all."""
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return cast(argparse.ArgumentParser, commands.choices[name])


class _PrintCompletion(argparse.Action):
    """Print the completion of a shell, and end."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Print."""
        try:
            import shtab
        except ImportError:
            parser.error("--completion needs the package shtab: pip install 'medsegdiff-bundle[completion]'.")
        print(shtab.complete(parser, values))
        parser.exit()


def _set_log_level(quiet: bool, verbose: bool) -> None:
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    elif quiet:
        logging.getLogger().setLevel(logging.ERROR)
