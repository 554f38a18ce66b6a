"""Networks over the cases of a data set: by name, case by case, with results in the space of the image files.

A network is "ours", or named like a file of configs/baselines or configs/ablations.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import decollate_batch
from monai.metrics import compute_dice
from monai.networks import one_hot
from monai.transforms import Invertd
from monai.utils import convert_to_dst_type
from torch import Tensor

from medsegdiff_bundle import configuration, model_file
from medsegdiff_bundle.handlers import WeightsLoader
from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.labels import likely
from medsegdiff_bundle.metrics import overlap, rater_consensus
from medsegdiff_bundle.model_file import task_of, weights_of_folds
from medsegdiff_bundle.networks import BaselineNetwork
from medsegdiff_bundle.provenance import weight_files
from medsegdiff_bundle.settings import bundle_root
from medsegdiff_bundle.transforms import InvertLabelsd

ROOT = bundle_root()

# Dice with each reader (the mean) or with what at least half of them mark; of all cases, two empty masks having Dice 1,
# or of those in which they mark something together.
CONVENTIONS = ["readers, all cases", "readers, not empty", "consensus, all cases", "consensus, not empty"]


def case_options(description: str | None) -> argparse.ArgumentParser:
    """Options of the command line that say which cases, as `load` and `batches` read them."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--task", default="hippocampus", help="of configs/tasks; hippocampus by default")
    options.add_argument("--dataset_dir", default=None, help="folder of the cases; the embedded ones by default")
    options.add_argument("--section", default="validation", help="validation or test")
    options.add_argument("--overrides", nargs="*", default=[], metavar="KEY=JSON", help="of train.json, for all")
    options.add_argument("--cases", type=int, default=None, help="the first cases only")
    options.add_argument("--recipe", default=None, help="of configs/recipes; that of train.json by default")
    return options


def weights_options(description: str | None) -> argparse.ArgumentParser:
    """`case_options`, and the weights of this model, see `chosen_weights`."""
    options = case_options(description)
    options.add_argument("--checkpoint", type=Path, default=None, help="of this model; what is shipped by default")
    return options


def chosen_weights(options: argparse.Namespace) -> Path:
    """The checkpoint that was asked for, or the task's that is shipped."""
    return options.checkpoint or shipped_weights(options.task)


def overlay(name: str) -> list[str]:
    """The configuration file that makes the network of this name, from the bundle's folder on; none for "ours"."""
    if name == "ours":
        return []
    files = [f"configs/{folder}/{name}.json" for folder in ("baselines", "ablations")]
    found = [file for file in files if (ROOT / file).is_file()]
    if not found:
        raise ValueError(f"There is no network {name!r}: neither {files[0]!r} nor {files[1]!r} exists.")
    return found


def training_files(task: str | None, name: str, recipe: str | None = None) -> list[str]:
    """The configuration files that train the network of this name for a task, from the bundle's folder on.

    Args:
        task: of `configs/tasks`; None leaves it to the weights.
        name: of the network.
        recipe: of `configs/recipes`; None takes that of `train.json`.
    """
    of_task = [] if task is None else [f"configs/tasks/{task}.json"]
    of_recipe = [] if recipe is None else [f"configs/recipes/{recipe}.json"]
    return ["configs/train.json", *of_task, *of_recipe, *overlay(name)]


def load(options: argparse.Namespace, name: str = "ours") -> ConfigParser:
    """The training configuration that the options of a script ask for, of the network of this name."""
    pairs = (override.partition("=") for override in options.overrides)
    given = {key: json.loads(value) for key, _, value in pairs}
    return load_task(options.task, options.dataset_dir, options.section, given, name, recipe=options.recipe)


def load_task(
    task: str | None,
    dataset_dir: str | None,
    section: str,
    given: Mapping[str, Any],
    name: str = "ours",
    checkpoint: str | Path | None = None,
    recipe: str | None = None,
) -> ConfigParser:
    """A training configuration, with its validation part.

    Args:
        task: of `configs/tasks`; None leaves it to the weights.
        dataset_dir: folder of the cases; None takes the task's.
        section: "validation" or "test".
        given: settings of `train.json`.
        name: of the network.
        checkpoint: file of weights, which may say more than the task; None leaves it to the task.
        recipe: of `configs/recipes`; None takes that of `train.json`.
    """
    files = [ROOT / file for file in training_files(task, name, recipe)]
    return load_files(files, dataset_dir, section, given, checkpoint)


