"""What the metrics of an ensemble share: the forms they take their inputs in, and the reduction over cases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction, look_up_option
from torch import Tensor

from medsegdiff_bundle.labels import most_probable


class EnsembleMetric(CumulativeIterationMetric):
    """Compare the members of each case with its raters; subclasses say how, in `measure`.

    Letters in shapes: N cases, E members, R raters, K classes, C values per case, S spatial axes.

    Args:
        num_classes: K, background included.
        reduction: over cases and classes, one of MONAI's `MetricReduction`. As in MONAI, a mean passes over NaN and is
            0 where there is nothing else, which `get_not_nans` tells.
        get_not_nans: whether `aggregate` also returns the number of values that are not NaN.
        multi_label: whether members and labels are of K regions, which may overlap. Each region is then measured by
            itself, against what is outside of it, and a metric has a value, or those of one class, for each.

    Shapes:
        y_pred: what `EnsembleInferer` returns, (N, E, K, S) probabilities or (N, E, 1, S) labels; or (N, E, S) labels
        y: (N, R, S) labels, raters in the place of the channels, in any order; a plain label (N, 1, S) is one rater
        both also as lists, over the cases, of tensors without N; E and R may then differ from case to case
        with `multi_label` y_pred (N, E, K, S), or masks of 0 and 1 (N, E K, S), and y (N, R K, S), a member's or a
            rater's regions after one another
        result of a call: (N, C) float32

    Raises:
        ValueError: at the construction if an argument is out of range, at a call if an input is not as above.
    """

    def __init__(
        self,
        num_classes: int = 2,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < (1 if multi_label else 2):
            raise ValueError(f"num_classes must be at least {1 if multi_label else 2}, got {num_classes}.")
        self.num_regions = num_classes if multi_label else None
        self.num_classes = 2 if multi_label else num_classes
        self.reduction = look_up_option(reduction, MetricReduction)
        self.get_not_nans = get_not_nans

    @abstractmethod
    def measure(self, members: Tensor, raters: Tensor) -> Tensor:
        """Values of one case.

        Args:
            members: (E, K, S), (E, 1, S) or (E, S), as in `y_pred`.
            raters: labels, (R, S).

        Returns:
            (C,) float32.
        """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        if y is None:
            raise ValueError(f"{type(self).__name__} needs the labels of the raters as y.")
        if len(y_pred) != len(y):
            raise ValueError(f"y_pred and y must be as many cases, got {len(y_pred)} and {len(y)}.")
        cases = zip(y_pred.as_subclass(Tensor), y.as_subclass(Tensor), strict=True)
        measure = self.measure if self.num_regions is None else self._measure_regions
        return torch.stack([measure(members, raters) for members, raters in cases])

    def _measure_regions(self, members: Tensor, raters: Tensor) -> Tensor:
        """Values of one case, of each region those of two classes."""
        assert self.num_regions is not None
        if members.ndim == raters.ndim:
            members = rearrange(members, "(e r) ... -> e r ...", r=self.num_regions)
        raters = rearrange(raters, "(e r) ... -> e r ...", r=self.num_regions)
        if members.shape[1] != self.num_regions:
            raise ValueError(f"members must have {self.num_regions} channels, got shape {tuple(members.shape)}.")
        values = []
        for region, label in zip(members.float().unbind(1), raters.unbind(1), strict=True):
            values.append(self.measure(torch.stack([1 - region, region], dim=1), label))
        return torch.cat(values)

    def aggregate(self, reduction: MetricReduction | str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Reduce the values of all cases so far.

        Args:
            reduction: instead of the one of the constructor.

        Returns:
            Reduced values, and with `get_not_nans` how many they come from.
        """
        values = self.get_buffer()
        if not isinstance(values, Tensor):
            raise ValueError(f"{type(self).__name__} has seen no case to aggregate.")
        result, not_nans = do_metric_reduction(values, reduction or self.reduction)
        return (result, not_nans) if self.get_not_nans else result


def member_labels(members: Tensor, raters: Tensor, num_classes: int) -> Tensor:
    """Labels (E, S) of members in any of the forms of `EnsembleMetric`; probabilities become labels by argmax."""
    if not _has_channels(members, raters, num_classes):
        return members
    return members.squeeze(1) if members.shape[1] == 1 else most_probable(members, 1)


def member_probabilities(members: Tensor, raters: Tensor, num_classes: int) -> Tensor:
    """Probabilities (E, K, S) of members in any of the forms of `EnsembleMetric`; labels become sure votes."""
    if _has_channels(members, raters, num_classes) and members.shape[1] > 1:
        return members
    labels = member_labels(members, raters, num_classes)
    check_labels("members", labels, num_classes)
    return rearrange(torch.nn.functional.one_hot(labels.long(), num_classes), "e ... k -> e k ...").float()


def rater_consensus(raters: Tensor) -> Tensor:
    """What at least half of the raters mark, for metrics that compare with one mask.

    Args:
        raters: binary labels, (R, S). One rater (1, S) may have any number of classes.

    Returns:
        (1, S) of the same type; the label itself if there is one rater.

    Raises:
        ValueError: several raters with labels other than 0 and 1.
    """
    if len(raters) == 1:
        return raters
    check_labels("raters", raters, 2)
    return (raters.float().mean(dim=0, keepdim=True) >= 0.5).to(raters.dtype)


class WithConsensus:
    """What a metric of MONAI takes of cases that several raters drew: a result, and `rater_consensus` of the label.

    Args:
        key: of the result in a case, such as "pred".
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, cases: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
        """Results and labels of the cases."""
        return [case[self.key] for case in cases], [rater_consensus(case["label"]) for case in cases]


def check_labels(name: str, labels: Tensor, num_classes: int) -> None:
    """Raise a ValueError unless the tensor is (at least one, ...) and holds whole numbers from 0 to K-1."""
    if labels.ndim < 2 or labels.numel() == 0:
        raise ValueError(f"{name} must hold at least one mask and voxel, got shape {tuple(labels.shape)}.")
    if labels.dtype == torch.bool:
        return
    lowest, highest = (value.item() for value in labels.aminmax())
    # Written so that NaN fails as well.
    if not (lowest >= 0 and highest < num_classes):
        raise ValueError(f"labels of {name} must be in 0..{num_classes - 1}, got {lowest:g}..{highest:g}.")
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise ValueError(f"labels of {name} must be whole numbers; probabilities need one channel per class.")


def _has_channels(members: Tensor, raters: Tensor, num_classes: int) -> bool:
    if members.ndim not in (raters.ndim, raters.ndim + 1):
        raise ValueError(
            "members must be (E, K, S), (E, 1, S) or (E, S) and raters (R, S), "
            f"got {tuple(members.shape)} and {tuple(raters.shape)}."
        )
    has_channels = members.ndim > raters.ndim
    if has_channels and members.shape[1] not in (1, num_classes):
        raise ValueError(f"members must have 1 or {num_classes} channels, got shape {tuple(members.shape)}.")
    if members.shape[1 + has_channels :] != raters.shape[1:]:
        raise ValueError(
            f"members and raters must cover the same voxels, got {tuple(members.shape)} and {tuple(raters.shape)}."
        )
    return has_channels
