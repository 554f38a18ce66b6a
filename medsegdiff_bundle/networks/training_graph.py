"""A training step of a GPU without the thousands of calls that start its kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .training_network import TrainingNetwork


def graph_training(
    network: TrainingNetwork,
    batch_size: int,
    in_channels: int,
    out_channels: int,
    spatial_size: Sequence[int],
) -> TrainingNetwork:
    """Capture forward and backward pass as CUDA graphs, which a training step then replays.

    Small networks leave a GPU waiting for the processor, which has a few thousand kernels to start in each step. The
    result is the same, but for the values of the random numbers. Every batch must have the shape that was captured,
    arguments come by position, and gradients must be set to None between the steps, for they live in the graph's
    memory.

    Args:
        network: whose parameters are on the device that trains, in training mode. It is changed in place: in evaluation
            mode it runs as before. On a CPU nothing is captured.
        batch_size: N of every batch.
        in_channels: C of the images.
        out_channels: K, classes with the background.
        spatial_size: S of every batch.

    Returns:
        the network.
    """
    device = next(network.parameters()).device
    if device.type != "cuda":
        return network
    image = torch.zeros(batch_size, in_channels, *spatial_size, device=device)
    mask = torch.zeros(batch_size, out_channels, *spatial_size, device=device)
    timesteps = torch.zeros(batch_size, dtype=torch.long, device=device)
    network.train()
    # A part that an ablation or a baseline leaves out has no gradient.
    return torch.cuda.make_graphed_callables(network, (image, mask, timesteps), allow_unused_input=True)  # type: ignore[return-value]
