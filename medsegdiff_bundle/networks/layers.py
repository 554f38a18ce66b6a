"""Building blocks that both U-Nets share. S stands for the spatial axes, (H, W) or (D, H, W)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

Edges = int | Sequence[int]  # a number for all axes, or one for each


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` that takes a batch of one volume to oneDNN, as PyTorch does with larger batches.

    Of a batch of one in float32 on a CPU PyTorch (2.13.0) counts channels times the first two spatial axes. Where these
    are 20,480 at most it takes an operator of its own, up to four times as slow
    (`findings/torch_conv3d_batch_of_one.sh`). The result is the same but for rounding.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if not torch.jit.is_scripting():
            if is_left_alone(input, weight):
                edges = (self.padding, self.stride, self.dilation)
                return torch.mkldnn_convolution(input, weight, bias, *edges, self.groups)  # type: ignore
        return F.conv3d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def is_left_alone(image: Tensor, weight: Tensor) -> bool:
    """Whether PyTorch may keep a convolution from oneDNN for the size of the image alone.

    Not while it is recorded for another program, which knows the common operator only, and not for kernels of one
    voxel, for which PyTorch's own is the faster.

    Args:
        image: (N, C, D, H, W).
        weight: (C_out, C, d, h, w).
    """
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if recorded or not image.is_cpu or len(image) > 1 or image.ndim != 5 or max(weight.shape[2:]) == 1:
        return False
    plain = image.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def convolution(
    spatial_dims: int, in_channels: int, out_channels: int, kernel_size: Edges, stride: Edges = 1
) -> nn.Module:
    """Convolution that keeps the size (odd kernel, stride 1) or halves an even one (kernel 3 or 1, stride 2)."""
    layer: Any = Conv3d if spatial_dims == 3 else Conv[Conv.CONV, spatial_dims]
    padding = kernel_size // 2 if isinstance(kernel_size, int) else [edge // 2 for edge in kernel_size]
    return layer(in_channels, out_channels, kernel_size, stride=stride, padding=padding)


def upsampling(spatial_dims: int, in_channels: int, out_channels: int, factor: Edges) -> nn.Module:
    """Transposed convolution that multiplies each spatial axis by its factor, each input voxel filling its own cell."""
    return Conv[Conv.CONVTRANS, spatial_dims](in_channels, out_channels, factor, stride=factor)


def normalization(channels: int) -> nn.GroupNorm:
    """Group normalisation with up to 8 groups, for any number of channels."""
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def per_axis(name: str, edges: Sequence[Edges] | None, default: int, levels: int, spatial_dims: int) -> list[list[int]]:
    """An argument with a number, or a number for each axis, for each level, as the latter.

    Args:
        name: of the argument, for the error.
        edges: it; None stands for the default everywhere.
        default: for None.
        levels: how many there must be.
        spatial_dims: axes.

    Raises:
        ValueError: there are more or fewer levels or axes, or a number is not positive.
    """
    given = [default] * levels if edges is None else list(edges)
    listed = [[edge] * spatial_dims if isinstance(edge, int) else list(edge) for edge in given]
    if len(listed) != levels or any(len(each) != spatial_dims or min(each) < 1 for each in listed):
        raise ValueError(
            f"{name} must have {levels} entries, each a positive number or {spatial_dims} of them, got {edges}."
        )
    return listed


def unsqueeze_right(x: Tensor, dims: int) -> Tensor:
    """Append `dims` axes of size one: (N, C) -> (N, C, 1, ...). MONAI's function of this name cannot be scripted."""
    for _ in range(dims):
        x = x.unsqueeze(-1)
    return x


def pad_to_multiple(x: Tensor, factors: list[int], minimum: list[int]) -> Tensor:
    """Replicate the border at the end of every spatial axis, so that sizes are multiples of its factor.

    Args:
        x: (N, C, S).
        factors: what each spatial size is divisible by afterwards.
        minimum: least spatial sizes afterwards, themselves multiples of the factors.
    """
    pads: list[int] = []
    for axis in range(x.ndim - 1, 1, -1):
        size = x.shape[axis]
        factor = factors[axis - 2]
        target = max(minimum[axis - 2], (size + factor - 1) // factor * factor)
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
        kernel_size: of both convolutions, odd; for all axes, or one for each.

    Shapes:
        x: (N, in_channels, S); time: (N or 1, time_dim) -> (N, out_channels, S)
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        time_dim: int = 0,
        dropout: float = 0.0,
        kernel_size: Edges = 3,
    ) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.norm1 = normalization(in_channels)
        self.conv1 = convolution(spatial_dims, in_channels, out_channels, kernel_size)
        self.scale_shift = nn.Linear(time_dim, 2 * out_channels) if time_dim > 0 else None
        self.norm2 = normalization(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(spatial_dims, out_channels, out_channels, kernel_size)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else convolution(spatial_dims, in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """See the class."""
        h = self.conv1(F.silu(self.norm1(x)))  # (N, in, S) -> (N, out, S)
        if self.scale_shift is None:
            h = self.norm2(h)
        else:
            assert time is not None  # narrows the type for TorchScript
            scale, shift = self.scale_shift(F.silu(time)).float().chunk(2, dim=1)  # (N, out) each
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
