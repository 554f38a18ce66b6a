"""The Diffusion Model of MedSegDiff-V2: a U-Net over the noisy mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Edges, ResBlock, convolution, normalization, upsampling
from .spectrum_space_transformer import SpectrumSpaceTransformer


class DenoisingUNet(nn.Module):
    """Residual U-Net with timestep scale and shift, U-SA gates in its encoder and an SS-Former at its bottom.

    Args:
        spatial_dims: 2 or 3.
        out_channels: classes, background included; channels of the noisy mask and of the output.
        channels: channels of each level, finest first.
        time_dim: length of the timestep embedding.
        transformer: the SS-Former, or None for a plain U-Net.
        num_res_blocks: residual blocks of each level, on the way down and on the way up.
        dropout: see `ResBlock`.
        strides: see `ConditionUNet`.
        kernel_sizes: likewise.

    Shapes:
        mask: (N, out_channels, S), S divisible by the product of the strides, 2^(levels - 1); time: (N or 1, time_dim);
        stem: (N or 1, channels[0], S) to add to the mask's first features, or None;
        gates: [(N or 1, channels[l], S / 2^l)] of the finest levels; tokens, key, value: for the SS-Former, or None
        -> (N, out_channels, S)
    """

    def __init__(
        self,
        spatial_dims: int,
        out_channels: int,
        channels: Sequence[int],
        time_dim: int,
        transformer: SpectrumSpaceTransformer | None,
        num_res_blocks: int = 1,
        dropout: float = 0.0,
        strides: Sequence[Edges] | None = None,
        kernel_sizes: Sequence[Edges] | None = None,
    ) -> None:
        super().__init__()
        steps: list[Edges] = [1, *(strides or [2] * (len(channels) - 1))]
        kernels = kernel_sizes or [3] * len(channels)

        def block(wide_in: int, wide_out: int, level: int) -> nn.Module:
            return ResBlock(spatial_dims, wide_in, wide_out, time_dim, dropout, kernels[level])

        self.stem = convolution(spatial_dims, out_channels, channels[0], kernels[0])
        self.downs = nn.ModuleList([nn.Identity()])
        self.encoder = nn.ModuleList()
        for level, width in enumerate(channels):
            if level > 0:
                before = channels[level - 1]
                self.downs.append(convolution(spatial_dims, before, width, kernels[level], steps[level]))
            self.encoder.append(nn.ModuleList(block(width, width, level) for _ in range(num_res_blocks)))
        self.transformer = transformer
        self.ups = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in range(len(channels) - 2, -1, -1):
            width = channels[level]
            self.ups.append(upsampling(spatial_dims, channels[level + 1], width, steps[level + 1]))
            widths = [2 * width] + [width] * (num_res_blocks - 1)
            self.decoder.append(nn.ModuleList(block(w, width, level) for w in widths))
        self.norm = normalization(channels[0])
        self.head = convolution(spatial_dims, channels[0], out_channels, 1)

    def forward(
        self,
        mask: Tensor,
        time: Tensor,
        stem: Tensor | None,
        gates: list[Tensor],
        tokens: Tensor | None,
        key: Tensor | None,
        value: Tensor | None,
    ) -> Tensor:
        """See the class."""
        h = self.stem(mask)  # (N, K, S) -> (N, C_finest, S)
        if stem is not None:
            h = h + stem  # of the image, (N, C_finest, S)
        skips: list[Tensor] = []
        for down, blocks in zip(self.downs, self.encoder):  # noqa: B905 - TorchScript knows no `strict`
            h = down(h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, time)  # (N, C_level, S_level)
            if len(skips) < len(gates):
                h = h * gates[len(skips)]  # U-SA: f_d' = sigmoid(.) . f_d + f_d
            skips.append(h)
        h = skips.pop()
        if self.transformer is not None:
            assert tokens is not None and key is not None and value is not None  # narrows the types for TorchScript
            h = self.transformer(h, tokens, key, value, time)
        for up, blocks in zip(self.ups, self.decoder):  # noqa: B905
            h = torch.cat([up(h), skips.pop()], dim=1)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, time)
        return self.head(F.silu(self.norm(h)))
