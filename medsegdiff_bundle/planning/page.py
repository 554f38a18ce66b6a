"""The page beside a configured file: what was found, and why each number is what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from medsegdiff_bundle.datalist import DataSet

from .duration import Budget, Plan
from .fingerprint import Fingerprint
from .inspection import Fault
from .plan import GIGABYTE


def page(
    plan: Plan,
    data_set: DataSet,
    fingerprint: Fingerprint,
    faults: Sequence[Fault],
    budget: Budget,
    command: str,
    changes: Mapping[str, Any],
) -> str:
    """Text in Markdown.

    Args:
        plan: the settings with their reasons.
        data_set: described.
        fingerprint: of its cases.
        faults: of the set, none of them fatal.
        budget: that was given.
        command: that trains with the file.
        changes: entries of the file in place of those of the plan.
    """
    shapes = fingerprint.shapes
    found = [
        ("form", data_set.form),
        ("cases that were counted", fingerprint.num_cases),
        ("voxels, median", " x ".join(map(str, fingerprint.median_shape))),
        (
            "voxels, smallest and largest along each axis",
            f"{_listed(shapes.min(axis=0))} and {_listed(shapes.max(axis=0))}",
        ),
    ]
    if fingerprint.spatial_dims == 3:
        found.append(("voxel size in mm, median", " x ".join(f"{size:.3g}" for size in fingerprint.median_spacing)))
    for number, stats in enumerate(fingerprint.foreground):
        name = data_set.channel_names[number] if number < len(data_set.channel_names) else f"channel {number}"
        found.append(
            (
                f"foreground of {name}",
                f"mean {stats['mean']:.4g}, deviation {stats['stdev']:.4g}, "
                f"0.5 to 99.5 % {stats['percentile_00_5']:.4g} to {stats['percentile_99_5']:.4g}",
            )
        )
    if data_set.licence:
        found.append(("licence", data_set.licence))
    lines = [
        f"# Settings for {data_set.root.name}",
        "",
        f"For {budget.hours:g} h on {budget.device} with {budget.memory / GIGABYTE:.3g} GB. Train with `{command}`.",
        *(["", f"**{plan.remark}**"] if plan.remark else []),
        "",
        "## What was found",
        "",
        "Counted by MONAI's `DataAnalyzer`; percentiles are means over the cases.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in found),
        "",
        "## Why each setting is what it is",
        "",
        "| setting | value | why |",
        "|---|---|---|",
        *(
            f"| `{name}` | `{_cell(json.dumps(plan.settings[name]))}` | {_cell(reason)} |"
            for name, reason in plan.reasons.items()
            if name not in changes
        ),
        *(f"| `{name}` | `{_cell(json.dumps(value))}` | As given. |" for name, value in changes.items()),
        f"| `window` | | {_intensities(data_set, fingerprint)} |",
        "",
        "What is not listed is as in `train.json` and `inference.json`.",
    ]
    if faults:
        lines += ["", "## Worth a look", "", *(f"- {fault.case or 'all'}: {fault.sentence}" for fault in faults)]
    return "\n".join(lines) + "\n"


def _intensities(data_set: DataSet, fingerprint: Fingerprint) -> str:
    if data_set.modality == "CT" and fingerprint.spatial_dims == 3:
        stats = fingerprint.foreground[0]
        return (
            f"CT has units: values are clipped to {stats['percentile_00_5']:.4g} to {stats['percentile_99_5']:.4g} HU, "
            "0.5 to 99.5 % of the foreground, and brought to its mean 0 and deviation 1."
        )
    return (
        "Values have no units of their own: each channel of each image has mean 0 and deviation 1 of what was measured."
    )


def _listed(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
