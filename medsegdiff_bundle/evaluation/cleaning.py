"""Which cleaning of masks helps, judged by labels of cases that did not train."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor

from medsegdiff_bundle.labels import marked
from medsegdiff_bundle.transforms import Cleand

KEY = "pred"  # of the mask in the configuration of inference
SHARE = 0.5  # of the smallest part in any label: what is smaller is taken for a mistake


@dataclass(frozen=True)
class Masks:
    """Of one case.

    Attributes:
        mask: numbers of classes, (1, S), or regions that overlap, (R, S) of 0 and 1.
        label: likewise.
    """

    mask: MetaTensor
    label: Tensor


class Trial(NamedTuple):
    """What one step of cleaning did.

    Attributes:
        name: such as "largest component of liver".
        before: mean Dice over the cases and classes without it, with the steps that were taken before.
        after: with it.
        error: standard error of the mean of the differences over the cases.
        taken: whether it helps: the difference is above its standard error, and no class loses.
    """

    name: str
    before: float
    after: float
    error: float
    taken: bool


def choose_cleaning(
    cases: Callable[[], Iterator[Masks]], class_names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[Trial]]:
    """Try steps of cleaning one after the other, and keep each that helps beside those that were kept before.

    For each class the largest component alone and filled holes; then, for all classes, no part below half of the
    smallest in any label. Compare `find_best_configuration` of nnU-Net, which tries the largest component.

    Args:
        cases: called for each trial, so that no more than one case is held at a time.
        class_names: of the classes, or the regions, from 1 on.

    Returns:
        transforms, as the entry `clean` of a configuration; and all trials in their order.
    """
    kept: list[dict[str, Any]] = []
    trials: list[Trial] = []
    numbers = range(1, len(class_names) + 1)
    scores = _dice(cases, kept, numbers)
    smallest = _smallest_part(cases, numbers)
    for name, steps in _candidates(class_names, smallest):
        tried = _dice(cases, [*kept, *steps], numbers)
        differences = tried.mean(axis=1) - scores.mean(axis=1)
        error = float(differences.std(ddof=1) / math.sqrt(len(differences))) if len(differences) > 1 else math.inf
        worse = bool((tried.mean(axis=0) < scores.mean(axis=0)).any())
        taken = float(differences.mean()) > error and not worse
        trials.append(Trial(name, float(scores.mean()), float(tried.mean()), error, taken))
        if taken:
            kept, scores = [*kept, *steps], tried
    return kept, trials


def _candidates(class_names: Sequence[str], smallest: float) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for kind, words in (("KeepLargestConnectedComponentd", "largest component"), ("FillHolesd", "filled holes")):
        for number, name in enumerate(class_names, 1):
            yield f"{words} of {name}", [{"_target_": kind, "keys": KEY, "applied_labels": [number]}]
    size = SHARE * smallest
    if size > 0:
        target = {"_target_": "medsegdiff_bundle.transforms.RemoveSmallPartsd", "_requires_": "@bundle_path"}
        yield f"no part below {size:.3g}", [{**target, "keys": KEY, "min_size": float(f"{size:.6g}")}]


def _dice(cases: Callable[[], Iterator[Masks]], steps: list[dict[str, Any]], numbers: Sequence[int]) -> np.ndarray:
    """Dice of each case and class (cases, classes); 1 where neither mask nor label has it."""
    parser = ConfigParser({"bundle_path": None, "steps": json.loads(json.dumps(steps))})  # the package is imported here
    clean = Cleand(KEY, parser.get_parsed_content("steps"))
    rows = []
    for case in cases():
        mask = clean({KEY: case.mask})[KEY]
        row = []
        for number in numbers:
            found, expected = marked(mask, number), marked(case.label, number)
            size = int(found.sum()) + int(expected.sum())
            row.append(2 * int((found & expected).sum()) / size if size else 1.0)
        rows.append(row)
    return np.asarray(rows)


def _smallest_part(cases: Callable[[], Iterator[Masks]], numbers: Sequence[int]) -> float:
    """Size of the smallest connected part in any label, in the units of the voxels' sizes; 0 if there is none."""
    from scipy import ndimage

    sizes: list[float] = []
    for case in cases():
        unit = float(case.mask.pixdim.prod())
        for number in numbers:
            parts, count = ndimage.label(np.asarray(marked(case.label, number)))
            sizes += [unit * size for size in np.bincount(parts.ravel())[1:]] if count else []
    return min(sizes, default=0.0)
