"""Transforms of what a label file holds. R: raters."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor

from medsegdiff_bundle.readers.volumes import SEGMENTS

from .members import check_num_classes
from .placing import file_name

WHOLE = 1e-3 + 1e-5  # how far a number of a class may be from a whole one: 1e-3, and room for rounding to float32


class UnpackRatersd(MapTransform):
    """Separate the masks of several raters that one file holds: its value is the sum over r of (marked by r) << r.

    Args:
        keys: of the packed masks.
        num_raters: R, 1 to 8.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: a file holds something else.

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
                    f"The label {file_name(d[key], key)!r} must hold whole numbers below {2**self.num_raters} in one "
                    f"channel, the bits of {self.num_raters} raters, got shape {tuple(values.shape)} and values "
                    f"{lowest:g} to {highest:g}."
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
    Numbers within 1e-3 of a whole one, as some programs make of them by a scale factor, are that one. One channel for
    each class, with or without the background, becomes one of numbers. The segments of 3D Slicer's .seg.nrrd are the
    classes of their names, whatever the order in which they were drawn.

    Args:
        keys: of the labels.
        num_classes: K, background included.
        allow_missing_keys: whether a missing key is passed over.
        ignore_label: value of what was not annotated, which a label of numbers may hold besides.
        class_names: of classes 1 to K - 1; None takes the numbers of segments as they are.

    Raises:
        ValueError: some segments have names of classes and others do not; a value is no whole number from 0 to K - 1;
            or, where each class has a channel, some voxel is in several, or in none.

    Shapes:
        (1, S) numbers, or (K, S) or (K - 1, S) of 0 and 1 -> (1, S)
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int,
        allow_missing_keys: bool = False,
        ignore_label: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_num_classes(num_classes)
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.class_names = class_names

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = named_segments(d[key], self.class_names or (), self.ignore_label)
            values = convert_to_tensor(d[key], track_meta=False)
            number = len(values)
            if number not in (1, self.num_classes - 1, self.num_classes):
                raise ValueError(
                    f"The label {file_name(d[key], key)!r} has {number} channels: of {self.num_classes} classes it may "
                    "have one of numbers, or one for each class, with or without the background."
                )
            classes = self.num_classes if number == 1 else 2
            bad = (values <= -0.5) | (values >= classes - 0.5) | ((values - values.round()).abs() > WHOLE)
            if self.ignore_label is not None and number == 1:
                bad &= (values - self.ignore_label).abs() > WHOLE
            if bad.any():
                raise ValueError(
                    f"The label {file_name(d[key], key)!r} holds {values[bad][0].item():g}, which is none of "
                    f"the {classes} {'classes' if number == 1 else 'values of a channel for one class'} "
                    f"(0 to {classes - 1})."
                )
            whole = values.round()
            if number > 1:
                whole = numbers_of_channels(whole, number == self.num_classes, f"The label {file_name(d[key], key)!r}")
            if number > 1 or not torch.equal(whole, values):
                d[key] = convert_to_dst_type(whole, d[key], dtype=values.dtype)[0]
        return d


def named_segments(label: Any, class_names: Sequence[str], ignore_label: int | None = None) -> Any:
    """A label (1, S) whose numbers are those of the classes that its file names, as 3D Slicer's .seg.nrrd does.

    Args:
        label: as read. Without such names it is returned as it is, as where no name is one of a class.
        class_names: of the numbers from 1 on, in capitals or not.
        ignore_label: value of what was not annotated, which stays.

    Raises:
        ValueError: only some of the segments that mark a voxel have the name of a class.
    """
    segments = getattr(label, "meta", {}).pop(SEGMENTS, {})  # which the metadata of a batch would not share
    numbers = {name.lower(): number for number, name in enumerate(class_names, start=1)}
    marked = {int(value) for value in label.unique().tolist()} if segments and len(label) == 1 else set()
    there = {number: name for number, name in segments.items() if number in marked and number != ignore_label}
    known = {number: numbers[name.lower()] for number, name in there.items() if name.lower() in numbers}
    if not known or known == {number: number for number in there}:
        return label
    if len(known) < len(there):
        other = next(name for number, name in there.items() if number not in known)
        raise ValueError(
            f"The label {file_name(label, 'label')!r} names a segment {other!r}, which is none of the classes "
            f"{', '.join(class_names)}."
        )
    result = label.clone()
    for number, wanted in known.items():
        result[label == number] = wanted
    return result


def numbers_of_channels(channels: Tensor, with_background: bool, name: str) -> Tensor:
    """Numbers of classes, (1, S), from one channel of 0 and 1 for each class.

    Args:
        channels: (K, S), or (K - 1, S) without the background.
        with_background: whether the first one is the background.
        name: of the label, for the error.

    Raises:
        ValueError: some voxel is in several channels, or with a background in none.
    """
    count = channels.sum(dim=0)
    if (count > 1).any() or with_background and (count < 1).any():
        many = "several" if (count > 1).any() else "none"
        raise ValueError(f"{name} puts a voxel into {many} of its {len(channels)} channels of classes.")
    return channels.argmax(dim=0, keepdim=True) + (0 if with_background else count[None])


