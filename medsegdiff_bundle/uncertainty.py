"""Maps of how much the members of an ensemble disagree, from their class probabilities.

Letters in shapes: E members, K classes. Entropy of the mean prediction, and its part that is disagreement, follow
Houlsby et al., "Bayesian active learning for classification and preference learning", 2011, and Depeweg et al.,
"Decomposition of uncertainty in Bayesian deep learning", ICML 2018; both are divided by log K, so that different
numbers of classes share one scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# How far probabilities may leave [0, 1], and their sum 1: the rounding of a bfloat16 softmax over many classes.
TOLERANCE = 0.02


def predictive_entropy(members: Tensor) -> Tensor:
    """Entropy of the mean prediction: total uncertainty, of the members each and between them.

    Args:
        members: class probabilities, (E, K, ...).

    Returns:
        (...), float32, from 0 (all members sure of the same class) to 1 (mean prediction uniform).
    """
    members = _probabilities(members)
    return _entropy(members.mean(0)).clamp(0, 1)


def mutual_information(members: Tensor) -> Tensor:
    """Entropy of the mean prediction less the mean entropy of the members: the part that is disagreement.

    Args:
        members: class probabilities, (E, K, ...).

    Returns:
        (...), float32, from 0 (all members predict the same) to 1 (sure members, votes spread over all classes); never
        above log E / log K.
    """
    members = _probabilities(members)
    expected = torch.stack([_entropy(member) for member in members]).mean(0)
    return (_entropy(members.mean(0)) - expected).clamp(0, 1)


def mutual_information_of_views(members: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """Mutual information, and its part that comes from the noise: that of members who see the same mirror image.

    Of views of equally many members the rest is the disagreement of their means. With few members the part is too
    small, as they know less of a distribution than all of them: `share_of_noise` counts that in.

    Args:
        members: class probabilities, (E, K, ...); member m belongs to view m mod `views`. Those at the end that do not
            fill all views are left out.
        views: the image and its mirror images.

    Returns:
        All of it and the part, both (...) as from `mutual_information`.

    Raises:
        ValueError: a view has less than two members.
    """
    each = len(members) // views
    if each < 2:
        raise ValueError(f"Each of {views} views needs two members, got {len(members)}.")
    members = members[: each * views]
    within = torch.stack([mutual_information(members[view::views]) for view in range(views)]).mean(0)
    return mutual_information(members), within


def share_of_noise(whole: float, noise: float, each: int, views: int) -> float:
    """Share of the mutual information that noise would have with any number of members of each mirror image.

    Of n members of one view mutual information, as a variance, is 1 - 1/n of that of all, and their mean still varies
    by 1/n of it, which passes for an effect of mirroring. So the parts are those of an analysis of variance with
    equally many in each group (Searle et al. 1992, "Variance components"); for mutual information, which is a variance
    to the second order, they are an approximation.

    Args:
        whole: of all members, see `mutual_information_of_views`; summed over any voxels and cases.
        noise: of members of one view, likewise.
        each: n, members of a view, at least 2.
        views: the image and its mirror images.

    Returns:
        0 to 1; NaN if no members differ.
    """
    drawn = noise * each / (each - 1)
    mirrored = max(whole - noise - drawn / each * (1 - 1 / views), 0.0)
    return drawn / (drawn + mirrored) if drawn + mirrored > 0 else math.nan


def variance(members: Tensor) -> Tensor:
    """Variance over the members (divided by E, so one member gives 0), mean over the classes.

    Args:
        members: class probabilities, (E, K, ...).

    Returns:
        (...), float32, from 0 (all members predict the same) to 0.25 (two classes, half of the members sure of each).
    """
    return _probabilities(members).var(0, correction=0).mean(0)


def disagreement(members: Tensor) -> Tensor:
    """Share of the members in the minority, class by class: who marks the voxel where most do not, or the reverse.

    Each member votes for its most probable class, the lowest in a tie. Of 10 members 3 against 7 give 0.3.

    Args:
        members: class probabilities, (E, K, ...).

    Returns:
        (K - 1, ...), float32, for classes 1 to K - 1, from 0 (all members agree on the class) to 0.5 (half of them).
    """
    members = _probabilities(members)
    votes = members.max(1).indices  # (E, ...), many times faster than argmax
    share = torch.stack([(votes == label).float().mean(0) for label in range(1, members.shape[1])])
    return torch.minimum(share, 1 - share)


def of_regions(name: str, members: Tensor) -> Tensor:
    """A measure of `UNCERTAINTIES` or `CLASS_UNCERTAINTIES` of regions, which may overlap.

    Each region against what is outside of it, as two classes. Of the first kind the mean over the regions: for the
    entropy that of their joint distribution, were they independent, divided as above by the largest that it can be.

    Args:
        name: of the measure.
        members: probabilities of each region, (E, R, ...).

    Returns:
        (...), or (R, ...) of a measure with a value for each class.
    """
    measure = UNCERTAINTIES.get(name) or CLASS_UNCERTAINTIES[name]
    each = [measure(torch.stack([1 - region, region], dim=1)) for region in members.float().unbind(1)]
    return torch.stack(each).mean(0) if name in UNCERTAINTIES else torch.cat(each)


def _probabilities(members: Tensor) -> Tensor:
    """Check that members are (E, K, ...) distributions, and return them in float32 within [0, 1]."""
    members = members.as_subclass(torch.Tensor)
    if not members.is_floating_point():
        raise ValueError(f"members must be floating point probabilities, got {members.dtype}.")
    if members.ndim < 2 or members.shape[1] < 2 or members.numel() == 0:
        raise ValueError(f"members must be (E, K, ...) with K of at least 2, got shape {tuple(members.shape)}.")
    members = members.float()
    lowest, highest = (value.item() for value in members.aminmax())
    # Written so that NaN fails as well.
    if not (lowest >= -TOLERANCE and highest <= 1 + TOLERANCE):
        raise ValueError(f"members must be probabilities in [0, 1], got values from {lowest:g} to {highest:g}.")
    deviation = (members.sum(1) - 1).abs().max().item()
    if deviation > TOLERANCE:
        raise ValueError(f"members must sum to 1 over the classes, got a sum that is off by {deviation:g}.")
    return members.clamp(0, 1)


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy over classes (K, ...) -> (...), as a share of log K."""
    # entr(p) = -p log p, and 0 at p = 0.
    return torch.special.entr(probabilities).sum(0) / math.log(len(probabilities))


# What configurations call them; one value per voxel.
UNCERTAINTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": predictive_entropy,
    "mutual_information": mutual_information,
    "variance": variance,
}
# One value per voxel and class, background left out.
CLASS_UNCERTAINTIES: dict[str, Callable[[Tensor], Tensor]] = {"disagreement": disagreement}
