"""Metrics of an ensemble against one or more raters.

How alike the two sets of masks are: generalized energy distance, matched IoU, collective insight. Whether the
uncertainty can be trusted: calibration, risk against coverage, error caught by review. Pure functions on one case, and
a `CumulativeIterationMetric` of MONAI around each.
"""

from .base import EnsembleMetric, WithConsensus, rater_consensus
from .calibration import (
    ExpectedCalibrationErrorMetric,
    ReliabilityCurve,
    expected_calibration_error,
    merge_reliability_curves,
    reliability_curve,
)
from .collective_insight import CollectiveInsight, CollectiveInsightMetric, collective_insight
from .energy_distance import GeneralizedEnergyDistanceMetric, generalized_energy_distance
from .matched_iou import HungarianMatchedIoUMetric, hungarian_matched_iou
from .risk_coverage import (
    AreaUnderRiskCoverageMetric,
    ErrorCaughtMetric,
    RiskCoverageCurve,
    area_under_risk_coverage,
    error_caught,
    risk_coverage_curve,
)

__all__ = [
    "AreaUnderRiskCoverageMetric",
    "CollectiveInsight",
    "CollectiveInsightMetric",
    "EnsembleMetric",
    "ErrorCaughtMetric",
    "ExpectedCalibrationErrorMetric",
    "GeneralizedEnergyDistanceMetric",
    "HungarianMatchedIoUMetric",
    "ReliabilityCurve",
    "RiskCoverageCurve",
    "WithConsensus",
    "area_under_risk_coverage",
    "collective_insight",
    "error_caught",
    "expected_calibration_error",
    "generalized_energy_distance",
    "hungarian_matched_iou",
    "merge_reliability_curves",
    "rater_consensus",
    "reliability_curve",
    "risk_coverage_curve",
]
