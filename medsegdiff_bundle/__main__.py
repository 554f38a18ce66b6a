"""`python -m medsegdiff_bundle segment IMAGE -o FOLDER`: `segment` from a shell."""

from __future__ import annotations

import argparse
import ast
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medsegdiff_bundle.segmentation import Segmentation

OPTIONS = {"steps": "num_inference_steps", "members": "ensemble_size", "output": "output_dir"}  # and their settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words of the command line; None takes those of this process.

    Returns:
        Exit code: 0; 1 if an image could not be segmented; 2 if something was asked wrongly, before any work; 130 if
        the run was interrupted. What is wrong is said in a sentence on standard error.
    """
    parser = _argument_parser()
    known, others = parser.parse_known_args(arguments)
    given = vars(known)
    given.pop("command")
    debug = given.pop("debug")
    try:
        return _segment(given, others)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        from medsegdiff_bundle import errors

        said = errors.sentence(error)
        hint = "" if debug or isinstance(error, ValueError) else " (--debug shows where)"
        print(f"error: {said}{hint}", file=sys.stderr)
        return 1 if isinstance(error, errors.UnsegmentedError) or not isinstance(error, ValueError) else 2


def _segment(known: dict[str, Any], others: Sequence[str]) -> int:
    from medsegdiff_bundle import errors, quick_start, segmentation

    settings = _settings(others, [*known, *OPTIONS])
    if twice := [name for name in settings if known.get(name) is not None]:
        raise ValueError(f"{twice[0]} is given twice.")
    of_segment = {name: known.pop(name) for name in ("image", "task", "output_dir", "overwrite", "like")}
    given = {"progress": sys.stderr.isatty(), **settings}
    given |= {name: value for name, value in known.items() if value is not None}
    told = {name: value for name, value in of_segment.items() if name != "overwrite"}
    segmentation.check_request(given=given, **told)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # says what the sentence below says
    errors.pass_over_missing_decoders()
    quick_start.import_segmenter()
    failures: list[str] = []

    def fail(file: str, sentence: str) -> None:
        failures.append(file)
        print(f"error: {sentence}", file=sys.stderr)

    segmentation.segment(**of_segment, **given, on_result=_report, on_failure=fail)
    return 1 if failures else 0


def _settings(words: Sequence[str], options: Sequence[str]) -> dict[str, Any]:
    """Settings of `inference.json` by their names, as `--roi_size "[96,96,96]"` or `--roi_size=96`."""
    settings: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            raise ValueError(f"There is an image already: what is {word!r}?")
        if not equals:
            if not left or left[0].startswith("--"):
                _check(name, options)
                raise ValueError(f"{name} needs a value.")
            value = left.pop(0)
        settings[_check(name, options)] = _value(value)
    return settings


def _check(word: str, options: Sequence[str]) -> str:
    """The setting that a word of the command line names."""
    from medsegdiff_bundle import settings

    config = settings.read_files([settings.bundle_root() / "configs" / "inference.json"])
    name = word.removeprefix("--").replace("-", "_")
    try:
        settings.check_names({name: None}, config)
    except ValueError:
        similar = settings.nearest(name, [*options, *config])
        hint = f": did you mean '--{similar.replace('_', '-') if similar in options else similar}'?" if similar else "."
        raise ValueError(f"There is no setting {word!r}{hint}") from None
    return name


def _value(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def _report(result: Segmentation) -> None:
    unit = result.report["unit"]
    decimals = 3 if unit == "ml" else 0
    structures = result.report["structures"].items()
    sizes = [f"{name} {structure['volume']:.{decimals}f} {unit}" for name, structure in structures]
    print(f"{result.name}: {', '.join(sizes)}; mask in {result.mask_file}", flush=True)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m medsegdiff_bundle", description="Diffusion segmentation.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "segment",
        help="segment an image, or the images of a folder",
        description="Write mask, uncertainty, a picture and a report of each image, and print the volumes.",
        epilog='Any other setting of configs/inference.json by its name, as --roi_size "[96,96,96]". '
        "Exit status: 0, 1 if an image could not be segmented, 2 if something was asked wrongly.",
        allow_abbrev=False,
    )
    command.add_argument("image", help="image file, folder of a DICOM series, or folder of images")
    command.add_argument("-o", "--output", dest="output_dir", metavar="FOLDER", required=True, help="made if need be")
    command.add_argument("--task", help="what to segment, such as hippocampus, isic or lidc (default: hippocampus)")
    command.add_argument("--checkpoint", metavar="FILE", help="weights (default: those of the task)")
    command.add_argument("--steps", dest="num_inference_steps", type=_value, help="denoising steps per member")
    command.add_argument("--members", dest="ensemble_size", type=_value, help="segmentations to draw and fuse")
    command.add_argument("--fusion", help="mean, vote, staple or dice")
    command.add_argument("--anchor-only", action="store_true", default=None, help="one pass, no diffusion")
    command.add_argument("--seed", type=_value, help="of the members' noise")
    command.add_argument("--like", metavar="REPORT", help="make the mask of a *_report.json again")
    command.add_argument("--device", help="such as cpu or cuda:0")
    command.add_argument("--overwrite", action="store_true", help="make results anew that are there already")
    command.add_argument("--force", action="store_true", default=None, help="take images in which nothing can be found")
    command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
