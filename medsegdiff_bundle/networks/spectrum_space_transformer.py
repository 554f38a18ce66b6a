"""SS-Former: the semantic condition of MedSegDiff-V2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from .layers import crop_like, pad_to_multiple, upsampling
from .neural_band_pass_filter import NeuralBandPassFilter


class SpectralCrossAttention(nn.Module):
    """One of the two mirrored modules of an SS-Former block: cross-attention in the frequency domain.

        M   = (F(context) W_k) (F(query) W_q)^T
        M'  = NBP(M, t)
        out = MLP(scale_shift_t(F^-1(M') (context w_v)))

    W_k and W_q are real, so they commute with the Fourier transform F over the token grid. M is then the spectrum of
    the affinity map, over the frequencies of both grids, and F^-1 runs over both. There is no softmax, as in the
    equation. With an all-pass filter F and F^-1 cancel, which is also how the module runs without a filter.

    Args:
        spatial_dims: axes of the token grid.
        embed_dim: length C of a token.
        num_heads: attention heads; divides `embed_dim`.
        time_dim: length of the timestep embedding.
        num_filter_blocks: R of the NBP filter; 0 switches the filter off.

    Shapes:
        query: (N, Q, C) with Q tokens on `query_grid`; key, value: see `project`; time: (N or 1, time_dim)
        -> (N, Q, C)
    """

    def __init__(
        self, spatial_dims: int, embed_dim: int, num_heads: int, time_dim: int, num_filter_blocks: int
    ) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.num_heads = num_heads
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

    def split_heads(self, tokens: Tensor) -> Tensor:
        """(N, T, C) -> (N, heads, T, C / heads)."""
        return tokens.unflatten(2, [self.num_heads, -1]).transpose(1, 2)

    def project(self, context: Tensor, grid: list[int]) -> tuple[Tensor, Tensor]:
        """Key and value of a context, which depend on neither timestep nor query.

        Args:
            context: (N, T, C), T tokens on `grid`.
            grid: sizes of the token grid.

        Returns:
            key and value, each (N, heads, T, C / heads): spectra over the grid, complex64; without a filter real.
        """
        context = self.norm_context(context)
        key = self.split_heads(self.to_key(context))
        value = self.split_heads(self.to_value(context))
        if self.band_pass_filter is not None:
            axes = [2 + axis for axis in range(self.spatial_dims)]
            # Half precision has no Fourier transform of odd sizes: the spectrum is float32, also under autocast.
            key = torch.fft.fftn(key.float().unflatten(2, grid), dim=axes, norm="ortho").flatten(2, -2)
            value = torch.fft.ifftn(value.float().unflatten(2, grid), dim=axes, norm="ortho").flatten(2, -2)
        return key, value

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, time: Tensor, query_grid: list[int], key_grid: list[int]
    ) -> Tensor:
        """F^-1(M') (context w_v) of the class's equation.

        F^-1 runs over the frequencies of the query and of the context. The second is linear and stands next to the
        product with the values, so it is applied to these instead: a transform of T tokens, not of T x T affinities.
        The result is real, so half of the query's spectrum gives all of it.

        Args:
            query: (N, heads, Q, C / heads), real.
            key: as `project` returns it.
            value: as `project` returns it.
            time: (N or 1, time_dim).
            query_grid: sizes of the query's grid.
            key_grid: sizes of the context's grid.

        Returns:
            (N, heads, Q, C / heads), real.
        """
        query = query * (value.shape[2] * value.shape[3]) ** -0.5
        if self.band_pass_filter is None:
            return query @ (key.transpose(-1, -2) @ value)
        axes = [2 + axis for axis in range(self.spatial_dims)]
        query = torch.fft.rfftn(query.float().unflatten(2, query_grid), dim=axes, norm="ortho")
        half_grid = list(query.shape[2:-1])
        # TorchScript differentiates complex matrix products and complex times real wrongly, but these two rightly.
        spectrum = torch.einsum("nhqc,nhkc->nhqk", query.flatten(2, -2), key)  # M (N, heads, half Q, K), complex
        mask = self.band_pass_filter(time, query_grid, key_grid)
        spectrum = torch.view_as_complex(torch.view_as_real(spectrum) * mask.unsqueeze(-1))
        attended = torch.einsum("nhqk,nhkc->nhqc", spectrum, value).unflatten(2, half_grid)
        return torch.fft.irfftn(attended, s=query_grid, dim=axes, norm="ortho").flatten(2, -2)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, time: Tensor, query_grid: list[int], key_grid: list[int]
    ) -> Tensor:
        """See the class."""
        query = self.split_heads(self.to_query(self.norm_query(query)))  # (N, heads, Q, C / heads)
        attended = self.attend(query, key, value, time, query_grid, key_grid).transpose(1, 2).flatten(2)  # (N, Q, C)
        scale, shift = self.scale_shift(F.silu(time)).unsqueeze(1).chunk(2, dim=-1)
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
        grid = self.embed_condition(pad_to_multiple(condition, self.token_size, self.token_size))
        tokens = grid.flatten(2).transpose(1, 2)
        key, value = self.condition_from_denoiser[0].project(tokens, list(grid.shape[2:]))  # type: ignore[operator]
        return tokens, key, value

    def forward(self, embedding: Tensor, tokens: Tensor, key: Tensor, value: Tensor, time: Tensor) -> Tensor:
        """See the class."""
        e_grid = self.embed_denoiser(pad_to_multiple(embedding, self.token_size, self.token_size))
        grid = list(e_grid.shape[2:])
        e = e_grid.flatten(2).transpose(1, 2)  # (N, T, C)
        c = tokens
        first = True
        for module1, module2 in zip(self.condition_from_denoiser, self.denoiser_from_condition):  # noqa: B905
            if not first:
                key, value = module1.project(c, grid)  # type: ignore[operator]
            first = False
            c = c + module1(e, key, value, time, grid, grid)
            e_key, e_value = module2.project(e, grid)  # type: ignore[operator]
            c = c + module2(c, e_key, e_value, time, grid, grid)
        update = self.unembed(c.transpose(1, 2).unflatten(2, grid))
        return embedding + crop_like(update, list(embedding.shape[2:]))
