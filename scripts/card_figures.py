"""The figures of a model card: the curves of a training, and the cases with the best, median and worst fused Dice.

Each case is a row: image, label, anchor, fused mask, and uncertainty with the fused mask's contour; of a volume, the
axial slice in the middle of what is marked. The curves come from the TensorBoard folders of the runs, a row each.

Example:
    python scripts/card_figures.py --dataset_dir FOLDER --runs output/tensorboard --figures docs/figures
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from monai.utils import set_determinism
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from medsegdiff_bundle.datalist import case_name
from medsegdiff_bundle.evaluation.of_networks import (
    batches,
    chosen_weights,
    dice,
    fused_labels,
    inverted,
    load,
    segmented,
    trained,
    weights_options,
)
from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.metrics import rater_consensus
from medsegdiff_bundle.uncertainty import predictive_entropy
from medsegdiff_bundle.visualization import contour_pictures

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

PANELS = ("image", "label", "anchor", "fused mask", "uncertainty")


class CaseRow(NamedTuple):
    """One case: its name, the mean Dice over its classes of fused mask and anchor, and a picture for each panel."""

    name: str
    fused: float
    anchor: float
    pictures: list[Tensor]


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = weights_options(__doc__)
    parser.add_argument("--runs", nargs="*", default=[], help="TensorBoard folders of trainings, in order")
    parser.add_argument("--figures", required=True, type=Path, help="folder of the figures; made if need be")
    return parser.parse_args()


def case_row(case: dict[str, Any], num_classes: int) -> CaseRow:
    """Measures and pictures of a case, whose `pred` is the anchor and the members, (1 + E, K, S)."""
    samples = case["pred"].as_tensor()
    label = case["label"].as_tensor()
    masks = {"anchor": samples[0], "fused mask": samples[1:].mean(dim=0)}
    labels = {name: fused_labels(case, mask) for name, mask in masks.items()}
    scores = {name: dice(mask, label, num_classes).nanmean().item() for name, mask in labels.items()}
    uncertainty = inverted(case, predictive_entropy(samples[1:])[None])[0]
    labels = {"label": rater_consensus(label), **labels}
    affine = case["image"].meta["original_affine"] if label.ndim == 4 else None
    pictures = _pictures(inverted(case, case["image"].as_tensor()), labels, uncertainty, affine)
    name = case_name(case["image"].meta["filename_or_obj"])
    return CaseRow(name, scores["fused mask"], scores["anchor"], pictures)


def _pictures(image: Tensor, labels: dict[str, Tensor], uncertainty: Tensor, affine: Any) -> list[Tensor]:
    """A picture for each panel, all of the same slice (of a volume, axial) and window: around what a label marks."""
    everything = torch.cat(list(labels.values()))
    found = {}
    for name, label in labels.items():
        found[name] = contour_pictures(image, label[0], everything, uncertainty, affine=affine)[0]
    fused = found["fused mask"]
    return [fused.image, *(found[name].fused for name in ("label", "anchor", "fused mask")), fused.uncertainty]


def draw_cases(rows: list[CaseRow], path: Path) -> None:
    """Best, median and worst case by the fused mask, of those that have a structure to find."""
    ordered = sorted((row for row in rows if not math.isnan(row.fused)), key=lambda row: row.fused, reverse=True)
    chosen = {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}
    figure, axes = plt.subplots(3, len(PANELS), figsize=(2.2 * len(PANELS), 7.2), layout="constrained")
    for line, (place, row) in zip(axes, chosen.items(), strict=True):
        for axis, title, picture in zip(line, PANELS, row.pictures, strict=True):
            axis.imshow(picture.permute(1, 2, 0), interpolation="none")
            axis.set_axis_off()
            axis.set_title(
                {"anchor": f"anchor {row.anchor:.3f}", "fused mask": f"fused {row.fused:.3f}"}.get(title, title)
            )
        line[0].set_title(f"{place}: {row.name}", fontsize="small")
    with whole_file(path) as file:
        figure.savefig(file, dpi=100)
    plt.close(figure)


def draw_curves(runs: list[str], path: Path) -> None:
    """Training losses, and validation Dice of fused mask and anchor, of each run."""
    figure, axes = plt.subplots(len(runs), 2, figsize=(9, 3.2 * len(runs)), squeeze=False, layout="constrained")
    for (losses, scores), run in zip(axes, runs, strict=True):
        curves = EventAccumulator(run, size_guidance={"scalars": 0}).Reload()
        for tag in curves.Tags()["scalars"]:
            points = curves.Scalars(tag)
            axis = scores if tag.startswith("val") else losses
            if tag == "train_loss/total":
                continue
            steps, values = [point.step for point in points], np.array([point.value for point in points])
            axis.plot(
                steps,
                values,
                marker="." if len(points) < 50 else None,
                label=tag.removeprefix("train_loss/").removeprefix("val/"),
            )
        losses.set(xlabel="epoch", ylabel="training loss")
        scores.set(xlabel="epoch", ylabel="validation")
        for axis in (losses, scores):
            axis.legend(fontsize="small")
            axis.set_xlim(left=0)  # of a single validation, too, the epoch is a whole number
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    with whole_file(path) as file:
        figure.savefig(file, dpi=100)
    plt.close(figure)


def main() -> None:
    """Draw the figures."""
    options = arguments()
    set_determinism(seed=0)
    name = options.task
    if options.runs:
        draw_curves(options.runs, options.figures / f"{name}_curves.png")
    config = load(options)
    checkpoint = chosen_weights(options)
    network, inferer = trained(config, checkpoint), config.get_parsed_content("validate#inferer")
    num_classes = config.get_parsed_content("num_classes")
    rows = [
        case_row(segmented(config, batch, network, inferer), num_classes) for batch in batches(config, options.cases)
    ]
    draw_cases(rows, options.figures / f"{name}_cases.png")


if __name__ == "__main__":
    main()
