"""Sliding windows over volumes whose members' probabilities do not fit in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor


def window_starts(size: int, edge: int, overlap: float) -> list[int]:
    """First voxels of the fewest windows along one axis that overlap by the given share or more, evenly spaced.

    Even spacing keeps the last overlap as small as the others, and with it the memory of `blend_windows`.
    """
    intervals = math.ceil((size - edge) / max(1, int(edge * (1 - overlap))))
    return [index * (size - edge) // max(intervals, 1) for index in range(intervals + 1)]


def blending_order(size: Sequence[int]) -> list[int]:
    """Axes of an image in the order in which they are blended, the longest last.

    What is kept along the last axis goes across the whole of the others, so there the longest costs least.
    """
    return sorted(range(len(size)), key=lambda axis: size[axis])


def kept_shapes(size: Sequence[int], roi_size: Sequence[int], overlap: float) -> list[list[int]]:
    """Voxels that are kept along each axis for the next window.

    They are the largest overlap of two windows along the axis, of the whole image along the axes blended before it, and
    of a window along those after it.
    """
    order, shapes = blending_order(size), []
    for axis in range(len(size)):
        done = order[: order.index(axis)]
        starts = window_starts(size[axis], roi_size[axis], overlap)
        shape = [size[other] if other in done else roi_size[other] for other in range(len(size))]
        shape[axis] = max((a + roi_size[axis] - b for a, b in itertools.pairwise(starts)), default=0)
        shapes.append(shape)
    return shapes


def kept_voxels(size: Sequence[int], roi_size: Sequence[int], overlap: float) -> int:
    """How many voxels `blend_windows` keeps, of each member and class."""
    return sum(map(math.prod, kept_shapes(size, roi_size, overlap)))


def blend_windows(
    image: Tensor,
    roi_size: Sequence[int],
    overlap: float,
    num_members: int,
    segment: Callable[[Tensor, Sequence[int], Sequence[int] | None], Iterable[tuple[slice, Tensor]]],
    finish: Callable[[Tensor], Tensor],
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Segment window by window, and blend with MONAI's Gaussian weights, holding only what is not yet complete.

    The weights of a window are the product of a Gaussian per axis, so the axes can be blended one after the other.
    Along each axis the part of a window that the next one touches is kept and added to that one; the rest has met all
    of its windows and goes on to the next axis, in the end to `finish`. So probabilities exist for one window and for
    the overlap of two layers of windows across the longest axis, never for the volume. Along each axis the weights of a
    voxel's windows are divided by their sum beforehand, so what is below half precision is below 1e-7 of a probability.

    Args:
        image: (N, C, S).
        roi_size: of a window, one number per axis, none above the image's.
        overlap: of neighbouring windows, at least; 0 to below 1.
        num_members: M.
        segment: window (1, C, roi), position of its first voxel, and that of the next window's or None -> batches of
            members that add up to M: which they are, and their probabilities (1, m, K, roi), which are overwritten.
        finish: blended probabilities (1, m, K, part of S) -> what to keep of them, (1, m, ?, part of S).
        precision: of what is kept until the next window. Sums are float32.

    Returns:
        (N, M, ?, S).
    """
    result = torch.empty(0)
    for n, one in enumerate(image.split(1)):
        blender = _Blender(list(image.shape[2:]), list(roi_size), overlap, num_members, image.device, precision)
        windows = list(blender.windows())
        positions = [blender.position(window) for window in windows]
        for window, position, following in zip(windows, positions, [*positions[1:], None], strict=True):
            part = one
            for axis, edge in enumerate(roi_size):
                part = part.narrow(axis + 2, position[axis], edge)
            weights = blender.weights(window)
            for place, members in segment(part, position, following):
                blended, box = blender.add(members[0].mul_(weights), place, window)
                piece = finish(blended.unsqueeze(0))[0]  # (m, ?, part of S)
                if result.numel() == 0:
                    shape = (len(image), num_members, piece.shape[1], *image.shape[2:])
                    result = torch.empty(shape, dtype=piece.dtype, device=piece.device)
                result[n, place][(slice(None), slice(None), *box)] = piece
    return result


class _Blender:
    """Windows of one image, in an order that lets go of each voxel as soon as possible.

    Args:
        size: of the image, one number per axis.
        roi_size: of a window.
        overlap: of neighbouring windows.
        num_members: M.
        device: of the image.
        precision: of what is kept.
    """

    def __init__(
        self,
        size: list[int],
        roi_size: list[int],
        overlap: float,
        num_members: int,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.size, self.roi_size, self.num_members = size, roi_size, num_members
        self.starts = [window_starts(*axis, overlap) for axis in zip(size, roi_size, strict=True)]
        self.precision = precision
        self.order = blending_order(size)
        self.profiles: list[list[Tensor]] = []  # per axis, the weights of each window: those of a voxel sum to one
        for axis, edge in enumerate(roi_size):
            profile = compute_importance_map((edge,), mode="gaussian", device=device)
            total = torch.zeros(size[axis], device=device)
            for start in self.starts[axis]:
                total[start : start + edge] += profile
            self.profiles.append([profile / total[start : start + edge] for start in self.starts[axis]])
        self.shapes = kept_shapes(size, roi_size, overlap)
        self.kept: list[Tensor] = []  # per axis, (M, K, *shape)

    def windows(self) -> Iterator[tuple[int, ...]]:
        """Index of each window along every axis; the last axis of `order` changes slowest."""
        slowest_first = self.order[::-1]
        for window in itertools.product(*(range(len(self.starts[axis])) for axis in slowest_first)):
            yield tuple(window[slowest_first.index(axis)] for axis in range(len(self.size)))

    def position(self, window: tuple[int, ...]) -> list[int]:
        """First voxel of a window along every axis."""
        return [starts[index] for starts, index in zip(self.starts, window, strict=True)]

    def weights(self, window: tuple[int, ...]) -> Tensor:
        """Weights of the voxels of a window, its share in the mean of all windows: (roi)."""
        weights = torch.ones((), device=self.profiles[0][0].device)
        for axis, index in enumerate(window):
            along = [-1 if other == axis else 1 for other in range(len(self.size))]
            weights = weights * self.profiles[axis][index].reshape(along)
        return weights

    def add(self, values: Tensor, place: slice, window: tuple[int, ...]) -> tuple[Tensor, tuple[slice, ...]]:
        """Take some members' weighted probabilities in a window (m, K, roi), giving what is complete and its place."""
        if not self.kept:
            self.kept = [
                torch.empty(self.num_members, values.shape[1], *shape, dtype=self.precision, device=values.device)
                for shape in self.shapes
            ]
        box = [slice(None)] * len(self.size)  # of `values`: the whole image's voxels along the axes that are done
        for axis in self.order:
            starts, edge = self.starts[axis], self.roi_size[axis]
            start = starts[window[axis]]
            following = starts[window[axis] + 1] if window[axis] + 1 < len(starts) else self.size[axis]
            kept = self.kept[axis][(place, slice(None), *box)]
            if start > 0:
                met = starts[window[axis] - 1] + edge - start
                values.narrow(axis + 2, 0, met).add_(kept.narrow(axis + 2, 0, met))
            left = start + edge - following
            kept.narrow(axis + 2, 0, left).copy_(values.narrow(axis + 2, following - start, left))
            values = values.narrow(axis + 2, 0, following - start)
            box[axis] = slice(start, following)
        return values, tuple(box)
