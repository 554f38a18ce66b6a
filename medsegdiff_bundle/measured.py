"""What of an image was measured, and what a program put around it.

Letters in shapes: S spatial axes.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

SHARE = 0.0025  # of the voxels: a smaller part changes no mean or deviation, and chance makes none that large
TOLERANCE = 1e-5  # relative: what an interpolation in float32 makes of one value
NEARLY = 0.0075  # of an image's deviation: noise, or what is left of the rings of a spline; air of a scanner has more
PEAK = 3  # times as frequent as the next values of its image is one that a program put there
RING = 0.2  # of the step from padding to tissue: a spline's rings beside it are not larger
RINGS = 16  # voxels to which they reach, also where it made three voxels of one
EDGE = 0.9  # of an edge of an image, at least, that padding fills
RINGING = 0.05  # of the highest value: what interpolation takes from magnitudes below 0; fat and lungs in CT are lower
STEPS = 4  # voxels of a step, likewise


def unmeasured(channel: np.ndarray) -> np.ndarray:
    """Where an image holds no measurement, but the one value that a program put at its border.

    Whatever that value is, such as 0, -1024 or a mean: in a volume it fills connected parts of at least 0.25 % of the
    voxels, which hold nearly all of an edge of the volume, as tissue that someone clipped to one value does not, and is
    far more frequent than the next higher and lower values, as where an image has few grey levels each fills large
    parts. It may be hidden by noise of 0.0075 deviations of the image, and by the rings with which splines surround it.
    In a picture, where black and white are also what left the range of its 8 bits, it must fill two edges, exactly.

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
        box = box_of(~found)
    measured = channel[~found]
    return found if measured.size and measured.min() < measured.max() else np.zeros_like(found)


def _at_border(channel: np.ndarray, smallest: float) -> np.ndarray:
    """Parts of at least so many voxels that hold one value, or else nearly so, and an edge of the image."""
    marked = np.zeros(channel.shape, dtype=bool)
    axes = [axis for axis, size in enumerate(channel.shape) if size > 2]  # a slice or two are all border
    edges = [channel.take(place, axis) for axis in axes for place in (0, -1)]
    volume = channel.ndim > 2
    found = [
        (value, _filled(channel, value, TOLERANCE * abs(value), axes, smallest, PEAK if volume else 0))
        for value in _fillings(edges, channel.ndim)
    ]
    every = np.logical_or.reduce([marked, *(filled for _, filled in found)])  # also around one another
    for value, filled in found:
        marked |= _with_rings(channel, filled, value, smallest, every) if volume else filled
    if marked.any() or not (volume and edges):
        return marked
    margin = NEARLY * float(channel.std(dtype=np.float64))
    for value in _near_fillings(edges, margin):
        filled = _filled(channel, value, margin, axes, smallest)
        filled |= ~_large(~filled, smallest)
        marked |= _with_rings(channel, filled, value, smallest, filled)
    return marked


