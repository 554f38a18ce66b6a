"""Embedding of the diffusion timestep."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimestepEmbedding(nn.Module):
    """Sinusoids of the timestep through a two-layer perceptron (Ho et al. 2020, appendix B).

    Args:
        time_dim: length of the embedding, at least 2.

    Shapes:
        timesteps: integer or float, scalar, (1,) or (N,), in [0, T) -> (1, time_dim) or (N, time_dim)
    """

    def __init__(self, time_dim: int) -> None:
        super().__init__()
        half = time_dim // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * half, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim))

    def forward(self, timesteps: Tensor) -> Tensor:
        """See the class."""
        angles = timesteps.reshape(-1, 1).to(torch.float32) * self.frequencies  # type: ignore[operator]
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1))  # (N, C)
