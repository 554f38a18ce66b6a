"""The Fourier transform of real numbers, in real numbers.

R. V. L. Hartley, "A more symmetrical Fourier analysis applied to transmission problems", Proceedings of the IRE 30(3),
1942. Frequencies f and -f together have the same two basis functions in both transforms, the cosine and the sine of f,
so a filter that treats f and -f alike does the same in either. This one needs half the operations and no complex
numbers, which neither half precision nor ONNX has.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hartley_basis(grid: list[int], device: torch.device) -> list[Tensor]:
    """Matrix of the transform along each axis of a grid: cas(2 pi k n / size) / sqrt(size), cas = cos + sin.

    Args:
        grid: sizes of the token grid.
        device: where to put the result.

    Returns:
        (size, size) of each axis, float32, symmetric and orthogonal; row k has the frequency min(k, size - k).
    """
    basis: list[Tensor] = []
    for size in grid:
        place = torch.arange(size, device=device)
        product = place.unsqueeze(1) * place.unsqueeze(0)
        turns = product - product // size * size  # whole turns removed while exact; `%` does not survive ONNX
        angle = turns * (2 * math.pi / size)
        basis.append((angle.cos() + angle.sin()) * size**-0.5)
    return basis


def hartley_transform(tokens: Tensor, basis: list[Tensor]) -> Tensor:
    """Transform along every axis of the token grid; applied twice it gives the tokens back.

    Args:
        tokens: (N, T, C), T tokens of a grid, last axis fastest.
        basis: of that grid, from `hartley_basis`.

    Returns:
        (N, T, C).
    """
    shape = tokens.shape
    lines = shape[0]
    for matrix in basis:
        tokens = torch.matmul(matrix, tokens.reshape(lines, matrix.shape[0], -1))
        lines = lines * matrix.shape[0]
    return tokens.reshape(shape)
