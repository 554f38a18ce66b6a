"""The mask that agrees best, on average, with a member taken at random.

Members that are draws of p(mask | image) stand for the readers who might have drawn the label. So the mean Dice of a
mask with the members estimates its Dice with a reader taken at random, at which neither the mean nor STAPLE aims. K.
Dembczynski et al., "An exact algorithm for F-measure maximization", NeurIPS 2011; M. Nordstrom et al., "On image
segmentation with noisy labels: characterization and volume properties of the optimal solutions to accuracy and Dice",
NeurIPS 2022.

Letters in shape comments: E members, K classes, N columns (patterns of votes, or pixels).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .patterns import check_labels, distinct_patterns, look_up

Array = NDArray[np.float64]

TOLERANCE = 1e-12  # by which a mean Dice must be higher to count as higher: beyond the rounding


class ExpectedDice(NamedTuple):
    """The fused mask, and how well it agrees with the members.

    Attributes:
        labels: the class of each pixel, `(...)`, int64.
        dice: mean Dice of each class but the background, in the fused mask, with the members, `(K - 1,)`, float64 on
            the CPU.
    """

    labels: Tensor
    dice: Tensor


def expected_dice(members: Tensor, num_classes: int = 2, probabilities: Tensor | None = None) -> ExpectedDice:
    """Fuse members into the mask of highest mean Dice with them; Dice of two empty masks is 1.

    Each class against the rest: voxels that all members mark are in, those that none marks are out, as both are better
    so in any mask. Of the others it takes the level set of their weighted mean, of all and none of them, that has the
    highest mean Dice; of equals the one of fewest voxels; or nothing at all, if the empty mask is as good. Weights are
    equal at first. Then, with n voxels found, member e weighs 1 / (n + its voxels), and the search is repeated for as
    long as the mean Dice grows: of all masks of n voxels, the level set of n voxels of these weights is the best. If
    all members have equally many voxels, or if there is only one, the first search of votes finds the best of all
    masks; otherwise there is no proof.

    Several classes: a voxel that more than one class claims goes to the class whose mean Dice loses most without it,
    and of equals to the lowest; a voxel that none claims is background.

    Args:
        members: labels 0 to K-1, `(E, ...)`, any number of spatial axes, integer or bool.
        num_classes: K, background included.
        probabilities: of the members, `(E, K, ...)`, whose mean then has the level sets; without them it is the mean of
            the votes.

    Returns:
        Labels and mean Dice; shapes in `ExpectedDice`.

    Raises:
        ValueError: if members are not integers, none are given, a label is outside 0 to K-1, K is below two, or
            members and probabilities do not fit one another.
    """
    members = members.as_subclass(torch.Tensor)
    check_labels(members, num_classes)
    if probabilities is not None and probabilities.shape != (len(members), num_classes, *members.shape[1:]):
        raise ValueError(
            f"probabilities must be {(len(members), num_classes, *members.shape[1:])}, got {(*probabilities.shape,)}."
        )
    flat = members.flatten(1)
    if probabilities is None:
        votes, counts, patterns, codes = distinct_patterns(flat, num_classes)
        labels, dice = _fuse(_narrow(votes, num_classes), counts.astype(np.float64), None, num_classes)
        fused = look_up(labels[patterns], codes)
    else:
        votes, values = flat.cpu().numpy(), probabilities.as_subclass(torch.Tensor).flatten(2).float().cpu().numpy()
        labels, dice = _fuse(_narrow(votes, num_classes), np.ones(votes.shape[1]), values, num_classes)
        fused = torch.from_numpy(labels).to(members.device)
    return ExpectedDice(fused.reshape(members.shape[1:]), torch.from_numpy(dice))


def _narrow(votes: np.ndarray, num_classes: int) -> np.ndarray:
    """The same in the fewest bytes, which are compared several times faster."""
    return votes.astype(np.min_scalar_type(num_classes - 1), copy=False)


def _fuse(
    votes: np.ndarray, counts: Array, probabilities: np.ndarray | None, num_classes: int
) -> tuple[NDArray[np.int64], Array]:
    """Classes (N,) and mean Dice (K - 1,) of votes (E, N), voxels of each column (N,), probabilities (E, K, N)."""
    labels = np.zeros(votes.shape[1], dtype=np.int64)
    claims = np.zeros(votes.shape[1], dtype=np.int64)
    found = []  # of each class: the members, where they differ, and what is chosen of that
    for label in range(1, num_classes):
        marked = votes == label
        certain = marked.all(axis=0)
        columns = (marked.any(axis=0) & ~certain).nonzero()[0]
        masks = marked.take(columns, axis=1).astype(np.float64)
        members = _Members(masks * counts[columns], counts[columns], counts[certain].sum())
        scores = masks if probabilities is None else probabilities[:, label].take(columns, axis=1).astype(np.float64)
        chosen = _best_level_set(members, scores)
        found.append((members, columns, chosen))
        if members.certain > 0:  # then the empty mask is never the best
            labels[certain] = label
        claims[columns[chosen]] += 1
        labels[columns[chosen]] = label
    if claims.max(initial=0) > 1:
        highest = np.full(votes.shape[1], -np.inf)
        for label, (members, columns, chosen) in enumerate(found, start=1):
            contested = chosen & (claims[columns] > 1)
            gains, places = members.gains(chosen, contested), columns[contested]
            wins = gains > highest[places] + TOLERANCE
            labels[places[wins]], highest[places[wins]] = label, gains[wins]
    dice = [members.mean_dice(labels[columns] == label) for label, (members, columns, _) in enumerate(found, start=1)]
    return labels, np.array(dice)


class _Members:
    """The members' masks of one class in the columns on which they differ.

    Args:
        masks: voxels of each column that a member marks, all or none, (E, N).
        counts: voxels of each column, (N,).
        certain: voxels beside them that every member marks.
    """

    def __init__(self, masks: Array, counts: Array, certain: float) -> None:
        self.masks, self.counts, self.certain = masks, counts, certain
        self.sizes = certain + masks.sum(axis=1)  # voxels of each member, (E,)

    def mean_dice(self, chosen: NDArray[np.bool_]) -> Array:
        """Of the mask of some columns (N,), and of the certain voxels."""
        shared = self.certain + self.masks[:, chosen].sum(axis=1)
        return _mean_dice(shared, self.certain + self.counts[chosen].sum(), self.sizes)

    def gains(self, chosen: NDArray[np.bool_], columns: NDArray[np.bool_]) -> Array:
        """What the mean Dice of such a mask loses without one voxel of each of some of its columns, both (N,)."""
        shared, voxels = self.certain + self.masks[:, chosen].sum(axis=1), self.certain + self.counts[chosen].sum()
        without = shared[:, np.newaxis] - self.masks[:, columns] / self.counts[columns]
        return self.mean_dice(chosen) - _mean_dice(without, voxels - 1, self.sizes)


def _best_level_set(members: _Members, scores: Array) -> NDArray[np.bool_]:
    """Which columns (N,) belong to the mask of highest mean Dice, for scores (E, N); see `expected_dice`."""
    masks, counts, certain, sizes = members.masks, members.counts, members.certain, members.sizes
    best = float((sizes == 0).mean())  # of the empty mask
    chosen = np.zeros(len(counts), dtype=bool)
    weights = np.ones(len(masks))
    while True:
        means = weights @ scores
        means = np.round(means / max(means.max(initial=0), TOLERANCE), 12)  # equal but for the rounding is equal
        order = np.argsort(-means, kind="stable")
        means = means[order]
        ends = np.append(np.diff(means) != 0, True)[: len(order)]  # of the level sets, which are searched all at once
        shared = np.zeros((len(masks), ends.sum() + 1))  # the first is that of the certain voxels alone
        shared[:, 1:] = masks.take(order, axis=1).cumsum(axis=1)[:, ends]
        voxels = certain + np.append(0, counts[order].cumsum()[ends])
        dice = ((shared + certain) / np.maximum(voxels + sizes[:, np.newaxis], 1)).mean(axis=0) * 2
        first = int((dice >= dice.max() - TOLERANCE).argmax())
        if dice[first] <= best + TOLERANCE:
            return chosen
        best, weights = float(dice[first]), 1 / (voxels[first] + sizes)
        chosen = np.zeros(len(counts), dtype=bool)
        chosen[order[: np.append(0, ends.nonzero()[0] + 1)[first]]] = True


def _mean_dice(shared: Array, voxels: Array | float, sizes: Array) -> Array:
    """Mean over the members of Dice, of shared voxels (E, ...), voxels of the mask (...), and of the members (E,)."""
    total = voxels + sizes.reshape(-1, *[1] * (shared.ndim - 1))
    return np.divide(2 * shared, total, out=np.ones_like(shared), where=total > 0).mean(axis=0)
