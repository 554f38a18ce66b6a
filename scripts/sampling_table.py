"""Dice, GED^2 and matched IoU against sampling steps, members, fusion and start, on the validation cases.

Prints a Markdown table with the anchor's own Dice beside it. Dice is that of the fused mask, with several raters
against what at least half of them mark, and without the cases in which nobody does; GED^2 and matched IoU are those of
the members against all raters, and "marked" is how much a member marks on average, as a multiple of what a rater does.
"With a reader" is the mean Dice of the fused mask with each rater, of all cases: two empty masks have 1; beside it the
anchor's, which `fusion_table.py` also judges at a threshold. Seconds are the median of the cases. Example:

    python scripts/sampling_table.py --dataset_dir FOLDER --steps 1 3 10 --members 1 5
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
from typing import Any

import torch
from evaluation import (
    batches,
    chosen_weights,
    dice,
    load,
    member_labels,
    print_left_out,
    scores,
    segmented,
    trained,
    weights_options,
)
from monai.transforms import Compose
from monai.utils import set_determinism
from torch import Tensor

from medsegdiff_bundle.datalist import case_name
from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.metrics import generalized_energy_distance, hungarian_matched_iou
from medsegdiff_bundle.transforms import FuseEnsembled


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = weights_options(__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 5, 10], help="sampling steps")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 5, 10], help="ensemble sizes")
    parser.add_argument("--starts", type=int, nargs="+", default=[-1], help="first timesteps; -1 for pure noise")
    parser.add_argument("--fusions", nargs="+", default=["mean", "staple"], help="mean, staple, vote, dice")
    parser.add_argument("--csv", default=None, help="file of GED^2, matched IoU and mean Dice of each case")
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    options = arguments()
    set_determinism(seed=0)
    config = load(options)
    network = trained(config, chosen_weights(options))
    template = config.get_parsed_content("validate#inferer")
    classes = config.get_parsed_content("num_classes")
    steps_after = config.get_parsed_content("validate#postprocessing").transforms
    postprocessing = {
        name: Compose(
            [
                FuseEnsembled("pred", name, labels=False) if isinstance(step, FuseEnsembled) else step
                for step in steps_after
            ]
        )
        for name in options.fusions
    }
    columns = ["start", "steps", "members", "fusion", "Dice per class", "fused", "anchor", "GED^2", "matched IoU"]
    columns += ["marked", "with a reader", "anchor's", "seconds per case"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    lines: list[list[Any]] = []
    for start, steps, members in itertools.product(options.starts, options.steps, options.members):
        template.start_from_anchor, begun = (None, "noise") if start < 0 else (start, str(start))
        template.num_inference_steps = steps
        template.ensemble_size = members
        dices: dict[str, list[Tensor]] = {fusion: [] for fusion in options.fusions}
        anchor: list[Tensor] = []
        with_reader: dict[str, list[Tensor]] = {name: [] for name in (*options.fusions, "anchor")}
        agreement: list[Tensor] = []
        seconds: list[float] = []
        for batch in batches(config, options.cases):
            case = segmented(config, batch, network, template)
            label = case["label"].as_tensor()
            pair = member_labels(case, case["pred"].as_tensor()[1:]), label
            measured = [measure(*pair, classes) for measure in (generalized_energy_distance, hungarian_matched_iou)]
            marked = [(masks > 0).double().mean() for masks in pair]
            agreement.append(torch.stack([*(values.nanmean() for values in measured), *marked]))
            seconds.append(case["seconds"])
            name = case_name(case["image"].meta["filename_or_obj"])
            for fusion in options.fusions:
                fused = postprocessing[fusion](case)
                dices[fusion].append(dice(fused["pred"], label, classes))
                with_reader[fusion].append(scores(fused["pred"], label, classes)[0, 0])
                values = [*agreement[-1][:2].tolist(), dices[fusion][-1].nanmean().item()]
                lines.append([begun, steps, members, fusion, name, *(f"{value:.4f}" for value in values)])
            anchor.append(dice(fused["anchor"], label, classes))
            with_reader["anchor"].append(scores(fused["anchor"], label, classes)[0, 0])
        # Tensors: where no rater marks anything, the ratio is nan or inf and no error.
        distance, matched, ours, raters = torch.stack(agreement).mean(dim=0)
        of_anchor = torch.stack(anchor).nanmean(dim=0).mean()
        for fusion, each_case in dices.items():
            mean = torch.stack(each_case).nanmean(dim=0)
            each = " / ".join(f"{value:.4f}" for value in mean)
            print(
                f"| {begun} | {steps} | {members} | {fusion} | {each} | {mean.mean():.4f} "
                f"| {of_anchor:.4f} | {distance:.3f} | {matched:.3f} | {ours / raters:.2f} "
                f"| {torch.stack(with_reader[fusion]).mean():.4f} | {torch.stack(with_reader['anchor']).mean():.4f} "
                f"| {statistics.median(seconds):.2f} |",
                flush=True,
            )
    if options.csv is not None:
        with whole_file(options.csv) as unfinished, open(unfinished, "w", newline="") as file:
            header = ["start", "steps", "members", "fusion", "case", "ged", "matched_iou", "dice"]
            csv.writer(file).writerows([header, *lines])
    print_left_out(torch.stack(anchor).nanmean(dim=1))


if __name__ == "__main__":
    main()
