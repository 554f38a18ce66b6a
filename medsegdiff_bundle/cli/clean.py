"""`medsegdiff clean PREDICTIONS LABELS -c model.pt`: choose how masks of these weights are cleaned."""

from __future__ import annotations

import argparse
import json
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai.data import MetaTensor

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
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="of the numbers from 1 on (default: as they are)")


def run(options: argparse.Namespace) -> int:
    """Choose."""
    from medsegdiff_bundle.evaluation.folders import find_names, find_pairs
    from medsegdiff_bundle.model_file import model_file, read_model, write_model

    pairs, _, _ = find_pairs(options.predictions, options.labels)
    models = {file: read_model(file) for file in options.checkpoint or []}
    for file, model in models.items():
        if model is None:
            raise ValueError(f"There are no weights {file!r} with {model_file(file).name!r} beside them.")
        if model["configuration"].get("regions"):
            raise ValueError(f"The weights {file!r} know regions that overlap, and masks of such are not cleaned.")
    from medsegdiff_bundle.evaluation.cleaning import choose_cleaning

    named = dict(enumerate(options.classes, start=1)) if options.classes else find_names(pairs)
    numbers = named or {number: f"class {number}" for number in range(1, _highest(_masks(pairs, {})) + 1)}
    names = [numbers.get(number, f"class {number}") for number in range(1, max(numbers, default=0) + 1)]
    if not names:
        raise ValueError("The masks and labels hold nothing but background.")
    kept, trials = choose_cleaning(lambda: _masks(pairs, dict(enumerate(names, start=1))), names)
    if not options.quiet:
        for trial in trials:
            said = "taken" if trial.taken else "left"
            difference = f"{trial.after - trial.before:+.4f} ± {trial.error:.4f}"
            print(f"{trial.name}: Dice {trial.before:.4f} -> {trial.after:.4f} ({difference}): {said}")
        print(f"clean: {json.dumps(kept)}")
    for file, model in models.items():
        assert model is not None
        write_model(file, {**model, "configuration": {**model["configuration"], "clean": kept}})
    return 0


def _masks(pairs: list[Pair], names: Mapping[int, str]) -> Iterator[Masks]:
    """Mask and label of each case, one after the other."""
    from medsegdiff_bundle.evaluation.cleaning import Masks
    from medsegdiff_bundle.evaluation.scores import read_mask
    from medsegdiff_bundle.transforms import CheckGridd

    for pair in pairs:
        both: dict[Hashable, MetaTensor] = {
            "image": read_mask(pair.prediction, names),
            "label": read_mask(pair.label, names),
        }
        yield Masks(both["image"], CheckGridd("label")(both)["label"].as_tensor())


def _highest(cases: Iterator[Masks]) -> int:
    return max((int(max(case.mask.max(), case.label.max())) for case in cases), default=0)
