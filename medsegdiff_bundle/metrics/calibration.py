"""Calibration: of the voxels that are predicted with confidence p, is a share p right?

MONAI's `CalibrationErrorMetric` asks that of each class and of one label; here it is asked of the predicted class, of
an ensemble and of several raters.

Letters in shapes: R raters, K classes, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.utils import MetricReduction
from torch import Tensor

from .base import EnsembleMetric, check_labels, member_probabilities


class ReliabilityCurve(NamedTuple):
    """Confidence and accuracy of the voxels of each bin, what a reliability diagram shows; each (B,), float64.

    Attributes:
        confidence: mean confidence, NaN in an empty bin.
        accuracy: share that is right, NaN in an empty bin.
        num_voxels: how many there are.
    """

    confidence: Tensor
    accuracy: Tensor
    num_voxels: Tensor


def reliability_curve(
    probabilities: Tensor, raters: Tensor, num_bins: int = 15, include_background: bool = True
) -> ReliabilityCurve:
    """Sort the voxels into bins by the probability of the class that is predicted, the most probable.

    Bin b of B holds the confidences above b / B up to and with (b + 1) / B, as in C. Guo et al., "On calibration of
    modern neural networks", ICML 2017; confidence 0 falls into the first. With K classes no confidence is below 1 / K.
    A voxel on which a share of the raters agrees with the prediction is right by that share.

    Args:
        probabilities: of each class, (K, ...): those of a network, or the mean of an ensemble.
        raters: labels (R, ...).
        num_bins: B.
        include_background: if false, voxels that the prediction and all raters call class 0 are left out.

    Returns:
        The curve; without any voxel, all of its bins are empty.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be positive, got {num_bins}.")
    if probabilities.ndim != raters.ndim or probabilities.shape[1:] != raters.shape[1:] or len(probabilities) < 2:
        raise ValueError(
            "probabilities must be (K, ...) with K of at least 2, and raters (R, ...) over the same voxels, "
            f"got {tuple(probabilities.shape)} and {tuple(raters.shape)}."
        )
    check_labels("raters", raters, len(probabilities))
    raters = raters.to(probabilities.device)
    confidence, prediction = probabilities.float().max(0)
    lowest, highest = (value.item() for value in confidence.aminmax())
    # Written so that NaN fails as well.
    if not (lowest >= 0 and highest <= 1 + 1e-5):
        raise ValueError(f"probabilities must be in [0, 1], got confidences from {lowest:g} to {highest:g}.")
    right = (raters == prediction).double().mean(0)
    if include_background:
        confidence, right = confidence.flatten(), right.flatten()
    else:
        foreground = (prediction > 0) | (raters > 0).any(0)
        confidence, right = confidence[foreground], right[foreground]

    # Rounded once, as a confidence like 7 / 10 is, so that it falls below its boundary and not above.
    boundaries = (torch.arange(1, num_bins, dtype=torch.float64, device=confidence.device) / num_bins).float()
    bins = torch.bucketize(confidence, boundaries)
    num_voxels = torch.bincount(bins, minlength=num_bins).double()
    confidence_sum = torch.bincount(bins, weights=confidence.double(), minlength=num_bins)
    right_sum = torch.bincount(bins, weights=right, minlength=num_bins)
    # 0 / 0 = NaN in empty bins.
    return ReliabilityCurve(confidence_sum / num_voxels, right_sum / num_voxels, num_voxels)


def merge_reliability_curves(curves: Sequence[ReliabilityCurve]) -> ReliabilityCurve:
    """One curve of the voxels of all cases, from the curves of each, of the same number of bins."""
    num_voxels = torch.stack([curve.num_voxels for curve in curves])
    confidence = torch.stack([curve.confidence for curve in curves])
    accuracy = torch.stack([curve.accuracy for curve in curves])
    total = num_voxels.sum(0)
    confidence_sum, right_sum = (confidence * num_voxels).nansum(0), (accuracy * num_voxels).nansum(0)
    return ReliabilityCurve(confidence_sum / total, right_sum / total, total)


def expected_calibration_error(curve: ReliabilityCurve) -> Tensor:
    """Mean distance of confidence and accuracy, each bin weighing as many voxels as it holds.

    Returns:
        Scalar float32, from 0 (confidence is accuracy in every bin) to 1; NaN for a curve without any voxel.
    """
    distance = (curve.confidence - curve.accuracy).abs().nan_to_num(0)
    return ((distance * curve.num_voxels).sum() / curve.num_voxels.sum()).float()


class ExpectedCalibrationErrorMetric(EnsembleMetric):
    """Expected calibration error of the mean of the members, per case; see `reliability_curve`.

    `EnsembleMetric` tells the inputs; labels count as sure votes. The reduction is over cases, each with its own bins:
    for the error of all voxels together, merge the curves of the cases.

    Args:
        num_classes: K, background included.
        num_bins: bins of the confidence from 0 to 1.
        include_background: if false, voxels that the prediction and all raters call class 0 are left out; a case
            without any others gives NaN.
        reduction: over cases.
        get_not_nans: whether `aggregate` also returns the number of values that are not NaN.
        multi_label: see `EnsembleMetric`.
    """

    def __init__(
        self,
        num_classes: int = 2,
        num_bins: int = 15,
        include_background: bool = True,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        multi_label: bool = False,
    ) -> None:
        super().__init__(num_classes, reduction, get_not_nans, multi_label)
        if num_bins < 1:
            raise ValueError(f"num_bins must be positive, got {num_bins}.")
        self.num_bins = num_bins
        self.include_background = include_background

    def measure(self, members: Tensor, raters: Tensor) -> Tensor:
        """Calibration error of one case, one value."""
        probabilities = member_probabilities(members, raters, self.num_classes).float().mean(0)
        curve = reliability_curve(probabilities, raters, self.num_bins, self.include_background)
        return expected_calibration_error(curve).unsqueeze(0)
