r"""This model, its own anchor and the baselines on the same cases, in the space of the image files.

The anchor and the baselines stand there twice: after one pass, and as the mean over the mirror images that the members
of the ensemble see.
Prints a Markdown table and writes a CSV with a line per network, case and class. Distances and the tolerance of the
surface Dice are in mm for volumes and in pixels for pictures; a class that only one of prediction and label holds has
no distance, and is counted as missed. Example:

    python scripts/baseline_table.py --dataset_dir FOLDER --csv docs/hippocampus.csv \
        --baselines dynunet=output/dynunet/model.pt swinunetr=output/swinunetr/model.pt
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import decollate_batch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from monai.networks import one_hot
from monai.transforms import Invertd
from monai.utils import convert_to_dst_type, set_determinism
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
MEASURES = ("dice", "hd95", "surface_dice")


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default=None, help="of configs/tasks; hippocampus by default")
    parser.add_argument("--dataset_dir", default=None, help="folder of the cases; the embedded ones by default")
    parser.add_argument("--section", default="validation", help="validation or test")
    parser.add_argument("--checkpoint", default=None, help="of this model; rows of ours are left out without it")
    parser.add_argument("--baselines", nargs="*", default=[], metavar="NAME=CHECKPOINT", help="of configs/baselines")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=JSON", help="of train.json, for all")
    parser.add_argument("--tolerance", type=float, default=1.0, help="of the surface Dice, in mm or pixels")
    parser.add_argument("--cases", type=int, default=None, help="the first cases only")
    parser.add_argument("--csv", default=None, help="file of the values per case")
    return parser.parse_args()


def consensus(label: Tensor) -> Tensor:
    """What at least half of the raters mark, (R, S) -> (1, S); the label itself where there is one rater."""
    return label if len(label) == 1 else (label.float().mean(dim=0, keepdim=True) >= 0.5).float()


def inverted(case: dict[str, Any], preprocessing: Any, values: Tensor, nearest: bool = False) -> Tensor:
    """Values (C, S) of the space of the network in that of the image file; `case` holds `image` and `pred`."""
    data = {"image": case["image"], "values": convert_to_dst_type(values, case["pred"])[0]}
    invert = Invertd("values", transform=preprocessing, orig_keys="image", nearest_interp=nearest)
    result: Tensor = invert(data)["values"].as_tensor()
    return result


def load(options: argparse.Namespace, baseline: str | None) -> ConfigParser:
    """The training configuration, with its validation part, of this model or of a baseline."""
    files = ["train.json"]
    files += [f"tasks/{options.task}.json"] if options.task else []
    files += [f"baselines/{baseline}.json"] if baseline else []
    config = ConfigParser()
    config.read_config([str(ROOT / "configs" / name) for name in files])
    config.update({"bundle_root": str(ROOT), "validate#dataset#data#section": options.section})
    if options.dataset_dir is not None:
        config["dataset_dir"] = options.dataset_dir
    for override in options.overrides:
        key, _, value = override.partition("=")
        config[key] = json.loads(value)
    return config


def measure(prediction: Tensor, label: Tensor, num_classes: int, spacing: list[float], tolerance: float) -> Tensor:
    """Measures of one case.

    Args:
        prediction: classes, (1, S).
        label: classes, (1, S); or masks of several raters, (R, S), see `consensus`.
        num_classes: K, background included.
        spacing: of the voxels, one number per axis.
        tolerance: of the surface Dice, in the same unit.

    Returns:
        (3, K - 1), in the order of `MEASURES`; NaN where a class is absent, infinite distance where it is missed.
    """
    pair = [one_hot(x[None].as_subclass(Tensor).float().cpu(), num_classes) for x in (prediction, consensus(label))]
    return torch.stack(
        [
            compute_dice(*pair, include_background=False)[0],
            compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)[0].float(),
            compute_surface_dice(*pair, [tolerance] * (num_classes - 1), spacing=spacing)[0].float(),
        ]
    )


def main() -> None:
    """Print the table."""
    options = arguments()
    set_determinism(seed=0)
    networks: list[tuple[str | None, str]] = [(None, options.checkpoint)] if options.checkpoint else []
    networks += [tuple(pair.split("=", 1)) for pair in options.baselines]
    lines: list[list[Any]] = []
    table: list[str] = []
    class_names: list[str] = []
    for baseline, checkpoint in networks:
        config = load(options, baseline)
        class_names = config.get_parsed_content("class_names")
        num_classes, device = config.get_parsed_content("num_classes"), config.get_parsed_content("device")
        network = config.get_parsed_content("network").eval()
        network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
        ensemble = config.get_parsed_content("validate#inferer")
        mirrored, once = copy.copy(ensemble), copy.copy(ensemble)
        mirrored.anchor_only = once.anchor_only = True
        once.mirror_axes = ()
        postprocessing = config.get_parsed_content("validate#postprocessing")
        name = baseline or "ours, anchor"
        rows = {name: once, f"{name}, mirrored": mirrored} | ({} if baseline else {"ours, fused": ensemble})
        values: dict[str, list[Tensor]] = {name: [] for name in rows}
        seconds = dict.fromkeys(rows, 0.0)
        for index, batch in enumerate(config.get_parsed_content("validate#dataloader")):
            if index == options.cases:
                break
            image = batch["image"].to(device)
            for name, inferer in rows.items():
                begin = time.perf_counter()
                samples = inferer(image, network)
                seconds[name] += time.perf_counter() - begin
                (case,) = decollate_batch({**batch, "pred": samples})
                label = case["label"]
                spacing = label.meta["affine"][:3, :3].norm(dim=0).tolist()[: label.ndim - 1]
                case = postprocessing(case)
                result = measure(case["pred"], label, num_classes, spacing, options.tolerance)
                values[name].append(result)
                path = Path(case["image"].meta["filename_or_obj"]).name
                lines += [
                    [name, path, each, *column.tolist()] for each, column in zip(class_names, result.T, strict=True)
                ]
        for name in rows:
            stacked = torch.stack(values[name])  # (cases, measures, classes)
            missed = int(stacked[:, 1].isinf().sum())
            means = torch.where(stacked.isinf(), torch.nan, stacked).nanmean(dim=0)
            cells = [" / ".join(f"{value:.4f}" for value in means[0]), f"{means[0].mean():.4f}"]
            cells += [" / ".join(f"{value:.2f}" for value in means[1]), str(missed)]
            cells += [" / ".join(f"{value:.4f}" for value in means[2])]
            counted = network.condition_model if name.startswith("ours, anchor") else network
            cells += [f"{sum(weight.numel() for weight in counted.parameters()) / 1e6:.2f} M"]
            table.append(f"| {name} | {' | '.join(cells)} | {seconds[name] / len(stacked):.3f} |")
    each = " / ".join(class_names)
    print(
        f"| network | Dice {each} | mean Dice | HD95 {each} | missed | surface Dice {each} | parameters | s per case |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(table))
    if options.csv is not None:
        with open(options.csv, "w", newline="") as file:
            csv.writer(file).writerows([["network", "case", "class", *MEASURES], *lines])


if __name__ == "__main__":
    main()
