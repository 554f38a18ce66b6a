"""What is written beside weights of cases with known labels: calibrated intervals, and the numbers of training cases.

The way of a case that trained nothing: `segmented` -> `measured`, a row for each structure -> `fit` of
`medsegdiff_bundle.intervals` -> `<weights>.intervals.json`. That of a training case: `Segmenter` ->
`CheckKnownd.describe` -> `write_known` -> `<weights>.known.json`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from medsegdiff_bundle.case_numbers import Description
from medsegdiff_bundle.intervals import conformal_quantile, leave_one_out
from medsegdiff_bundle.labels import marked, region_channels
from medsegdiff_bundle.metrics.overlap import dice, shared_voxels
from medsegdiff_bundle.segmenter import Segmenter
from medsegdiff_bundle.statistics import ensemble_statistics, region_statistics
from medsegdiff_bundle.transforms import CheckKnownd, MaskIgnoredd

from .of_networks import fused_labels, inverted, labels_in_file

Array = NDArray[np.float64]

# Of one structure of one case. Volumes in ml, areas in pixels.
COLUMNS = ("true", "mean", "deviation", "low", "high", "anchor", "anchor_error", "size", "pairwise", "expected", "dice")
KINDS = ("calibrated", "constant width", "by the anchor's error", "members' 5 to 95 %")


def measured(
    case: dict[str, Any],
    class_names: Sequence[str],
    regions: Sequence[Sequence[int]] | None = None,
    ignore_label: int | None = None,
) -> Array:
    """Volumes that the members and the anchor find of each structure, the true one, and Dice.

    Args:
        case: from `segmented`, of anchor and members: `pred` (1 + E, K, S).
        class_names: of the classes, or of the regions.
        regions: classes that make each region; None of classes.
        ignore_label: value of what was not annotated, which counts nowhere.

    Returns:
        (structures, `COLUMNS`).
    """
    stacked, label = case["pred"].as_tensor(), case["label"].as_tensor()
    multi_label = regions is not None
    members = labels_in_file(case, stacked[1:], multi_label).to(torch.uint8)  # (E, S) or (E, R, S)
    fused = fused_labels(case, stacked[1:].mean(dim=0), multi_label).to(torch.uint8)  # (1, S) or (R, S)
    anchor = inverted(case, stacked[0]).clamp(0, 1).double()  # (K, S) or (R, S)
    if ignore_label is not None:
        found: dict[Hashable, Any] = {"members": members, "fused": fused, "anchor": anchor, "label": label}
        members, fused, anchor, label = MaskIgnoredd([*found], ignore_label)(found).values()
    affine = torch.as_tensor(case["label"].meta["affine"]).double()[:3, :3]
    voxel_volume = abs(float(torch.linalg.det(affine))) if label.ndim == 4 else None
    scale = 1.0 if voxel_volume is None else voxel_volume / 1000
    nothing = torch.zeros(label.shape[1:])
    if regions is None:
        said = ensemble_statistics(members, fused[0], nothing, class_names, voxel_volume)
    else:
        said = region_statistics(members, fused, nothing, class_names, voxel_volume)
        of_regions = region_channels(label, regions)
    rows = []
    for number, structure in enumerate(said["structures"].values(), start=1):
        truth = label == number if regions is None else of_regions[number - 1 : number]  # of each reader
        p = anchor[number if regions is None else number - 1]
        rows.append(
            [
                scale * float(truth.sum()) / len(truth),
                structure["volume_mean"],
                structure["volume_std"],
                *structure["members_interval"],
                scale * float(p.sum()),
                scale * float((p * (1 - p)).sum().sqrt()),
                1.0 if voxel_volume is not None else float(nothing.numel()),
                structure["pairwise_dice"],
                structure["expected_dice"],
                _mean_dice(marked(fused, number), truth),
            ]
        )
    return np.array(rows)


def _mean_dice(mask: Tensor, readers: Tensor) -> float:
    """Mean Dice of a mask (S) with those of readers (R, S); 1 of two empty ones."""
    shared = shared_voxels(mask[None].to(torch.uint8), readers.to(torch.uint8), 2, False)
    return float(dice(shared)[0, 0, 1:].mean())


def as_tables(rows: Sequence[Array], names: Sequence[str]) -> dict[str, dict[str, Array]]:
    """Of each structure the columns, (N,) each, from the rows of N cases."""
    columns = np.stack(rows).transpose(1, 2, 0)  # structures, columns, cases
    return {name: dict(zip(COLUMNS, table, strict=True)) for name, table in zip(names, columns, strict=True)}


def interval_lines(tables: Mapping[str, Mapping[str, Array]]) -> Iterator[str]:
    """A table: coverage and mean width of four kinds of interval of each structure, each case left out in turn."""
    yield f"| structure | cases | true mean | {' | '.join(KINDS)} |"
    yield "|---" * (len(KINDS) + 3) + "|"
    for name, t in tables.items():
        inside = ((t["low"] <= t["true"]) & (t["true"] <= t["high"])).mean()
        found = [
            leave_one_out(t["true"], t["mean"], t["deviation"], t["size"]),
            constant_width(np.abs(t["true"] - t["mean"])),
            leave_one_out(t["true"], t["anchor"], t["anchor_error"], t["size"]),
            (inside, (t["high"] - t["low"]).mean()),
        ]
        cells = " | ".join(f"{coverage:.3f}, width {width:.4g}" for coverage, width in found)
        yield f"| {name} | {len(t['true'])} | {t['true'].mean():.4g} | {cells} |"


def constant_width(errors: Array) -> tuple[float, float]:
    """Coverage and mean width of intervals of one width, each case left out in turn, by the errors (N,)."""
    reach = np.array([conformal_quantile(np.delete(errors, case)) for case in range(len(errors))])
    return float((errors <= reach).mean()), float(2 * reach.mean())


def predicted_dice_lines(tables: Mapping[str, Mapping[str, Array]]) -> Iterator[str]:
    """A table: rank correlation of predicted and true Dice of each structure over the cases."""
    yield "| structure | true Dice | of two members | of the fused mask with a member |"
    yield "|---|---|---|---|"
    for name, t in tables.items():
        ranks = [_rank_correlation(t[key], t["dice"]) for key in ("pairwise", "expected")]
        yield f"| {name} | {t['dice'].mean():.4f} | {' | '.join(ranks)} |"


def _rank_correlation(first: Array, second: Array) -> str:
    """Of a table; there is none where either is the same in all cases, as the Dice of a structure that is missed."""
    return "-" if np.ptp(first) == 0 or np.ptp(second) == 0 else f"{spearmanr(first, second).statistic:+.2f}"


def known_check(segmenter: Segmenter) -> CheckKnownd:
    """The transform of a segmenter that compares a case with those that the weights know."""
    return next(each for each in segmenter.postprocessing.transforms if isinstance(each, CheckKnownd))


def described(segmenter: Segmenter, images: Iterable[Any]) -> list[Description]:
    """Numbers of each case, of its image and of the mask that is made of it.

    Args:
        segmenter: of the weights.
        images: as the segmenter takes them.
    """
    found: list[Description] = []
    check = known_check(segmenter)

    def note(engine: Engine) -> None:
        cases: Any = engine.state.output
        found.extend(check.describe(case, "pred") for case in cases)

    with segmenter.evaluator.add_event_handler(Events.ITERATION_COMPLETED, note):
        for image in images:
            segmenter(image)
    return found
