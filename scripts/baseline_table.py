r"""This model, its own anchor, ablations and baselines on the same cases, in the space of the image files.

A network is "ours" or named like a file of configs/baselines or configs/ablations; the folder of its checkpoint says
which, as `train_networks.py` makes it, or what stands before the checkpoint. Anchors and baselines are listed twice:
after one pass, and as the mean over the mirror images that the members of the ensemble see.

Prints a Markdown table and writes a CSV with a line per network, case and class. "Minus the first" is the difference of
the mean Dice to that of the first row: its mean over the cases ± its standard error. Distances and the tolerance of the
surface Dice are in mm for volumes and in pixels for pictures; a class that only one of prediction and label holds has
no distance, and is counted as missed. Example:

    python scripts/baseline_table.py --dataset_dir FOLDER --csv docs/hippocampus.csv \
        --networks ours=models/model.pt output/comparison/dynunet/model.pt
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

from medsegdiff_bundle.networks import BaselineNetwork  # noqa: E402 - found by the line above

MEASURES = ("dice", "hd95", "surface_dice")


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default=None, help="of configs/tasks; hippocampus by default")
    parser.add_argument("--dataset_dir", default=None, help="folder of the cases; the embedded ones by default")
    parser.add_argument("--section", default="validation", help="validation or test")
    parser.add_argument("--networks", nargs="+", required=True, metavar="[NAME=]CHECKPOINT", help="what to compare")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=JSON", help="of train.json, for all")
    parser.add_argument("--tolerance", type=float, default=1.0, help="of the surface Dice, in mm or pixels")
    parser.add_argument("--cases", type=int, default=None, help="the first cases only")
    parser.add_argument("--csv", default=None, help="file of the values per case")
    return parser.parse_args()


def consensus(label: Tensor) -> Tensor:
    """What at least half of the raters mark, (R, S) -> (1, S); the label itself where there is one rater."""
    return label if len(label) == 1 else (label.float().mean(dim=0, keepdim=True) >= 0.5).float()


def inverted(case: dict[str, Any], values: Tensor, nearest: bool = False) -> Tensor:
    """Values (C, S) of the space of the network in that of the image file.

    `case` holds `image`, `pred`, and `preprocessing`, what brought it into the space of the network.
    """
    data = {"image": case["image"], "values": convert_to_dst_type(values, case["pred"])[0]}
    invert = Invertd("values", transform=case["preprocessing"], orig_keys="image", nearest_interp=nearest)
    result: Tensor = invert(data)["values"].as_tensor()
    return result


def overlay(name: str) -> list[str]:
    """The configuration file that makes the network of this name, from the bundle's folder on; none for "ours"."""
    if name == "ours":
        return []
    files = [f"configs/{folder}/{name}.json" for folder in ("baselines", "ablations")]
    found = [file for file in files if (ROOT / file).is_file()]
    if not found:
        raise ValueError(f"There is no network {name!r}: neither {files[0]!r} nor {files[1]!r} exists.")
    return found


def training_files(task: str | None, name: str) -> list[str]:
    """The configuration files that train the network of this name for a task, from the bundle's folder on."""
    return ["configs/train.json", *([f"configs/tasks/{task}.json"] if task else []), *overlay(name)]


def load(options: argparse.Namespace, name: str = "ours") -> ConfigParser:
    """The training configuration, with its validation part, of the network of this name."""
    config = ConfigParser()
    config.read_config([str(ROOT / file) for file in training_files(options.task, name)])
    config.update({"bundle_root": str(ROOT), "validate#dataset#data#section": options.section})
    if options.dataset_dir is not None:
        config["dataset_dir"] = options.dataset_dir
    for override in options.overrides:
        key, _, value = override.partition("=")
        config[key] = json.loads(value)
    return config


def budget(checkpoint: Path) -> list[str]:
    """Steps of the training and its minutes of processor time, where `train_networks.py` left them."""
    file = checkpoint.parent / "budget.json"
    spent = json.loads(file.read_text()) if file.is_file() else {}
    return [str(spent.get(key, "")) for key in ("steps", "minutes")]


def one_hot_pair(prediction: Tensor, label: Tensor, num_classes: int) -> list[Tensor]:
    """What MONAI's metrics take, each (1, K, S), of classes (1, S) and of a label as in `measure`."""
    return [one_hot(x[None].as_subclass(Tensor).float().cpu(), num_classes) for x in (prediction, consensus(label))]


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
    pair = one_hot_pair(prediction, label, num_classes)
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
    named = [pair.rpartition("=") for pair in options.networks]
    networks = [(name or Path(checkpoint).absolute().parent.name, Path(checkpoint)) for name, _, checkpoint in named]
    lines: list[list[Any]] = []
    table: list[str] = []
    class_names: list[str] = []
    first: Tensor | None = None
    for network_name, checkpoint in networks:
        config = load(options, network_name)
        class_names = config.get_parsed_content("class_names")
        num_classes, device = config.get_parsed_content("num_classes"), config.get_parsed_content("device")
        network = config.get_parsed_content("network").eval()
        network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
        ensemble = config.get_parsed_content("validate#inferer")
        mirrored, once = copy.copy(ensemble), copy.copy(ensemble)
        mirrored.anchor_only = once.anchor_only = True
        once.mirror_axes = ()
        postprocessing = config.get_parsed_content("validate#postprocessing")
        one_pass = isinstance(network, BaselineNetwork)
        plain = network_name if one_pass else f"{network_name}, anchor"
        rows = {plain: once, f"{plain}, mirrored": mirrored} | (
            {} if one_pass else {f"{network_name}, fused": ensemble}
        )
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
            dice = stacked[:, 0].nanmean(dim=1)
            first = dice if first is None else first
            cells = [" / ".join(f"{value:.4f}" for value in means[0]), f"{means[0].mean():.4f}"]
            cells += [f"{(dice - first).mean():+.4f} ± {(dice - first).std() / len(dice) ** 0.5:.4f}"]
            cells += [" / ".join(f"{value:.2f}" for value in means[1]), str(missed)]
            cells += [" / ".join(f"{value:.4f}" for value in means[2])]
            counted = network.condition_model if ", anchor" in name else network
            cells += [f"{sum(weight.numel() for weight in counted.parameters()) / 1e6:.2f} M", *budget(checkpoint)]
            table.append(f"| {name} | {' | '.join(cells)} | {seconds[name] / len(stacked):.3f} |")
    each = " / ".join(class_names)
    columns = f"network, Dice {each}, mean Dice, minus the first, HD95 {each}, missed, surface Dice {each}, parameters"
    print(f"| {columns.replace(', ', ' | ')} | steps | minutes | s per case |\n{'|---' * 11}|")
    print("\n".join(table))
    if options.csv is not None:
        with open(options.csv, "w", newline="") as file:
            csv.writer(file).writerows([["network", "case", "class", *MEASURES], *lines])


if __name__ == "__main__":
    main()
