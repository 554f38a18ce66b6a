"""MONAI transforms of the raters of a label, and between the inferer's members and the files that are saved.

Letters in shapes: R raters, E members, K classes. All work on one case (before collation or after decollation), and
their outputs carry the metadata and applied operations of the input, so that `Invertd` and `SaveImaged` work on them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.transforms.post.array import Ensemble
from monai.transforms.post.dictionary import Ensembled
from monai.utils import convert_to_dst_type, convert_to_tensor, ensure_tuple
from torch import Tensor

from medsegdiff_bundle.fusion import staple
from medsegdiff_bundle.report import ensemble_statistics
from medsegdiff_bundle.uncertainty import CLASS_UNCERTAINTIES, UNCERTAINTIES

MAPS = {**UNCERTAINTIES, **CLASS_UNCERTAINTIES}
CHUNK = 2**16  # voxels of which maps are made at once
FUSIONS = ("staple", "mean", "vote")


class UnpackRatersd(MapTransform):
    """Separate the masks of several raters that one file holds: its value is the sum over r of (marked by r) << r.

    Args:
        keys: of the packed masks.
        num_raters: R, 1 to 8.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (1, ...) whole numbers below 2^R -> (R, ...) uint8 masks {0, 1}, rater 0 first
    """

    def __init__(self, keys: KeysCollection, num_raters: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 1 <= num_raters <= 8:
            raise ValueError(f"num_raters must be from 1 to 8, got {num_raters}.")
        self.num_raters = num_raters

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Unpack each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False)
            packed = values.long()
            lowest, highest = (value.item() for value in values.aminmax())
            if len(values) != 1 or lowest < 0 or highest >= 2**self.num_raters or not torch.equal(packed, values):
                raise ValueError(
                    f"{key} must hold whole numbers below {2**self.num_raters} in one channel, the bits of "
                    f"{self.num_raters} raters, got shape {tuple(values.shape)} and values {lowest:g} to {highest:g}."
                )
            bits = torch.arange(self.num_raters, device=packed.device).reshape(-1, *[1] * (packed.ndim - 1))
            d[key] = convert_to_dst_type((packed >> bits) & 1, d[key], dtype=torch.uint8)[0]
        return d


class RandRaterd(RandomizableTransform, MapTransform):
    """Keep the mask of one rater, each time another: raters are an unordered set, and a model of them learns from all.

    Args:
        keys: of the masks; all get the same rater.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (R, ...) -> (1, ...)
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Choose."""
        d = dict(data)
        share = self.R.random()  # of the way through the raters
        for key in self.key_iterator(d):
            rater = int(share * len(d[key]))
            d[key] = d[key][rater : rater + 1]
        return d


class CheckLabelsd(MapTransform):
    """Refuse a label that holds something else than the classes, with the name of its file.

    Early in the deterministic part of a pipeline: a `CacheDataset` then finds bad labels before training starts.

    Args:
        keys: of the labels.
        num_classes: K, background included.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: a value is no whole number from 0 to K - 1.
    """

    def __init__(self, keys: KeysCollection, num_classes: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        _check_num_classes(num_classes)
        self.num_classes = num_classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False)
            bad = (values < 0) | (values >= self.num_classes) | (values != values.round())
            if bad.any():
                file = getattr(d[key], "meta", {}).get("filename_or_obj", key)
                raise ValueError(
                    f"The label {str(file)!r} holds {values[bad][0].item():g}, which is none of the {self.num_classes} "
                    f"classes (0 to {self.num_classes - 1})."
                )
        return d


class FuseEnsembled(Ensembled):
    """Fuse the members into one label map, by a method that a configuration names in a word.

    - "staple": EM over the members' performance, see `medsegdiff_bundle.fusion.staple`. Probabilities become labels,
      member by member, by argmax. The class of highest posterior; for two classes 1 where its posterior is above 0.5.
    - "mean": the class of highest mean probability; of members that are labels the same as "vote".
    - "vote": the class that most members choose.

    In a tie it is the lowest of the classes.

    Args:
        keys: key of the members; as in MONAI's `MeanEnsembled`, several keys are stacked, one member each.
        method: "staple", "mean" or "vote".
        output_key: where the fused labels go; needed for several keys, otherwise `keys` by default.
        num_classes: K; needed for members that are labels.

    Raises:
        ValueError: an argument is out of range.

    Shapes:
        one key: (E, K, ...) probabilities or (E, 1, ...) labels -> (1, ...) labels, float32 as from `AsDiscreted`
        several keys: each (K, ...) or (1, ...) -> the same
    """

    def __init__(
        self, keys: KeysCollection, method: str, output_key: str | None = None, num_classes: int | None = None
    ) -> None:
        if method not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {method!r}.")
        _check_num_classes(num_classes)
        self.method = method
        self.num_classes = num_classes
        super().__init__(keys, self._fuse, output_key)

    def _fuse(self, items: Any) -> Any:
        members = _stack(items)
        if self.method == "mean" and members.shape[1] > 1:
            _check_channels(members, self.num_classes)
            fused = members.float().mean(0).max(0).indices
        else:
            labels, num_classes = _labels(members, self.num_classes)  # (E, ...)
            fused = _staple_labels(labels, num_classes) if self.method == "staple" else _vote(labels, num_classes)
        return _like(fused.unsqueeze(0), items)


class STAPLEEnsembled(FuseEnsembled):
    """`FuseEnsembled` by STAPLE; the other arguments are the same."""

    def __init__(self, keys: KeysCollection, output_key: str | None = None, num_classes: int | None = None) -> None:
        super().__init__(keys, "staple", output_key, num_classes)


class EnsembleUncertaintyd(Ensembled):
    """Write maps of the disagreement of the members; see `medsegdiff_bundle.uncertainty`.

    Args:
        keys: key of the members; as in `MeanEnsembled`, several keys are stacked, one member each.
        output_key: where the map goes; one for each method.
        method: entropy (of the mean prediction), mutual_information, variance, disagreement (per class), or several.
        num_classes: K; needed for members that are labels, which count as sure votes.

    Shapes:
        one key: (E, K, ...) probabilities or (E, 1, ...) labels -> (1, ...) float32, disagreement (K - 1, ...)
        several keys: each (K, ...) or (1, ...) -> the same
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_key: Sequence[str] | str,
        method: Sequence[str] | str = "entropy",
        num_classes: int | None = None,
    ) -> None:
        self.methods, self.output_keys = ensure_tuple(method), ensure_tuple(output_key)
        for name in self.methods:
            if name not in MAPS:
                raise ValueError(f"method must be one of {', '.join(MAPS)}, got {name!r}.")
        if len(self.output_keys) != len(self.methods):
            raise ValueError(
                f"output_key must name {len(self.methods)} key(s), one for each method, got {output_key!r}."
            )
        _check_num_classes(num_classes)
        self.num_classes = num_classes
        super().__init__(keys, _stack, self.output_keys[0])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write each map."""
        d = dict(data)
        stacked: Any = super().__call__(d)[self.output_key]  # (E, K, ...) or (E, 1, ...)
        shape = stacked.shape[2:]
        # A part at a time: sure votes of labels, and the copies on the way, are many times the size of the map.
        maps: dict[str, list[Tensor]] = {name: [] for name in self.methods}
        for part in stacked.flatten(2).split(CHUNK, 2):
            probabilities = self._probabilities(part)
            for name in self.methods:
                maps[name].append(MAPS[name](probabilities))
        for name, output_key in zip(self.methods, self.output_keys, strict=True):
            d[output_key] = _like(torch.cat(maps[name], -1).reshape(-1, *shape), d[self.keys[0]])
        return d

    def _probabilities(self, members: Tensor) -> Tensor:
        """(E, K, P) or labels (E, 1, P) -> (E, K, P)."""
        if members.shape[1] > 1:
            _check_channels(members, self.num_classes)
            return members
        labels, num_classes = _labels(members, self.num_classes)
        classes = torch.arange(num_classes, dtype=torch.int16, device=labels.device)
        # `one_hot` takes several times as long, by way of eight bytes per number.
        return (labels.to(torch.int16).unsqueeze(1) == classes.unsqueeze(1)).float()


class MemberLabelsd(MapTransform):
    """Keep the label that each member gives each voxel, which fusion and inversion leave as they are: a byte each.

    Args:
        keys: of the members.
        output_key: where the labels go; one for each of `keys`.
        num_classes: K; needed for members that are labels.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (E, K, ...) probabilities or (E, 1, ...) labels -> (E, ...) uint8
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_key: KeysCollection,
        num_classes: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = _one_for_each("output_key", output_key, self.keys)
        _check_num_classes(num_classes)
        self.num_classes = num_classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Label each key."""
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            # One at a time: labels on the way take eight bytes.
            each = [_labels(member[None], self.num_classes)[0].to(torch.uint8) for member in _stack(d[key])]
            d[output_key] = convert_to_dst_type(torch.cat(each), d[key], dtype=torch.uint8)[0]
        return d


class EnsembleStatisticsd(MapTransform):
    """Put what the members say together, in numbers, into `data["result"]`; see `report.ensemble_statistics`.

    MONAI Label answers with that dictionary, and `ReportHandler` writes it beside the mask. The unit is ml for a
    volume, by its affine, and pixels for a picture.

    Args:
        keys: of the fused mask, (1, S).
        class_names: of the classes from 1 on.
        members_key: of the members' labels in the space of the mask, (E, S); see `MemberLabelsd`.
        uncertainty_key: of the map, (1, S).
        result_key: of the dictionary; what it holds already stays.
    """

    def __init__(
        self,
        keys: KeysCollection,
        class_names: Sequence[str],
        members_key: str = "member_labels",
        uncertainty_key: str = "uncertainty",
        result_key: str = "result",
    ) -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must be the one key of the fused mask, got {keys!r}.")
        self.class_names = ensure_tuple(class_names)
        self.members_key = members_key
        self.uncertainty_key = uncertainty_key
        self.result_key = result_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Count."""
        d = dict(data)
        fused = d[self.keys[0]]
        voxel_volume = None
        if fused.ndim == 4:
            voxel_volume = abs(float(torch.linalg.det(torch.as_tensor(fused.affine)[:3, :3].double())))
        fused, members, uncertainty = (
            convert_to_tensor(d[key], track_meta=False) for key in (*self.keys, self.members_key, self.uncertainty_key)
        )
        statistics = ensemble_statistics(members, fused[0], uncertainty[0], self.class_names, voxel_volume)
        d[self.result_key] = {**d.get(self.result_key, {}), **statistics}
        return d


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
        self.anchor_keys = _one_for_each("anchor_key", anchor_key, self.keys)

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


