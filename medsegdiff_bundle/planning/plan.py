"""The settings that follow from a data set and what may be spent on it, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medsegdiff_bundle.datalist import DataSet

from . import rules
from .duration import SHARE_OF_TIME, Budget, Plan, set_duration, windows_of
from .fingerprint import Fingerprint
from .measure import Cost, epoch_seconds, training_cost, window_seconds
from .rules import Topology

LEAST_STEPS = 1500  # of a training; below that a smaller network or patch learns more
BATCHES = {2: (8, 4), 3: (2,)}
BASES = {2: (32, 16, 8), 3: (16, 8)}
PROBES = {2: (64, 128), 3: (24, 40)}  # edges of the patches from which the cost of others is reckoned
FAR_SLOWER = 1.5  # times is bfloat16 that need not be tried any further
SHARE_OF_MEMORY = 0.8  # for the step; the rest is for images and what the operators take meanwhile
STEPS = {2: "docs/runs/isic_10_steps_and_members.md", 3: "docs/runs/hippocampus_09_steps.md"}
GIGABYTE = 10**9


def make_plan(
    data_set: DataSet,
    fingerprint: Fingerprint,
    sections: tuple[int, int],
    budget: Budget,
    folder: Path,
    say: Callable[[str], None] = lambda sentence: None,
) -> Plan:
    """Choose all settings.

    Args:
        data_set: described.
        fingerprint: of its cases.
        sections: cases that train and that validate.
        budget: what the training may take.
        folder: on whose disk the training writes.
        say: told what is being measured.

    Raises:
        ValueError: no step of a training runs in the memory.
    """
    plan = Plan()
    names = class_names(data_set, fingerprint)
    _data(plan, data_set, fingerprint, names)
    spacing = _grid(plan, fingerprint)
    channels = len(data_set.regions) or len(names) + 1
    chosen, batch, amp = _network(plan, fingerprint, spacing, channels, bool(data_set.regions), budget, say)
    _patches(plan, fingerprint, spacing, chosen.patch)
    _mirrors(plan, fingerprint, [*names, *(name for name, _ in data_set.regions)])
    _members(plan, fingerprint)
    network = network_arguments(
        chosen, fingerprint.spatial_dims, fingerprint.channels, channels, bool(data_set.regions)
    )
    say("measuring a validation and a checkpoint")
    window = window_seconds(network, chosen.patch, budget.device, amp, plan.settings["ensemble_size"])
    shape = rules.resampled_shape(fingerprint, spacing) if fingerprint.spatial_dims == 3 else chosen.patch
    case = window * windows_of(shape, plan.settings.get("roi_size"))
    assert plan.cost is not None
    set_duration(plan, sections, batch, budget, case, epoch_seconds(plan.cost.parameters, folder))
    return plan


def class_names(data_set: DataSet, fingerprint: Fingerprint) -> list[str]:
    """Of the set, or "foreground" of one class, or the values of the files."""
    if data_set.class_names:
        return list(data_set.class_names)
    values = fingerprint.class_values[1:]
    return ["foreground"] if len(values) == 1 else [f"value {value}" for value in values]


def _data(plan: Plan, data_set: DataSet, fingerprint: Fingerprint, names: list[str]) -> None:
    """Axes, channels and classes."""
    shape = " x ".join(map(str, fingerprint.median_shape))
    kind = "pictures" if fingerprint.spatial_dims == 2 else "volumes"
    plan.set("spatial_dims", fingerprint.spatial_dims, f"The images are {kind}, of {shape} voxels in the median.")
    named = f": {', '.join(data_set.channel_names)}" if data_set.channel_names else ""
    plan.set("image_channels", fingerprint.channels, f"The images have {fingerprint.channels}{named}.")
    source = "The set names them" if data_set.class_names else "The set names none: they are called by what labels hold"
    shares = ", ".join(
        f"{name} {share:.2%} of the voxels, in {cases} of {fingerprint.num_cases} cases"
        for name, share, cases in zip(names, fingerprint.class_shares[1:], fingerprint.class_cases[1:], strict=False)
    )
    if data_set.regions:
        _regions(plan, data_set, fingerprint, names, shares)
    else:
        plan.set("class_names", names, f"{source}. Found: {shares}.")
    values = list(fingerprint.class_values)
    if data_set.ignore is not None:
        number = len(values)
        values.append(data_set.ignore)
        plan.set("ignore_label", number, f"{data_set.ignore} in the files: neither loss nor metric counts such voxels.")
    one_mark = fingerprint.spatial_dims == 2 and len(values) == 2 and values[0] == 0  # which is any value but 0
    if values != list(range(len(values))) and not one_mark:
        plan.set("class_values", values, "What the labels hold for background and classes, in their order.")
    if data_set.modality:
        plan.set("modality", data_set.modality, "By the names of the channels, or the kind of the files.")


def _regions(plan: Plan, data_set: DataSet, fingerprint: Fingerprint, names: Sequence[str], shares: str) -> None:
    """Regions in the place of classes, and how they are written."""
    parts = "; ".join(f"{region}: {_joined(names, classes)}" for region, classes in data_set.regions)
    regions = [name for name, _ in data_set.regions]
    plan.set(
        "class_names", regions, f"The set names regions ({parts}), which are learned. Found of their parts: {shares}."
    )
    plan.set("regions", [list(classes) for _, classes in data_set.regions], "Classes that make each region.")
    if data_set.region_order:
        written = [fingerprint.class_values[number] for number in data_set.region_order]
        reason = "Number of each region in the mask that is written, one over those before it, as the set says."
        plan.set("regions_class_order", written, reason)


def _joined(names: Sequence[str], classes: Sequence[int]) -> str:
    """Names of some classes, which are numbered from 1."""
    return " + ".join(names[number - 1] for number in classes if 0 < number <= len(names))


def _grid(plan: Plan, fingerprint: Fingerprint) -> tuple[float, ...]:
    """Voxel size of volumes, or size of pictures."""
    if fingerprint.spatial_dims == 2:
        size = rules.picture_sizes(fingerprint)[0]
        differ = len({tuple(shape) for shape in fingerprint.shapes.tolist()}) > 1
        plan.set(
            "picture_size",
            list(size),
            f"Pictures {'differ in size and are brought to one' if differ else 'have one size'}: the median, its "
            f"longer edge at most {rules.WIDEST_PICTURE} as in the paper. Masks come back in the size of the file.",
        )
        return (1.0, 1.0)
    spacing = rules.target_spacing(fingerprint)
    median = fingerprint.median_spacing
    finer = any(abs(a - b) > 1e-3 for a, b in zip(spacing, median, strict=True))
    rest = "; of the longest voxels, more than three times as long as the others, the 10th percentile" if finer else ""
    plan.set(
        "spacing", list(spacing), f"Median voxel size in mm, axes R, A, S{rest}. Results come back on the image's grid."
    )
    return spacing


def _network(
    plan: Plan,
    fingerprint: Fingerprint,
    spacing: tuple[float, ...],
    num_classes: int,
    multi_label: bool,
    budget: Budget,
    say: Callable[[str], None],
) -> tuple[Topology, int, bool]:
    """Patch, batch and levels: the largest that fit memory and time, measured by steps of training."""
    dims = fingerprint.spatial_dims
    shape: tuple[int, ...] = (
        tuple(plan.settings["picture_size"]) if dims == 2 else rules.resampled_shape(fingerprint, spacing)
    )
    sizes = rules.picture_sizes(fingerprint) if dims == 2 else rules.patch_sizes(shape, spacing)

    def arguments(found: Topology) -> dict[str, Any]:
        return network_arguments(found, dims, fingerprint.channels, num_classes, multi_label)

    def cost(found: Topology, batch: int, amp: bool) -> Cost:
        say(f"measuring a step of {batch} x {' x '.join(map(str, found.patch))}, {found.channels[0]} channels")
        return training_cost(arguments(found), batch, found.patch, budget.device, amp, budget.memory)

    probes = [tuple(min(edge, size) for size in shape) for edge in PROBES[dims]]
    small = [rules.topology(probe, spacing, BASES[dims][0]) for probe in probes]
    amp = _mixed(plan, budget, small, lambda found, amp: cost(found, 1, amp))
    candidates = [
        (base, batch, patch)
        for patch in sizes
        for base, batch in [(base, batch) for base in BASES[dims][:2] for batch in BATCHES[dims]]
    ]
    candidates.append((BASES[dims][-1], BATCHES[dims][-1], sizes[-1]))
    lines: dict[int, Line] = {}
    factor = 1.0  # by which steps took more than was reckoned from small ones
    seconds = SHARE_OF_TIME * budget.hours * 3600 / LEAST_STEPS
    memory = SHARE_OF_MEMORY * budget.memory
    measured: Cost | None = None
    for base, batch, patch in candidates:
        found = rules.topology(patch, spacing, base)
        if base not in lines:
            tried = [rules.topology(probe, spacing, base) for probe in probes]
            lines[base] = line([math.prod(each.patch) for each in tried], [cost(each, 1, amp) for each in tried])
        expected = lines[base].at(batch * math.prod(found.patch))
        last = (base, batch, patch) == candidates[-1]
        if not last and (factor * expected.seconds > seconds or expected.memory > budget.memory):
            continue
        measured = cost(found, batch, amp)
        if measured.seconds <= 1.1 * seconds and measured.memory <= memory or last:
            break
        if math.isfinite(measured.seconds):
            factor = max(1.0, measured.seconds / expected.seconds)
    assert measured is not None
    if not math.isfinite(measured.seconds):
        raise ValueError(
            f"No training step runs in {budget.memory / GIGABYTE:.3g} GB on {budget.device}: not even {batch} x "
            f"{' x '.join(map(str, found.patch))} voxels with {found.channels[0]} channels. Give it more memory."
        )
    plan.cost = measured
    _describe(plan, found, batch, shape, budget, measured.seconds <= 1.1 * seconds, measured.memory <= memory)
    return found, batch, amp


class Line(NamedTuple):
    """Cost of a step by its voxels, from two that were measured."""

    seconds: tuple[float, float]  # of none, and of each
    memory: tuple[float, float]

    def at(self, voxels: int) -> Cost:
        """Cost of a number of voxels."""
        start, each = self.seconds
        fixed, more = self.memory
        return Cost(start + each * voxels, int(fixed + more * voxels), 0)


def line(voxels: Sequence[int], costs: Sequence[Cost]) -> Line:
    """The line through two costs; through none and the larger one that ran where they are of one size, or one ran."""
    (few, many), (small, large) = voxels, costs
    if not math.isfinite(large.seconds):
        many, large = few, small

    def of(less: float, more: float) -> tuple[float, float]:
        if many == few or more <= less:
            return 0.0, more / many
        each = (more - less) / (many - few)
        return max(0.0, less - each * few), each

    return Line(of(small.seconds, large.seconds), of(small.memory, large.memory))


def network_arguments(
    found: Topology, dims: int, in_channels: int, out_channels: int, multi_label: bool = False
) -> dict[str, Any]:
    """Arguments of `MedSegDiff` for some levels."""
    return {
        "spatial_dims": dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "channels": list(found.channels),
        "denoiser_channels": list(found.denoiser_channels),
        "strides": [list(stride) for stride in found.strides],
        "kernel_sizes": [list(kernel) for kernel in found.kernels],
        "anchor_residual": True,
        "residual_condition": dims == 3,
        "stop_gradient": dims == 2,
        "multi_label": multi_label,
    }


def _mixed(plan: Plan, budget: Budget, probes: Sequence[Topology], cost: Callable[[Topology, bool], Cost]) -> bool:
    """Whether bfloat16 is faster here, on the last of some patches, or on one where it is far slower."""
    if budget.device.type == "cuda":
        plan.set("amp", True, "bfloat16, on a GPU.")
        return True
    plain = mixed = math.nan
    for found in probes:
        plain, mixed = cost(found, False).seconds, cost(found, True).seconds
        if mixed > FAR_SLOWER * plain:  # as on a CPU without such operators, where a larger patch takes minutes
            break
    amp = mixed < 0.9 * plain
    plan.set("amp", amp, f"bfloat16 takes {mixed / plain:.2f} times as long as float32 here, on a small patch.")
    return amp


def _describe(
    plan: Plan, found: Topology, batch: int, shape: Sequence[int], budget: Budget, in_time: bool, in_memory: bool
) -> None:
    """Note the network, the patch and the batch, and what of the budget they do not keep."""
    assert plan.cost is not None
    measured, dims = plan.cost, len(found.patch)
    patch = " x ".join(map(str, found.patch))
    allowed = f"{SHARE_OF_MEMORY:.0%} of {budget.memory / GIGABYTE:.3g} GB"
    enough = f"{LEAST_STEPS} steps in {budget.hours:g} h"
    measure = f"{batch} x {patch} take {measured.memory / GIGABYTE:.2f} GB and {measured.seconds:.2f} s a step"
    if in_time and in_memory:
        why = f"The largest with which a step fits {allowed} and leaves {enough}"
    else:
        missed = [text for text, kept in ((allowed, in_memory), (enough, in_time)) if not kept]
        why = f"Nothing that was tried fits {' and '.join(missed)}: this is the smallest"
        plan.remark = f"{why}. Measured: {measure}."
    plan.set(
        "patch_size",
        list(found.patch),
        f"{why}; the median has {' x '.join(map(str, shape))} voxels. Measured: {measure}.",
    )
    if dims == 2 and list(found.patch) != plan.settings["picture_size"]:
        plan.set("picture_size", list(found.patch), f"Resized to this, what memory and time allow; median {shape}.")
    plan.set("batch_size", batch, f"Of {', '.join(map(str, BATCHES[dims]))}, with that patch.")
    narrow = min(min(stride) for stride in found.strides) == 1
    plan.set(
        "network_def#channels",
        list(found.channels),
        f"{len(found.channels)} levels: each axis is halved while it keeps {rules.DEEPEST} voxels; doubled up to "
        f"{rules.WIDEST}. {measured.parameters:,} parameters in all.",
    )
    plan.set(
        "network_def#denoiser_channels", list(found.denoiser_channels), "Of the denoiser, which corrects the anchor."
    )
    of_axes = "An axis of longer voxels waits until the others have caught up." if narrow else "All axes alike."
    plan.set("network_def#strides", [list(stride) for stride in found.strides], f"From level to level. {of_axes}")
    plan.set("network_def#kernel_sizes", [list(each) for each in found.kernels], "1 along an axis that waits, else 3.")
    if dims == 2:
        plan.set(
            "network_def#residual_condition",
            False,
            "Plain blocks learn faster from pictures (docs/runs/isic_05_fifth_run.md).",
        )
        plan.set("network_def#stop_gradient", True, "So the anchor learns by its own loss alone, as for skin lesions.")


def _patches(plan: Plan, fingerprint: Fingerprint, spacing: Sequence[float], patch: Sequence[int]) -> None:
    """Where patches are taken, and windows at inference."""
    if fingerprint.spatial_dims == 2:
        return
    shapes = (fingerprint.shapes * fingerprint.spacings / [list(spacing)]).round()
    larger = bool((shapes.max(axis=0) > list(patch)).any())
    ratios = rules.class_ratios(fingerprint.class_shares)
    if larger:
        rare = min((share for share in fingerprint.class_shares[1:] if share > 0), default=0.0)
        plan.set(
            "class_ratios",
            ratios,
            f"Patches are centred on the background in a third of the draws, on each class alike in the rest: the "
            f"rarest has {rare:.3%} of the voxels.",
        )
    plan.set(
        "roi_size",
        list(patch) if larger else None,
        "Windows of the size of the patch, as some images are larger."
        if larger
        else "No image is larger than the patch.",
    )


def _mirrors(plan: Plan, fingerprint: Fingerprint, names: Sequence[str]) -> None:
    if rules.has_sides(names):
        plan.set("mirror_axes", [], "Some classes are left or right: a mirror image would call them by the other name.")
    elif fingerprint.spatial_dims == 2:
        plan.set("mirror_axes", [0, 1], "No class is left or right.")
    else:
        plan.set("mirror_axes", [0], "No class is left or right, so the axis from left to right is mirrored.")


def _members(plan: Plan, fingerprint: Fingerprint) -> None:
    members = 4 if fingerprint.spatial_dims == 2 else 5
    plan.set("ensemble_size", members, "Members; with mirror images they take turns.")
    plan.set(
        "num_inference_steps", 1, f"Denoising steps: more do not raise the Dice ({STEPS[fingerprint.spatial_dims]})."
    )
