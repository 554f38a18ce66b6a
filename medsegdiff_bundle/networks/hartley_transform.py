"""The Fourier transform of real numbers, in real numbers.

R. V. L. Hartley, "A more symmetrical Fourier analysis applied to transmission problems", Proceedings of the IRE 30(3),
1942. Frequencies f and -f together have the same two basis functions in both transforms, the cosine and the sine of f,
so a filter that treats f and -f alike does the same in either. This one needs half the operations and no complex
numbers, which neither half precision nor ONNX has.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple  # noqa: UP035 - TorchScript needs List

import torch
from torch import Tensor


class TokenGrid(NamedTuple):
    """What the SS-Former knows of the spectrum over a grid of tokens, from `token_grid`.

    Only absolute frequencies count: a filter that is even in every frequency keeps a real map real. So most entries of
    a spectrum share their coordinates with others, and a filter need be computed for the distinct ones only.
    """

    basis: List[Tensor]  # noqa: UP006 - [(size, size)] of each axis, symmetric, orthogonal; row k: frequency min(k, size - k)
    coordinates: Tensor  # (U, axes) distinct absolute frequencies, 0 (constant) to 1 (Nyquist)
    lookup: Tensor  # (T,) for each entry of the spectrum, in the order of the tokens, the place of its coordinates


def token_grid(sizes: list[int], device: torch.device) -> TokenGrid:
    """Matrices of the transform, cas(2 pi k n / size) / sqrt(size) with cas = cos + sin, and frequencies of its result.

    Args:
        sizes: of the token grid, last axis fastest.
        device: where to put the result.

    Returns:
        float32 matrices and coordinates, see `TokenGrid`; the order of frequencies is also that of `torch.fft.fftn`.
    """
    basis: list[Tensor] = []
    axes: list[Tensor] = []
    lookup = torch.zeros(1, dtype=torch.long, device=device)
    for size in sizes:
        place = torch.arange(size, device=device)
        product = place.unsqueeze(1) * place.unsqueeze(0)
        turns = product - product // size * size  # whole turns removed while exact; `%` does not survive ONNX
        angle = turns * (2 * math.pi / size)
        basis.append((angle.cos() + angle.sin()) * size**-0.5)
        distinct = size // 2 + 1
        axes.append(2 * place[:distinct] / size)
        lookup = (lookup.unsqueeze(1) * distinct + torch.minimum(place, size - place)).flatten()
    coordinates = torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1).reshape(-1, len(sizes))
    return TokenGrid(basis, coordinates, lookup)


def hartley_transform(tokens: Tensor, grid: TokenGrid) -> Tensor:
    """Transform along every axis of the token grid; applied twice it gives the tokens back.

    Args:
        tokens: (N, T, C), T tokens.
        grid: theirs.

    Returns:
        (N, T, C).
    """
    shape = tokens.shape
    lines = shape[0]
    for matrix in grid.basis:
        tokens = torch.matmul(matrix, tokens.reshape(lines, matrix.shape[0], -1))
        lines = lines * matrix.shape[0]
    return tokens.reshape(shape)
