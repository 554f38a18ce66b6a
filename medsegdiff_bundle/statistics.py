"""What the members of an ensemble say about one case, in numbers.

Letters in shapes: E members, S spatial axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from medsegdiff_bundle.intervals import VolumeIntervals
from medsegdiff_bundle.metrics.overlap import dice, shared_voxels

COVERAGE = 0.9  # share of the members that the interval of a volume holds


def ensemble_statistics(
    members: Tensor,
    fused: Tensor,
    uncertainty: Tensor,
    class_names: Sequence[str],
    voxel_volume: float | None = None,
    intervals: VolumeIntervals | None = None,
) -> dict[str, Any]:
    """Volumes and agreement of the members, as plain numbers for JSON; None stands for what is undefined.

    - `unit`: "ml", or "pixels" for pictures, whose areas stand in the place of the volumes.
    - `ensemble_size`: E.
    - `coverage`: what the intervals are to hold: of the true volumes, if they are calibrated, else of the members; 0.9.
    - `interval`: which of the two the `volume_interval` of the structures is: `calibrated`, true or false, and if it is
      not, `why`.
    - `mean_uncertainty`: of the voxels that the fused mask or any member gives to a structure.
    - `structures`: for each class name
        - `volume`: of the fused mask.
        - `member_volumes`: of each member, and their `volume_mean` and `volume_std` (divided by E - 1; None for one
          member).
        - `members_interval`: from the 5th to the 95th percentile of the members, between two of them by linear
          interpolation, so with fewer than 20 members a little inside the smallest and the largest. It tells the spread
          of the members, not where the true volume lies. None for one member.
        - `volume_interval`: the calibrated one, see `medsegdiff_bundle.intervals`, or where there is none the same as
          `members_interval`.
        - `pairwise_dice`: mean over all pairs of two members; 1 for two that are both empty. None for one member.
        - `expected_dice`: mean Dice of the fused mask with the members, what it has with the truth if that is like one
          of them.
        - `mean_uncertainty`: of the voxels that the fused mask or any member gives to this structure.

    Args:
        members: labels, (E, S).
        fused: labels, (S).
        uncertainty: (S).
        class_names: of the classes from 1 on.
        voxel_volume: in mm^3; None counts pixels.
        intervals: calibrated ones, if there are any.

    Raises:
        ValueError: the maps are not of the same voxels, or a label has no name.
    """
    if members.shape[1:] != fused.shape or uncertainty.shape != fused.shape:
        raise ValueError(
            "members must be (E, S), fused and uncertainty (S), "
            f"got {tuple(members.shape)}, {tuple(fused.shape)} and {tuple(uncertainty.shape)}."
        )
    shared = shared_voxels(members, fused.unsqueeze(0), len(class_names) + 1, include_background=False)
    scale = 1.0 if voxel_volume is None else voxel_volume / 1000  # to ml
    counts = shared.diagonal(dim1=1, dim2=2)  # (structures, E + 1), the fused mask last
    overlaps = dice(shared)
    size = fused.numel() if voxel_volume is None else 1.0
    why = "no calibrated intervals were asked for" if intervals is None else intervals.missing
    calibrated = {}
    structures = {}
    for label, name in enumerate(class_names, start=1):
        *each, of_fused = (scale * counts[label - 1]).tolist()
        structures[name] = {
            "volume": of_fused,
            "member_volumes": each,
            **_spread(counts[label - 1, :-1], scale, overlaps[label - 1, :-1, :-1]),
            "expected_dice": overlaps[label - 1, -1, :-1].mean().item(),
            "mean_uncertainty": _mean(uncertainty, (labels == label for labels in (fused, *members))),
        }
        calibrated[name] = None if intervals is None else intervals(name, each, size)
    whole = all(ends is not None for ends in calibrated.values())
    if whole:
        for name, ends in calibrated.items():
            structures[name]["volume_interval"] = ends
    elif why is None:
        why = "one member has no spread" if len(members) == 1 else "a structure has no calibrated interval"
    return {
        "unit": "pixels" if voxel_volume is None else "ml",
        "ensemble_size": len(members),
        "coverage": intervals.level if intervals is not None and whole else COVERAGE,
        "interval": {"calibrated": True} if whole else {"calibrated": False, "why": why},
        "mean_uncertainty": _mean(uncertainty, (labels > 0 for labels in (fused, *members))),
        "structures": structures,
    }


def region_statistics(
    members: Tensor,
    fused: Tensor,
    uncertainty: Tensor,
    class_names: Sequence[str],
    voxel_volume: float | None = None,
    intervals: VolumeIntervals | None = None,
) -> dict[str, Any]:
    """`ensemble_statistics` of regions that may overlap: a structure each, counted from the region itself.

    Args:
        members: 0 or 1, (E, R, S).
        fused: likewise, (R, S).
        uncertainty: (S).
        class_names: of the regions.
        voxel_volume: see `ensemble_statistics`.
        intervals: likewise.
    """
    each = [
        ensemble_statistics(members[:, index], fused[index], uncertainty, [name], voxel_volume, intervals)
        for index, name in enumerate(class_names)
    ]
    structures = {name: values for one in each for name, values in one["structures"].items()}
    without = next((one for one in each if not one["interval"]["calibrated"]), None)
    if without is not None:
        for values in structures.values():
            values["volume_interval"] = values["members_interval"]
    marked = ((labels > 0).any(dim=0) for labels in (fused, *members))
    return {**(without or each[0]), "mean_uncertainty": _mean(uncertainty, marked), "structures": structures}


def _spread(counts: Tensor, scale: float, overlaps: Tensor) -> dict[str, Any]:
    """Of one structure: voxels of each member (E,) float64, volume of a voxel, Dice of all pairs of members (E, E)."""
    mean = scale * counts.mean().item()
    if len(counts) == 1:
        undefined = ("volume_std", "members_interval", "volume_interval", "pairwise_dice")
        return {"volume_mean": mean, **dict.fromkeys(undefined)}
    tail = (1 - COVERAGE) / 2
    rows, columns = torch.triu_indices(len(overlaps), len(overlaps), 1)
    interval = (scale * counts.quantile(counts.new_tensor([tail, 1 - tail]))).tolist()
    return {
        "volume_mean": mean,
        "volume_std": scale * counts.std().item(),
        "members_interval": interval,
        "volume_interval": interval,
        "pairwise_dice": overlaps[rows, columns].mean().item(),
    }


def _mean(values: Tensor, masks: Iterable[Tensor]) -> float | None:
    """Mean of the voxels that any of some masks marks; one mask at a time, as all of a large volume take gigabytes."""
    marked = reduce(torch.Tensor.logical_or_, masks)
    count = int(marked.sum())
    return torch.where(marked, values, 0.0).sum(dtype=torch.float64).item() / count if count > 0 else None
