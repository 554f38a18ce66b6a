"""Sliding windows over volumes whose members' probabilities do not fit in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor


def window_starts(size: int, edge: int, overlap: float) -> list[int]:
    """First voxels of the fewest windows along one axis that overlap by the given share or more, evenly spaced.

    Even spacing keeps the last overlap as small as the others, and with it the memory of `blend_windows`.
    """
    intervals = math.ceil((size - edge) / max(1, int(edge * (1 - overlap))))
    return [index * (size - edge) // max(intervals, 1) for index in range(intervals + 1)]


def blend_windows(
    image: Tensor,
    roi_size: Sequence[int],
    overlap: float,
    num_members: int,
    segment: Callable[[Tensor, Sequence[int]], Iterable[tuple[slice, Tensor]]],
    finish: Callable[[Tensor], Tensor],
) -> Tensor:
    """Segment window by window, and blend with MONAI's Gaussian weights, holding only what is not yet complete.

    The weights of a window are the product of a Gaussian per axis, so the axes can be blended one after the other.
    Along each axis the part of a window that the next one touches is kept and added to that one; the rest has met all
    of its windows and goes on to the next axis, in the end to `finish`. So probabilities exist for one window and for
    the overlap of two layers of windows across the longest axis, never for the volume.

    Args:
        image: (N, C, S).
        roi_size: of a window, one number per axis, none above the image's.
        overlap: of neighbouring windows, at least; 0 to below 1.
        num_members: M.
        segment: window (1, C, roi) and position of its first voxel -> batches of members that add up to M: which they
            are, and their probabilities (1, m, K, roi).
        finish: blended probabilities (1, m, K, part of S) -> what to keep of them, (1, m, ?, part of S).

    Returns:
        (N, M, ?, S).
    """
    starts = [window_starts(*axis, overlap) for axis in zip(image.shape[2:], roi_size, strict=True)]
    result = torch.empty(0)
    for n, one in enumerate(image.split(1)):
        blender = _Blender(list(image.shape[2:]), list(roi_size), starts, num_members, image.device)
        for window in blender.windows():
            position = [axis_starts[index] for axis_starts, index in zip(starts, window, strict=True)]
            part = one
            for axis, edge in enumerate(roi_size):
                part = part.narrow(axis + 2, position[axis], edge)
            for place, members in segment(part, position):
                blended, box = blender.add(members[0], place, window)
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
        starts: first voxels of the windows along each axis.
        num_members: M.
        device: of the image.
    """

    def __init__(
        self, size: list[int], roi_size: list[int], starts: list[list[int]], num_members: int, device: torch.device
    ) -> None:
        self.size, self.roi_size, self.starts, self.num_members = size, roi_size, starts, num_members
        # The last axis to be blended keeps an overlap across the whole of the others: the longest costs least.
        self.order = sorted(range(len(size)), key=lambda axis: size[axis])
        self.weights = torch.ones(tuple(roi_size), device=device)
        self.totals: list[Tensor] = []  # per axis, the sum of all windows' weights
        for axis, edge in enumerate(roi_size):
            profile = compute_importance_map((edge,), mode="gaussian", device=device)
            total = torch.zeros(size[axis], device=device)
            for start in starts[axis]:
                total[start : start + edge] += profile
            self.weights = self.weights * self._along(axis, profile)
            self.totals.append(self._along(axis, total))
        self.kept: list[Tensor] = []  # per axis, (M, K, ...): see `_keep`

    def windows(self) -> Iterable[tuple[int, ...]]:
        """Index of each window along every axis; the last axis of `order` changes slowest."""
        slowest_first = self.order[::-1]
        for window in itertools.product(*(range(len(self.starts[axis])) for axis in slowest_first)):
            yield tuple(window[slowest_first.index(axis)] for axis in range(len(self.size)))

    def add(self, members: Tensor, place: slice, window: tuple[int, ...]) -> tuple[Tensor, tuple[slice, ...]]:
        """Take some members' probabilities in a window (m, K, roi), and give what is complete, and where it lies."""
        if not self.kept:
            self.kept = [self._keep(axis, members) for axis in range(len(self.size))]
        values = members * self.weights
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
        share = torch.ones((), device=values.device)
        for axis, total in enumerate(self.totals):
            share = share / total.narrow(axis, box[axis].start, values.shape[axis + 2])
        return values * share, tuple(box)

    def _keep(self, axis: int, members: Tensor) -> Tensor:
        """Room for the overlap of two windows along an axis: the whole image along the axes blended before it."""
        edge, starts = self.roi_size[axis], self.starts[axis]
        shape = list(self.roi_size)
        for done in self.order[: self.order.index(axis)]:
            shape[done] = self.size[done]
        shape[axis] = max((a + edge - b for a, b in zip(starts[:-1], starts[1:], strict=True)), default=0)
        return torch.empty(self.num_members, members.shape[1], *shape, device=members.device)

    def _along(self, axis: int, values: Tensor) -> Tensor:
        """Shape one axis' values (size,) to multiply a window or an image."""
        return values.reshape([-1 if other == axis else 1 for other in range(len(self.size))])