class NamedSegmentsd(MapTransform):
    """`named_segments` of labels as they are read.

    Args:
        keys: of the labels.
        class_names: of the numbers from 1 on.
        ignore_label: value of what was not annotated, which stays.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        class_names: Sequence[str],
        ignore_label: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.class_names = class_names
        self.ignore_label = ignore_label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Number each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = named_segments(d[key], self.class_names, self.ignore_label)
        return d


class MapLabelsd(MapTransform):
    """Numbers of classes in the place of the values that the files of a data set hold for them.

    MONAI's `MapLabelValued` leaves values alone that it does not know, which would pass for other classes.

    Args:
        keys: of the labels.
        class_values: value of each class, background first, (K,).
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: a file holds another value.

    Shapes:
        (1, S) -> the same
    """

    def __init__(self, keys: KeysCollection, class_values: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(set(class_values)) < len(class_values):
            raise ValueError(f"class_values must differ, got {list(class_values)}.")
        self.class_values = list(class_values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Map each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            getattr(d[key], "meta", {}).pop(SEGMENTS, None)  # whose numbers those of the data set are not
            values = convert_to_tensor(d[key], track_meta=False)
            found = torch.full_like(values, -1)
            for number, value in enumerate(self.class_values):
                found[(values - value).abs() <= WHOLE] = number
            if (found < 0).any():
                raise ValueError(
                    f"The label {file_name(d[key], key)!r} holds {values[found < 0][0].item():g}, which is none of the "
                    f"values of the classes, {', '.join(map(str, self.class_values))}."
                )
            d[key] = convert_to_dst_type(found, d[key], dtype=values.dtype)[0]
        return d


class PictureLabelsd(MapTransform):
    """Classes from the mask of a picture, as programs save it: also in colour mode, and of two classes as 0 and 255.

    With more than two classes the values stay what they are, for `CheckLabelsd`. A mask of two classes in JPEG, whose
    compression smears its outline, is 1 from half of 255 on. One of two classes may be painted in any colour on black.

    Args:
        keys: of the masks.
        num_classes: K, background included.
        allow_missing_keys: whether a missing key is passed over.
        class_values: value of each class, for `MapLabelsd`, which is to find them: then two classes stay what they are,
            too, those of a JPEG 0 and 255. None takes what is not 0 for the one class.

    Raises:
        ValueError: the colours of a mask differ, a part of it is transparent, or K is 2 and it holds more than one
            value other than 0, as after a lossy compression.

    Shapes:
        (C, ...) grey, RGB, or one of these with transparency -> (1, ...)
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int,
        allow_missing_keys: bool = False,
        class_values: Sequence[int] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_num_classes(num_classes)
        self.num_classes = num_classes
        self.class_values = class_values

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False)
            colours, transparency = values.split([1, len(values) - 1] if len(values) < 3 else [3, len(values) - 3])
            if self.num_classes == 2 and not is_lossy(file_name(d[key], key)):
                colours = painted(colours)
            if (colours != colours[:1]).any() or (transparency != values[-1].max()).any():
                raise ValueError(
                    f"The label {file_name(d[key], key)!r} is in colour or partly transparent: save it in grey."
                )
            label = colours[:1]
            if self.num_classes == 2 and is_lossy(file_name(d[key], key)):
                label = unsmeared(label)
            if self.num_classes == 2 and self.class_values is None:
                marks = label[label != 0].unique()
                if len(marks) > 1:
                    raise ValueError(
                        f"The label {file_name(d[key], key)!r} holds {marks[0].item():g} and {marks[1].item():g}: of "
                        "two classes it may hold 0 and one other value."
                    )
                label = label != 0
            d[key] = convert_to_dst_type(label, d[key], dtype=torch.float32)[0]
        return d


def painted(colours: Tensor) -> Tensor:
    """A picture (3, S) of black and one other colour as 0 and 255, (1, S); any other as it is."""
    marked = colours.amax(dim=0) > 0
    marks = colours[:, marked]
    if len(colours) != 3 or not marks.numel() or (marks != marks[:, :1]).any():
        return colours
    return (255 * marked[None]).to(colours.dtype)


def is_lossy(file: str) -> bool:
    """Whether a file's format changes values: JPEG."""
    return file.lower().endswith((".jpg", ".jpeg", ".jfif"))


def unsmeared(mask: Tensor) -> Tensor:
    """0 and 255 of a mask of two classes that went through JPEG."""
    return torch.where(mask >= 128, 255, 0).to(mask.dtype)