def load_files(
    files: Sequence[Path],
    dataset_dir: str | None,
    section: str,
    given: Mapping[str, Any],
    checkpoint: str | Path | None = None,
) -> ConfigParser:
    """A training configuration of some files, with its validation part; arguments of `load_task`."""
    values = {"bundle_root": str(ROOT), "validate#dataset#data#section": section, **given}
    if dataset_dir is not None:
        values["dataset_dir"] = dataset_dir
    if checkpoint is not None:
        values["checkpoint"] = str(checkpoint)
    return model_file.load(files, values)


def batches(config: ConfigParser, cases: int | None) -> Iterator[dict[str, Any]]:
    """Batches of one case each, the first ones only if their number is given."""
    return itertools.islice(config.get_parsed_content("validate#dataloader"), cases)


def segmented(config: ConfigParser, batch: dict[str, Any], network: Any, inferer: EnsembleInferer) -> dict[str, Any]:
    """The case of a batch, with what the inferer makes of it as `pred`, the `seconds` it took, and `preprocessing`."""
    image = batch["image"].to(config.get_parsed_content("device"))
    begin = time.perf_counter()
    samples = inferer(image, network).cpu()
    seconds = time.perf_counter() - begin
    (case,) = decollate_batch({**batch, "pred": samples})
    return {**case, "seconds": seconds, "preprocessing": config.get_parsed_content("validate#preprocessing")}


def chosen(task: str | None, checkpoint: Any) -> tuple[str | None, Path]:
    """Task and file of weights, of which each tells the other where only one of them is asked for.

    Args:
        task: of `configs/tasks`; None is that of the weights, or hippocampus.
        checkpoint: what was named as weights; None takes those that come with the task.

    Returns:
        The task is None of weights that say none of `configs/tasks`, and know by themselves what they segment.

    Raises:
        ValueError: there is no such file, or there are several.
    """
    if checkpoint is None:
        return task or "hippocampus", shipped_weights(task or "hippocampus")
    files = weight_files(checkpoint)
    if len(files) > 1:
        raise ValueError(f"Weights are taken one file at a time, and here are {len(files)}: name one of them by -c.")
    if not files or not Path(files[0]).is_file():
        folds = weights_of_folds(files[0]) if files else []
        such = f", such as that of a fold, {folds[0]!r}" if folds else ""
        raise ValueError(f"There are no weights {', '.join(files)!r}: name a file of them by -c{such}.")
    return task or task_of(files[0]), Path(files[0])


def inference_of(task: str) -> ConfigParser:
    """The configuration of inference of a task, on the CPU, before any weights say what they are."""
    files = [ROOT / "configs" / "inference.json", ROOT / "configs" / "tasks" / f"{task}.json"]
    return configuration.load(files, {"bundle_root": str(ROOT), "device": "cpu"})


def shipped_weights(task: str) -> Path:
    """The weights that inference takes by default for a task.

    Raises:
        ValueError: the task has none.
    """
    if (file := inference_of(task).get_parsed_content("checkpoint")) is None:
        raise ValueError(f"There are no weights of the task {task!r}: name a file of them by -c, or as checkpoint.")
    return Path(file)


def named_checkpoints(pairs: list[str]) -> list[tuple[str, Path]]:
    """Name and checkpoint of each "[NAME=]CHECKPOINT": without one, the folder's name."""
    named = [pair.rpartition("=") for pair in pairs]
    return [(name or Path(checkpoint).absolute().parent.name, Path(checkpoint)) for name, _, checkpoint in named]


def trained(config: ConfigParser, checkpoint: Path) -> Any:
    """The network of a configuration with the weights of a file, for inference."""
    network = config.get_parsed_content("network").eval()
    WeightsLoader(str(checkpoint), network).load()
    return network


