r"""This model, its own anchor, ablations and baselines on the same cases, in the space of the image files.

A network is "ours" or named like a file of configs/baselines or configs/ablations; the folder of its checkpoint says
which, as `train_networks.py` makes it, or what stands before the checkpoint. Where the members of the ensemble see
mirror images, anchors and baselines are listed twice: after one pass, and as the mean over those images. `--together`
adds the mean of all networks, each as in its last row.

Prints a Markdown table and writes a CSV with a line per network, case and class. "Minus the first" is the difference of
the mean Dice to that of the first row: its mean over the cases ± its standard error. Distances and the tolerance of the
surface Dice are in mm for volumes and in pixels for pictures; a class that only one of prediction and label holds has
no distance, and is counted as missed. Dice leaves out the cases whose label lacks the class. Example:

    python scripts/baseline_table.py --dataset_dir FOLDER --csv docs/hippocampus.csv \
        --networks ours=models/model.pt output/comparison/dynunet/model.pt
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from monai.utils import set_determinism
from torch import Tensor

from medsegdiff_bundle.evaluation.of_networks import (
    batches,
    case_options,
    inferers,
    load,
    named_checkpoints,
    one_hot_pair,
    print_left_out,
    segmented,
    spread,
    trained,
)
from medsegdiff_bundle.files import whole_file

TOGETHER = "all together"
MEASURES = ("dice", "hd95", "surface_dice")


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = case_options(__doc__)
    parser.add_argument("--networks", nargs="+", required=True, metavar="[NAME=]CHECKPOINT", help="what to compare")
    parser.add_argument("--together", action="store_true", help="a row for the mean of all networks' probabilities")
    parser.add_argument("--tolerance", type=float, default=1.0, help="of the surface Dice, in mm or pixels")
    parser.add_argument("--csv", default=None, help="file of the values per case")
    return parser.parse_args()


def budget(checkpoint: Path) -> list[str]:
    """Steps of the training and its minutes of processor time, where `train_networks.py` left them."""
    file = checkpoint.parent / "budget.json"
    spent = json.loads(file.read_text()) if file.is_file() else {}
    return [str(spent.get(key, "")) for key in ("steps", "minutes")]


def measure(prediction: Tensor, label: Tensor, num_classes: int, spacing: list[float], tolerance: float) -> Tensor:
    """Measures of one case.

    Args:
        prediction: classes, (1, S).
        label: classes, (1, S); or masks of several raters, (R, S), see `rater_consensus`.
        num_classes: K, background included.
        spacing: of the voxels, one number per axis.
        tolerance: of the surface Dice, in the same unit.

    Returns:
        (3, K - 1), in the order of `MEASURES`; NaN where a class is absent, infinite distance where it is missed.
    """
    pair = one_hot_pair(prediction, label, num_classes)
    distance = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)[0].float()
    predicted, labelled = (one_hot[0, 1:].flatten(1).any(dim=1) for one_hot in pair)
    distance[predicted != labelled] = torch.inf  # of which MONAI's percentile makes NaN, as where both are empty
    return torch.stack(
        [
            compute_dice(*pair, include_background=False)[0],
            distance,
            compute_surface_dice(*pair, [tolerance] * (num_classes - 1), spacing=spacing)[0].float(),
        ]
    )


def dice_per_case(values: Tensor) -> Tensor:
    """Mean Dice over the classes, (N,), of the measures of the cases, (N, 3, K - 1)."""
    return values[:, 0].nanmean(dim=1)


def row(name: str, values: Tensor, first: Tensor, last: list[str]) -> str:
    """A line of the table: of measures (N, 3, K - 1), the mean Dice of the first line (N,), and the `last` cells."""
    missed = int(values[:, 1].isinf().sum())
    dice, distance, surface_dice = torch.where(values.isinf(), torch.nan, values).nanmean(dim=0)
    cells = [name, " / ".join(f"{value:.4f}" for value in dice), f"{dice.mean():.4f}"]
    cells += [spread(dice_per_case(values) - first, 4, "+")]
    cells += [" / ".join(f"{value:.2f}" for value in distance), str(missed)]
    cells += [" / ".join(f"{value:.4f}" for value in surface_dice)]
    return f"| {' | '.join(cells + last)} |"


def cost(name: str, network: Any, checkpoint: Path, seconds: float) -> list[str]:
    """The last cells of a line: parameters, steps and minutes of the training, and seconds per case."""
    counted = network.condition_model if ", anchor" in name else network
    parameters = sum(weight.numel() for weight in counted.parameters())
    return [f"{parameters / 1e6:.2f} M", *budget(checkpoint), f"{seconds:.3f}"]


def main() -> None:
    """Print the table."""
    options = arguments()
    set_determinism(seed=0)
    lines: list[list[Any]] = []
    table: list[str] = []
    class_names: list[str] = []
    first: Tensor | None = None
    sums: list[Tensor] = []  # of the probabilities of each case
    named = named_checkpoints(options.networks)
    for number, (network_name, checkpoint) in enumerate(named, start=1):
        config = load(options, network_name)
        class_names = config.get_parsed_content("class_names")
        num_classes = config.get_parsed_content("num_classes")
        network = trained(config, checkpoint)
        rows = inferers(network_name, network, config.get_parsed_content("validate#inferer"))
        postprocessing = config.get_parsed_content("validate#postprocessing")
        values: dict[str, list[Tensor]] = defaultdict(list)
        seconds: dict[str, float] = defaultdict(float)
        for index, batch in enumerate(batches(config, options.cases)):
            cases = {name: segmented(config, batch, network, inferer) for name, inferer in rows.items()}
            if options.together:
                last = list(cases.values())[-1]
                mean = last["pred"][1:].mean(dim=0, keepdim=True)  # the anchor stands first
                if number == 1:
                    sums.append(mean)
                else:
                    sums[index] += mean
                if number == len(named):
                    cases[TOGETHER] = {**last, "pred": (sums[index] / len(named)).repeat(2, *[1] * (mean.ndim - 1))}
            for name, case in cases.items():
                seconds[name] += case["seconds"]
                label = case["label"]
                spacing = label.meta["affine"][:3, :3].norm(dim=0).tolist()[: label.ndim - 1]
                case = postprocessing(case)
                result = measure(case["pred"], label, num_classes, spacing, options.tolerance)
                values[name].append(result)
                path = Path(case["image"].meta["filename_or_obj"]).name
                lines += [
                    [name, path, each, *column.tolist()] for each, column in zip(class_names, result.T, strict=True)
                ]
        for name in values:
            stacked = torch.stack(values[name])  # (cases, measures, classes)
            first = dice_per_case(stacked) if first is None else first
            spent = [""] * 4 if name == TOGETHER else cost(name, network, checkpoint, seconds[name] / len(stacked))
            table.append(row(name, stacked, first, spent))
    each = " / ".join(class_names)
    columns = f"network, Dice {each}, mean Dice, minus the first, HD95 {each}, missed, surface Dice {each}, parameters"
    print(f"| {columns.replace(', ', ' | ')} | steps | minutes | s per case |\n{'|---' * 11}|")
    print("\n".join(table))
    print_left_out(dice_per_case(stacked))
    if options.csv is not None:
        with whole_file(options.csv) as unfinished, open(unfinished, "w", newline="") as file:
            csv.writer(file).writerows([["network", "case", "class", *MEASURES], *lines])


if __name__ == "__main__":
    main()
