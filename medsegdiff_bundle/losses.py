"""The training loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.networks import one_hot
from torch import Tensor, nn

from .labels import region_channels, without_ignored
from .prepare_batch import DiffusionTarget

SMOOTH = 1.0  # voxels that the energy score adds to a union: without it the traces of probability that a softmax
# leaves in the background rule the distance of small masks, and members learn several times as slowly


def soft_jaccard_distance(first: Tensor, second: Tensor, smooth: float = 0.0) -> Tensor:
    """1 - IoU of two masks, continued to probabilities so that two equal ones have distance 0.

    With |a| the sum of a: |a - b| / |a or b| = 2 |a - b| / (|a| + |b| + |a - b|) (Wang et al. 2023, "Jaccard metric
    losses", arXiv 2302.05666, JML1). Two empty masks have distance 0.

    Args:
        first: (..., P), 0 to 1.
        second: likewise; leading axes are broadcast.
        smooth: added to twice the union, in voxels.

    Returns:
        (...), 0 to 1.
    """
    difference = (first - second).abs().sum(dim=-1)
    both = first.sum(dim=-1) + second.sum(dim=-1) + difference
    return 2 * difference / (both + smooth).clamp_min(1e-6)


def energy_score(members: Tensor, raters: Tensor, smooth: float = 0.0) -> Tensor:
    """How far drawn masks are from the raters' less how far from one another; least where both are drawn alike.

        2 / (E R) sum_ij d(member_i, rater_j) - 1 / (E (E - 1)) sum_ij d(member_i, member_j)

    The energy score (Gneiting and Raftery 2007) with `soft_jaccard_distance`: but for a constant it is the mean of
    what `GeneralizedEnergyDistanceMetric` measures, without the bias of few members. A denoiser that is trained with
    it draws from the distribution of masks instead of answering with its mean (De Bortoli et al. 2025, "Distributional
    diffusion models with scoring rules", arXiv 2502.02483).

    Args:
        members: probabilities of one class, (N, E, P), E at least 2.
        raters: masks, (N, R, P).
        smooth: see `soft_jaccard_distance`.

    Returns:
        (N,).
    """
    number = members.shape[1]
    if number < 2:
        raise ValueError(f"The energy score compares members with one another and needs two or more, got {number}.")
    to_raters = soft_jaccard_distance(members.unsqueeze(2), raters.unsqueeze(1), smooth).mean(dim=(1, 2))
    first, second = torch.triu_indices(number, number, 1, device=members.device)
    among = soft_jaccard_distance(members[:, first], members[:, second], smooth).mean(dim=1)
    return 2 * to_raters - among


def mean_where(values: Tensor, chosen: Tensor | None) -> Tensor:
    """Mean of each sample over its chosen places, 0 where there are none.

    Args:
        values: (N, ...).
        chosen: bool, broadcast over the values, (N, ...); None takes all.

    Returns:
        (N,).
    """
    if chosen is None:
        return values.flatten(1).mean(dim=1)
    weights = chosen.to(values.dtype).expand_as(values).flatten(1)
    return (values.flatten(1) * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


class MedSegDiffLoss(nn.Module):
    """Diffusion loss plus anchor loss (MedSegDiff-V2, training).

        L = diffusion loss + [t mod alpha = 0] (dice_weight Dice + beta CE)(anchor logits, label)

    The diffusion loss is the squared error of noise or velocity, and dice_weight Dice + CE of the predicted mask for
    "sample". Of several masks drawn for each image it is their energy score, mean over the classes without the
    background, plus mean_weight CE of their mean, which says how often each voxel is marked. The mean over the batch is
    taken; a sample whose t is no multiple of alpha counts as zero in the second part.
    Dice leaves the background out. It prefers one sharp mask to a right share of each class: to learn how raters
    differ, leave it out: cross-entropy alone is least at the true distribution given x_t or, for the anchor, the image.

    Regions may overlap: each has a sigmoid, and Dice and binary cross-entropy (in the place of CE) are means over them.

    Args:
        prediction_type: "epsilon", "sample" or "v_prediction".
        alpha: interval of the timesteps that train the anchor; 1 takes every sample, None takes none (an ablation).
        beta: weight of the anchor's cross-entropy.
        dice_weight: weight of Dice, wherever it stands.
        mean_weight: weight of the cross-entropy of the members' mean, where several masks of an image are drawn.
        regions: classes that make each region, where regions are learned in the place of classes.
        ignore_label: value of what was not annotated: such voxels count in no part. Where there is no other, the loss
            is 0.

    Raises:
        ValueError: an argument is out of range, or several masks are drawn that are no probabilities.

    Shapes:
        outputs: prediction before any softmax or sigmoid, (N, K, S), or (N, E, K, S) of several drawn masks; and anchor
        logits (N, K, S); see `TrainingNetwork`. The label is (N, R, S); the loss of one mask takes R = 1.
        -> scalar. `parts` then holds its terms, detached: "diffusion" and "anchor".
    """

    def __init__(
        self,
        prediction_type: str = "sample",
        alpha: int | None = 5,
        beta: float = 10.0,
        dice_weight: float = 1.0,
        mean_weight: float = 5.0,
        regions: Sequence[Sequence[int]] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        if prediction_type not in ("epsilon", "sample", "v_prediction"):
            raise ValueError(f"prediction_type must be epsilon, sample or v_prediction, got {prediction_type!r}.")
        if alpha is not None and alpha < 1:
            raise ValueError(f"alpha must be None or at least 1, got {alpha}.")
        if beta < 0 or dice_weight < 0:
            raise ValueError(f"beta and dice_weight cannot be negative, got {beta} and {dice_weight}.")
        if mean_weight < 0:
            raise ValueError(f"mean_weight cannot be negative, got {mean_weight}.")
        self.prediction_type = prediction_type
        self.alpha = alpha
        self.beta = beta
        self.dice_weight = dice_weight
        self.mean_weight = mean_weight
        self.regions = regions
        self.ignore_label = ignore_label
        self.dice = DiceLoss(include_background=regions is not None, reduction="none")
        self.parts: dict[str, Tensor] = {}

    def segmentation_loss(self, logits: Tensor, label: Tensor, beta: float) -> Tensor:
        """dice_weight Dice + beta CE of each sample, mean over the raters: (N, K, S), (N, R, S) -> (N,)."""
        total = logits.new_zeros(len(logits))
        for rater in label.split(1, dim=1):
            probabilities = self._probabilities(logits, dim=1)
            annotated, truth = self._annotated(rater), self._truth(rater, logits)
            if annotated is None:
                dice = self.dice(probabilities, truth)
            else:  # both are nowhere where nothing is known, after the activation
                dice = self.dice(probabilities * annotated, truth * annotated)
            if self.regions is None:
                classes = without_ignored(rater, self.ignore_label).squeeze(1)
                cross_entropy = F.cross_entropy(logits, classes, reduction="none").unsqueeze(1)
            else:
                cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            total = total + self.dice_weight * dice.flatten(1).mean(dim=1) + beta * mean_where(cross_entropy, annotated)
        return total / label.shape[1]

    def drawn_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Energy score + mean_weight CE of the mean of several drawn masks: (N, E, K, S), (N, R, S) -> (N,)."""
        if self.prediction_type != "sample":
            raise ValueError(
                f"Several masks are drawn with prediction_type 'sample' only, got {self.prediction_type!r}."
            )
        members = self._probabilities(logits, dim=2).flatten(3)  # (N, E, K, P)
        raters = torch.stack([self._truth(rater, logits).flatten(2) for rater in label.split(1, dim=1)], dim=1)
        annotated = self._annotated(label)
        if annotated is not None:
            annotated = annotated.all(dim=1, keepdim=True).flatten(2)  # (N, 1, P), by all raters
            members, raters = members * annotated.unsqueeze(1), raters * annotated.unsqueeze(1)
        counted = range(0 if self.regions is not None else 1, members.shape[2])
        scores = [energy_score(members[:, :, k], raters[:, :, k], SMOOTH) for k in counted]
        share, mean = raters.mean(dim=1), members.mean(dim=1)  # (N, K, P)
        # The floor of float32's rounding: a voxel that all members leave out has no infinite loss.
        cross_entropy = -(share * mean.clamp_min(1e-6).log())
        if self.regions is not None:
            cross_entropy = (cross_entropy - (1 - share) * (1 - mean).clamp_min(1e-6).log()).mean(dim=1)
        else:
            cross_entropy = cross_entropy.sum(dim=1)
        where = None if annotated is None else annotated.squeeze(1)
        return torch.stack(scores).mean(dim=0) + self.mean_weight * mean_where(cross_entropy, where)

    def _probabilities(self, logits: Tensor, dim: int) -> Tensor:
        return logits.sigmoid() if self.regions is not None else logits.softmax(dim=dim)

    def _truth(self, rater: Tensor, logits: Tensor) -> Tensor:
        """0 or 1 of each class or region, (N, 1, S) -> (N, K, S); what is ignored is background."""
        if self.regions is not None:
            return region_channels(rater, self.regions, dim=1).to(logits.dtype)
        classes = without_ignored(rater, self.ignore_label)
        return one_hot(classes, logits.shape[-rater.ndim + 1], dtype=logits.dtype)

    def _annotated(self, label: Tensor) -> Tensor | None:
        """Which voxels count; None where all do."""
        return None if self.ignore_label is None else label != self.ignore_label

    def forward(self, outputs: tuple[Tensor, Tensor], target: DiffusionTarget) -> Tensor:
        """See the class."""
        prediction, anchor_logits = outputs
        if prediction.ndim > anchor_logits.ndim:
            diffusion = self.drawn_loss(prediction, target.label).mean()
        elif self.prediction_type == "sample":
            diffusion = self.segmentation_loss(prediction, target.label, 1.0).mean()
        else:
            squares = F.mse_loss(
                prediction, target.target, reduction="none" if self.ignore_label is not None else "mean"
            )
            annotated = self._annotated(target.label)
            diffusion = squares if annotated is None else mean_where(squares, annotated).mean()
        chosen = torch.zeros_like(target.timesteps) if self.alpha is None else target.timesteps % self.alpha == 0
        anchor = torch.mean(
            chosen.to(anchor_logits.dtype) * self.segmentation_loss(anchor_logits, target.label, self.beta)
        )
        self.parts = {"diffusion": diffusion.detach(), "anchor": anchor.detach()}
        return diffusion + anchor
