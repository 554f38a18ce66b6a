r"""What a change of contrast, colour, sharpness or scale costs this model, its anchor and the baselines.

Each row is a network as in `baseline_table.py`: its mean Dice on the images as they are, and the change of that on the
same images with every shift below, or those that `--shifts` names. A shift is made before the preprocessing, on values
from the darkest to the brightest of the image, and rounded to 256 levels as a file of 8 bits would be. At half the
size an image shrinks to its middle, what is around it repeats its border, and the mask is enlarged again; a volume has
voxels of twice the size then, which the setting `spacing` undoes. Prints a Markdown table. Example:

    python scripts/robustness_table.py --task isic --dataset_dir FOLDER --section test \
        --networks ours=models/isic.pt output/isic/dynunet/model.pt
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.networks.layers import GaussianFilter
from monai.utils import set_determinism
from torch import Tensor

from medsegdiff_bundle.evaluation.of_networks import (
    batches,
    case_options,
    dice,
    inferers,
    load,
    named_checkpoints,
    segmented,
    trained,
)

RED, GREEN, BLUE = 1.15, 1.0, 0.8  # factors of the channels in light of a low colour temperature
CAMERA = [[0.8, 0.3, -0.1], [-0.1, 0.9, 0.2], [0.2, -0.2, 1.0]]  # channels of another camera; grey stays grey
STICKER = [0.25, 0.45, 0.9]  # a blue one


def mixed_with_grey(image: Tensor, share: float) -> Tensor:
    """Image (3, S) with this share of its grey; below 0 its colours grow stronger."""
    return image + share * (image.mean(dim=0, keepdim=True) - image)


# Each takes and gives (C, S), from 0 to 1; what leaves that range is cut off.
SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gamma 0.5": lambda image: image**0.5,
    "gamma 2": lambda image: image**2,
    "overexposed": lambda image: image * 1.4,
    "half the contrast": lambda image: image / 2 + 0.25,
    "blurred": lambda image: GaussianFilter(image.ndim - 1, 2.0)(image[None])[0],
    "noise": lambda image: image + 0.06 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)),
}
COLOUR_SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "warm light": lambda image: image * torch.tensor([RED, GREEN, BLUE])[:, None, None],
    "grey": lambda image: mixed_with_grey(image, 1.0),
    "vivid": lambda image: mixed_with_grey(image, -0.6),
}
# Of another source; not in the table unless they are named.
SOURCE_SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "other colours": lambda image: torch.einsum("ij,j...->i...", torch.tensor(CAMERA), image),
    "sticker": lambda image: torch.where(disc(image.shape[1:]), torch.tensor(STICKER)[:, None, None], image),
}


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = case_options(__doc__)
    parser.add_argument("--networks", nargs="+", required=True, metavar="[NAME=]CHECKPOINT", help="what to compare")
    parser.add_argument("--shifts", nargs="+", choices=STEPS, default=None, help="columns, instead of the usual ones")
    return parser.parse_args()


def disc(size: torch.Size) -> Tensor:
    """Where a disc of a sixth of the width lies that the right border cuts: (H, W) bool."""
    height, width = size
    y, x = torch.arange(height)[:, None] - height / 2, torch.arange(width) - 0.95 * width
    return x**2 + y**2 < (width / 6) ** 2


def shifted(image: Tensor, shift: Callable[[Tensor], Tensor]) -> Tensor:
    """An image (C, S) after a shift, in its own range."""
    low, high = image.min(), image.max()
    unit = (image - low) / (high - low).clamp_min(1e-6)
    return (shift(unit).clamp(0, 1) * 255).round() / 255 * (high - low) + low


# The transform that makes each shift, as a configuration has it.
STEPS: dict[str, dict[str, Any]] = {
    name: {"_target_": "Lambdad", "keys": "image", "func": partial(shifted, shift=shift)}
    for name, shift in (SHIFTS | COLOUR_SHIFTS | SOURCE_SHIFTS).items()
}
STEPS["half the size"] = {"_target_": "Zoomd", "keys": "image", "zoom": 0.5, "mode": "area", "padding_mode": "edge"}


def mean_dice(options: argparse.Namespace, name: str, checkpoint: Path, shift: str | None) -> dict[str, float]:
    """Mean Dice over cases and classes of each way to use a network, without the cases whose label is empty."""
    config = load(options, name)
    if shift is not None:
        steps = [step["_target_"] for step in config["label_checks"]]
        config["label_checks"].insert(steps.index("medsegdiff_bundle.transforms.CheckGridd") + 1, STEPS[shift])
    network = trained(config, checkpoint)
    postprocessing = config.get_parsed_content("validate#postprocessing")
    num_classes = config.get_parsed_content("num_classes")
    rows = inferers(name, network, config.get_parsed_content("validate#inferer"))
    scores: dict[str, list[float]] = {row: [] for row in rows}
    for batch in batches(config, options.cases):
        for row, inferer in rows.items():
            case = segmented(config, batch, network, inferer)
            label = case["label"]
            scores[row].append(dice(postprocessing(case)["pred"], label, num_classes).nanmean().item())
    return {row: torch.tensor(values).nanmean().item() for row, values in scores.items()}


def main() -> None:
    """Print the table."""
    options = arguments()
    set_determinism(seed=0)
    in_colour = load(options).get_parsed_content("image_channels") == 3
    shifts = options.shifts or [*SHIFTS, *(COLOUR_SHIFTS if in_colour else [])]
    if not in_colour and (of_colours := [name for name in shifts if name in COLOUR_SHIFTS | SOURCE_SHIFTS]):
        raise ValueError(f"The shift {of_colours[0]!r} is one of colours, and the images have none.")
    print(f"| network | as it is | {' | '.join(shifts)} |\n|{'---|' * (len(shifts) + 2)}")
    for name, checkpoint in named_checkpoints(options.networks):
        plain = mean_dice(options, name, checkpoint, None)
        changes = [mean_dice(options, name, checkpoint, shift) for shift in shifts]
        for row, value in plain.items():
            cells = [f"{change[row] - value:+.4f}" for change in changes]
            print(f"| {row} | {value:.4f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
