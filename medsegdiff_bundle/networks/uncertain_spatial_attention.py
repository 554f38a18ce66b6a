"""U-SA: the anchor condition of MedSegDiff-V2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn


class UncertainSpatialAttention(nn.Module):
    """U-SA: softened anchor features gate the denoiser (MedSegDiff-V2, anchor condition).

        f_anc = max(f_c * k_Gauss, f_c),      gate = 1 + sigmoid(conv1x1(f_anc)),      f_d' = gate . f_d

    The Gaussian has one learned mean (an offset in voxels, one number per axis) and one learned variance (voxels
    squared) per channel. It factorises over the axes, so it runs as one short depthwise convolution per axis. The gate
    depends on neither timestep nor noisy mask and is therefore computed once per image. It is one map, but repeated for
    every channel that it gates: with channels-last, a product with a single channel takes eight times as long.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the anchor feature f_c.
        out_channels: channels of the denoiser's feature f_d.
        kernel_size: width of the Gaussian's window in voxels; odd.

    Shapes:
        anchor: (N, in_channels, S) -> gate (N, out_channels, S), in (1, 2)
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int = 5) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}.")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.radius = kernel_size // 2
        self.mean = nn.Parameter(torch.zeros(spatial_dims, in_channels))
        self.log_variance = nn.Parameter(torch.zeros(in_channels))
        self.to_gate = Conv[Conv.CONV, spatial_dims](in_channels, 1, 1)

    def gaussian(self, axis: int) -> Tensor:
        """Window of the Gaussian along one axis, summing to one: (in_channels, kernel_size), float32."""
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32, device=self.mean.device)
        distance = offsets.unsqueeze(0) - self.mean[axis].float().unsqueeze(1)
        return torch.softmax(-0.5 * distance.square() * torch.exp(-self.log_variance.float()).unsqueeze(1), dim=1)

    def soften(self, anchor: Tensor) -> Tensor:
        """f_anc of the equation above: (N, in_channels, S) -> the same shape.

        Beyond the border the values of the border go on: zeros would draw a frame around the image.
        """
        blurred = F.pad(anchor, [self.radius] * (2 * self.spatial_dims), mode="replicate")
        for axis in range(self.spatial_dims):
            shape = [self.in_channels, 1] + [1] * self.spatial_dims
            shape[axis + 2] = 2 * self.radius + 1
            kernel = self.gaussian(axis).reshape(shape).to(blurred.dtype)
            blurred = self._convolve(blurred, kernel, None, self.in_channels)
        return torch.maximum(blurred.to(anchor.dtype), anchor)

    def forward(self, anchor: Tensor) -> Tensor:
        """See the class."""
        weight = self.to_gate.weight.expand([self.out_channels] + [-1] * (self.spatial_dims + 1))
        bias = self.to_gate.bias
        assert bias is not None  # narrows the type for TorchScript
        bias = bias.expand(self.out_channels)
        return 1 + torch.sigmoid(self._convolve(self.soften(anchor), weight, bias, 1))

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        if self.spatial_dims == 2:
            return torch.conv2d(x, weight, bias, groups=groups)
        return torch.conv3d(x, weight, bias, groups=groups)
