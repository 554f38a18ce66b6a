"""Building blocks that both U-Nets share. S stands for the spatial axes, (H, W) or (D, H, W)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn


def convolution(spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Module:
    """Convolution that keeps the size (odd kernel, stride 1) or halves an even one (kernel 3, stride 2)."""
    layer = Conv[Conv.CONV, spatial_dims]
    return layer(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)


def upsampling(spatial_dims: int, in_channels: int, out_channels: int, factor: int) -> nn.Module:
    """Transposed convolution that multiplies every spatial axis by `factor`, each input voxel filling its own cell."""
    return Conv[Conv.CONVTRANS, spatial_dims](in_channels, out_channels, factor, stride=factor)


def normalization(channels: int) -> nn.GroupNorm:
    """Group normalisation with up to 8 groups, for any number of channels."""
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def unsqueeze_right(x: Tensor, dims: int) -> Tensor:
    """Append `dims` axes of size one: (N, C) -> (N, C, 1, ...). MONAI's function of this name cannot be scripted."""
    for _ in range(dims):
        x = x.unsqueeze(-1)
    return x


def pad_to_multiple(x: Tensor, factor: int, minimum: int) -> Tensor:
    """Replicate the border at the end of every spatial axis, so that sizes are multiples of `factor`.

    Args:
        x: (N, C, S).
        factor: what each spatial size is divisible by afterwards.
        minimum: least spatial size afterwards, itself a multiple of `factor`.
    """
    pads: list[int] = []
    for axis in range(x.ndim - 1, 1, -1):
        size = x.shape[axis]
        target = max(minimum, (size + factor - 1) // factor * factor)
        pads.append(0)
        pads.append(target - size)
    if max(pads) == 0:
        return x
    return F.pad(x, pads, mode="replicate")


def crop_like(x: Tensor, size: list[int]) -> Tensor:
    """Undo `pad_to_multiple`: keep the first `size[i]` voxels of each spatial axis i."""
    for axis in range(len(size)):
        x = x.narrow(axis + 2, 0, size[axis])
    return x


class ResBlock(nn.Module):
    """Two convolutions with pre-activation and a skip; the second norm is scaled and shifted by the timestep.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        time_dim: length of the timestep embedding; 0 for a block that knows no time.
        dropout: probability of dropping a value before the second convolution.

    Shapes:
        x: (N, in_channels, S); time: (N or 1, time_dim) -> (N, out_channels, S)
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, time_dim: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.norm1 = normalization(in_channels)
        self.conv1 = convolution(spatial_dims, in_channels, out_channels, 3)
        self.scale_shift = nn.Linear(time_dim, 2 * out_channels) if time_dim > 0 else None
        self.norm2 = normalization(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(spatial_dims, out_channels, out_channels, 3)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else convolution(spatial_dims, in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """See the class."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.scale_shift is None:
            h = self.norm2(h)
        else:
            assert time is not None  # narrows the type for TorchScript
            scale, shift = self.scale_shift(F.silu(time)).float().chunk(2, dim=1)
            scale = 1 + scale
            if len(time) == 1:
                # One timestep for all, as in sampling: the norm's own weights take it in, and a pass over h is saved.
                weight = self.norm2.weight * scale[0]
                bias = self.norm2.bias * scale[0] + shift[0]
                h = F.group_norm(h, self.norm2.num_groups, weight, bias, self.norm2.eps)
            else:
                h = self.norm2(h)
                scale = unsqueeze_right(scale.to(h.dtype), self.spatial_dims)
                h = torch.addcmul(unsqueeze_right(shift.to(h.dtype), self.spatial_dims), h, scale)
        return self.conv2(self.dropout(F.silu(h))) + self.skip(x)
