"""Fusion of the members into one label map."""

from __future__ import annotations

from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms.post.dictionary import Ensembled
from torch import Tensor

from medsegdiff_bundle.fusion import expected_dice, staple
from medsegdiff_bundle.labels import likely, most_probable
from medsegdiff_bundle.settings import FUSIONS

from .members import check_channels, check_num_classes, labels_and_number, like_members, stack_members


class FuseEnsembled(Ensembled):
    """Fuse the members into one label map, by a method that a configuration names in a word.

    - "staple": EM over the members' performance, see `medsegdiff_bundle.fusion.staple`. Probabilities become labels,
      member by member, by argmax. The class of highest posterior; for two classes 1 where its posterior is above 0.5.
    - "mean": the class of highest mean probability; of members that are labels the same as "vote".
    - "vote": the class that most members choose.
    - "dice": the mask of highest mean Dice with the members, see `medsegdiff_bundle.fusion.expected_dice`. Members that
      are probabilities are compared by their argmax, and searched over level sets of their mean.

    In a tie it is the lowest of the classes. Regions, which may overlap, are fused one by one, each against what is
    outside of it; a tie is outside.

    Args:
        keys: key of the members; as in MONAI's `MeanEnsembled`, several keys are stacked, one member each.
        method: "staple", "mean", "vote" or "dice".
        output_key: where the fused labels go; needed for several keys, otherwise `keys` by default.
        num_classes: K; needed for members that are labels.
        labels: whether the mean of probabilities ends in labels; or stays what it is, (K, ...), for `InvertLabelsd`.
        multi_label: whether the K channels are regions.

    Raises:
        ValueError: an argument is out of range.

    Shapes:
        one key: (E, K, ...) probabilities or (E, 1, ...) labels -> (1, ...) labels, float32 as from `AsDiscreted`
        several keys: each (K, ...) or (1, ...) -> the same
        with `multi_label` (E, K, ...) -> (K, ...) of 0 and 1
    """

    def __init__(
        self,
        keys: KeysCollection,
        method: str,
        output_key: str | None = None,
        num_classes: int | None = None,
        labels: bool = True,
        multi_label: bool = False,
    ) -> None:
        if method not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {method!r}.")
        check_num_classes(num_classes, multi_label)
        self.multi_label = multi_label
        self.method = method
        self.num_classes = num_classes
        self.labels = labels
        super().__init__(keys, self._fuse, output_key)

    def _fuse(self, items: Any) -> Any:
        members = stack_members(items)
        if self.multi_label:
            return like_members(self._fuse_regions(members), items)
        if self.method == "mean" and members.shape[1] > 1:
            check_channels(members, self.num_classes)
            mean = members.float().mean(0)
            if not self.labels:
                return like_members(mean, items)
            fused = most_probable(mean, 0)
        else:
            labels, num_classes = labels_and_number(members, self.num_classes)  # (E, ...)
            fused = self._fuse_labels(labels, num_classes, members.float() if members.shape[1] > 1 else None)
        return like_members(fused.unsqueeze(0), items)

    def _fuse_labels(self, labels: Tensor, num_classes: int, probabilities: Tensor | None) -> Tensor:
        """Labels (E, ...), and for "dice" probabilities (E, K, ...) if there are any -> (...)."""
        if self.method == "dice":
            return expected_dice(labels, num_classes, probabilities).labels
        return (staple_labels if self.method == "staple" else vote_labels)(labels, num_classes)

    def _fuse_regions(self, members: Tensor) -> Tensor:
        """Probabilities of regions, or masks of 0 and 1, (E, R, ...) -> (R, ...)."""
        check_channels(members, self.num_classes)
        if self.method == "mean":
            mean = members.float().mean(0)
            return likely(mean) if self.labels else mean
        fused = []
        for region in members.float().unbind(1):  # (E, ...)
            fused.append(self._fuse_labels(likely(region).long(), 2, torch.stack([1 - region, region], dim=1)))
        return torch.stack(fused)


def staple_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Class of highest posterior, (E, ...) -> (...)."""
    posterior = staple(labels, num_classes).posterior
    return posterior > 0.5 if num_classes == 2 else posterior.max(0).indices


def vote_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Class of most votes, (E, ...) -> (...). Class by class: one-hot votes of a large volume would not fit."""
    fused = torch.zeros_like(labels[0])
    most = torch.zeros(labels.shape[1:], dtype=torch.int16, device=labels.device)
    for label in range(num_classes):
        votes = torch.zeros_like(most)
        for member in labels:
            votes += member == label
        fused.masked_fill_(votes > most, label)  # indexing by a mask would list the places of all voxels
        most = torch.maximum(votes, most)
    return fused
