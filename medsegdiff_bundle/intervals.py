"""Intervals that hold the true volume as often as they say: split conformal prediction.

The error of a volume is measured in units of a scale that is known without the label. Of n cases that trained nothing,
the interval reaches as far as the ceil((n + 1) level)-th smallest of these errors. Another case like them lies within
it with at least that probability, whatever the model is worth (J. Lei et al., "Distribution-free predictive inference
for regression", JASA 113, 2018; the scale: their section 5.2).

Letters in shapes: N cases, E members.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medsegdiff_bundle.beside_weights import BesideWeights
from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.provenance import checksum

Array = NDArray[np.float64]

METHOD = "split conformal: mean of the members' volumes ± quantile * (their deviation + floor + floor_share * mean)"
LEVEL = 0.9
# Floors that are tried: of the mean, and as a share of the mean volume of all cases.
SHARES = (0.0, 0.03, 0.1, 0.3, 1.0, 10.0)
FLOORS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)


class Interval(NamedTuple):
    """How far the interval of one structure reaches.

    Attributes:
        n: cases that it was calibrated with.
        quantile: of the errors, in units of the scale.
        floor: what the scale is at least: in ml, or for areas as a share of the pixels of the picture.
        floor_share: what the scale is at least, as a share of the volume.
    """

    n: int
    quantile: float
    floor: float
    floor_share: float

    def ends(self, mean: ArrayLike, deviation: ArrayLike, size: ArrayLike = 1.0) -> tuple[Array, Array]:
        """Lower and upper end, for any number of cases; see `fit`."""
        centre = np.asarray(mean, dtype=np.float64)
        reach = self.quantile * _scale(centre, np.asarray(deviation), np.asarray(size), self.floor, self.floor_share)
        return np.maximum(centre - reach, 0), centre + reach


def conformal_quantile(errors: ArrayLike, level: float = LEVEL) -> float:
    """The ceil((n + 1) level)-th smallest of n errors, which the next one exceeds with probability 1 - level at most.

    Raises:
        ValueError: there are too few errors, or the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    ordered = np.sort(np.asarray(errors, dtype=np.float64))
    rank = math.ceil((len(ordered) + 1) * level - 1e-9)
    if rank > len(ordered):
        needed = math.ceil(level / (1 - level) - 1e-9)
        raise ValueError(f"An interval of {level:.0%} needs {needed} cases or more, got {len(ordered)}.")
    return float(ordered[rank - 1])


def fit(
    true: ArrayLike, mean: ArrayLike, deviation: ArrayLike, size: ArrayLike = 1.0, level: float = LEVEL
) -> Interval:
    """Calibrate the interval of a structure.

    The floors are those under which the errors, divided by the scale, are likeliest for a Laplace distribution: that
    judges all cases, where the narrowest interval would judge by the few at its ends, and be too narrow elsewhere.

    Args:
        true: volumes, of several raters their mean, (N,).
        mean: of the members' volumes, (N,).
        deviation: of the members' volumes, (N,).
        size: pixels of each picture, (N,), for areas in pixels; 1 for volumes.
        level: share of the cases that the interval is to hold.

    Raises:
        ValueError: there are too few cases for the level.
    """
    true, mean, deviation = (np.asarray(values, dtype=np.float64) for values in (true, mean, deviation))
    size = np.broadcast_to(np.asarray(size, dtype=np.float64), mean.shape)
    errors = np.abs(true - mean)
    # Of what the members find; of what is there, if they find nothing; anything, if nothing is there.
    unit = next((found for each in (mean, true) if (found := float((each / size).mean())) > 0), 1.0)
    best, chosen = math.inf, (unit, 0.0)
    for share, floor in itertools.product(SHARES, FLOORS):
        scale = _scale(mean, deviation, size, floor * unit, share)
        spread = float((errors / scale).mean())
        surprise = float(np.log(scale).mean()) + math.log(max(spread, np.finfo(float).tiny))
        if surprise < best - 1e-12:
            best, chosen = surprise, (floor * unit, share)
    return Interval(len(true), conformal_quantile(errors / _scale(mean, deviation, size, *chosen), level), *chosen)


