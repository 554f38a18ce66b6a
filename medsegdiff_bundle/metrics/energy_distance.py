"""Generalized energy distance: how far the distribution of the members is from that of the raters."""

from __future__ import annotations

from monai.utils import MetricReduction
from torch import Tensor

from .base import EnsembleMetric, member_labels
from .overlap import iou, shared_voxels


def generalized_energy_distance(
    members: Tensor, raters: Tensor, num_classes: int = 2, include_background: bool = False
) -> Tensor:
    """GED^2 = 2 E[d(S, Y)] - E[d(S, S')] - E[d(Y, Y')] with d = 1 - IoU, for members S, S' and raters Y, Y'.

    As in S. Kohl et al., "A probabilistic U-Net for segmentation of ambiguous images", NeurIPS 2018: the expectations
    are over all pairs, those of a mask with itself included, and two empty masks have IoU 1, hence d = 0. So the same
    masks in the same shares give 0, nothing is below 0, and a class that nobody marked gives 0.

    Args:
        members: labels (E, ...).
        raters: labels (R, ...); R need not be E.
        num_classes: K, background included.
        include_background: whether class 0 is measured too.

    Returns:
        One value per class, (K,), or (K - 1,) without background; float32, from 0 to 2.
    """
    distance = 1 - iou(shared_voxels(members, raters, num_classes, include_background))
    split = len(members)
    between = distance[:, :split, split:].mean((1, 2))
    among_members = distance[:, :split, :split].mean((1, 2))
    among_raters = distance[:, split:, split:].mean((1, 2))
    return (2 * between - among_members - among_raters).to(members.device).float()


class GeneralizedEnergyDistanceMetric(EnsembleMetric):
    """GED^2 of each case and class; see `generalized_energy_distance`, and `EnsembleMetric` for the inputs.

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
        """GED^2 of one case, one value per class."""
        labels = member_labels(members, raters, self.num_classes)
        return generalized_energy_distance(labels, raters, self.num_classes, self.include_background)
