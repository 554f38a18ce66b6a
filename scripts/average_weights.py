"""The mean of the weights of several checkpoints of one training, as a flat state dict like `model.pt`.

After Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization", arXiv 1803.05407.
A checkpoint is a flat state dict, or a `last.ckpt`, whose averaged weights are taken. Example:

    python scripts/average_weights.py output/model.pt output/last.ckpt --output output/mean.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from medsegdiff_bundle.files import whole_file


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="of the same network")
    parser.add_argument("--output", required=True, type=Path, help="file that is written")
    return parser.parse_args()


def weights(path: Path) -> dict[str, Tensor]:
    """The network's weights in a checkpoint of either kind."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    flat: dict[str, Tensor] = state.get("ema_network", state)
    return flat


def mean(states: dict[Path, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each floating point tensor, in its type; the first state's of each other one.

    Raises:
        ValueError: the states do not hold the same tensors.
    """
    first, *others = states
    shapes = {path: {name: tensor.shape for name, tensor in state.items()} for path, state in states.items()}
    for other in others:
        if shapes[other] != shapes[first]:
            raise ValueError(f"{str(first)!r} and {str(other)!r} are weights of different networks.")
    return {
        name: torch.stack([state[name].double() for state in states.values()]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[first].items()
    }


def main() -> None:
    """Write the mean."""
    options = arguments()
    averaged = mean({path: weights(path) for path in options.checkpoints})
    with whole_file(options.output) as file:
        torch.save(averaged, file)


if __name__ == "__main__":
    main()