def inferers(name: str, network: Any, ensemble: EnsembleInferer) -> dict[str, EnsembleInferer]:
    """What to call each way to use a network, in the order of the rows; "mirrored" where the members are."""
    mirrored, once = copy.copy(ensemble), copy.copy(ensemble)
    mirrored.anchor_only = once.anchor_only = True
    once.mirror_axes = ()
    one_pass = isinstance(network, BaselineNetwork)
    plain = name if one_pass else f"{name}, anchor"
    rows = {plain: once}
    if ensemble.mirror_axes:
        rows[f"{plain}, mirrored"] = mirrored
    if not one_pass:
        rows[f"{name}, fused"] = ensemble
    return rows


def inverted(case: dict[str, Any], values: Tensor, nearest: bool = False) -> Tensor:
    """Values (C, S) of the space of the network in that of the image file.

    `case` holds `image`, `pred`, and `preprocessing`, what brought it into the space of the network.
    """
    data: dict[Hashable, Any] = {"image": case["image"], "values": convert_to_dst_type(values, case["pred"])[0]}
    invert = Invertd("values", transform=case["preprocessing"], orig_keys="image", nearest_interp=nearest)
    result: Tensor = invert(data)["values"].as_tensor()
    return result


def labels_in_file(case: dict[str, Any], members: Tensor, multi_label: bool = False) -> Tensor:
    """Classes of members (E, K, S), in the space of the image file, (E, S); as in the bundle's `member_labels`.

    Of regions, with `multi_label`, (E, R, S) of 0 and 1.
    """
    if not multi_label:
        return inverted(case, members.max(dim=1).indices.float(), nearest=True)
    flat = inverted(case, likely(members).float().flatten(0, 1), nearest=True)
    return flat.unflatten(0, members.shape[:2])


def fused_labels(case: dict[str, Any], fused: Tensor, multi_label: bool = False) -> Tensor:
    """Classes of a mean of probabilities (K, S), or of labels (1, S), in the space of the image file, (1, S).

    Of regions, with `multi_label`, (R, S) of 0 and 1.
    """
    data: dict[Hashable, Any] = {"image": case["image"], "fused": convert_to_dst_type(fused, case["pred"])[0]}
    invert = InvertLabelsd("fused", case["preprocessing"], multi_label=multi_label)
    result: Tensor = invert(data)["fused"].as_tensor()
    return result


def one_hot_pair(prediction: Tensor, label: Tensor, num_classes: int) -> list[Tensor]:
    """What MONAI's metrics take, each (1, K, S), of classes (1, S) and of a label, see `rater_consensus`."""
    pair = prediction, rater_consensus(label)
    return [one_hot(x[None].as_subclass(Tensor).float().cpu(), num_classes) for x in pair]


def spread(values: Tensor | list[float], digits: int, sign: str = "") -> str:
    """Mean ± its standard error over the cases that have a value; `sign` "+" shows the sign."""
    known = torch.as_tensor(values, dtype=torch.float64)
    known = known[~known.isnan()]
    return f"{known.mean():{sign}.{digits}f} ± {known.std() / len(known) ** 0.5:.{digits}f}"


def print_left_out(dices: Tensor) -> None:
    """Say below a table of how many cases, of their Dice (N,), there is none."""
    empty = int(dices.isnan().sum())
    if empty > 0:
        print(f"\nDice without the {empty} of {len(dices)} cases whose label is empty.")


def dice(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Dice per class (K - 1,) of classes (1, S) and a label, see `rater_consensus`; NaN where the class is absent."""
    masks, labels = one_hot_pair(prediction, label, num_classes)
    values: Tensor = compute_dice(masks, labels, include_background=False)[0]
    return values


def scores(masks: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Values of `CONVENTIONS` (M, 4) of masks (M, S), mean over the classes, for a label (R, S); NaN: left out."""
    consensus = rater_consensus(label)
    references = torch.cat([label, consensus]).to(torch.uint8)
    dices = overlap.dice(overlap.shared_voxels(masks.to(torch.uint8), references, num_classes, False))  # (K - 1, ., .)
    pairs = dices[:, : len(masks), len(masks) :]
    there = torch.tensor([bool((consensus == k).any()) for k in range(1, num_classes)])[:, None]
    columns = []
    for each in (pairs[..., :-1].mean(dim=2), pairs[..., -1]):
        columns += [each.mean(dim=0), torch.where(there, each, torch.nan).nanmean(dim=0)]
    return torch.stack(columns, dim=1)
