"""Transforms of the members that the inferer returns, and what every transform of members needs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.transforms.post.array import Ensemble
from monai.utils import convert_to_dst_type, convert_to_tensor, ensure_tuple
from torch import Tensor

from medsegdiff_bundle.labels import likely, most_probable


class SplitAnchord(MapTransform):
    """Separate the anchor, the condition model's own segmentation, from the members it was put in front of.

    Args:
        keys: key of the anchor and the members.
        anchor_key: where the anchor goes; one for each of `keys`.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (1 + E, K, ...) -> members (E, K, ...) under `keys`, anchor (K, ...) under `anchor_key`
    """

    def __init__(self, keys: KeysCollection, anchor_key: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.anchor_keys = one_for_each("anchor_key", anchor_key, self.keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Split each key."""
        d = dict(data)
        for key, anchor_key in self.key_iterator(d, self.anchor_keys):
            stacked = d[key]
            if stacked.ndim < 2 or len(stacked) < 2:
                raise ValueError(
                    f"{key} must hold an anchor and at least one member, (1 + E, K, ...), got {tuple(stacked.shape)}."
                )
            plain = convert_to_tensor(stacked, track_meta=False)
            # Indexing a MetaTensor would share one metadata dictionary between the two.
            d[anchor_key] = convert_to_dst_type(plain[0], stacked)[0]
            d[key] = convert_to_dst_type(plain[1:], stacked)[0]
        return d


class MemberLabelsd(MapTransform):
    """Keep the label that each member gives each voxel, which fusion and inversion leave as they are: a byte each.

    Args:
        keys: of the members.
        output_key: where the labels go; one for each of `keys`.
        num_classes: K; needed for members that are labels.
        allow_missing_keys: whether a missing key is passed over.
        multi_label: whether the K channels are regions, which may overlap.

    Shapes:
        (E, K, ...) probabilities or (E, 1, ...) labels -> (E, ...) uint8
        with `multi_label` (E, K, ...) -> (E K, ...) uint8, the regions of a member after one another, 0 or 1
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_key: KeysCollection,
        num_classes: int | None = None,
        allow_missing_keys: bool = False,
        multi_label: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = one_for_each("output_key", output_key, self.keys)
        check_num_classes(num_classes, multi_label)
        self.num_classes = num_classes
        self.multi_label = multi_label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Label each key."""
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            # One at a time: labels on the way take eight bytes.
            each = [self._labels(member).to(torch.uint8) for member in stack_members(d[key])]
            d[output_key] = convert_to_dst_type(torch.cat(each), d[key], dtype=torch.uint8)[0]
        return d

    def _labels(self, member: Tensor) -> Tensor:
        """(K, ...) -> (1, ...), or (K, ...) of regions."""
        if self.multi_label:
            check_channels(member[None], self.num_classes)
            return likely(member)
        return labels_and_number(member[None], self.num_classes)[0]


def one_for_each(name: str, names: KeysCollection, keys: Sequence[Hashable]) -> tuple[Hashable, ...]:
    """The argument `name`, checked to hold one entry for each key."""
    checked: tuple[Hashable, ...] = ensure_tuple(names)
    if len(checked) != len(keys):
        raise ValueError(f"{name} must name {len(keys)} key(s), one for each of keys, got {names!r}.")
    return checked


def stack_members(items: Any) -> Tensor:
    """Members as one plain tensor (E, K, ...), from that or from a list of (K, ...)."""
    stacked: Tensor = convert_to_tensor(Ensemble.get_stacked_torch(items), track_meta=False)
    if stacked.ndim < 2:
        raise ValueError(f"members must be (E, K, ...), got shape {tuple(stacked.shape)}.")
    return stacked


def like_members(result: Tensor, items: Any) -> Any:
    """Result in float32, of the type and with the metadata of the first of the items."""
    first = items[0] if isinstance(items, (list, tuple)) else items
    return convert_to_dst_type(result, first, dtype=torch.float32)[0]


def labels_and_number(members: Tensor, num_classes: int | None) -> tuple[Tensor, int]:
    """Labels of the members, (E, K, ...) or (E, 1, ...) -> (E, ...), and K."""
    if members.shape[1] > 1:
        check_channels(members, num_classes)
        return most_probable(members, 1), members.shape[1]
    if num_classes is None:
        raise ValueError(f"members of one channel are labels and need num_classes, got shape {tuple(members.shape)}.")
    labels = members.squeeze(1)
    # Most MONAI transforms hand on labels as float32.
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise ValueError("members of one channel must be whole labels, got fractions such as probabilities.")
    if labels.is_floating_point():
        labels = labels.long()
    lowest, highest = (int(label) for label in labels.aminmax())
    if lowest < 0 or highest >= num_classes:
        raise ValueError(f"labels must be in 0..{num_classes - 1}, got {lowest}..{highest}.")
    return labels, num_classes


def check_channels(members: Tensor, num_classes: int | None) -> None:
    """Refuse probabilities of another number of classes, if that is given."""
    if num_classes not in (None, members.shape[1]):
        raise ValueError(f"num_classes is {num_classes}, but the members have {members.shape[1]} channels.")


def check_num_classes(num_classes: int | None, multi_label: bool = False) -> None:
    """Refuse fewer than two classes, or one region, if their number is given."""
    lowest = 1 if multi_label else 2
    if num_classes is not None and num_classes < lowest:
        raise ValueError(f"num_classes must be at least {lowest}, got {num_classes}.")
