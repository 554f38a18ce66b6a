"""What of an image was measured, and what a program put around it.

Letters in shapes: S spatial axes.
"""

from __future__ import annotations

import numpy as np

SHARE = 0.0025  # of the voxels: a smaller part changes no mean or deviation, and chance makes none that large
TOLERANCE = 1e-5  # relative: what an interpolation in float32 makes of one value
NEARLY = 0.0075  # of an image's deviation: noise, or what is left of the rings of a spline; air of a scanner has more
PEAK = 3  # times as frequent as the next values of its image is one that a program put there
RING = 0.2  # of the step from padding to tissue: a spline's rings beside it are not larger
RINGS = 16  # voxels to which they reach, also where it made three voxels of one
STEPS = 4  # voxels of a step, likewise


def unmeasured(channel: np.ndarray) -> np.ndarray:
    """Where an image holds no measurement, but the one value that a program put at its border.

    Whatever that value is, such as 0, -1024 or a mean: in a volume it fills connected parts of at least 0.25 % of the
    voxels, one of which reaches the border, and is far more frequent than the next higher and lower values, as where
    an image has few grey levels each fills large parts. It may be hidden by noise of 0.01 deviations of the image, and
    by the rings with which splines surround it. In a picture, where black and white are also what left the range of its
    8 bits, it must fill two edges, exactly.

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
    """Parts of at least so many voxels that hold one value, or else nearly so, and reach the border."""
    marked = np.zeros(channel.shape, dtype=bool)
    axes = [axis for axis, size in enumerate(channel.shape) if size > 2]  # a slice or two are all border
    edges = [channel.take(place, axis) for axis in axes for place in (0, -1)]
    volume = channel.ndim > 2
    for value in _fillings(edges, channel.ndim):
        margin = TOLERANCE * abs(value)
        filled = _filled(channel, value, margin, axes, smallest, PEAK if volume else 0)
        marked |= _with_rings(channel, filled, value, smallest) if volume else filled
    if marked.any() or not (volume and edges):
        return marked
    margin = NEARLY * float(channel.std(dtype=np.float64))
    for value in _near_fillings(edges, margin):
        filled = _filled(channel, value, margin, axes, smallest)
        marked |= _with_rings(channel, filled | ~_large(~filled, smallest), value, smallest)
    return marked


def _with_rings(channel: np.ndarray, filled: np.ndarray, value: float, smallest: float) -> np.ndarray:
    """What is filled, and what an interpolation made of its rim: rings about its value, and steps from it to tissue."""
    if not filled.any():
        return filled
    grown = filled
    for _ in range(RINGS):
        if grown.all():
            return grown
        rest = channel[~grown]
        rest = rest[:: max(1, rest.size // 10**5)]
        step = abs(value - np.median(rest)) + rest.std(dtype=np.float64)
        beside = _around(grown) & ~grown
        near = np.abs(channel[beside] - value) <= RING * step
        if 2 * near.sum() < near.size:
            break
        if grown is filled:  # what is left of rings far from tissue may be as small as noise
            grown = filled | _large(np.abs(channel - value) <= NEARLY * channel.std(dtype=np.float64), smallest)
        else:
            grown[beside] = near
    if grown is filled:
        return _with_steps(channel, filled, value, 0)
    return _with_steps(channel, ~_large(~grown, smallest), value, 1)


def _with_steps(channel: np.ndarray, filled: np.ndarray, value: float, percentile: float) -> np.ndarray:
    """What is filled, and beside it what lies between its value and those of the tissue away from it."""
    outer = filled
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
    """The large connected parts of one value, within a margin, if one of them reaches the border.

    None where it is not more frequent than the next ones by a factor, if one is given.
    """
    holding = np.abs(channel - channel.dtype.type(value)) <= margin  # isclose takes more memory
    count = int(holding.sum())
    if count < smallest or (peak and count <= peak * _beside(channel, value, margin)):
        return np.zeros(channel.shape, dtype=bool)
    filled = _large(holding, smallest)
    reached = any(filled.take(place, axis).any() for axis in axes for place in (0, -1))
    return filled if reached else np.zeros(channel.shape, dtype=bool)


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
