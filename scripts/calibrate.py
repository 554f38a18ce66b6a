"""Calibrate the intervals of the volumes, on cases that trained nothing, and write them beside the weights.

Prints how often intervals hold the true volume (of several readers their mean), and how wide they are, each case left
out in turn: ours; one of constant width around the same mean; one around the anchor's expected volume, scaled by its
expected error, the root of the sum of p (1 - p); and the members' 5th to 95th percentile. Then how well the Dice that
the members predict of a mask, among themselves and with it, orders the cases by their true Dice (with several readers
the mean over them; two empty masks: 1). Example:

    python scripts/calibrate.py --task isic --dataset_dir FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import set_determinism
from numpy.typing import NDArray
from scipy.stats import spearmanr

import medsegdiff_bundle
from medsegdiff_bundle.evaluation.of_networks import (
    batches,
    chosen_weights,
    fused_labels,
    inverted,
    labels_in_file,
    load,
    segmented,
    trained,
    weights_options,
)
from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.intervals import LEVEL, conformal_quantile, fit, leave_one_out, write_calibration
from medsegdiff_bundle.metrics.overlap import dice as dice_of_pairs
from medsegdiff_bundle.metrics.overlap import shared_voxels
from medsegdiff_bundle.statistics import ensemble_statistics

# Of one structure of one case. Volumes in ml, areas in pixels.
COLUMNS = ("true", "mean", "deviation", "low", "high", "anchor", "anchor_error", "size", "pairwise", "expected", "dice")


def measured(case: dict[str, Any], class_names: list[str]) -> NDArray[np.float64]:
    """Values (structures, `COLUMNS`) of a case, whose `pred` is the anchor and the members, (1 + E, K, S)."""
    stacked, raters = case["pred"].as_tensor(), case["label"].as_tensor()
    members = labels_in_file(case, stacked[1:]).to(torch.uint8)
    fused = fused_labels(case, stacked[1:].mean(dim=0)).to(torch.uint8)
    anchor = inverted(case, stacked[0]).clamp(0, 1).double()
    affine = torch.as_tensor(case["label"].meta["affine"]).double()[:3, :3]
    voxel_volume = abs(float(torch.linalg.det(affine))) if fused.ndim == 4 else None
    scale = 1.0 if voxel_volume is None else voxel_volume / 1000
    said = ensemble_statistics(members, fused[0], torch.zeros(fused.shape[1:]), class_names, voxel_volume)
    overlaps = dice_of_pairs(shared_voxels(fused, raters.to(torch.uint8), len(class_names) + 1, False))
    rows = []
    for label, structure in enumerate(said["structures"].values(), start=1):
        p = anchor[label]
        rows.append(
            [
                scale * float((raters == label).sum()) / len(raters),
                structure["volume_mean"],
                structure["volume_std"],
                *structure["members_interval"],
                scale * float(p.sum()),
                scale * float((p * (1 - p)).sum().sqrt()),
                1.0 if voxel_volume is not None else float(fused[0].numel()),
                structure["pairwise_dice"],
                structure["expected_dice"],
                float(overlaps[label - 1, 0, 1:].mean()),
            ]
        )
    return np.array(rows)


def sampler_settings(inferer: EnsembleInferer) -> dict[str, Any]:
    """What the intervals hold for, by the names of `inference.json`."""
    names = ("num_inference_steps", "ensemble_size", "start_from_anchor", "anchor_only")
    settings = {name: getattr(inferer, name) for name in names}
    return settings | {"mirror_axes": list(inferer.mirror_axes), "eta": getattr(inferer.scheduler, "eta", None)}


def constant_width(errors: NDArray[np.float64]) -> tuple[float, float]:
    """Coverage and mean width of intervals of one width, each case left out in turn, by the errors (N,)."""
    reach = np.array([conformal_quantile(np.delete(errors, case)) for case in range(len(errors))])
    return float((errors <= reach).mean()), float(2 * reach.mean())


def print_intervals(tables: dict[str, dict[str, NDArray[np.float64]]]) -> None:
    """A row per structure: coverage and mean width of four kinds of interval."""
    kinds = ["calibrated", "constant width", "by the anchor's error", "members' 5 to 95 %"]
    print(f"| structure | cases | true mean | {' | '.join(kinds)} |\n{'|---' * (len(kinds) + 3)}|")
    for name, t in tables.items():
        inside = ((t["low"] <= t["true"]) & (t["true"] <= t["high"])).mean()
        found = [
            leave_one_out(t["true"], t["mean"], t["deviation"], t["size"]),
            constant_width(np.abs(t["true"] - t["mean"])),
            leave_one_out(t["true"], t["anchor"], t["anchor_error"], t["size"]),
            (inside, (t["high"] - t["low"]).mean()),
        ]
        cells = " | ".join(f"{coverage:.3f}, width {width:.4g}" for coverage, width in found)
        print(f"| {name} | {len(t['true'])} | {t['true'].mean():.4g} | {cells} |")


def print_predicted_dice(tables: dict[str, dict[str, NDArray[np.float64]]]) -> None:
    """A row per structure: rank correlation of predicted and true Dice over the cases."""
    print("\n| structure | true Dice | of two members | of the fused mask with a member |\n|---|---|---|---|")
    for name, t in tables.items():
        ranks = [f"{spearmanr(t[key], t['dice']).statistic:+.2f}" for key in ("pairwise", "expected")]
        print(f"| {name} | {t['dice'].mean():.4f} | {' | '.join(ranks)} |")


def main() -> None:
    """Print the tables and write the intervals."""
    parser = weights_options(__doc__)
    parser.add_argument("--output", type=Path, default=None, help="by default the weights with .intervals.json for .pt")
    options = parser.parse_args()
    set_determinism(seed=0)
    config, checkpoint = load(options), chosen_weights(options)
    network, inferer = trained(config, checkpoint), config.get_parsed_content("validate#inferer")
    names = config.get_parsed_content("class_names")
    rows = [measured(segmented(config, batch, network, inferer), names) for batch in batches(config, options.cases)]
    columns = np.stack(rows).transpose(1, 2, 0)  # structures, columns, cases
    tables = {name: dict(zip(COLUMNS, table, strict=True)) for name, table in zip(names, columns, strict=True)}
    structures = {name: fit(t["true"], t["mean"], t["deviation"], t["size"]) for name, t in tables.items()}
    print(f"Intervals of {LEVEL:.0%}, each of the {len(rows)} cases left out in turn: coverage, mean width\n")
    print_intervals(tables)
    print("\nRank correlation of predicted with true Dice")
    print_predicted_dice(tables)
    output = options.output or checkpoint.with_suffix(".intervals.json")
    write_calibration(output, structures, checkpoint, sampler_settings(inferer), medsegdiff_bundle.__version__)
    print(f"\nWrote {output}")


if __name__ == "__main__":
    main()
