"""A case in numbers: of its image and of the mask that was made of it, to compare with those of other cases.

Letters in shapes: C channels, R regions that may overlap, S spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medsegdiff_bundle.labels import marked
from medsegdiff_bundle.measured import box_of, unmeasured

Array = NDArray[np.float64]

QUANTILES = (1, 5, 25, 50, 75, 95, 99)
SCALES = (1, 2, 4)  # voxels of which the mean is taken before steps between neighbours are measured
PARTS_OF_STEPS = (25, 50, 75, 95)  # percentiles: many small steps and few large ones, or all alike
CUBE = 4  # voxels along each axis, within which the deviation of the values is measured
PARTS_OF_CUBES = (10, 50, 90)
DIRECTIONS = ("left to right", "back to front", "bottom to top")
SIDES = ("to the right", "to the front", "upwards")
SHELL = 3  # voxels around a structure that its contrast is measured with
MOST = 1_000_000  # values that quantiles are taken of


class Description(NamedTuple):
    """Numbers of a case: as they are shown, and as they are compared.

    Attributes:
        shown: by name, such as {"volume of anterior": 1.7}.
        compared: likewise; of sizes and of other numbers that cannot be negative the logarithm.
    """

    shown: dict[str, float]
    compared: dict[str, float]

    def add(self, name: str, value: float, floor: float | None = None) -> None:
        """Add a number; with a floor, which is added to it, its logarithm is compared."""
        self.shown[name] = float(value)
        self.compared[name] = float(value) if floor is None else math.log(max(float(value), 0) + floor)


def describe(
    image: Tensor,
    original: Tensor,
    labels: Tensor,
    uncertainty: Tensor,
    structures: Mapping[str, Mapping[str, Any]],
    affine: NDArray[Any] | None,
) -> Description:
    """Numbers of a case that tell whether the weights know such images, and such results.

    Field of view, distribution of the values, steps between neighbours along each axis at three scales and how they are
    distributed, deviations within small cubes, colours; mean uncertainty inside the mask and everywhere; of each
    structure its size, place, compactness, number of parts, contrast, and the agreement of the members. What was never
    measured counts in none of them, see `medsegdiff_bundle.measured.unmeasured`: a padded image has the numbers of the
    image within.

    Args:
        image: (C, S) as the network sees it.
        original: (C, S) as its file has it.
        labels: of the file, numbers of classes, (1, S), or regions, (R, S) of 0 and 1.
        uncertainty: (S) of the file, 0 to 1.
        structures: from `medsegdiff_bundle.statistics.ensemble_statistics`, with `structure_findings`.
        affine: (4, 4), voxel to RAS in mm; None of a picture, whose places and sizes are shares of its own.
    """
    found = Description({}, {})
    values = original.detach().cpu().float().numpy()
    measured = ~np.all([unmeasured(channel) for channel in values], axis=0)
    box = box_of(measured)
    values, measured = values[(slice(None), *box)], measured[box]
    if affine is not None:
        for direction, extent in zip(DIRECTIONS, _along_axes(np.array(values.shape[1:]), affine), strict=True):
            found.add(f"extent from {direction}, mm", extent, 1.0)
    channels = [""] if len(image) == 1 else [f" of channel {number}" for number in range(1, len(image) + 1)]
    for channel, which in zip(image.detach().cpu().float(), channels, strict=True):
        _describe_values(found, channel, which)
    if len(values) == 3:
        _describe_colours(found, values[:, measured])
    labels, uncertainty = labels.cpu()[(slice(None), *box)], uncertainty.cpu().float()[box]
    _describe_masks(found, values, measured, labels, uncertainty.numpy(), structures, affine)
    return found


def _describe_values(found: Description, channel: Tensor, which: str) -> None:
    measured = ~unmeasured(channel.numpy())
    flat = _marked(channel, measured)
    mean, deviation = flat.mean(), flat.std(correction=0).clamp(min=1e-6)
    del flat
    values = (channel - mean).div_(deviation)
    flat = _marked(values, measured)
    for percent, value in zip(QUANTILES, _quantiles([flat], QUANTILES), strict=True):
        found.add(f"{percent} % of the values{which}", value)
    found.add(f"skewness of the values{which}", np.cbrt(flat.double().pow_(3).mean().item()))
    found.add(f"kurtosis of the values{which}", flat.double().pow_(4).mean().item(), 0.1)
    del flat
    for scale in SCALES:
        if min(values.shape) >= 2 * scale:
            _describe_steps(found, _pooled(values, scale), _whole(measured, scale), scale, which)
    if min(values.shape) >= 2 * CUBE:
        squares = _pooled(values**2, CUBE)
        deviations = _marked((squares - _pooled(values, CUBE) ** 2).clamp_(min=0).sqrt_(), _whole(measured, CUBE))
        if len(deviations):
            for percent, value in zip(PARTS_OF_CUBES, _quantiles([deviations], PARTS_OF_CUBES), strict=True):
                found.add(f"{percent} % of the deviations within {CUBE} voxels{which}", value, 1e-3)


def _describe_steps(found: Description, means: Tensor, whole: NDArray[np.bool_], scale: int, which: str) -> None:
    """Steps between neighbours, of means in cubes of so many voxels that were measured."""
    voxels = f"{scale} voxel{'s' * (scale > 1)}{which}"
    along = []
    for axis in range(means.ndim):
        both = np.delete(whole, -1, axis) & np.delete(whole, 0, axis)
        steps = _marked(means.diff(dim=axis).abs_(), both)
        along.append(steps)
        if len(steps):
            found.add(f"steps along axis {axis + 1} of {voxels}", steps.mean().item(), 1e-4)
    if sum(map(len, along)):
        for percent, step in zip(PARTS_OF_STEPS, _quantiles(along, PARTS_OF_STEPS), strict=True):
            found.add(f"{percent} % of the steps of {voxels}", step, 1e-3)


def _marked(values: Tensor, mask: NDArray[np.bool_]) -> Tensor:
    """What a mask marks, by numpy: torch lists the places of all of it first, with 24 bytes for each of a volume."""
    return torch.from_numpy(values.numpy()[mask])


def _pooled(values: Tensor, scale: int) -> Tensor:
    """Means in cubes of so many voxels."""
    pool = torch.nn.functional.avg_pool3d if values.ndim == 3 else torch.nn.functional.avg_pool2d
    return values if scale == 1 else pool(values[None, None], scale)[0, 0]


def _whole(measured: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    """Cubes of so many voxels all of which were measured."""
    if scale == 1:
        return measured
    return (_pooled(torch.from_numpy(measured).float(), scale) == 1).numpy()


def _quantiles(parts: Sequence[Tensor], percents: Sequence[int]) -> Array:
    """Of all values in some parts; of many some are taken."""
    every = max(1, sum(map(len, parts)) // MOST)
    taken, first = [], 0
    for part in parts:
        taken.append(part[first::every])
        first = (first - len(part)) % every
    chosen: Array = np.percentile(torch.cat(taken).numpy(), percents)
    return chosen


def _describe_colours(found: Description, values: NDArray[Any]) -> None:
    flat = values.astype(np.float64)
    means, deviations = flat.mean(axis=1), flat.std(axis=1)
    found.add("red minus green", means[0] - means[1])
    found.add("green minus blue", means[1] - means[2])
    found.add("brightness", means.mean())
    found.add("deviation of the values", deviations.mean(), 0.1)
    for first, second in ((0, 1), (1, 2)):
        common = ((flat[first] - means[first]) * (flat[second] - means[second])).mean()
        product = deviations[first] * deviations[second]
        found.add(f"correlation of colours {first + 1} and {second + 1}", common / product if product > 1e-6 else 0.0)


def _describe_masks(
    found: Description,
    values: NDArray[Any],
    measured: NDArray[np.bool_],
    labels: Tensor,
    uncertainty: NDArray[Any],
    structures: Mapping[str, Mapping[str, Any]],
    affine: NDArray[Any] | None,
) -> None:
    anything = (labels > 0).any(dim=0).numpy()
    inside = uncertainty[anything]
    found.add("uncertainty inside the mask", inside.mean() if inside.size else 0.0, 0.01)
    found.add("uncertainty everywhere", uncertainty[measured].mean(), 1e-3)
    shape = np.array(labels.shape[1:])
    size = float(shape.prod())
    # One channel without the places of all voxels, 24 bytes for each; several, one by one, would be rounded otherwise.
    inner = values[:, measured] if len(values) > 1 else values[0][measured][None]
    deviations = inner.std(axis=1) + 1e-6
    boxes = _boxes(labels, len(structures))
    for number, (name, structure) in enumerate(structures.items(), start=1):
        volume = structure["volume"] if affine is not None else structure["volume"] / size
        found.add(
            f"volume of {name}" if affine is not None else f"share of {name}",
            volume,
            0.05 if affine is not None else 1e-3,
        )
        agreement = structure.get("pairwise_dice")
        found.add(f"agreement on {name}", 1 - (1 if agreement is None else agreement), 0.02)
        found.add(f"parts of {name}", structure["components"], 1.0)
        box = boxes[number - 1]
        if box is None:
            continue
        mask = marked(labels[(slice(None), *box)], number).numpy()
        places = [part.start + center for part, center in zip(box, ndimage.center_of_mass(mask), strict=True)]
        off = np.array(places) - (shape - 1) / 2
        if affine is None:
            for axis, share in enumerate(off / shape, start=1):
                found.add(f"place of {name} along axis {axis}, share", share)
        else:
            for side, distance in zip(SIDES, affine[:3, :3] @ off, strict=True):
                found.add(f"place of {name} {side}, mm", distance)
        found.add(f"share of its box that {name} fills", mask.mean(), 1e-3)
        wide = tuple(slice(max(0, part.start - SHELL), part.stop + SHELL) for part in box)
        near = marked(labels[(slice(None), *wide)], number).numpy()
        # Next to a class other classes do not count; a region may lie within another one, whose rest is around it.
        taken = anything[wide] if len(labels) == 1 else near
        shell = ndimage.binary_dilation(near, iterations=SHELL) & ~taken
        if shell.any():
            for index, (channel, deviation) in enumerate(zip(values, deviations, strict=True), start=1):
                contrast = channel[box][mask].mean() - channel[wide][shell].mean()
                found.add(f"contrast of {name}" + f" in channel {index}" * (len(values) > 1), contrast / deviation)


def _boxes(labels: Tensor, number: int) -> list[tuple[slice, ...] | None]:
    """Around each of a number of classes or regions; None where there is nothing of it."""
    if len(labels) == 1:
        found = ndimage.find_objects(labels[0].numpy().astype(np.uint8))
        return [*found, *[None] * (number - len(found))]
    return [next(iter(ndimage.find_objects((region > 0).numpy().astype(np.uint8))), None) for region in labels]


def _along_axes(shape: NDArray[Any], affine: NDArray[Any]) -> Array:
    """Extents in mm, from left to right, back to front and bottom to top."""
    lengths = shape * np.linalg.norm(affine[:3, :3], axis=0)
    order = nibabel.orientations.io_orientation(affine)[:, 0]
    extents: Array = np.ones(3)
    for length, axis in zip(lengths, order, strict=True):
        if not np.isnan(axis):
            extents[int(axis)] = length
    return extents
