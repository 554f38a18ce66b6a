"""Intensities, without what was never measured: padding, the corners of a turned grid, a skull that was cut away."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import monai.transforms
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from medsegdiff_bundle.remarks import add_processing

SHARE = 0.0025  # of the voxels: a smaller part changes no mean or deviation, and chance makes none that large
MARGIN = 4  # voxels: narrower padding costs nothing, and what lies at its rim is better seen with it than without
TOLERANCE = 1e-5  # relative: what an interpolation in float32 makes of one value
PEAK = 3  # times as frequent as the next values of its image is one that a program put there


class NormalizeIntensityd(MapTransform):
    """Zero mean and unit deviation of each channel, of what was measured; see `unmeasured`, which becomes 0.

    Without such voxels it gives what MONAI's `NormalizeIntensityd(channel_wise=True)` does, to the last bit, and has
    that name, as others look for it by that; but it leaves the caller's array as it is.

    Args:
        keys: of the images, channels first.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, S) -> the same, float32
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalizer = monai.transforms.NormalizeIntensity(channel_wise=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            plain = convert_to_tensor(image, track_meta=False).to(torch.float32, copy=True)  # MONAI writes into it
            left_out = [torch.from_numpy(unmeasured(channel.cpu().numpy())).to(plain.device) for channel in plain]
            channels = []
            for channel, mask in zip(plain, left_out, strict=True):
                if mask.any():
                    measured = channel[~mask].clone()
                    channel = torch.zeros_like(channel)
                    channel[~mask] = self._normalized(measured)
                else:
                    channel = self._normalized(channel)
                channels.append(channel)
            d[key] = convert_to_dst_type(torch.stack(channels), image, dtype=torch.float32)[0]
            share = np.mean([mask.float().mean().item() for mask in left_out])
            if share > 0 and isinstance(image, MetaTensor):
                add_processing(
                    d, f"Of one value, as after padding: {share:.0%} of the image, left out of its normalisation.", key
                )
        return d

    def _normalized(self, values: torch.Tensor) -> torch.Tensor:
        plain: torch.Tensor = convert_to_tensor(self.normalizer(values[None])[0], track_meta=False)
        return plain


class CropMeasuredd(monai.transforms.CropForegroundd):
    """Crop to what was measured and `MARGIN` voxels around it, after `NormalizeIntensityd`; see `unmeasured`.

    A network that learned from images without wide padding finds structures in it. An image without wide padding stays
    as it is. `Invertd` fills what was cut off with 0.

    Args:
        keys: of what is cropped, channels first; all of one grid.
        source_key: of the image that says where.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, S) -> (C, S')
    """

    def __init__(self, keys: KeysCollection, source_key: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(
            keys,
            source_key,
            select_fn=_measured,
            margin=MARGIN,
            allow_smaller=True,
            start_coord_key=None,
            end_coord_key=None,
            allow_missing_keys=allow_missing_keys,
        )


def _measured(image: torch.Tensor) -> torch.Tensor:
    """Where a channel of an image (C, S) holds measurements, bool."""
    plain = convert_to_tensor(image, track_meta=False)
    return torch.stack([torch.from_numpy(~unmeasured(channel.cpu().numpy())) for channel in plain]).to(plain.device)


def unmeasured(channel: np.ndarray) -> np.ndarray:
    """Where an image holds no measurement, but the one value that a program put at its border.

    Whatever that value is, such as 0, -1024 or a mean: in a volume it fills connected parts of at least 0.25 % of the
    voxels, one of which reaches the border, and is far more frequent than the next higher and lower values, as where
    an image has few grey levels each fills large parts. In a picture, where black and white are also what left the
    range of its 8 bits, it must fill two edges.

    Args:
        channel: (S), of two or three axes.

    Returns:
        (S) bool. Nothing is marked where the rest would be of one value, too, such as in an image of two values.
    """
    found = np.zeros(channel.shape, dtype=bool)
    box: tuple[slice, ...] = (slice(None),) * channel.ndim
    while True:  # what lies within padding may have corners of its own, as the field of view of a CT has
        marked = found[box] | _at_border(channel[box], SHARE * channel.size)
        if np.array_equal(marked, found[box]) or marked.all():
            break
        found[box] = marked
        box = _box(~found)
    measured = channel[~found]
    return found if measured.min() < measured.max() else np.zeros_like(found)


def _at_border(channel: np.ndarray, smallest: float) -> np.ndarray:
    """Parts of at least so many voxels that hold one value and reach the border."""
    marked = np.zeros(channel.shape, dtype=bool)
    axes = [axis for axis, size in enumerate(channel.shape) if size > 2]  # a slice or two are all border
    edges = [channel.take(place, axis) for axis in axes for place in (0, -1)]
    for value in _fillings(edges, channel.ndim):
        marked |= _filled(channel, value, axes, smallest)
    return marked


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around what is marked; part by part, as indices of all of a large volume take gigabytes."""
    box = []
    for axis in range(mask.ndim):
        places = np.nonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))[0]
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)


def _fillings(edges: list[np.ndarray], ndim: int) -> list[float]:
    """Values that may have been put at the border."""
    if ndim == 2:
        whole = [float(edge.flat[0]) for edge in edges if np.allclose(edge, edge.flat[0], TOLERANCE, 0)]
        return sorted({value for value in whole if sum(np.isclose(whole, value, TOLERANCE, 0)) > 1})
    if not edges:
        return []
    values = np.concatenate([edge.ravel() for edge in edges]).astype(np.float64)
    mantissa, exponent = np.frexp(values)
    _, first, counts = np.unique(np.ldexp(mantissa.round(5), exponent), return_index=True, return_counts=True)
    return values[first[counts >= 0.03 * counts.sum()]].tolist()


def _filled(channel: np.ndarray, value: float, axes: list[int], smallest: float) -> np.ndarray:
    """The large connected parts of one value, if one of them reaches the border."""
    holding = np.abs(channel - channel.dtype.type(value)) <= TOLERANCE * abs(value)  # isclose takes more memory
    count = int(holding.sum())
    if count < smallest or (channel.ndim > 2 and count <= PEAK * _beside(channel, value)):
        return np.zeros(channel.shape, dtype=bool)
    from scipy import ndimage  # takes a while, and few images need it

    labels, number = ndimage.label(holding)
    large = np.bincount(labels.ravel(), minlength=number + 1) >= smallest
    large[0] = False
    at_border = np.concatenate([labels.take(place, axis).ravel() for axis in axes for place in (0, -1)])
    filled: np.ndarray = large[labels] if large[at_border].any() else np.zeros(channel.shape, dtype=bool)
    return filled


def _beside(channel: np.ndarray, value: float) -> int:
    """How often the next higher or lower value occurs, whichever occurs more; 0 for the highest and the lowest one."""
    margin = TOLERANCE * abs(value)
    above, below = channel[channel > value + margin], channel[channel < value - margin]
    if not above.size or not below.size:
        return 0
    return max(int((above == above.min()).sum()), int((below == below.max()).sum()))
