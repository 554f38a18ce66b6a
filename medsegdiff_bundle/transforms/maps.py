"""Maps of how much the members disagree."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms.post.dictionary import Ensembled
from monai.utils import ensure_tuple
from torch import Tensor

from medsegdiff_bundle.uncertainty import CLASS_UNCERTAINTIES, UNCERTAINTIES, of_regions

from .members import check_channels, check_num_classes, labels_and_number, like_members, stack_members

MAPS = {**UNCERTAINTIES, **CLASS_UNCERTAINTIES}
CHUNK = 2**16  # voxels of which maps are made at once


class EnsembleUncertaintyd(Ensembled):
    """Write maps of the disagreement of the members; see `medsegdiff_bundle.uncertainty`.

    Args:
        keys: key of the members; as in `MeanEnsembled`, several keys are stacked, one member each.
        output_key: where the map goes; one for each method.
        method: entropy (of the mean prediction), mutual_information, variance, disagreement (per class), or several.
        num_classes: K; needed for members that are labels, which count as sure votes.
        multi_label: whether the K channels are regions, see `medsegdiff_bundle.uncertainty.of_regions`.

    Shapes:
        one key: (E, K, ...) probabilities or (E, 1, ...) labels -> (1, ...) float32, disagreement (K - 1, ...)
        several keys: each (K, ...) or (1, ...) -> the same
        with `multi_label` the same, disagreement (K, ...)
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_key: Sequence[str] | str,
        method: Sequence[str] | str = "entropy",
        num_classes: int | None = None,
        multi_label: bool = False,
    ) -> None:
        self.methods, self.output_keys = ensure_tuple(method), ensure_tuple(output_key)
        for name in self.methods:
            if name not in MAPS:
                raise ValueError(f"method must be one of {', '.join(MAPS)}, got {name!r}.")
        if len(self.output_keys) != len(self.methods):
            raise ValueError(
                f"output_key must name {len(self.methods)} key(s), one for each method, got {output_key!r}."
            )
        check_num_classes(num_classes, multi_label)
        self.num_classes = num_classes
        self.multi_label = multi_label
        super().__init__(keys, stack_members, self.output_keys[0])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write each map."""
        d = dict(data)
        stacked: Any = super().__call__(d)[self.output_key]  # (E, K, ...) or (E, 1, ...)
        shape = stacked.shape[2:]
        # A part at a time: sure votes of labels, and the copies on the way, are many times the size of the map.
        maps: dict[str, Tensor] = {}
        voxels = stacked.flatten(2)
        for start in range(0, voxels.shape[2], CHUNK):
            probabilities = self._probabilities(voxels[..., start : start + CHUNK])
            for name in self.methods:
                values = of_regions(name, probabilities) if self.multi_label else MAPS[name](probabilities)
                if name not in maps:
                    maps[name] = values.new_empty(*values.shape[:-1], voxels.shape[2])
                maps[name][..., start : start + CHUNK] = values
        for name, output_key in zip(self.methods, self.output_keys, strict=True):
            d[output_key] = like_members(maps[name].reshape(-1, *shape), d[self.keys[0]])
        return d

    def _probabilities(self, members: Tensor) -> Tensor:
        """(E, K, P) or labels (E, 1, P) -> (E, K, P)."""
        if members.shape[1] > 1 or self.multi_label:
            check_channels(members, self.num_classes)
            return members
        labels, num_classes = labels_and_number(members, self.num_classes)
        classes = torch.arange(num_classes, dtype=torch.int16, device=labels.device)
        # `one_hot` takes several times as long, by way of eight bytes per number.
        return (labels.to(torch.int16).unsqueeze(1) == classes.unsqueeze(1)).float()
