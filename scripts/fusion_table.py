"""Which mask to write: members fused in each way, the anchor as it is, and at the threshold that other cases choose.

The threshold is that of the probability of any structure. It is the best on the half of the cases that a case is not
in, every other case each, and for each column by itself, so no case chooses its own. Columns are the mean Dice with
each reader, and the Dice with what at least half of them mark; of all cases, where two empty masks have Dice 1, and of
the cases in which the readers agree that there is something. Prints a Markdown table. Example:

    python scripts/fusion_table.py --task lidc --dataset_dir FOLDER --overrides val_stride=8
"""

from __future__ import annotations

from typing import Any

import torch
from monai.utils import set_determinism
from torch import Tensor

from medsegdiff_bundle.evaluation.of_networks import (
    CONVENTIONS,
    batches,
    chosen_weights,
    fused_labels,
    inverted,
    load,
    scores,
    segmented,
    spread,
    trained,
    weights_options,
)
from medsegdiff_bundle.settings import FUSIONS
from medsegdiff_bundle.transforms import FuseEnsembled

THRESHOLDS = [step / 20 for step in range(1, 20)]


def thresholded(probabilities: Tensor, threshold: float) -> Tensor:
    """Classes (S) of probabilities (K, S): the likeliest structure where all of them together reach the threshold."""
    structures = probabilities[1:]
    return torch.where(structures.sum(dim=0) >= threshold, structures.max(dim=0).indices + 1, 0)


def decisions(case: dict[str, Any], num_classes: int) -> tuple[Tensor, Tensor]:
    """Values of `CONVENTIONS` of the anchor at each of `THRESHOLDS` and at 0.5, and of each of `FUSIONS`."""
    stacked, label = case["pred"].as_tensor(), case["label"].as_tensor()
    anchor = inverted(case, stacked[0])
    masks = [thresholded(anchor, threshold) for threshold in THRESHOLDS]
    masks.append(fused_labels(case, stacked[0])[0])
    for name in FUSIONS:
        fused = FuseEnsembled("pred", name, labels=False)({"pred": stacked[1:]})["pred"]
        masks.append(fused_labels(case, fused)[0])
    found = scores(torch.stack(masks), label, num_classes)
    return found[: len(THRESHOLDS) + 1], found[len(THRESHOLDS) + 1 :]


def cross_fitted(by_threshold: Tensor) -> Tensor:
    """Of values (N, T, C) those at the threshold that the other half of the cases finds best, (N, C)."""
    chosen = torch.empty_like(by_threshold[:, 0])
    for half in (0, 1):
        best = by_threshold[1 - half :: 2].nanmean(dim=0).nan_to_num(-1).argmax(dim=0)  # (C,)
        chosen[half::2] = by_threshold[half::2].gather(1, best.expand(len(chosen[half::2]), 1, -1))[:, 0]
    return chosen


def main() -> None:
    """Print the table."""
    options = weights_options(__doc__).parse_args()
    set_determinism(seed=0)
    config = load(options)
    network = trained(config, chosen_weights(options))
    inferer, num_classes = config.get_parsed_content("validate#inferer"), config.get_parsed_content("num_classes")
    found = [
        decisions(segmented(config, batch, network, inferer), num_classes) for batch in batches(config, options.cases)
    ]
    anchor, fused = (torch.stack(values) for values in zip(*found, strict=True))  # (N, T + 1, 4), (N, fusions, 4)
    rows = {
        "anchor, the likeliest class": anchor[:, -1],
        "anchor, threshold of the other half": cross_fitted(anchor[:, :-1]),
    }
    rows |= {f"members, {name}": fused[:, index] for index, name in enumerate(FUSIONS)}
    empty = int(anchor[:, -1, 1].isnan().sum())
    print(f"{len(anchor)} cases, in {empty} of them the readers agree on nothing\n")
    print(f"| mask | {' | '.join(CONVENTIONS)} |\n{'|---' * (len(CONVENTIONS) + 1)}|")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(spread(column, 4) for column in values.T)} |")


if __name__ == "__main__":
    main()
