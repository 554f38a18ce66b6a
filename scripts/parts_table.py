r"""What each part of MedSegDiff-V2 is worth: networks trained without it, and networks in which it is switched off.

`--folders` hold the networks of a seed each as `train_networks.py` makes them, `ours` and those without a part. The
difference of a network trained without a part is that to `ours` of the same seed, that of a part that is switched off
(see `medsegdiff_bundle/evaluation/parts.py`) to `ours` as it is: means over the seeds ± their standard error. Without
`--folders` parts of the shipped weights, or of `--checkpoint`, are switched off, and the standard errors are those over
the cases. Dice is the mean with each reader, of all cases; two empty masks have Dice 1. Prints a Markdown table.
For example:

    python scripts/parts_table.py --dataset_dir FOLDER
    python scripts/parts_table.py --task isic --recipe conditional --dataset_dir FOLDER \
        --overrides "picture_size=[64,64]" --folders output/parts/isic/seed*
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from monai.utils import set_determinism
from torch import Tensor

from medsegdiff_bundle.evaluation.of_networks import (
    batches,
    chosen_weights,
    fused_labels,
    load,
    scores,
    segmented,
    spread,
    trained,
    weights_options,
)
from medsegdiff_bundle.evaluation.parts import PARTS, has_part, switched_off
from medsegdiff_bundle.transforms import FuseEnsembled


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = weights_options(__doc__)
    parser.add_argument("--folders", nargs="+", default=[], type=Path, metavar="FOLDER", help="one for each seed")
    return parser.parse_args()


def measured(config: Any, network: Any, cases: int | None) -> Tensor:
    """Dice of the fused mask and of the anchor, of each case, (N, 2)."""
    set_determinism(seed=0)
    inferer, num_classes = config.get_parsed_content("validate#inferer"), config.get_parsed_content("num_classes")
    fuse = FuseEnsembled("pred", config.get_parsed_content("fusion"), labels=False)
    rows = []
    for batch in batches(config, cases):
        case = segmented(config, batch, network, inferer)
        stacked = case["pred"].as_tensor()  # the anchor, then the members
        fused = fuse({"pred": stacked[1:]})["pred"]
        masks = torch.stack([fused_labels(case, each)[0] for each in (fused, stacked[0])])
        rows.append(scores(masks, case["label"].as_tensor(), num_classes)[:, 0])
    return torch.stack(rows)


def without_parts(options: argparse.Namespace, checkpoint: Path) -> dict[str, Tensor]:
    """Values of `measured` of weights as they are, and with each part that they have switched off, by title."""
    config = load(options)
    network = trained(config, checkpoint)
    rows = {"all parts": measured(config, network, options.cases)}
    for part, name in PARTS.items():
        if has_part(network, part):
            with switched_off(network, part):
                rows[f"{name} switched off"] = measured(config, network, options.cases)
    return rows


def of_seed(options: argparse.Namespace, folder: Path) -> dict[str, Tensor]:
    """Means over the cases (2,) of each row of the table, of one seed, by title."""
    rows = without_parts(options, folder / "ours" / "model.pt")
    for part, name in PARTS.items():
        config = load(options, part)
        rows[f"trained without {name}"] = measured(config, trained(config, folder / part / "model.pt"), options.cases)
    return {title: values.mean(dim=0) for title, values in rows.items()}


def main() -> None:
    """Print the table."""
    options = arguments()
    if options.folders:
        found = [of_seed(options, folder) for folder in options.folders]
        rows = {title: torch.stack([seed[title] for seed in found]) for title in found[0]}
    else:
        rows = without_parts(options, chosen_weights(options))
    first = rows["all parts"][:, 0]
    print(f"{len(first)} {'seeds' if options.folders else 'cases'}\n")
    print("| network | fused | minus all parts | anchor |\n|---|---|---|---|")
    for title, values in rows.items():
        change = "" if title == "all parts" else spread(values[:, 0] - first, 4, "+")
        print(f"| {title} | {values[:, 0].mean():.4f} | {change} | {values[:, 1].mean():.4f} |")


if __name__ == "__main__":
    main()