def _with_rings(
    channel: np.ndarray, filled: np.ndarray, value: float, smallest: float, every: np.ndarray
) -> np.ndarray:
    """What is filled, and what an interpolation made of its rim: rings about its value, and steps from it to tissue.

    `every` marks what is filled with any value, which is no tissue.
    """
    if not filled.any() or every.all():
        return filled
    grown = filled
    noise = NEARLY * channel[~every].std(dtype=np.float64)
    for _ in range(RINGS):
        rest = channel[~(grown | every)]
        if not rest.size:
            return grown
        rest = rest[:: max(1, rest.size // 10**5)]
        step = abs(value - np.median(rest)) + rest.std(dtype=np.float64)
        beside = _around(grown) & ~grown
        near = np.abs(channel[beside] - value) <= RING * step
        if 2 * near.sum() < near.size:
            break
        if grown is filled:  # what is left of rings far from tissue may be as small as noise
            grown = filled | _large(np.abs(channel - value) <= noise, smallest)
        else:
            grown[beside] = near
    if grown is filled:
        return _with_steps(channel, filled, value, 0, every)
    return _with_steps(channel, ~_large(~grown, smallest), value, 1, every)


def _with_steps(
    channel: np.ndarray, filled: np.ndarray, value: float, percentile: float, every: np.ndarray
) -> np.ndarray:
    """What is filled, and beside it what lies between its value and those of the tissue away from it."""
    outer = filled | every
    for _ in range(STEPS):
        outer = _around(outer)
    if outer.all():
        return filled
    inner = channel[~outer]
    lowest, middle, highest = np.percentile(inner[:: max(1, inner.size // 10**6)], [percentile, 50, 100 - percentile])
    filled = filled.copy()
    for _ in range(STEPS):
        beside = _around(filled) & ~filled
        between = channel[beside] < lowest if value < middle else channel[beside] > highest
        if 20 * between.sum() < between.size:  # a few voxels of tissue may be like no other
            break
        filled[beside] = between
    return filled


def _around(mask: np.ndarray) -> np.ndarray:
    """What is marked, and its neighbours along the axes."""
    wider = mask.copy()
    for axis in range(mask.ndim):
        old, new = mask.swapaxes(0, axis), wider.swapaxes(0, axis)
        new[1:] |= old[:-1]
        new[:-1] |= old[1:]
    return wider


def is_magnitude(measured: np.ndarray) -> bool:
    """Whether what was measured may be a magnitude, as in MR: it is hardly negative, as fat and lungs in CT are.

    Args:
        measured: values, of any shape.
    """
    return bool(measured.min() >= -RINGING * measured.max())


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
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


def _near_fillings(edges: list[np.ndarray], margin: float) -> list[float]:
    """Values about which, within a margin, the border has far more voxels than in the next ranges of this width."""
    values = np.sort(np.concatenate([edge.ravel() for edge in edges]).astype(np.float64))
    if not margin:
        return []
    steps, counts = np.unique((values / (2 * margin)).round(), return_counts=True)
    found = set()
    for step in steps[counts >= 0.03 * counts.sum()]:
        value = float(np.median(values[np.abs(values - 2 * margin * step) <= 2 * margin]))
        low, high = np.searchsorted(values, value - margin), np.searchsorted(values, value + margin, "right")
        below, above = values[:low], values[high:]  # whose next ranges begin at their nearest value
        beside = [int((below >= below[-1] - 2 * margin).sum())] if below.size else []
        beside += [int((above <= above[0] + 2 * margin).sum())] if above.size else []
        if high - low > PEAK * max(beside, default=0):
            found.add(value)
    return sorted(found)


def _filled(
    channel: np.ndarray, value: float, margin: float, axes: list[int], smallest: float, peak: float = 0
) -> np.ndarray:
    """The large connected parts of one value, within a margin, if they hold an edge of the image.

    None where it is not more frequent than the next ones by a factor, if one is given.
    """
    holding = np.abs(channel - channel.dtype.type(value)) <= margin  # isclose takes more memory
    count = int(holding.sum())
    if count < smallest or (peak and count <= peak * _beside(channel, value, margin)):
        return np.zeros(channel.shape, dtype=bool)
    filled = _large(holding, smallest)
    return filled if _holds_an_edge(filled, axes) else np.zeros(channel.shape, dtype=bool)


def _holds_an_edge(filled: np.ndarray, axes: list[int]) -> bool:
    """Whether what is filled holds nearly all of an edge of the image: of a picture a side, of a volume a line.

    Padding does, and so do the corners of a turned grid; tissue that someone has clipped to one value reaches the
    border here and there.
    """
    for axis in axes:
        others = [other for other in axes if other != axis]
        for places in itertools.product((0, -1), repeat=len(others)):
            index: list[Any] = [slice(None)] * filled.ndim
            for other, place in zip(others, places, strict=True):
                index[other] = place
            if filled[tuple(index)].mean() >= EDGE:
                return True
    return False


def _large(mask: np.ndarray, smallest: float) -> np.ndarray:
    """Connected parts of at least so many voxels."""
    from scipy import ndimage  # takes a while, and few images need it

    labels, number = ndimage.label(mask)
    large = np.bincount(labels.ravel(), minlength=number + 1) >= smallest
    large[0] = False
    kept: np.ndarray = large[labels]
    return kept


def _beside(channel: np.ndarray, value: float, margin: float) -> int:
    """How often the next higher or lower value occurs, whichever occurs more; 0 for the highest and the lowest one."""
    above, below = channel[channel > value + margin], channel[channel < value - margin]
    if not above.size or not below.size:
        return 0
    return max(int((above == above.min()).sum()), int((below == below.max()).sum()))
