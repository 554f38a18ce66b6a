"""Collective insight: do the members together find what the raters found, and disagree as much as they do?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.utils import MetricReduction
from torch import Tensor

from .base import EnsembleMetric, member_labels
from .overlap import dice, shared_voxels


class CollectiveInsight(NamedTuple):
    """Collective insight and what it is made of, each (C,) float32, one value per class, from 0 to 1.

    Attributes:
        score: harmonic mean of the three parts.
        printed_score: 3 abc / (a + b + c) of the three parts, which published code computes under this name; it never
            exceeds the harmonic mean.
        combined_sensitivity: share of what any rater marked that any member marked.
        max_dice: Dice of each rater with the member that fits best, mean over the raters.
        diversity_agreement: 1 less the difference between members and raters of how much two of them differ.
    """

    score: Tensor
    printed_score: Tensor
    combined_sensitivity: Tensor
    max_dice: Tensor
    diversity_agreement: Tensor


def collective_insight(
    members: Tensor, raters: Tensor, num_classes: int = 2, include_background: bool = False
) -> CollectiveInsight:
    """Collective insight (CI) score of A. Rahman et al., "Ambiguous medical image segmentation using diffusion models".

    CVPR 2023. Three parts:
        - Combined sensitivity, of the union of the members for the union of the raters. Where no rater marked anything
          there is nothing to miss: 1.
        - Maximum Dice matching; two empty masks have Dice 1, an empty and another 0. A member may serve several raters.
        - Diversity agreement, 1 - (|V_max - V'_max| + |V_min - V'_min|) / 2, with the largest and smallest variance of
          two different raters, V, and of two different members, V'. What that variance is the paper leaves open: here,
          as in published code, the variance over all voxels of the image of the difference of the two masks (divided by
          their number), which is 0 for equal masks. It is also 0 where there is one rater, or one member, only.

    As its variance is over the image, the diversity agreement of small structures is close to 1 whatever the members
    do: on them, the energy distance is the better measure of diversity.

    Args:
        members: labels (E, ...).
        raters: labels (R, ...); R need not be E.
        num_classes: K, background included.
        include_background: whether class 0 is measured too.

    Returns:
        Score and parts, one value per class.
    """
    shared = shared_voxels(members, raters, num_classes, include_background)  # (C, M, M)
    split, num_voxels = len(members), members[0].numel()
    sensitivity = _combined_sensitivity(members, raters, num_classes, include_background)
    max_dice = dice(shared)[:, :split, split:].amax(1).mean(1)

    smallest, largest = _variances(shared[:, :split, :split], num_voxels)
    smallest_of_raters, largest_of_raters = _variances(shared[:, split:, split:], num_voxels)
    agreement = 1 - ((largest - largest_of_raters).abs() + (smallest - smallest_of_raters).abs()) / 2

    parts = torch.stack([sensitivity, max_dice, agreement])  # (3, C)
    score = 3 / parts.reciprocal().sum(0)  # a part of 0 makes it 3 / inf = 0
    # Never above 1, the three parts 0 at once would be 0 / 0.
    printed_score = 3 * parts.prod(0) / parts.sum(0).clamp_min(1e-300)
    values = (value.to(members.device).float() for value in (score, printed_score, *parts))
    return CollectiveInsight(*values)


def _combined_sensitivity(members: Tensor, raters: Tensor, num_classes: int, include_background: bool) -> Tensor:
    values = []
    for label in range(0 if include_background else 1, num_classes):
        marked = (raters == label).any(0)
        found = (members == label).any(0).to(marked.device) & marked
        total = marked.sum().item()
        values.append(found.sum().item() / total if total else 1.0)
    return torch.tensor(values, dtype=torch.float64)


def _variances(shared: Tensor, num_voxels: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest variance (C,) of the difference of two different masks, from their shared voxels."""
    sizes = shared.diagonal(dim1=1, dim2=2)
    sizes, others = sizes.unsqueeze(2), sizes.unsqueeze(1)
    # The difference is +1 or -1 where the masks differ, and adds up to the difference of their sizes.
    variance = (sizes + others - 2 * shared) / num_voxels - ((sizes - others) / num_voxels) ** 2
    rows, columns = torch.triu_indices(shared.shape[1], shared.shape[2], 1)
    pairs = variance[:, rows, columns]
    if pairs.shape[1] == 0:
        return torch.zeros(len(shared)).double(), torch.zeros(len(shared)).double()
    smallest, largest = pairs.aminmax(dim=1)
    return smallest, largest


class CollectiveInsightMetric(EnsembleMetric):
    """Collective insight of each case and class; see `collective_insight`, and `EnsembleMetric` for the inputs.

    Args:
        part: which field of `CollectiveInsight` to report.
        num_classes: K, background included.
        include_background: whether class 0 is measured too.
        reduction: over cases and classes.
        get_not_nans: whether `aggregate` also returns the number of values.
        multi_label: see `EnsembleMetric`.
    """

    def __init__(
        self,
        part: str = "score",
        num_classes: int = 2,
        include_background: bool = False,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        multi_label: bool = False,
    ) -> None:
        super().__init__(num_classes, reduction, get_not_nans, multi_label)
        if part not in CollectiveInsight._fields:
            raise ValueError(f"part must be one of {', '.join(CollectiveInsight._fields)}, got {part!r}.")
        self.part = part
        self.include_background = include_background

    def measure(self, members: Tensor, raters: Tensor) -> Tensor:
        """Collective insight of one case, one value per class."""
        labels = member_labels(members, raters, self.num_classes)
        insight = collective_insight(labels, raters, self.num_classes, self.include_background)
        value: Tensor = getattr(insight, self.part)
        return value
