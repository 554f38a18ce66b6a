"""Does the uncertainty point at the errors? Risk against coverage, and error caught by a review.

Voxels of equal uncertainty, which maps of a few members are full of, count as in random order: each carries the mean
error of all of them. So the results are expectations, exact, and do not depend on the order of the voxels.

Letters in shapes: R raters, P voxels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.utils import MetricReduction
from torch import Tensor

from medsegdiff_bundle.uncertainty import UNCERTAINTIES

from .base import EnsembleMetric, check_labels, member_probabilities


class RiskCoverageCurve(NamedTuple):
    """Mean error of the most certain voxels, by how many of them are taken; each (P,), float64.

    Attributes:
        coverage: share of the voxels, 1 / P to 1.
        risk: their mean error.
    """

    coverage: Tensor
    risk: Tensor


def risk_coverage_curve(uncertainty: Tensor, error: Tensor) -> RiskCoverageCurve:
    """Take the voxels from the most to the least certain, and follow the mean error.

    Args:
        uncertainty: of each voxel, any shape, any scale.
        error: of each voxel, same shape: right or wrong, or a number from 0 to 1.

    Returns:
        The curve; its last risk is the mean error of all voxels.
    """
    errors = _errors_by_certainty(uncertainty, error)
    taken = torch.arange(1, len(errors) + 1, dtype=torch.float64, device=errors.device)
    return RiskCoverageCurve(taken / len(errors), errors.cumsum(0) / taken)


def area_under_risk_coverage(uncertainty: Tensor, error: Tensor) -> Tensor:
    """Mean risk over all coverages, AURC: Y. Geifman, G. Uziel and R. El-Yaniv, ICLR 2019.

    Lower is better. An uncertainty that knows nothing scores the mean error, one without any error 0.

    Args:
        uncertainty: of each voxel, any shape, any scale.
        error: of each voxel, same shape: right or wrong, or a number from 0 to 1.

    Returns:
        Scalar float32, from 0 to 1.
    """
    return risk_coverage_curve(uncertainty, error).risk.mean().float()


def error_caught(uncertainty: Tensor, error: Tensor, fraction: float = 0.05) -> Tensor:
    """Share of all error that lies in the most uncertain fraction of the voxels, those that a reader would review.

    Higher is better; an uncertainty that knows nothing scores the fraction. Where the fraction is not a whole number of
    voxels, the last one counts in part.

    Args:
        uncertainty: of each voxel, any shape, any scale.
        error: of each voxel, same shape: right or wrong, or a number from 0 to 1.
        fraction: of the voxels, 0 to 1.

    Returns:
        Scalar float32, from 0 to 1; NaN if there is no error to catch.
    """
    _check_fraction(fraction)
    errors = _errors_by_certainty(uncertainty, error).flip(0)
    reviewed = fraction * len(errors)
    whole = int(reviewed)
    caught = errors[:whole].sum() + (reviewed - whole) * errors[whole : whole + 1].sum()
    return (caught / errors.sum()).float()


def _errors_by_certainty(uncertainty: Tensor, error: Tensor) -> Tensor:
    """Errors (P,) of the voxels from the most to the least certain, the mean of the tied in place of each of them."""
    if uncertainty.shape != error.shape or uncertainty.numel() == 0:
        raise ValueError(
            "uncertainty and error must be maps of the same voxels, at least one, "
            f"got {tuple(uncertainty.shape)} and {tuple(error.shape)}."
        )
    if uncertainty.isnan().any():
        raise ValueError("uncertainty must be a number in every voxel, got NaN.")
    lowest, highest = (value.item() for value in error.double().aminmax())
    # Written so that NaN fails as well.
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(f"error must be in [0, 1], got values from {lowest:g} to {highest:g}.")
    ascending, order = uncertainty.flatten().sort()
    errors = error.flatten()[order].double()
    _, group, size = ascending.unique_consecutive(return_inverse=True, return_counts=True)
    return (torch.bincount(group, weights=errors) / size)[group]


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and up to 1, got {fraction}.")


class _UncertaintyMetric(EnsembleMetric):
    """What the members' uncertainty says of the error of their mean prediction, one value per case."""

    def __init__(
        self,
        uncertainty: str,
        num_classes: int,
        reduction: MetricReduction | str,
        get_not_nans: bool,
        multi_label: bool,
    ) -> None:
        super().__init__(num_classes, reduction, get_not_nans, multi_label)
        if uncertainty not in UNCERTAINTIES:
            raise ValueError(f"uncertainty must be one of {', '.join(UNCERTAINTIES)}, got {uncertainty!r}.")
        self.uncertainty = UNCERTAINTIES[uncertainty]

    def _maps(self, members: Tensor, raters: Tensor) -> tuple[Tensor, Tensor]:
        """Uncertainty and error of each voxel; the error is the share of raters who disagree with the prediction."""
        probabilities = member_probabilities(members, raters, self.num_classes)
        check_labels("raters", raters, self.num_classes)
        prediction = probabilities.float().mean(0).max(0).indices
        error = (raters.to(prediction.device) != prediction).float().mean(0)
        return self.uncertainty(probabilities), error


class AreaUnderRiskCoverageMetric(_UncertaintyMetric):
    """Area under the risk-coverage curve, per case; see `area_under_risk_coverage`, `EnsembleMetric` for the inputs.

    Args:
        uncertainty: of the members: entropy (of the mean prediction), mutual_information, or variance. One member, such
            as a softmax, has only the first.
        num_classes: K, background included.
        reduction: over cases.
        get_not_nans: whether `aggregate` also returns the number of values.
        multi_label: see `EnsembleMetric`.
    """

    def __init__(
        self,
        uncertainty: str = "entropy",
        num_classes: int = 2,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        multi_label: bool = False,
    ) -> None:
        super().__init__(uncertainty, num_classes, reduction, get_not_nans, multi_label)

    def measure(self, members: Tensor, raters: Tensor) -> Tensor:
        """Area of one case, one value."""
        return area_under_risk_coverage(*self._maps(members, raters)).unsqueeze(0)


class ErrorCaughtMetric(_UncertaintyMetric):
    """Share of the error in the most uncertain voxels, per case; see `error_caught`, `EnsembleMetric` for the inputs.

    A case without any error gives NaN.

    Args:
        fraction: of the voxels that are reviewed.
        uncertainty: of the members: entropy (of the mean prediction), mutual_information, or variance. One member, such
            as a softmax, has only the first.
        num_classes: K, background included.
        reduction: over cases.
        get_not_nans: whether `aggregate` also returns the number of values that are not NaN.
        multi_label: see `EnsembleMetric`.
    """

    def __init__(
        self,
        fraction: float = 0.05,
        uncertainty: str = "entropy",
        num_classes: int = 2,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        multi_label: bool = False,
    ) -> None:
        super().__init__(uncertainty, num_classes, reduction, get_not_nans, multi_label)
        _check_fraction(fraction)
        self.fraction = fraction

    def measure(self, members: Tensor, raters: Tensor) -> Tensor:
        """Share of one case, one value."""
        return error_caught(*self._maps(members, raters), self.fraction).unsqueeze(0)
