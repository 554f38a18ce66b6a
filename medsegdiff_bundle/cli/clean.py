"""`medsegdiff clean PREDICTIONS LABELS -c model.pt`: choose how masks of these weights are cleaned."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medsegdiff_bundle.cli.evaluate import add_names, named, say_unmatched

if TYPE_CHECKING:
    from medsegdiff_bundle.evaluation import Pair
    from medsegdiff_bundle.evaluation.cleaning import Masks

DESCRIPTION = """\
Try on masks of validation cases whether it helps to keep the largest component of a class, to fill holes, or to remove
small parts. What raises the mean Dice by more than its standard error, and lowers that of no class, is written beside
the weights. 'segment' does it from then on, to the fused mask alone: members and uncertainty stay as they are."""
EXAMPLES = (
    "results/ labelsTr/",
    "results/ labelsTr/ -c mine_training/model.pt --classes liver tumour",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("predictions", help="folder of masks of cases that did not train, made without cleaning")
    parser.add_argument("labels", help="folder of their labels")
    parser.add_argument(
        "-c", "--checkpoint", nargs="+", metavar="FILE", help="weights that get what helps (default: none, it is shown)"
    )
    add_names(parser)


def run(options: argparse.Namespace) -> int:
    """Choose."""
    from medsegdiff_bundle import errors
    from medsegdiff_bundle.evaluation.folders import find_pairs
    from medsegdiff_bundle.files import check_writable
    from medsegdiff_bundle.model_file import model_file, read_model, write_model

    pairs, *unmatched = find_pairs(options.predictions, options.labels)
    say_unmatched(*unmatched)
    errors.quiet_readers()
    numbers, regions = named(options, [pairs])
    models = {file: read_model(file) for file in options.checkpoint or []}
    for file, model in models.items():
        if model is None:
            raise ValueError(f"There are no weights {file!r} with {model_file(file).name!r} beside them.")
        of_weights = model["configuration"].get("regions") or []
        if len(of_weights) != len(regions or []):
            raise ValueError(
                f"The weights {file!r} know {len(of_weights)} regions that overlap, and {len(regions or [])} are "
                "named: --regions says which numbers of the files make each."
            )
        check_writable(Path(file).parent)
    from medsegdiff_bundle.evaluation.cleaning import choose_cleaning

    if not numbers:
        numbers = {number: f"class {number}" for number in range(1, _highest(_masks(pairs, {}, None)) + 1)}
    names = [numbers.get(number, f"class {number}") for number in range(1, max(numbers, default=0) + 1)]
    if not names:
        raise ValueError("The masks and labels hold nothing but background.")
    for file, model in models.items():
        assert model is not None
        of_weights = model["configuration"]["class_names"]
        if len(names) > len(of_weights):
            raise ValueError(f"The weights {file!r} know {', '.join(of_weights)}, and here are {', '.join(names)}.")
    kept, trials = choose_cleaning(lambda: _masks(pairs, dict(enumerate(names, start=1)), regions), names)
    if not options.quiet:
        for trial in trials:
            said = "taken" if trial.taken else "left"
            difference = f"{trial.after - trial.before:+.4f} ± {trial.error:.4f}"
            print(f"{trial.name}: Dice {trial.before:.4f} -> {trial.after:.4f} ({difference}): {said}")
        print(f"clean: {json.dumps(kept)}")
    for file, model in models.items():
        assert model is not None
        known = Path(file).with_suffix(".known.json")
        if known.is_file() and kept != model["configuration"].get("clean", []):
            print(f"{str(known)!r} is of masks that were cleaned otherwise: calibrate writes it anew.", file=sys.stderr)
        write_model(file, {**model, "configuration": {**model["configuration"], "clean": kept}})
    return 0


def _masks(pairs: list[Pair], names: Mapping[int, str], regions: list[list[int]] | None) -> Iterator[Masks]:
    """Mask and label of each case, one after the other; of regions each is told from the numbers that make it."""
    from monai.utils import convert_to_dst_type

    from medsegdiff_bundle.evaluation.cleaning import Masks
    from medsegdiff_bundle.evaluation.folders import find_ignored
    from medsegdiff_bundle.evaluation.scores import read_pair
    from medsegdiff_bundle.labels import region_channels

    ignored = find_ignored(pairs)
    for pair in pairs:
        mask, label = read_pair(pair.prediction, pair.label, names, ignored, regions)
        if regions is not None:
            mask, label = (convert_to_dst_type(region_channels(each, regions), each)[0] for each in (mask, label))
        yield Masks(mask, label.as_tensor())


def _highest(cases: Iterator[Masks]) -> int:
    return max((int(max(case.mask.max(), case.label.max())) for case in cases), default=0)
