"""Dice against sampling steps, members, fusion and start, on the validation cases.

Prints a Markdown table with the anchor's own Dice beside it. Example:

    python scripts/sampling_table.py --checkpoint models/model.pt --steps 1 3 10 --members 1 5
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import decollate_batch
from monai.metrics import DiceMetric
from monai.transforms import Compose
from monai.utils import set_determinism

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from medsegdiff_bundle.transforms import FuseEnsembled  # noqa: E402 - found by the line above


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(ROOT / "models" / "model.pt"), help="flat state dict")
    parser.add_argument("--dataset_dir", default=None, help="Decathlon-style folder; the embedded cases by default")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 5, 10], help="sampling steps")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 5, 10], help="ensemble sizes")
    parser.add_argument("--starts", type=int, nargs="+", default=[-1], help="first timesteps; -1 for pure noise")
    parser.add_argument("--fusions", nargs="+", default=["mean", "staple"], help="mean, staple, vote")
    parser.add_argument("--cases", type=int, default=None, help="the first cases only")
    return parser.parse_args()


def load(options: argparse.Namespace) -> ConfigParser:
    """The training configuration with its validation part."""
    config = ConfigParser()
    config.read_config(str(ROOT / "configs" / "train.json"))
    config["bundle_root"] = str(ROOT)
    if options.dataset_dir is not None:
        config["dataset_dir"] = options.dataset_dir
    return config


def main() -> None:
    """Print the table."""
    options = arguments()
    set_determinism(seed=0)
    config = load(options)
    network = config.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(options.checkpoint, map_location="cpu", weights_only=True))
    loader = config.get_parsed_content("validate#dataloader")
    template = config.get_parsed_content("validate#inferer")
    device = config.get_parsed_content("device")
    steps_after = config.get_parsed_content("validate#postprocessing").transforms
    postprocessing = {
        name: Compose(
            [FuseEnsembled("pred", name) if isinstance(step, FuseEnsembled) else step for step in steps_after]
        )
        for name in options.fusions
    }
    classes = config.get_parsed_content("num_classes")
    template.ensemble_size = template.members_per_batch = max(options.members)
    print("| start | steps | members | fusion | Dice per class | fused | anchor | seconds per case |")
    print("|---|---|---|---|---|---|---|---|")
    for start in options.starts:
        for steps in options.steps:
            template.num_inference_steps = steps
            template.start_from_anchor = None if start < 0 else start
            rows = {
                (members, fusion): DiceMetric(include_background=False, num_classes=classes)
                for members in options.members
                for fusion in options.fusions
            }
            anchor = DiceMetric(include_background=False, num_classes=classes)
            spent, cases = 0.0, 0
            for batch in loader:
                if cases == options.cases:
                    break
                begin = time.perf_counter()
                samples = template(batch["image"].to(device), network)
                spent, cases = spent + time.perf_counter() - begin, cases + 1
                for (members, fusion), metric in rows.items():
                    (case,) = decollate_batch({**batch, "pred": samples[:, : 1 + members]})
                    case = postprocessing[fusion](case)
                    metric(case["pred"][None], case["label"][None])
                anchor(case["anchor"][None], case["label"][None])
            for (members, fusion), metric in rows.items():
                dice = metric.get_buffer().nanmean(dim=0)
                begun = "noise" if start < 0 else start
                each = " / ".join(f"{value:.4f}" for value in dice)
                print(
                    f"| {begun} | {steps} | {members} | {fusion} | {each} | {dice.mean():.4f} "
                    f"| {anchor.get_buffer().nanmean():.4f} | {spent / cases:.2f} ({max(options.members)} members) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
