"""Hungarian-matched IoU: mean IoU of members and raters, each paired with the other's best fitting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.utils import MetricReduction
from torch import Tensor

from .base import EnsembleMetric, member_labels
from .overlap import iou, shared_voxels


def hungarian_matched_iou(
    members: Tensor, raters: Tensor, num_classes: int = 2, include_background: bool = False
) -> Tensor:
    """Mean IoU under the one-to-one matching of members and raters that makes it largest.

    As in S. Kohl et al., "A hierarchical probabilistic U-Net for modeling multi-scale ambiguities", 2019: unequal sets
    are repeated to the least common multiple L of E and R, every member L / E times and every rater L / R times, so
    that all masks weigh alike. With 16 members and 4 raters each rater is matched with four members. Each class is
    matched for itself. Two empty masks have IoU 1, so a class that nobody marked gives 1.

    Args:
        members: labels (E, ...).
        raters: labels (R, ...); R need not be E.
        num_classes: K, background included.
        include_background: whether class 0 is measured too.

    Returns:
        One value per class, (K,), or (K - 1,) without background; float32, from 0 to 1.
    """
    split = len(members)
    between = iou(shared_voxels(members, raters, num_classes, include_background))[:, :split, split:]  # (C, E, R)
    values = [best_match(similarity.tolist()) for similarity in between]
    return torch.tensor(values, device=members.device)


def best_match(similarity: Sequence[Sequence[float]]) -> float:
    """Largest mean similarity of a matching of two sets, repeated to their least common multiple.

    The repeats of the smaller set stay one column that several rows share, and each row finds its place along a
    shortest augmenting path, as in R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and
    sparse linear assignment problems", Computing 38, 1987. Exact.

    Args:
        similarity: of each item of one set to each of the other.
    """
    if len(similarity) < len(similarity[0]):
        similarity = list(zip(*similarity, strict=True))
    num_rows, num_columns = len(similarity), len(similarity[0])
    total = math.lcm(num_rows, num_columns)
    capacity = total // num_columns
    cost = [[-value for value in row] for row in similarity for _ in range(total // num_rows)]

    price = [0.0] * num_columns
    rows_of: list[list[int]] = [[] for _ in range(num_columns)]
    column_of = [-1] * total
    for new in range(total):
        distance = [c - p for c, p in zip(cost[new], price, strict=True)]
        via = [new] * num_columns  # the row through which the shortest path enters each column
        waiting = set(range(num_columns))
        while True:
            end = min(waiting, key=distance.__getitem__)
            if len(rows_of[end]) < capacity:
                break
            waiting.remove(end)
            for row in rows_of[end]:
                offset = distance[end] - cost[row][end] + price[end]
                for column in waiting:
                    path = offset + cost[row][column] - price[column]
                    if path < distance[column]:
                        distance[column], via[column] = path, row
        for column in set(range(num_columns)) - waiting:
            price[column] += distance[column] - distance[end]
        # Along the path, each row moves on to the column it leads to, and leaves its place to the row before it.
        row = -1
        while row != new:
            row, column = via[end], end
            end = column_of[row]
            rows_of[column].append(row)
            column_of[row] = column
            if row != new:
                rows_of[end].remove(row)
    return -math.fsum(cost[row][column] for row, column in enumerate(column_of)) / total


class HungarianMatchedIoUMetric(EnsembleMetric):
    """Matched IoU of each case and class; see `hungarian_matched_iou`, and `EnsembleMetric` for the inputs.

    Args:
        num_classes: K, background included.
        include_background: whether class 0 is measured too.
        reduction: over cases and classes.
        get_not_nans: whether `aggregate` also returns the number of values.
        multi_label: see `EnsembleMetric`.
    """

    def __init__(
        self,
        num_classes: int = 2,
        include_background: bool = False,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        multi_label: bool = False,
    ) -> None:
        super().__init__(num_classes, reduction, get_not_nans, multi_label)
        self.include_background = include_background

    def measure(self, members: Tensor, raters: Tensor) -> Tensor:
        """Matched IoU of one case, one value per class."""
        labels = member_labels(members, raters, self.num_classes)
        return hungarian_matched_iou(labels, raters, self.num_classes, self.include_background)
