"""Dice, GED^2 and matched IoU against sampling steps, members, fusion and start, on the validation cases.

Prints a Markdown table with the anchor's own Dice beside it. Dice is that of the fused mask, with several raters
against what at least half of them mark; GED^2 and matched IoU are those of the members against all raters, and "marked"
is how much a member marks on average, as a multiple of what a rater does. Example:

    python scripts/sampling_table.py --dataset_dir FOLDER --steps 1 3 10 --members 1 5
"""

from __future__ import annotations

import argparse

import torch
from evaluation import batches, chosen_weights, dice, inverted_labels, load, segmented, trained, weights_options
from monai.transforms import Compose
from monai.utils import set_determinism
from torch import Tensor

from medsegdiff_bundle.metrics import generalized_energy_distance, hungarian_matched_iou
from medsegdiff_bundle.transforms import FuseEnsembled


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = weights_options(__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 5, 10], help="sampling steps")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 5, 10], help="ensemble sizes")
    parser.add_argument("--starts", type=int, nargs="+", default=[-1], help="first timesteps; -1 for pure noise")
    parser.add_argument("--fusions", nargs="+", default=["mean", "staple"], help="mean, staple, vote")
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
            [FuseEnsembled("pred", name) if isinstance(step, FuseEnsembled) else step for step in steps_after]
        )
        for name in options.fusions
    }
    most = template.ensemble_size = max(options.members)
    columns = ["start", "steps", "members", "fusion", "Dice per class", "fused", "anchor", "GED^2", "matched IoU"]
    columns += ["marked", "seconds per case"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for start in options.starts:
        for steps in options.steps:
            template.num_inference_steps = steps
            template.start_from_anchor = None if start < 0 else start
            scores: dict[tuple[int, str], list[Tensor]] = {(m, f): [] for m in options.members for f in options.fusions}
            agreement: dict[int, list[Tensor]] = {members: [] for members in options.members}
            anchor: list[Tensor] = []
            spent = 0.0
            for batch in batches(config, options.cases):
                case = segmented(config, batch, network, template)
                spent += case["seconds"]
                samples, label = case["pred"].as_tensor(), case["label"].as_tensor()
                labels = inverted_labels(case, samples[1:])
                for members in options.members:
                    pair = labels[:members], label
                    measured = [
                        measure(*pair, classes) for measure in (generalized_energy_distance, hungarian_matched_iou)
                    ]
                    marked = [(masks > 0).double().mean() for masks in pair]
                    agreement[members].append(torch.stack([*(values.nanmean() for values in measured), *marked]))
                    for fusion in options.fusions:
                        fused = postprocessing[fusion]({**case, "pred": case["pred"][: 1 + members]})
                        scores[members, fusion].append(dice(fused["pred"], label, classes))
                anchor.append(dice(fused["anchor"], label, classes))
            for (members, fusion), values in scores.items():
                mean = torch.stack(values).nanmean(dim=0)
                # Tensors: where no rater marks anything, the ratio is nan or inf and no error.
                distance, matched, ours, raters = torch.stack(agreement[members]).mean(dim=0)
                begun = "noise" if start < 0 else start
                each = " / ".join(f"{value:.4f}" for value in mean)
                print(
                    f"| {begun} | {steps} | {members} | {fusion} | {each} | {mean.mean():.4f} "
                    f"| {torch.stack(anchor).nanmean(dim=0).mean():.4f} | {distance:.3f} | {matched:.3f} "
                    f"| {ours / raters:.2f} | {spent / len(anchor):.2f} ({most} members) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
