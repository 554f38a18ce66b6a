"""SS-Former: the semantic condition of MedSegDiff-V2."""

from __future__ import annotations

import torch.nn.functional as F
from einops.layers.torch import Rearrange  # the functions of einops cannot be scripted
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from .hartley_transform import TokenGrid, hartley_transform, token_grid
from .layers import crop_like, pad_to_multiple, upsampling
from .neural_band_pass_filter import NeuralBandPassFilter


class SpectralCrossAttention(nn.Module):
    """One of the two mirrored modules of an SS-Former block: cross-attention in the frequency domain.

        M   = (F(context) W_k) (F(query) W_q)^T
        M'  = NBP(M, t)
        out = MLP(scale_shift_t(F^-1(M') (context w_v)))

    W_k and W_q are real, so they commute with the Fourier transform F over the token grid. M is then the spectrum of
    the affinity map, over the frequencies of query and context, and F^-1 runs over both. There is no softmax, as in the
    equation. With an all-pass filter F and F^-1 cancel, which is also how the module runs without a filter. NBP knows
    only absolute frequencies, so F may be the Hartley transform: see `hartley_transform.py`.

    Args:
        spatial_dims: axes of the token grid.
        embed_dim: length C of a token.
        num_heads: attention heads; divides `embed_dim`.
        time_dim: length of the timestep embedding.
        num_filter_blocks: R of the NBP filter; 0 switches the filter off.

    Shapes:
        query: (N, T, C), T tokens on the grid; key, value: see `project`; time: (N or 1, time_dim)
        -> (N, T, C)
    """

    def __init__(
        self, spatial_dims: int, embed_dim: int, num_heads: int, time_dim: int, num_filter_blocks: int
    ) -> None:
        super().__init__()
        self.split_heads = Rearrange("n t (heads c) -> n heads t c", heads=num_heads)
        self.join_heads = Rearrange("n heads t c -> n t (heads c)")
        self.norm_query = nn.LayerNorm(embed_dim)
        self.norm_context = nn.LayerNorm(embed_dim)
        self.to_query = nn.Linear(embed_dim, embed_dim, bias=False)
        self.to_key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.to_value = nn.Linear(embed_dim, embed_dim, bias=False)
        self.band_pass_filter = None
        if num_filter_blocks > 0:
            self.band_pass_filter = NeuralBandPassFilter(spatial_dims, num_heads, time_dim, num_filter_blocks)
        self.norm_out = nn.LayerNorm(embed_dim, elementwise_affine=False)
        self.scale_shift = nn.Linear(time_dim, 2 * embed_dim)
        self.mlp = nn.Sequential(nn.Linear(embed_dim, 2 * embed_dim), nn.GELU(), nn.Linear(2 * embed_dim, embed_dim))

    def project(self, context: Tensor, grid: TokenGrid) -> tuple[Tensor, Tensor]:
        """Key and value of a context, which depend on neither timestep nor query.

        Args:
            context: (N, T, C).
            grid: of its tokens.

        Returns:
            key and value, each (N, heads, T, C / heads): of the spectrum over the grid, or without a filter of the
            tokens.
        """
        context = self._spectrum(self.norm_context(context), grid)
        return self.split_heads(self.to_key(context)), self.split_heads(self.to_value(context))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, time: Tensor, grid: TokenGrid) -> Tensor:
        """F^-1(M') (context w_v) of the class's equation.

        F^-1 runs over the frequencies of the query and of the context. The second is linear and stands next to the
        product with the values, so it is applied to these instead: a transform of T tokens, not of T x T affinities.

        Args:
            query: (N, heads, T, C / heads), its spectrum as `project` gives that of the key.
            key: as `project` returns it.
            value: as `project` returns it.
            time: (N or 1, time_dim).
            grid: of the tokens.

        Returns:
            (N, T, C).
        """
        query = query * (value.shape[2] * value.shape[3]) ** -0.5
        if self.band_pass_filter is None:
            return self.join_heads(query @ (key.transpose(-1, -2) @ value))
        spectrum = query @ key.transpose(-1, -2)  # M (N, heads, T, T)
        mask = self.band_pass_filter(time, grid)
        attended = (spectrum * mask.to(spectrum.dtype)) @ value
        return self._spectrum(self.join_heads(attended), grid)

    def _spectrum(self, tokens: Tensor, grid: TokenGrid) -> Tensor:
        """F, or F^-1, which is the same: (N, T, C). Without a filter they would cancel and are left out."""
        return tokens if self.band_pass_filter is None else hartley_transform(tokens, grid)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, time: Tensor, grid: TokenGrid) -> Tensor:
        """See the class."""
        query = self.split_heads(self.to_query(self._spectrum(self.norm_query(query), grid)))
        attended = self.attend(query, key, value, time, grid)  # (N, T, C)
        scale, shift = self.scale_shift(F.silu(time)).unsqueeze(1).chunk(2, dim=-1)  # (N, 1, C) each
        return self.mlp(self.norm_out(attended) * (1 + scale) + shift)


