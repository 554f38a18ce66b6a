"""What weights know: numbers of training cases and of the masks made of these, to compare other cases with.

The means, deviations and correlation of the numbers of some training cases are a normal distribution, whose Mahalanobis
distance tells how unlike them another case is (P. C. Mahalanobis 1936, "On the generalised distance in statistics").
The correlation is drawn towards none, as there are few cases for it (after O. Ledoit and M. Wolf 2004, "A
well-conditioned estimator for large-dimensional covariance matrices"; the share is fixed here). The limit is a distance
that few training cases exceed, each measured by a fit without it.

Letters in shapes: N cases, P numbers, S spatial axes.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medsegdiff_bundle.beside_weights import BesideWeights
from medsegdiff_bundle.case_numbers import Description
from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.provenance import checksum

Array = NDArray[np.float64]

SHRINKAGE = 0.3  # of the correlation, towards none
FOLDS = 10
USUAL = 0.99  # share of the training cases within the limit, or all of few
FARTHEST = 3.5  # deviations that a single number counts at most, as a few have rare and far ones in good cases, too
OF_SAMPLER = ("uncertainty", "agreement")  # how numbers begin that depend on steps and members


class Reference(NamedTuple):
    """Distribution of the numbers of training cases.

    Attributes:
        names: of the numbers, P.
        mean: (P,), of what is compared.
        deviation: (P,).
        correlation: (P, P).
    """

    names: tuple[str, ...]
    mean: Array
    deviation: Array
    correlation: Array

    def distance(self, compared: Mapping[str, float], without: Sequence[str] = ()) -> tuple[float, dict[str, float]]:
        """How unlike the training cases a case is, and how many deviations each of its numbers is off.

        Numbers that it has not, or that are left out by the words they begin with, do not count.
        """
        use = [i for i, name in enumerate(self.names) if name in compared and not name.startswith(tuple(without))]
        if not use:
            return 0.0, {}
        off = (np.array([compared[self.names[i]] for i in use]) - self.mean[use]) / self.deviation[use]
        off = np.nan_to_num(off, nan=FARTHEST)
        counted = np.clip(off, -FARTHEST, FARTHEST)
        shrunk = (1 - SHRINKAGE) * self.correlation[np.ix_(use, use)] + SHRINKAGE * np.eye(len(use))
        length = float(np.sqrt(counted @ np.linalg.solve(shrunk, counted) / len(use)))
        return length, {self.names[i]: float(each) for i, each in zip(use, off, strict=True)}


def fit(cases: Sequence[Mapping[str, float]]) -> Reference:
    """The distribution of what is compared in some cases; a number that a case has not is taken for the mean."""
    names = tuple(dict.fromkeys(itertools.chain.from_iterable(cases)))
    table = np.array([[case.get(name, np.nan) for name in names] for case in cases])
    mean = np.nanmean(table, axis=0)
    filled = np.where(np.isnan(table), mean, table)
    deviation = filled.std(axis=0) + 1e-6
    scaled = np.clip((filled - mean) / deviation, -FARTHEST, FARTHEST)
    return Reference(names, mean, deviation, scaled.T @ scaled / len(cases))


def left_out_distances(cases: Sequence[Mapping[str, float]]) -> Array:
    """Distance of each case to the distribution of the cases of the other folds, (N,)."""
    fold = np.random.default_rng(0).permutation(len(cases)) % FOLDS
    distances = np.zeros(len(cases))
    for number in range(min(FOLDS, len(cases))):
        reference = fit([case for case, of in zip(cases, fold, strict=True) if of != number])
        for index in np.flatnonzero(fold == number).tolist():
            distances[index] = reference.distance(cases[index])[0]
    return distances


def write_known(
    file: str | os.PathLike,
    cases: Sequence[Description],
    checkpoint: str | os.PathLike,
    settings: Mapping[str, Any],
    patch_size: Sequence[int],
    version: str,
) -> float:
    """Write what weights know, of some training cases, and return the limit of the distance.

    Raises:
        ValueError: the cases are all alike, and tell nothing of others.
    """
    compared = [case.compared for case in cases]
    reference, limit = fit(compared), float(np.quantile(left_out_distances(compared), USUAL, method="higher"))
    if not 0 < limit < math.inf:
        raise ValueError(f"The {len(cases)} training cases are all alike: nothing can be told of others by them.")
    numbers = {}
    for index, name in enumerate(reference.names):
        low, high = np.quantile([case.shown[name] for case in cases if name in case.shown], [0.025, 0.975])
        numbers[name] = [_short(each) for each in (reference.mean[index], reference.deviation[index], low, high)]
    content = {
        "method": "Mahalanobis distance per number; of each: mean, deviation, 2.5 and 97.5 % of the training cases",
        "software": f"medsegdiff_bundle {version}",
        "sha256": checksum(checkpoint),
        "settings": dict(settings),
        "cases": len(cases),
        "patch_size": list(patch_size),
        "limit": _short(limit),
        "numbers": numbers,
        "correlation": [
            [round(float(each), 3) for each in row[: index + 1]] for index, row in enumerate(reference.correlation)
        ],
    }
    with whole_file(file) as unfinished:
        unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return limit


def _short(value: float) -> float:
    return float(f"{value:.5g}")


class Known(BesideWeights):
    """What weights know of the cases that trained them, from a file beside them.

    Args:
        file: that `write_known` wrote; need not exist.
        checkpoint: the weights in use.
        settings: of the sampler in use. Numbers that depend on it do not count for another one.

    Attributes:
        missing: why nothing is known, as a sentence; None if something is.
        limit: of the distance.
        patch_size: that the weights were trained on; () if nothing is known.
    """

    nothing = no_weights = "nothing is known of the training of these weights"
    not_it = "does not hold what weights know"

    def __init__(self, file: str | os.PathLike, checkpoint: str | os.PathLike, settings: Mapping[str, Any]) -> None:
        self.limit, self.cases = math.inf, 0
        self.patch_size: tuple[int, ...] = ()
        self.ranges: dict[str, tuple[float, float]] = {}
        self.without: tuple[str, ...] = ()
        self.reference: Reference | None = None
        super().__init__(file, checkpoint, settings)

    def _take(self, content: Any) -> None:
        numbers, lower = content["numbers"], content["correlation"]
        table = np.array([values[:4] for values in numbers.values()], dtype=np.float64)
        correlation = np.array(
            [[lower[max(i, j)][min(i, j)] for j in range(len(numbers))] for i in range(len(numbers))],
            dtype=np.float64,
        )
        limit, cases = float(content["limit"]), int(content["cases"])
        patch_size = tuple(int(size) for size in content["patch_size"])
        right = table.shape == (len(numbers), 4) and 0 < limit < math.inf and len(patch_size) in (2, 3)
        if not (right and np.isfinite(table).all() and np.isfinite(correlation).all() and table[:, 1].min() > 0):
            raise ValueError("numbers that are none")
        without = OF_SAMPLER if any(self.other_settings(content)) else ()
        self.ranges = {name: (low, high) for name, (low, high) in zip(numbers, table[:, 2:].tolist(), strict=True)}
        self.limit, self.cases, self.patch_size, self.without = limit, cases, patch_size, without
        self.reference = Reference(tuple(numbers), table[:, 0], table[:, 1], correlation)

    def compare(self, case: Description) -> dict[str, Any] | None:
        """How unlike the training cases a case is, as plain values for JSON; None if nothing is known.

        `distance`, `limit`, and of the three numbers that are most off: `value`, and `usual`, from the lowest to the
        highest of 95 % of the training cases, by name.
        """
        if self.reference is None:
            return None
        distance, off = self.reference.distance(case.compared, self.without)
        most = sorted(off, key=lambda name: -abs(off[name]))[:3]
        furthest = {name: {"value": case.shown[name], "usual": list(self.ranges[name])} for name in most}
        return {"distance": distance, "limit": self.limit, "furthest": furthest}


def unlike(compared: Mapping[str, Any], cases: int) -> str | None:
    """A sentence on a case that is unlike the training cases; None if it is not."""
    if compared["distance"] <= compared["limit"]:
        return None
    each = [
        f"{name} {values['value']:.3g} (theirs {values['usual'][0]:.3g} to {values['usual'][1]:.3g})"
        for name, values in compared["furthest"].items()
    ]
    return (
        f"Unlike the {cases} training cases, by {compared['distance']:.1f} where {compared['limit']:.1f} is the limit: "
        f"{', '.join(each)}. The weights may not know such images."
    )


def too_small(windows: int | Sequence[int] | None, patch_size: Iterable[int], shape: Sequence[int]) -> str | None:
    """A sentence on windows that are smaller than what the weights were trained on; None if they are not.

    Args:
        windows: `roi_size`; None takes an image whole.
        patch_size: of the training.
        shape: of the image as the network sees it, S.
    """
    patches = tuple(patch_size)
    if windows is None or len(patches) != len(shape):
        return None
    sizes = [windows] * len(shape) if isinstance(windows, int) else list(windows)
    if all(size >= min(patch, whole) for size, patch, whole in zip(sizes, patches, shape, strict=True)):
        return None
    return (
        f"The windows of {' x '.join(map(str, sizes))} are smaller than the patches of {' x '.join(map(str, patches))} "
        "that the weights were trained on: what they find in them may be wrong."
    )
