"""`medsegdiff evaluate PREDICTIONS LABELS`: masks against labels; or, with `--data`, weights against a data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsegdiff_bundle import settings
from medsegdiff_bundle.cli import bundle
from medsegdiff_bundle.cli.options import add_settings
from medsegdiff_bundle.files import check_writable
from medsegdiff_bundle.model_file import task_of

if TYPE_CHECKING:
    from medsegdiff_bundle.evaluation import Pair, Scores

DESCRIPTION = """\
Compare the masks of a folder with those of another, without a network: Dice, HD95, surface Dice and volumes of each
class and case. Files belong together by their names. Those that do not match are listed, and masks on another grid
refused. A class that neither mask marks is left out of a mean, or counted as right: both are printed.

With --data, segment the validation cases of a data set and write their Dice, as configs/evaluate.json does."""
EXAMPLES = (
    "results/ labelsTr/ -o scores",
    "--data data/Task04_Hippocampus -c output/model.pt -o output/evaluation",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    add_settings(parser, "train.json", "evaluate.json")
    parser.add_argument("predictions", nargs="?", help="folder of masks, or one file")
    parser.add_argument("labels", nargs="?", help="folder of labels, or one file")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="gets scores.csv and summary.json (default: none)")
    add_measures(parser)
    parser.add_argument("--data", metavar="FOLDER", help="data set whose validation cases are segmented and compared")
    parser.add_argument("-c", "--checkpoint", metavar="FILE", help="weights, with --data (default: those of the task)")
    parser.add_argument("-d", "--device", help="with --data, such as cpu or cuda:0 (default: a GPU if there is one)")
    bundle.add_overlays(parser, "that of the weights, or hippocampus")


def add_names(parser: argparse.ArgumentParser) -> None:
    """Add the options that name classes or regions."""
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="of the numbers from 1 on (default: as the files say)"
    )
    parser.add_argument(
        "--regions",
        nargs="+",
        metavar="NUMBERS",
        help="that make each of --classes, such as 1,2,3 2,3 3, if they overlap",
    )


def add_measures(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is measured."""
    add_names(parser)
    parser.add_argument(
        "--tolerance", type=_distance, default=1.0, metavar="MM", help="of the surface Dice (default: %(default)s)"
    )


def _distance(word: str) -> float:
    found = float(word)
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a distance in mm of at least 0, got {word}.")
    return found


def run(options: argparse.Namespace) -> int:
    """Compare."""
    if options.data is not None:
        if options.predictions is not None:
            raise ValueError("--data compares weights with a data set: it takes no folders of masks.")
        return _evaluate_weights(options)
    if options.labels is None:
        raise ValueError("Two folders are compared: PREDICTIONS LABELS; or a data set: --data FOLDER.")
    if options.settings or options.config or options.checkpoint or options.device or options.task:
        raise ValueError("Weights, tasks and settings are for --data: masks are compared without a network.")
    return _evaluate_folders(options)


def _evaluate_folders(options: argparse.Namespace) -> int:
    from medsegdiff_bundle.evaluation.folders import find_pairs

    pairs, predictions, labels = find_pairs(options.predictions, options.labels)
    names, regions = named(options, [pairs])
    if options.output:
        check_writable(options.output)
    rows, failures = score_folder(pairs, predictions, labels, names, options.tolerance, options.quiet, regions)
    if rows:
        from medsegdiff_bundle.evaluation import summary

        found: dict[str, Any] = {
            "tolerance": options.tolerance,
            "unmatched": {
                "predictions": [file.name for file in predictions],
                "labels": [file.name for file in labels],
            },
            "refused": failures,
            **summary.summarize(rows),
        }
        if options.output:
            summary.write_scores(rows, Path(options.output) / "scores.csv")
            summary.write_summary(found, Path(options.output) / "summary.json")
        if not options.quiet:
            print(summary.summary_table(found))
    return 1 if failures else 0


