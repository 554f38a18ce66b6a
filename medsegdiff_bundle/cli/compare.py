"""`medsegdiff compare LABELS FOLDER FOLDER`: several sets of masks, or networks, against the same labels."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from medsegdiff_bundle.cli.evaluate import add_measures, named, score_folder
from medsegdiff_bundle.cli.options import task_files
from medsegdiff_bundle.files import check_writable

DESCRIPTION = """\
Score several folders of masks against the same labels, on the cases that all of them have, and print one table: means
of each, and how far each is from the first, case by case, with the standard error of that mean.

A file of weights in the place of a folder segments the images first. It is a network of this package, or the baseline
whose name stands before it, as dynunet=weights.pt."""
EXAMPLES = (
    "labelsTr/ ours=results/ nnunet=predictions/ -o comparison",
    "labelsTr/ models/model.pt dynunet=dynunet/model.pt --images imagesTr/ -o comparison",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    tasks = ", ".join(path.stem for path in task_files())
    parser.add_argument("labels", help="folder of labels")
    parser.add_argument("sources", nargs="+", metavar="[NAME=]SOURCE", help="folder of masks, or file of weights")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="gets comparison.json, the scores of each, and masks")
    parser.add_argument("--images", metavar="FOLDER", help="images for the weights among SOURCE")
    parser.add_argument("-t", "--task", help=f"of the weights: hippocampus, {tasks} (default: hippocampus)")
    parser.add_argument("-d", "--device", help="for the weights, such as cpu (default: a GPU if there is one)")
    add_measures(parser)


def run(options: argparse.Namespace) -> int:
    """Compare."""
    if not os.path.isdir(options.labels):
        raise ValueError(f"There is no folder of labels {options.labels!r}.")
    sources = named_sources(options.sources)
    weights = {name: path for name, path in sources.items() if path.is_file()}
    if weights and (options.images is None or options.output is None):
        raise ValueError(f"{next(iter(weights.values()))} is a file of weights: --images and -o FOLDER are needed.")
    if options.output:
        check_writable(options.output)
    from medsegdiff_bundle.evaluation.folders import find_pairs

    failed = False
    for name, checkpoint in weights.items():
        sources[name] = Path(options.output) / name
        failed |= _segment(name, checkpoint, sources[name], options)
    found = {name: find_pairs(folder, options.labels) for name, folder in sources.items()}
    names, regions = named(options, [pairs for pairs, _, _ in found.values()])
    rows = {}
    for name, matched in found.items():
        rows[name], failures = score_folder(*matched, names, options.tolerance, options.quiet, regions)
        failed |= bool(failures)
    from medsegdiff_bundle.evaluation import comparison, summary

    rows = comparison.common_cases(rows)
    if not all(rows.values()):
        raise ValueError("There is no case that all of them have.")
    compared = comparison.compare(rows)
    if options.output:
        for name, each in rows.items():
            summary.write_scores(each, Path(options.output) / f"{name}.csv")
        summary.write_summary(compared, Path(options.output) / "comparison.json")
    if not options.quiet:
        print(comparison.comparison_table(compared))
        print(f"\n{len(comparison.dice_of_cases(next(iter(rows.values()))))} cases")
    return int(failed)


def named_sources(words: Sequence[str]) -> dict[str, Path]:
    """Folders and files by their names: that before an equals sign, or the file's or folder's own.

    Raises:
        ValueError: fewer than two, two of one name, or one that is not there.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = ("", "", word) if os.path.exists(word) else word.partition("=")
        if not os.path.exists(path):
            raise ValueError(f"There is no folder of masks or file of weights {path or word!r}.")
        name = name or Path(path).absolute().with_suffix("").name
        if name in found:
            raise ValueError(f"Two are called {name!r}: give them names, as NAME={path}.")
        found[name] = Path(path)
    if len(found) < 2:
        raise ValueError(f"One alone, {words[0]!r}, is compared with nothing: medsegdiff evaluate scores it.")
    return found


def _segment(name: str, checkpoint: Path, folder: Path, options: argparse.Namespace) -> bool:
    """Masks of the images by weights; whether some failed."""
    from medsegdiff_bundle.cli.bundle import chosen_files
    from medsegdiff_bundle.settings import bundle_root

    baseline = bundle_root() / "configs" / "baselines" / f"{name}.json"
    files = chosen_files("inference.json", options.task, [str(baseline)] if baseline.is_file() else [])
    from medsegdiff_bundle.segmenter import Segmenter

    given = {"checkpoint": str(checkpoint), "progress": sys.stderr.isatty() and not options.quiet}
    if options.device is not None:
        given["device"] = options.device
    failures = []

    def fail(file: str, sentence: str) -> None:
        failures.append(file)
        print(f"error: {name}: {sentence}", file=sys.stderr)

    segmenter = Segmenter.of_files(files, given, folder)
    segmenter(options.images, overwrite=False, on_result=lambda result: None, on_failure=fail)
    return bool(failures)
