"""Training in bfloat16 on cases that are hard to divide by: the loss, its gradients and the weights stay finite.

A tiny network takes steps of `configs/train.json` on small patches whose image or label is of one kind: empty masks, a
class that is absent, one voxel of a class, a class everywhere, an image of one value, images of large numbers, nothing
annotated, patches of few voxels. Each way to train takes its turn: true masks, noise, drawn masks, and regions. After
each step the two parts of the loss, every gradient and every weight are looked at. Prints the number of steps by way
and kind, and those that were not finite. On the CPU; autocast is bfloat16's, as on a GPU. Example:

    python scripts/finite_trials.py --steps 2000
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medsegdiff_bundle import configuration
from medsegdiff_bundle.evaluation.of_networks import ROOT

TINY = {"network_def#channels": [4, 8, 8], "network_def#num_heads": 2, "network_def#token_size": 8, "device": "cpu"}
IGNORED = 3
WAYS: dict[str, dict[str, Any]] = {
    "true masks": {"ignore_label": IGNORED},
    "noise": {"prediction_type": "epsilon", "network_def#anchor_residual": False, "recycling": 0.0},
    "drawn masks": {"drawn_members": 2, "recycling": 0.0, "ignore_label": IGNORED},
    "regions": {"regions": [[1, 2], [2]], "class_names": ["whole", "core"], "ignore_label": IGNORED},
}
SIZE = (8, 8, 8)
FEW = (1, 2, 3)


def one_voxel(label: Tensor) -> Tensor:
    """Of class 2 in background."""
    label = torch.zeros_like(label)
    label.flatten(1)[:, label[0].numel() // 2] = 2
    return label


LABELS: dict[str, Callable[[Tensor], Tensor]] = {
    "random classes": lambda label: label,
    "empty masks": torch.zeros_like,
    "a class absent": lambda label: label.clamp(max=1),
    "one voxel": one_voxel,
    "a class everywhere": torch.ones_like,
    "nothing annotated": lambda label: torch.full_like(label, IGNORED),
}
IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "one value": torch.zeros_like,
    "values of 1e4": lambda image: image * 1e4,
    "one bright voxel": lambda image: torch.zeros_like(image).index_fill_(2, torch.tensor(0), 1e4),
}


class Case(NamedTuple):
    """A kind of batch: (2, 1, S) image and label."""

    kind: str
    image: Tensor
    label: Tensor


def batches(generator: torch.Generator, can_ignore: bool) -> Iterator[Case]:
    """Batches of all kinds, in turn, without end."""
    while True:
        image = torch.randn(2, 1, *SIZE, generator=generator)
        label = torch.randint(0, 3, (2, 1, *SIZE), generator=generator).float()
        for kind, change in LABELS.items():
            if can_ignore or kind != "nothing annotated":
                yield Case(kind, image, change(label))
        for kind, change in IMAGES.items():
            yield Case(f"image of {kind}", change(image), label)
        few = torch.randn(2, 1, *FEW, generator=generator)
        yield Case("patches of 1 x 2 x 3 voxels", few, torch.zeros_like(few))


def not_finite(parts: dict[str, Tensor], network: torch.nn.Module) -> list[str]:
    """What is not finite of a step: parts of the loss, gradients and weights, by name."""
    found = [f"loss of the {name}" for name, value in parts.items() if not value.isfinite()]
    for name, weight in network.named_parameters():
        found += [f"gradient of {name}"] * (weight.grad is not None and not weight.grad.isfinite().all())
        found += [f"weight {name}"] * (not weight.isfinite().all())
    return found


def train(way: str, steps: int) -> tuple[Counter[str], list[str]]:
    """Take steps one way; their number by kind of case, and a line for each that is not finite."""
    files = [ROOT / "configs" / "train.json"]
    given = {**TINY, "bundle_root": str(ROOT), "amp": True, "epochs": 1, **WAYS[way]}
    config = configuration.load(files, {**given, "train#trainer#max_epochs": 1})
    torch.manual_seed(0)
    network, loss = config.get_parsed_content("training_network"), config.get_parsed_content("loss")
    prepare = config.get_parsed_content("train#trainer#prepare_batch")
    optimizer = config.get_parsed_content("optimizer")
    counted: Counter[str] = Counter()
    faults: list[str] = []
    for case in batches(torch.Generator().manual_seed(0), "ignore_label" in WAYS[way]):
        if counted.total() == steps:
            break
        image, target, further, _ = prepare({"image": case.image, "label": case.label}, device="cpu")
        optimizer.zero_grad()
        loss(network(image, *further), target).backward()
        optimizer.step()
        counted[case.kind] += 1
        if found := not_finite(loss.parts, network):
            faults.append(f"{way}, {case.kind}, step {counted.total()}: {', '.join(found[:3])}")
            break
    return counted, faults


def main() -> int:
    """Train, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="of all ways together")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.monotonic()
    counted, faults = {}, []
    for way in WAYS:
        counted[way], found = train(way, options.steps // len(WAYS))
        faults += found
    print(f"| case | {' | '.join(WAYS)} |\n{'|---' * (len(WAYS) + 1)}|")
    for kind in counted["true masks"]:
        print(f"| {kind} | {' | '.join(str(counted[way][kind]) for way in WAYS)} |")
    number = sum(each.total() for each in counted.values())
    print(f"\n{number} steps in bfloat16, {len(faults)} not finite, {time.monotonic() - begin:.0f} s")
    print("\n".join(faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