def _one_for_each(name: str, names: KeysCollection, keys: Sequence[Hashable]) -> tuple[Hashable, ...]:
    checked: tuple[Hashable, ...] = ensure_tuple(names)
    if len(checked) != len(keys):
        raise ValueError(f"{name} must name {len(keys)} key(s), one for each of keys, got {names!r}.")
    return checked


def _stack(items: Any) -> Tensor:
    """Members as one plain tensor (E, K, ...), from that or from a list of (K, ...)."""
    stacked: Tensor = convert_to_tensor(Ensemble.get_stacked_torch(items), track_meta=False)
    if stacked.ndim < 2:
        raise ValueError(f"members must be (E, K, ...), got shape {tuple(stacked.shape)}.")
    return stacked


def _like(result: Tensor, items: Any) -> Any:
    """Result in float32, of the type and with the metadata of the first of the items."""
    first = items[0] if isinstance(items, (list, tuple)) else items
    return convert_to_dst_type(result, first, dtype=torch.float32)[0]


def _labels(members: Tensor, num_classes: int | None) -> tuple[Tensor, int]:
    """Labels of the members, (E, K, ...) or (E, 1, ...) -> (E, ...), and K."""
    if members.shape[1] > 1:
        _check_channels(members, num_classes)
        return members.max(1).indices, members.shape[1]  # many times faster than argmax
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


def _staple_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Class of highest posterior, (E, ...) -> (...)."""
    posterior = staple(labels, num_classes).posterior
    return posterior > 0.5 if num_classes == 2 else posterior.max(0).indices


def _vote(labels: Tensor, num_classes: int) -> Tensor:
    """Class of most votes, (E, ...) -> (...). Class by class: one-hot votes of a large volume would not fit."""
    fused = torch.zeros_like(labels[0])
    most = torch.zeros(labels.shape[1:], dtype=torch.int16, device=labels.device)
    for label in range(num_classes):
        votes = (labels == label).sum(0, dtype=torch.int16)
        fused[votes > most] = label
        most = torch.maximum(votes, most)
    return fused


def _check_channels(members: Tensor, num_classes: int | None) -> None:
    if num_classes not in (None, members.shape[1]):
        raise ValueError(f"num_classes is {num_classes}, but the members have {members.shape[1]} channels.")


def _check_num_classes(num_classes: int | None) -> None:
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
