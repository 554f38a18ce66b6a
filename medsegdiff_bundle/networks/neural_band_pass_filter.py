"""NBP filter: which frequencies of the affinity map may pass at which timestep."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from .hartley_transform import TokenGrid


class NeuralBandPassFilter(nn.Module):
    """Learned mask over the spectrum of an affinity map (MedSegDiff-V2, NBP filter).

    An affinity map M holds one number per (query token, key token), so its spectrum has one entry per pair of
    frequencies. The coordinates of each pair go through R blocks of convolution, LayerNorm, scale and shift from the
    timestep embedding, and ReLU, then a convolution to one channel per head and a sigmoid. The convolutions are 1x1
    (hence `nn.Linear`): neighbours in a flattened list of frequencies are no neighbours in space, and a pointwise
    filter fits every input size.

    Args:
        spatial_dims: axes of the token grid.
        num_heads: filters, one per attention head.
        time_dim: length of the timestep embedding.
        num_blocks: R, at least 1.
        hidden_dim: width of the blocks.

    Shapes:
        time: (N or 1, time_dim), grid: of the T tokens of query and of key
        -> (N or 1, num_heads, T, T), frequencies of the query, then of the key; float32 in (0, 1)
    """

    # Begin close to all-pass: sigmoid(2) = 0.88, with a gradient that is still large enough to learn from.
    FIRST = 2.0

    def __init__(
        self, spatial_dims: int, num_heads: int, time_dim: int, num_blocks: int = 2, hidden_dim: int = 16
    ) -> None:
        super().__init__()
        if num_blocks < 1:
            raise ValueError(f"num_blocks of a NeuralBandPassFilter must be at least 1, got {num_blocks}.")
        widths = [2 * spatial_dims] + [hidden_dim] * num_blocks
        self.convs = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim) for _ in range(num_blocks))
        self.scale_shifts = nn.ModuleList(nn.Linear(time_dim, 2 * hidden_dim) for _ in range(num_blocks))
        self.head = nn.Linear(hidden_dim, num_heads)
        self.heads_first = Rearrange("n query key heads -> n heads query key")
        nn.init.constant_(self.head.bias, self.FIRST)

    def forward(self, time: Tensor, grid: TokenGrid) -> Tensor:
        """See the class."""
        distinct = grid.coordinates.shape[0]
        pairs = torch.cat(
            [
                grid.coordinates.unsqueeze(1).expand(-1, distinct, -1),
                grid.coordinates.unsqueeze(0).expand(distinct, -1, -1),
            ],
            dim=-1,
        )
        h = pairs.unsqueeze(0)  # (1, U, U, 2 * dims)
        time = F.silu(time)
        for conv, norm, to_scale_shift in zip(self.convs, self.norms, self.scale_shifts):  # noqa: B905 - TorchScript
            scale, shift = to_scale_shift(time)[:, None, None, :].chunk(2, dim=-1)
            h = F.relu(norm(conv(h)) * (1 + scale) + shift)  # (N, U, U, hidden_dim)
        mask = self.heads_first(torch.sigmoid(self.head(h).float()))  # (N, heads, U, U)
        return mask.index_select(2, grid.lookup).index_select(3, grid.lookup)  # (N, heads, T, T)
