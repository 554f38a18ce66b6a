"""Parts of MedSegDiff-V2 that are switched off in a trained network, to see what they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from medsegdiff_bundle.networks import MedSegDiff, NeuralBandPassFilter

# By the name of the ablation that trains a network without the part, see configs/ablations.
PARTS = {"no_transformer": "SS-Former", "no_band_pass_filter": "NBP filter", "no_spatial_attention": "U-SA"}


def has_part(network: MedSegDiff, part: str) -> bool:
    """Whether a network has one of `PARTS`."""
    return bool(_modules(network, part))


@contextmanager
def switched_off(network: MedSegDiff, part: str) -> Iterator[None]:
    """A network without what one of its parts has learned, inside of a `with`.

    - `no_transformer`: the SS-Former hands on what the denoiser gives it.
    - `no_band_pass_filter`: each NBP filter lets the same share of every frequency pass, that of a new filter.
    - `no_spatial_attention`: each gate of U-SA is its own mean over the image.

    Args:
        network: which has the part.
        part: of `PARTS`.

    Raises:
        ValueError: the network does not have the part, or there is no part of that name.
    """
    if part not in PARTS:
        raise ValueError(f"There is no part {part!r}: {', '.join(PARTS)}.")
    modules = _modules(network, part)
    if not modules:
        raise ValueError(f"The network has no {PARTS[part]}.")
    hook = {"no_transformer": _input, "no_band_pass_filter": _first, "no_spatial_attention": _mean}[part]
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def _modules(network: MedSegDiff, part: str) -> list[nn.Module]:
    """The modules that make a part."""
    if part == "no_transformer":
        return [] if network.denoiser.transformer is None else [network.denoiser.transformer]
    if part == "no_spatial_attention":
        return list(network.anchor_gates)
    return [module for module in network.modules() if isinstance(module, NeuralBandPassFilter)]


def _input(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    given: Tensor = inputs[0]
    return given


def _first(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return torch.full_like(output, float(torch.sigmoid(torch.tensor(NeuralBandPassFilter.FIRST))))


def _mean(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.mean(dim=tuple(range(2, output.ndim)), keepdim=True).expand_as(output).contiguous()