def leave_one_out(
    true: ArrayLike, mean: ArrayLike, deviation: ArrayLike, size: ArrayLike = 1.0, level: float = LEVEL
) -> tuple[float, float]:
    """Share of the cases that lie in the interval that the others calibrate, and its mean width; arguments of `fit`."""
    columns = [np.asarray(values, dtype=np.float64) for values in (true, mean, deviation)]
    columns.append(np.broadcast_to(np.asarray(size, dtype=np.float64), columns[0].shape))
    inside, widths = [], []
    for case in range(len(columns[0])):
        others = [np.delete(values, case) for values in columns]
        interval = fit(others[0], others[1], others[2], others[3], level)
        low, high = interval.ends(*(values[case] for values in columns[1:]))
        inside.append(low <= columns[0][case] <= high)
        widths.append(high - low)
    return float(np.mean(inside)), float(np.mean(widths))


def _scale(mean: Array, deviation: Array, size: Array, floor: float, floor_share: float) -> Array:
    return deviation + floor * size + floor_share * mean


def write_calibration(
    file: str | os.PathLike,
    structures: Mapping[str, Interval],
    checkpoint: str | os.PathLike,
    settings: Mapping[str, Any],
    version: str,
    level: float = LEVEL,
) -> None:
    """Write the intervals of the structures, with what they hold for: the weights and the settings of the sampler."""
    content = {
        "method": METHOD,
        "level": level,
        "software": f"medsegdiff_bundle {version}",
        "sha256": checksum(checkpoint),
        "settings": dict(settings),
        "structures": {name: interval._asdict() for name, interval in structures.items()},
    }
    with whole_file(file) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")


class VolumeIntervals(BesideWeights):
    """Calibrated intervals from the file that `medsegdiff calibrate` writes beside weights, where they hold.

    Args:
        file: of the intervals; need not exist.
        checkpoint: the weights in use.
        settings: of the sampler in use: names and values that the intervals were calibrated with.

    Attributes:
        level: share of the true volumes that the intervals are to hold.
        missing: why there are none, as a sentence; None if there are.
    """

    nothing = "these weights have no calibrated intervals"
    no_weights = "there are no weights {} to compare with"
    not_it = "holds no intervals"

    def __init__(self, file: str | os.PathLike, checkpoint: str | os.PathLike, settings: Mapping[str, Any]) -> None:
        self.level = LEVEL
        self.structures: dict[str, Interval] = {}
        super().__init__(file, checkpoint, settings)

    def _take(self, content: Any) -> str | None:
        structures = {
            name: Interval(int(of["n"]), *(float(of[key]) for key in Interval._fields[1:]))
            for name, of in content["structures"].items()
        }
        level = float(content["level"])
        numbers = [number for interval in structures.values() for number in interval]
        if not (0 < level < 1 and all(0 <= number < math.inf for number in numbers)):
            raise ValueError("numbers that are none")
        for name, of_file, in_use in self.other_settings(content):
            return f"the intervals are for {name} {of_file!r}, not {in_use!r}"
        self.structures, self.level = structures, level
        return None

    def __call__(self, name: str, volumes: Sequence[float], size: float = 1.0) -> list[float] | None:
        """Both ends of the interval of a structure, by the volumes of the members (E,), or None if there is none.

        Args:
            name: of the structure.
            volumes: in ml, or pixels.
            size: pixels of the picture, for areas; 1 for volumes.
        """
        if name not in self.structures or len(volumes) < 2:
            return None
        low, high = self.structures[name].ends(np.mean(volumes), np.std(volumes, ddof=1), size)
        return [float(low), float(high)]
