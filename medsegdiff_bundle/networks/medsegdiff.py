"""MedSegDiff-V2: the whole network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import List, NamedTuple, Optional  # noqa: UP035 - TorchScript reads the tuple's annotations at run time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import check_kernels, check_parts, check_sizes
from .condition_unet import ConditionUNet
from .denoising_unet import DenoisingUNet
from .layers import Edges, convolution, crop_like, pad_to_multiple, per_axis
from .spectrum_space_transformer import SpectrumSpaceTransformer
from .timestep_embedding import TimestepEmbedding
from .uncertain_spatial_attention import UncertainSpatialAttention


class ConditionFeatures(NamedTuple):
    """What the denoiser knows of an image; it depends on neither timestep nor noisy mask.

    P are the padded spatial sizes. The batch axis is N, or 1 to serve any number of noisy masks of one image.
    """

    logits: Tensor  # (N, K, S) anchor: the Condition Model's segmentation
    stem: Optional[Tensor]  # (N, C, P / denoiser_stride) image's part of the denoiser's first convolution  # noqa: UP045
    gates: List[Tensor]  # [(N, C_l, P / 2^l)] U-SA gates of the denoiser's levels, finest first  # noqa: UP006
    tokens: Optional[Tensor]  # (N, T, C) c0 as tokens  # noqa: UP045
    key: Optional[Tensor]  # first SS-Former block's key, see `SpectralCrossAttention.project`  # noqa: UP045
    value: Optional[Tensor]  # first SS-Former block's value, likewise  # noqa: UP045


class MedSegDiff(nn.Module):
    """MedSegDiff-V2 (Wu et al., AAAI 2024, arXiv 2301.11798): Condition Model, U-SA, SS-Former with NBP, denoiser.

    Any spatial size is taken: the border is replicated up to a multiple of the strides' product, so that the deepest
    level keeps at least two voxels per axis, and cropped from the result. The paper's open choices are settled in
    `docs/method.md`; those that matter are arguments here. With `num_anchor_levels`, `num_transformer_blocks` 0 and
    `image_concat` True a plain conditional U-Net remains.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes K, background included; at least 2. With `multi_label` the regions, at least 1.
        channels: channels of each level of the Condition Model, finest first; at least two levels.
        denoiser_channels: the same for the denoiser; None takes `channels`. Fewer levels are the deepest: with one less
            the denoiser works on half the voxels along each axis (see `strides`). It then sees means of the noisy mask,
            and what it predicts is enlarged linearly, which suits a correction of the anchor (`anchor_residual`), whose
            detail stays. The finest level is most of a denoiser's work. Only for `prediction_type="sample"`.
        num_res_blocks: blocks per level and direction.
        residual_condition: whether the Condition Model's blocks are residual, as the denoiser's always are; or those of
            MONAI's `DynUNet`, which learn faster from pictures.
        prediction_type: what the denoiser predicts: "epsilon", "v_prediction", or "sample". The last ends in a
            softmax over the classes, with `multi_label` in a sigmoid, so that the predicted mask 2 p - 1 lies in
            [-1, 1].
        num_anchor_levels: the denoiser's finest levels that a U-SA gate couples; 0 switches U-SA off, None takes the
            two of the paper's figure (the one that there is, for two levels).
        gaussian_size: width of U-SA's Gaussian in voxels; odd.
        num_transformer_blocks: N of the SS-Former; 0 switches it off.
        num_filter_blocks: R of the NBP filter; 0 switches it off.
        num_heads: attention heads of the SS-Former.
        embed_dim: token length of the SS-Former; None takes the denoiser's deepest channels.
        token_size: edge of a token in voxels of the deepest level.
        image_concat: the denoiser's first convolution also sees the image, beside the noisy mask (as in V1's code).
        anchor_residual: the denoiser corrects the anchor's logits instead of starting from nothing: they are added to
            its output, and with `image_concat` it sees their probabilities beside the image. Neither way lets a
            gradient into them. Only for `prediction_type="sample"`.
        stop_gradient: no gradient of the denoiser's loss reaches the Condition Model.
        dropout: probability of dropping a value inside a residual block.
        strides: from each level to the next, of both U-Nets: one less than levels, each 1 or 2, or a list of one for
            each axis, for voxels that are longer along some; None takes 2.
        kernel_sizes: of the convolutions of each level, odd, likewise; None takes 3.
        multi_label: whether the channels are regions that may overlap, each with a probability of its own, and not
            classes of which each voxel has one. Of the mask of a region x_0 is 1 inside and -1 outside.

    Raises:
        ValueError: an argument is out of range, or nothing would tell the denoiser about the image.

    Examples:
        >>> network = MedSegDiff(spatial_dims=2, in_channels=3, out_channels=2, channels=[8, 16]).eval()
        >>> image, noise = torch.rand(1, 3, 40, 56), torch.randn(1, 2, 40, 56)
        >>> network(image).shape  # the anchor's logits
        torch.Size([1, 2, 40, 56])
        >>> network(image, noise, torch.tensor([999])).shape
        torch.Size([1, 2, 40, 56])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        denoiser_channels: Sequence[int] | None = None,
        num_res_blocks: int = 1,
        residual_condition: bool = True,
        prediction_type: str = "sample",
        num_anchor_levels: int | None = None,
        gaussian_size: int = 5,
        num_transformer_blocks: int = 2,
        num_filter_blocks: int = 2,
        num_heads: int = 4,
        embed_dim: int | None = None,
        token_size: int = 1,
        image_concat: bool = True,
        anchor_residual: bool = False,
        stop_gradient: bool = False,
        dropout: float = 0.0,
        strides: Sequence[Edges] | None = None,
        kernel_sizes: Sequence[Edges] | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        denoiser_channels = tuple(channels if denoiser_channels is None else denoiser_channels)
        check_sizes(spatial_dims, in_channels, out_channels, channels, denoiser_channels, num_res_blocks, multi_label)
        levels = len(denoiser_channels)
        denoiser_level = len(channels) - levels  # of the Condition Model, at which the denoiser begins
        if num_anchor_levels is None:
            num_anchor_levels = min(2, levels - 1)
        check_parts(
            levels,
            prediction_type,
            num_anchor_levels,
            num_transformer_blocks,
            num_filter_blocks,
            image_concat,
            anchor_residual,
            denoiser_level,
        )
        steps = per_axis("strides", strides, 2, len(channels) - 1, spatial_dims)
        kernels = per_axis("kernel_sizes", kernel_sizes, 3, len(channels), spatial_dims)
        check_kernels(kernels, kernel_sizes)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.prediction_type = prediction_type
        self.anchor_residual = anchor_residual
        self.multi_label = multi_label
        self.stop_gradient = stop_gradient
        self.size_factors = [math.prod(step[axis] for step in steps) for axis in range(spatial_dims)]
        self.size_factor = max(self.size_factors)  # a multiple of all of them, where they are powers of 2
        self.denoiser_level = denoiser_level
        self.denoiser_stride = [
            math.prod(step[axis] for step in steps[:denoiser_level]) for axis in range(spatial_dims)
        ]
        time_dim = 4 * denoiser_channels[0]

        # The order of the parts is that in which a seed gives them their first weights.
        self.condition_model = ConditionUNet(
            spatial_dims,
            in_channels,
            out_channels,
            channels,
            num_res_blocks,
            dropout,
            residual=residual_condition,
            strides=steps,
            kernel_sizes=kernels,
        )
        self.anchor_gates = nn.ModuleList(
            UncertainSpatialAttention(
                spatial_dims, channels[denoiser_level + level], denoiser_channels[level], gaussian_size
            )
            for level in range(num_anchor_levels)
        )
        transformer = None
        if num_transformer_blocks > 0:
            transformer = SpectrumSpaceTransformer(
                spatial_dims,
                condition_channels=channels[-1],
                denoiser_channels=denoiser_channels[-1],
                embed_dim=denoiser_channels[-1] if embed_dim is None else embed_dim,
                num_heads=num_heads,
                time_dim=time_dim,
                num_blocks=num_transformer_blocks,
                num_filter_blocks=num_filter_blocks,
                token_size=token_size,
            )
        # A convolution of [mask, image, anchor] is the sum of several: all but the mask's is computed once per image.
        self.image_stem = None
        if image_concat:
            stem_channels = in_channels + (out_channels if anchor_residual else 0)
            self.image_stem = convolution(spatial_dims, stem_channels, denoiser_channels[0], kernels[denoiser_level])
        self.timestep_embedding = TimestepEmbedding(time_dim)
        self.denoiser = DenoisingUNet(
            spatial_dims,
            out_channels,
            denoiser_channels,
            time_dim,
            transformer,
            num_res_blocks,
            dropout,
            strides=steps[denoiser_level:],
            kernel_sizes=kernels[denoiser_level:],
        )

    @torch.jit.export
    def encode(self, image: Tensor) -> ConditionFeatures:
        """Run the Condition Model, and whatever else of the denoiser depends on the image alone.

        Args:
            image: (N, in_channels, S).
        """
        padded = self._pad(image)
        logits, levels, embedding = self.condition_model(padded)
        if self.stop_gradient:
            levels = [level.detach() for level in levels]
            embedding = embedding.detach()
        gates: list[Tensor] = []
        for level, gate in enumerate(self.anchor_gates):
            gates.append(gate(levels[self.denoiser_level + level]))
        stem: Tensor | None = None
        if self.image_stem is not None:
            if self.anchor_residual:
                padded = torch.cat([padded, self._probabilities(logits.detach().float()).to(padded.dtype)], dim=1)
            stem = self.image_stem(self._pool(padded))
        tokens: Tensor | None = None
        key: Tensor | None = None
        value: Tensor | None = None
        if self.denoiser.transformer is not None:
            tokens, key, value = self.denoiser.transformer.prepare(embedding)
        return ConditionFeatures(crop_like(logits, list(image.shape[2:])), stem, gates, tokens, key, value)

    @torch.jit.export
    def denoise_logits(self, mask: Tensor, timesteps: Tensor, features: ConditionFeatures) -> Tensor:
        """The denoiser's output before its softmax or sigmoid, for losses; that of `denoise` unless it predicts masks.

        Arguments and shapes are those of `denoise`.
        """
        output = self.denoiser(
            self._pool(self._pad(mask)),
            self.timestep_embedding(timesteps),
            features.stem,
            features.gates,
            features.tokens,
            features.key,
            features.value,
        )
        output = crop_like(self._enlarge(output), list(mask.shape[2:]))
        if self.anchor_residual:
            output = output + features.logits.detach()
        return output

    @torch.jit.export
    def denoise(self, mask: Tensor, timesteps: Tensor, features: ConditionFeatures) -> Tensor:
        """Predict noise, mask or velocity (`prediction_type`) from a noisy mask.

        Args:
            mask: noisy mask x_t, (N, out_channels, S).
            timesteps: t in [0, T), integer or float, scalar or (N,).
            features: of the same image(s) as `mask`, from `encode`; its batch is N, or 1 for N masks of one image.

        Returns:
            (N, out_channels, S), float32; for "sample" in [-1, 1].
        """
        output = self.denoise_logits(mask, timesteps, features).float()
        if self.prediction_type == "sample":
            output = 2 * self._probabilities(output) - 1
        return output

    def forward(self, image: Tensor, mask: Tensor | None = None, timesteps: Tensor | None = None) -> Tensor:
        """The anchor's logits of an image, or, with a noisy mask and its timesteps, the denoiser's prediction.

        Args:
            image: (N, in_channels, S).
            mask: noisy mask x_t, (N, out_channels, S), or None.
            timesteps: t in [0, T), integer or float, scalar or (N,); needed with a mask.

        Returns:
            (N, out_channels, S).
        """
        if mask is None:
            return crop_like(self.condition_model(self._pad(image))[0], list(image.shape[2:]))
        if timesteps is None:
            raise ValueError("A noisy mask needs its timesteps.")
        return self.denoise(mask, timesteps, self.encode(image))

    def _probabilities(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=1)

    def _pool(self, x: Tensor) -> Tensor:
        """Means over the voxels that are one of the denoiser's: (N, C, P) -> (N, C, P / denoiser_stride)."""
        if self.denoiser_level == 0:
            return x
        if x.ndim == 4:
            return F.avg_pool2d(x, self.denoiser_stride)
        return F.avg_pool3d(x, self.denoiser_stride)

    def _enlarge(self, x: Tensor) -> Tensor:
        """The way back from `_pool`, linearly; float32."""
        if self.denoiser_level == 0:
            return x
        size = [edge * factor for edge, factor in zip(x.shape[2:], self.denoiser_stride)]  # noqa: B905 - TorchScript
        return F.interpolate(x.float(), size, mode="bilinear" if x.ndim == 4 else "trilinear", align_corners=False)

    def _pad(self, x: Tensor) -> Tensor:
        return pad_to_multiple(x, self.size_factors, [2 * factor for factor in self.size_factors])
