r"""What each part of MedSegDiff-V2 is worth: networks trained without it, and networks in which it is switched off.

Each folder holds the networks of one seed as `train_networks.py` makes them: `ours`, and those without a part. Of a
network trained without a part, the difference to `ours` of the same seed is listed; of a part that is switched off in
`ours` (see `medsegdiff_bundle/evaluation/parts.py`), the difference to `ours` as it is. Both are means over the seeds ±
their standard error. Dice is the mean with each reader, of all cases; two empty masks have Dice 1. Prints a Markdown
table. Example:

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

from medsegdiff_bundle.evaluation.networks import (
    batches,
    case_options,
    fused_labels,
    load,
    scores,
    segmented,
    spread,
    trained,
)
from medsegdiff_bundle.evaluation.parts import PARTS, switched_off
from medsegdiff_bundle.transforms import FuseEnsembled

MASKS = ("fused", "anchor")


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = case_options(__doc__)
    parser.add_argument("--folders", nargs="+", required=True, type=Path, metavar="FOLDER", help="one for each seed")
    return parser.parse_args()


def measured(config: Any, network: Any, cases: int | None) -> Tensor:
    """Mean Dice over the cases of the fused mask and of the anchor, (2,)."""
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
    return torch.stack(rows).mean(dim=0)


def of_seed(options: argparse.Namespace, folder: Path) -> dict[str, Tensor]:
    """Values of `measured` of each row of the table, of one seed."""
    rows: dict[str, Tensor] = {}
    for name in ("ours", *PARTS):
        config = load(options, name)
        network = trained(config, folder / name / "model.pt")
        rows[name] = measured(config, network, options.cases)
        if name == "ours":
            for part in PARTS:
                with switched_off(network, part):
                    rows[f"{part}, switched off"] = measured(config, network, options.cases)
    return rows


def main() -> None:
    """Print the table."""
    options = arguments()
    found = [of_seed(options, folder) for folder in options.folders]
    print(f"{len(found)} seeds\n\n| network | fused | minus all parts | anchor |\n|---|---|---|---|")
    names = {"ours": "all parts"}
    names |= {part: f"trained without {name}" for part, name in PARTS.items()}
    names |= {f"{part}, switched off": f"{name} switched off" for part, name in PARTS.items()}
    for name, title in names.items():
        values = torch.stack([rows[name] for rows in found])  # (seeds, 2)
        change = spread(values[:, 0] - torch.stack([rows["ours"][0] for rows in found]), 4, "+")
        print(
            f"| {title} | {values[:, 0].mean():.4f} | {'' if name == 'ours' else change} | {values[:, 1].mean():.4f} |"
        )


if __name__ == "__main__":
    main()