class SpectrumSpaceTransformer(nn.Module):
    """SS-Former: N blocks of two mirrored cross-attentions between condition and denoiser (MedSegDiff-V2).

    Module 1 asks with the denoiser's embedding e and answers from the condition c; module 2 asks with module 1's
    result and answers from e. Each is a residual of the condition's stream, and the last c is added to e, which goes
    to the denoiser's decoder. Both embeddings are cut into tokens as in a ViT, by a convolution of stride `token_size`.

    Args:
        spatial_dims: 2 or 3.
        condition_channels: channels of the condition model's deepest embedding.
        denoiser_channels: channels of the denoiser's deepest embedding.
        embed_dim: length C of a token.
        num_heads: attention heads; divides `embed_dim`.
        time_dim: length of the timestep embedding.
        num_blocks: N, at least 1.
        num_filter_blocks: R of the NBP filter; 0 switches the filter off.
        token_size: edge of a token in voxels of the deepest level.

    Shapes:
        embedding: (N, denoiser_channels, S); tokens, key, value: from `prepare`, batch N or 1; time: (N or 1, time_dim)
        -> (N, denoiser_channels, S)
    """

    def __init__(
        self,
        spatial_dims: int,
        condition_channels: int,
        denoiser_channels: int,
        embed_dim: int,
        num_heads: int,
        time_dim: int,
        num_blocks: int = 2,
        num_filter_blocks: int = 2,
        token_size: int = 1,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads != 0:
            raise ValueError(f"num_heads must divide the positive token length {embed_dim}, got {num_heads}.")
        if token_size < 1:
            raise ValueError(f"token_size must be at least 1, got {token_size}.")
        self.token_size = token_size
        self.to_tokens = Rearrange("n c ... -> n (...) c")
        conv = Conv[Conv.CONV, spatial_dims]
        self.embed_condition = conv(condition_channels, embed_dim, token_size, stride=token_size)
        self.embed_denoiser = conv(denoiser_channels, embed_dim, token_size, stride=token_size)
        self.condition_from_denoiser = nn.ModuleList(
            SpectralCrossAttention(spatial_dims, embed_dim, num_heads, time_dim, num_filter_blocks)
            for _ in range(num_blocks)
        )
        self.denoiser_from_condition = nn.ModuleList(
            SpectralCrossAttention(spatial_dims, embed_dim, num_heads, time_dim, num_filter_blocks)
            for _ in range(num_blocks)
        )
        self.unembed = upsampling(spatial_dims, embed_dim, denoiser_channels, token_size)

    def prepare(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What depends on the image alone.

        Args:
            condition: (N, condition_channels, S), the condition model's deepest embedding.

        Returns:
            tokens c0 (N, T, C), and key and value of the first block's module 1, see `SpectralCrossAttention.project`.
        """
        c_grid = self.embed_condition(self._pad(condition))
        tokens = self.to_tokens(c_grid)
        grid = token_grid(list(c_grid.shape[2:]), c_grid.device)
        key, value = self.condition_from_denoiser[0].project(tokens, grid)  # type: ignore[operator]
        return tokens, key, value

    def forward(self, embedding: Tensor, tokens: Tensor, key: Tensor, value: Tensor, time: Tensor) -> Tensor:
        """See the class."""
        e_grid = self.embed_denoiser(self._pad(embedding))  # (N, C, S_tokens)
        sizes = list(e_grid.shape[2:])
        grid = token_grid(sizes, e_grid.device)
        e = self.to_tokens(e_grid)  # (N, T, C)
        c = tokens  # (N, T, C)
        first = True
        for module1, module2 in zip(self.condition_from_denoiser, self.denoiser_from_condition):  # noqa: B905
            if not first:
                key, value = module1.project(c, grid)  # type: ignore[operator]
            first = False
            c = c + module1(e, key, value, time, grid)  # (N, T, C)
            e_key, e_value = module2.project(e, grid)  # type: ignore[operator]
            c = c + module2(c, e_key, e_value, time, grid)
        # No layer of einops: it would have to know the sizes before the image.
        update = self.unembed(c.transpose(1, 2).unflatten(2, sizes))  # (N, C_denoiser, S)
        return embedding + crop_like(update, list(embedding.shape[2:]))

    def _pad(self, x: Tensor) -> Tensor:
        edges = [self.token_size] * (x.ndim - 2)
        return pad_to_multiple(x, edges, edges)