def named(options: argparse.Namespace, sets: Sequence[Sequence[Pair]]) -> tuple[dict[int, str], list[list[int]] | None]:
    """Names of classes by number, or of regions from 1 on and the numbers that make them: as asked for, or as found.

    Args:
        options: `classes` and `regions`, see `add_names`.
        sets: of pairs, of which the first that tells any is taken.

    Raises:
        ValueError: the regions have no names, or are no numbers; or two names are the same.
    """
    from medsegdiff_bundle.evaluation.folders import find_names, find_regions

    if options.classes and len(set(options.classes)) < len(options.classes):
        raise ValueError(f"--classes must be names, each of them once, got {options.classes}.")
    if options.regions:
        try:
            regions = settings.typed("regions", [region.split(",") for region in options.regions])
        except ValueError as error:
            said = f"--regions must be numbers from 1 on, such as 1,2,3 2,3 3, got {options.regions}."
            raise ValueError(said) from error
        if len(regions) != len(options.classes or []):
            raise ValueError(f"--classes must name each of {len(regions)} regions, got {options.classes}.")
        return dict(enumerate(options.classes, start=1)), regions
    if options.classes:
        return dict(enumerate(options.classes, start=1)), None
    if found := next(filter(None, map(find_regions, sets)), None):
        return dict(enumerate(found, start=1)), [*found.values()]
    return next(filter(None, map(find_names, sets)), {}), None


def say_unmatched(predictions: Sequence[Path], labels: Sequence[Path]) -> None:
    """Say on standard error what `find_pairs` found no partner of."""
    for what, files in (("prediction(s) without a label", predictions), ("label(s) without a prediction", labels)):
        if files:
            print(f"{len(files)} {what}: {', '.join(file.name for file in files)}", file=sys.stderr)


def score_folder(
    pairs: Sequence[Pair],
    predictions: Sequence[Path],
    labels: Sequence[Path],
    names: Mapping[int, str],
    tolerance: float,
    quiet: bool,
    regions: Sequence[Sequence[int]] | None = None,
) -> tuple[list[Scores], dict[str, str]]:
    """Scores of what `find_pairs` found, of all classes in all cases, and a sentence for each case that failed.

    What does not match and what fails is said on standard error.
    """
    say_unmatched(predictions, labels)
    from tqdm import tqdm

    from medsegdiff_bundle import errors

    errors.quiet_readers()
    from medsegdiff_bundle.evaluation import summary
    from medsegdiff_bundle.evaluation.folders import find_ignored
    from medsegdiff_bundle.evaluation.scores import compare_files

    ignored = find_ignored(pairs)
    rows: list[Scores] = []
    failures: dict[str, str] = {}
    for pair in tqdm(pairs, desc="comparing", disable=quiet or not sys.stderr.isatty(), leave=False):
        try:
            rows += compare_files(pair.prediction, pair.label, pair.name, names, tolerance, ignored, regions)
        except ValueError as error:
            failures[pair.name] = errors.sentence(error)
            print(f"error: {failures[pair.name]}", file=sys.stderr)
    right = [pair for pair in pairs if pair.name not in failures]
    if right and not rows:  # neither a name nor a number says of which class all these masks are empty
        names = {1: "1"}
        rows = [
            row
            for pair in right
            for row in compare_files(pair.prediction, pair.label, pair.name, names, tolerance, ignored)
        ]
    return summary.completed(rows, names, [pair.name for pair in right]), failures


def _evaluate_weights(options: argparse.Namespace) -> int:
    task = options.task or task_of(options.checkpoint)
    files = bundle.chosen_files("train.json", task, options.config, ["evaluate.json"])
    given = {"dataset_dir": options.data, **options.settings}
    for name, value in (("checkpoint", options.checkpoint), ("device", options.device), ("output_dir", options.output)):
        if value is not None:
            given[name] = value
    given.setdefault("output_dir", "output/evaluation")
    bundle.run_bundle(files, given, options.quiet, options.debug)
    return 0
