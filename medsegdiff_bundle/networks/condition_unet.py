"""The Condition Model of MedSegDiff-V2: an ordinary segmentation U-Net that sees only the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import UnetBasicBlock
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from .layers import Edges, ResBlock, convolution, normalization, upsampling


class ConditionUNet(nn.Module):
    """U-Net whose segmentation is the anchor.

    Its blocks are residual, as those of the denoiser, or plain, those of MONAI's `DynUNet` (nnU-Net): two times
    convolution, instance normalisation and leaky ReLU, with its initialisation.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, background included.
        channels: channels of each level, finest first.
        num_res_blocks: residual blocks of each level, on the way down and on the way up.
        dropout: probability of dropping a value within a block.
        residual: whether the blocks are residual.
        strides: from each level to the next, levels - 1 numbers, or lists of one for each axis; None takes 2.
        kernel_sizes: of the convolutions of each level, likewise, odd; None takes 3.

    Shapes:
        image: (N, in_channels, S), S divisible by the product of the strides, 2^(levels - 1)
        -> logits (N, out_channels, S), decoder features [(N, channels[l], S / 2^l)] finest first (without the deepest
        level), embedding (N, channels[-1], S / 2^(levels - 1))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        num_res_blocks: int = 1,
        dropout: float = 0.0,
        residual: bool = True,
        strides: Sequence[Edges] | None = None,
        kernel_sizes: Sequence[Edges] | None = None,
    ) -> None:
        super().__init__()
        self.residual = residual
        steps: list[Edges] = [1, *(strides or [2] * (len(channels) - 1))]
        kernels = kernel_sizes or [3] * len(channels)

        def block(wide_in: int, wide_out: int, kernel: Edges, stride: Edges = 1) -> nn.Module:
            if residual:
                return ResBlock(spatial_dims, wide_in, wide_out, dropout=dropout, kernel_size=kernel)
            norm = ("instance", {"affine": True})
            return UnetBasicBlock(spatial_dims, wide_in, wide_out, kernel, stride, norm, dropout=dropout or None)

        self.downs = nn.ModuleList()
        self.encoder = nn.ModuleList()
        for level, (before, width) in enumerate(zip([in_channels, *channels[:-1]], channels, strict=True)):
            stride, kernel = steps[level], kernels[level]
            if residual:
                self.downs.append(convolution(spatial_dims, before, width, kernel, stride))
                first = block(width, width, kernel)
            else:
                self.downs.append(nn.Identity())  # the block's first convolution has the stride
                first = block(before, width, kernel, stride)
            more = (block(width, width, kernel) for _ in range(num_res_blocks - 1))
            self.encoder.append(nn.Sequential(first, *more))
        self.ups = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in range(len(channels) - 2, -1, -1):
            width = channels[level]
            self.ups.append(upsampling(spatial_dims, channels[level + 1], width, steps[level + 1]))
            widths = [2 * width] + [width] * (num_res_blocks - 1)
            self.decoder.append(nn.Sequential(*(block(w, width, kernels[level]) for w in widths)))
        self.norm = normalization(channels[0]) if residual else nn.Identity()
        self.head = convolution(spatial_dims, channels[0], out_channels, 1)
        if not residual:
            self.apply(DynUNet.initialize_weights)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """See the class."""
        h = image
        skips: list[Tensor] = []
        for down, blocks in zip(self.downs, self.encoder):  # noqa: B905 - TorchScript knows no `strict`
            h = blocks(down(h))  # (N, C_level, S_level)
            skips.append(h)
        embedding = skips.pop()  # (N, C_deepest, S_deepest)
        features: list[Tensor] = []
        for up, blocks in zip(self.ups, self.decoder):  # noqa: B905
            h = blocks(torch.cat([up(h), skips.pop()], dim=1))  # (N, 2 C_level, S_level) -> (N, C_level, S_level)
            features.insert(0, h)
        if self.residual:
            h = F.silu(self.norm(h))  # (N, C_finest, S)
        return self.head(h), features, embedding  # logits (N, K, S)
