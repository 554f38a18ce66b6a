"""`medsegdiff calibrate DATA`: what weights say of other images, from cases whose labels are known."""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsegdiff_bundle import settings
from medsegdiff_bundle.cli import bundle
from medsegdiff_bundle.cli.options import add_settings
from medsegdiff_bundle.cli.train import configured_settings
from medsegdiff_bundle.files import check_writable

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

    from medsegdiff_bundle.segmenter import Segmenter

DESCRIPTION = """\
Write two files beside weights, which 'segment' and MONAI Label use from then on. NAME.intervals.json makes intervals
of volumes hold what they say: validation cases are segmented, and the errors of their volumes counted. With
NAME.known.json an image is flagged that is unlike the training cases, or whose mask is: training cases are segmented
and described by numbers. The weights stay as they are. DATA is a folder, or the file of settings that 'configure'
wrote."""
EXAMPLES = ("mine.json", "photos/ -t isic --training_cases 0")
FEWEST = {"intervals": 10, "numbers of training cases": 30}  # cases, below which they tell too little of others


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    add_settings(parser, "train.json")
    parser.add_argument("data", help="folder of the data set, or the file that 'configure' wrote")
    bundle.add_overlays(parser, "that of the weights, or hippocampus")
    parser.add_argument(
        "-c", "--checkpoint", metavar="FILE", help="weights (default: those of the file, or that come with the task)"
    )
    parser.add_argument("-d", "--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    parser.add_argument("--section", default="validation", help="cases of the intervals: validation or test")
    parser.add_argument("--cases", type=int, metavar="N", help="of these the first ones only; 0: no intervals")
    parser.add_argument(
        "--training_cases", type=int, default=200, metavar="N", help="at most so many, drawn at random (default: 200)"
    )


def run(options: argparse.Namespace) -> int:
    """Write what is asked for, and print how well the intervals hold."""
    for name in ("cases", "training_cases"):
        if (getattr(options, name) or 0) < 0:
            raise ValueError(f"--{name} must be at least 0, got {getattr(options, name)}.")
    if not Path(options.data).exists():
        raise ValueError(f"There is no data set or file of settings {options.data!r}.")
    configured = configured_settings(Path(options.data))
    overlays = list(options.config) if configured is None else [options.data, *options.config]
    bundle.chosen_files("train.json", options.task, overlays)  # or a sentence, before torch is there
    given = {**options.settings, **({} if options.device is None else {"device": options.device})}
    typed = {name: settings.typed(name, value, programs=False) for name, value in given.items()}
    from monai.utils import set_determinism

    from medsegdiff_bundle import errors
    from medsegdiff_bundle.evaluation import of_networks
    from medsegdiff_bundle.workflow import check_device

    if options.device is not None:
        check_device(options.device)
    named = options.checkpoint or (configured or {}).get("checkpoint")
    if configured is not None and named is None:
        raise ValueError(f"{options.data!r} names no weights: name a file of them by -c.")
    task, weights = of_networks.chosen(options.task, named)
    check_writable(weights.parent)
    if named is None and not options.quiet:
        print(f"What comes with the weights {str(weights)!r} is replaced: -c names others, or a copy.", file=sys.stderr)
    errors.quiet_readers()
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # says what the sentence of an error says
    set_determinism(seed=0)
    files = bundle.chosen_files("train.json", task, overlays)
    folder = options.data if configured is None else None
    every = {"val_stride": 1, **typed}  # a training may validate some of the cases only
    config = of_networks.load_files(files, folder, options.section, every, options.checkpoint)
    validated = len(config.get_parsed_content("validate#dataset#data"))
    validated = validated if options.cases is None else min(validated, options.cases)
    images = [case["image"] for case in config.get_parsed_content("train#dataset#data")]
    random.Random(0).shuffle(images)
    images = images[: options.training_cases]
    wanted = dict(zip(FEWEST, (validated, len(images)), strict=True))
    few = {what: f"{what} take {FEWEST[what]} cases or more, got {n}" for what, n in wanted.items() if n < FEWEST[what]}
    if len(few) == len(wanted):
        asked = zip(few.values(), (options.cases, options.training_cases), strict=True)
        said = " and ".join(sentence for sentence, number in asked if number != 0)
        raise ValueError(f"Nothing can be written: {said or 'no cases are asked for'}.")
    if validated >= FEWEST["intervals"]:
        _write_intervals(config, weights, validated, options)
    elif options.cases != 0:
        print(f"Not written: {few['intervals']}.", file=sys.stderr)
    if len(images) >= FEWEST["numbers of training cases"]:
        segmenter = _segmenter(
            bundle.chosen_files("inference.json", task, overlays), {**typed, "checkpoint": str(weights)}
        )
        _write_known(config, segmenter, images, options.quiet)
    elif options.training_cases:
        print(f"Not written: {few['numbers of training cases']}.", file=sys.stderr)
    return 0


def _write_intervals(config: ConfigParser, checkpoint: Path, number: int, options: argparse.Namespace) -> None:
    import medsegdiff_bundle
    from medsegdiff_bundle.beside_weights import sampler_settings
    from medsegdiff_bundle.evaluation import calibration, of_networks
    from medsegdiff_bundle.intervals import LEVEL, fit, write_calibration

    content = config.get_parsed_content
    inferer = content("validate#inferer")
    if inferer.anchor_only or inferer.ensemble_size < 2:
        raise ValueError("Intervals take two members or more, whose volumes differ: leave them out by --cases 0.")
    network = of_networks.trained(config, checkpoint)
    names, regions, ignore_label = content("class_names"), content("regions"), content("ignore_label")
    rows = []
    batches = of_networks.batches(config, options.cases)
    for batch in _shown(batches, f"{options.section} cases", options.quiet, number):
        case = of_networks.segmented(config, batch, network, inferer)
        rows.append(calibration.measured(case, names, regions, ignore_label))
    tables = calibration.as_tables(rows, names)
    structures = {name: fit(t["true"], t["mean"], t["deviation"], t["size"]) for name, t in tables.items()}
    file = checkpoint.with_suffix(".intervals.json")
    lines = [
        f"Intervals of {LEVEL:.0%}, each of the {len(rows)} cases left out in turn: coverage, mean width\n",
        *calibration.interval_lines(tables),
        "\nRank correlation of predicted with true Dice\n",
        *calibration.predicted_dice_lines(tables),
        f"\nWrote {file}",
    ]
    write_calibration(file, structures, checkpoint, sampler_settings(inferer), medsegdiff_bundle.__version__)
    if not options.quiet:
        print("\n".join(lines))


def _segmenter(files: list[Path], given: dict[str, Any]) -> Segmenter:
    """Of the weights, with what was given of the settings of inference."""
    from medsegdiff_bundle import configuration
    from medsegdiff_bundle.segmenter import Segmenter

    content = configuration.read(files)
    known = {name: value for name, value in given.items() if settings.parts(name)[0] in content}
    return Segmenter.of_files(files, known)


def _write_known(config: ConfigParser, segmenter: Segmenter, images: list[Any], quiet: bool) -> None:
    import medsegdiff_bundle
    from medsegdiff_bundle.evaluation import calibration
    from medsegdiff_bundle.known import write_known

    logging.disable(logging.WARNING)  # of what a single case would be told
    try:
        cases = calibration.described(segmenter, _shown(images, "training cases", quiet))
    finally:
        logging.disable(logging.NOTSET)
    known = calibration.known_check(segmenter).known
    patch_size, version = config.get_parsed_content("patch_size"), medsegdiff_bundle.__version__
    limit = write_known(known.file, cases, known.checkpoint, known.settings, patch_size, version)
    if not quiet:
        print(f"Wrote {known.file}: {len(cases)} training cases, the limit of the distance is {limit:.2f}")


def _shown(things: Iterable[Any], name: str, quiet: bool, number: int | None = None) -> Iterable[Any]:
    """With a bar on a terminal that says how many are done."""
    from tqdm import tqdm

    hidden = quiet or not sys.stderr.isatty()
    return tqdm(things, desc=name, total=number, disable=hidden, leave=False)
