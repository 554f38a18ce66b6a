"""Scores of one mask against one label: a case in, a row for each class out."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from monai.utils import convert_to_dst_type
from torch import Tensor

from medsegdiff_bundle.datalist.naming import PICTURES
from medsegdiff_bundle.grid import image_grid
from medsegdiff_bundle.labels import region_channels
from medsegdiff_bundle.transforms import CheckGridd, MaskIgnoredd, load_image
from medsegdiff_bundle.transforms.label_files import (
    WHOLE,
    is_lossy,
    named_segments,
    numbers_of_channels,
    painted,
    unsmeared,
)

BOTH, LABEL_ONLY, PREDICTION_ONLY, NEITHER = FOUND = ("both", "label only", "prediction only", "neither")


class Scores(NamedTuple):
    """Of one class of one case. Distances are in mm, or in pixels of a picture; volumes in ml, or in pixels.

    Of a class that neither file marks there is no score: what it counts for is said by a table's convention. One that
    only one of them marks has Dice and surface Dice 0, and for HD95 the diagonal of the image, the largest there is: a
    missed structure must not vanish from a mean.
    """

    case: str
    label: int  # number in the files, or of the region
    name: str
    found: str  # one of `FOUND`
    dice: float | None
    surface_dice: float | None
    hd95: float | None
    volume: float  # of the prediction
    label_volume: float
    units: str  # of distances and volumes, such as "mm, ml"

    @property
    def volume_error(self) -> float:
        """Of the prediction, less that of the label."""
        return self.volume - self.label_volume


def compare_files(
    prediction: Path,
    label: Path,
    case: str,
    names: Mapping[int, str],
    tolerance: float,
    ignore: int | None = None,
    regions: Sequence[Sequence[int]] | None = None,
) -> list[Scores]:
    """Compare two files, see `compare_masks`.

    Args:
        prediction: file of a mask.
        label: likewise; one of the same voxels in another order is turned.
        case: its name.
        names: of the classes by number; none takes the numbers that there are. Of regions, from 1 on.
        tolerance: of the surface Dice.
        regions: numbers that make each region, which are then compared in the place of classes.
        ignore: value in the label of what nobody annotated. There, both files count as background.

    Raises:
        ValueError: a file cannot be read, is no mask, holds other classes, or they lie on different grids.
    """
    pair = read_pair(prediction, label, names, ignore, regions)
    masks = [each.as_tensor()[0].to(torch.int32) for each in pair]
    grid = image_grid(pair[0])
    spacing = grid.spacing if grid.spacing is not None else (1.0,) * len(grid.shape)
    return compare_masks(masks[0], masks[1], spacing, case, names, tolerance, grid.affine is None, regions)


def read_pair(
    prediction: Path,
    label: Path,
    names: Mapping[int, str],
    ignore: int | None = None,
    regions: Sequence[Sequence[int]] | None = None,
) -> tuple[MetaTensor, MetaTensor]:
    """A mask and its label as numbers on one grid, (1, S) each; arguments and errors of `compare_files`."""
    known = dict(names) if regions is None else {number: "" for region in regions for number in region}
    pair: dict[Hashable, MetaTensor] = {
        "image": read_mask(prediction, known),
        "label": read_mask(label, known, ignore),
    }
    try:
        pair["label"] = CheckGridd("label")(pair)["label"]
    except ValueError as error:
        raise ValueError(str(error).replace("its image", "the prediction")) from error
    if ignore is not None:
        pair = MaskIgnoredd(["image", "label"], ignore)(pair)
    for values, file in zip((pair["image"], pair["label"]), (prediction, label), strict=True):
        for number in values.as_tensor().to(torch.int32).unique().tolist():
            if number != 0 and known and number not in known:
                listed = ", ".join(f"{each} {name}".strip() for each, name in sorted(known.items()))
                raise ValueError(f"{str(file)!r} holds {number}, which is none of the classes {listed}.")
    return pair["image"], pair["label"]


def compare_masks(
    prediction: Tensor,
    label: Tensor,
    spacing: tuple[float, ...],
    case: str = "",
    names: Mapping[int, str] | None = None,
    tolerance: float = 1.0,
    pixels: bool = False,
    regions: Sequence[Sequence[int]] | None = None,
) -> list[Scores]:
    """Compare a mask with a label, class by class.

    - Dice, 2 |A and B| / (|A| + |B|).
    - HD95: the larger of the two 95th percentiles of distances from surface to surface (MONAI's; medpy and nnU-Net take
      the percentile of both sets together, which is less or equal).
    - Surface Dice at a tolerance (Nikolov et al., 2021): the share of both surfaces that lies within it of the other;
      areas of surface elements as in DeepMind's `surface-distance`.
    - Volumes; of a picture, and of two axes, pixels.

    Args:
        prediction: numbers of classes, (S).
        label: likewise.
        spacing: sizes of a voxel, in mm.
        case: name for the rows.
        names: of the classes by number; None or empty takes the numbers that either mask holds.
        tolerance: of the surface Dice, in mm.
        pixels: whether it is a picture, without sizes.
        regions: numbers that make each region, named in this order by `names`: regions may overlap.

    Returns:
        A row for each class, or region.
    """
    if prediction.shape != label.shape:
        raise ValueError(f"The masks have different shapes, {tuple(prediction.shape)} and {tuple(label.shape)}.")
    numbers = names or {n: str(n) for n in torch.cat([prediction.unique(), label.unique()]).unique().tolist() if n}
    unit = 1.0 if pixels or len(spacing) < 3 else float(np.prod(spacing)) / 1000
    units = "pixels, pixels" if pixels else "mm, pixels" if len(spacing) < 3 else "mm, ml"
    diagonal = float(np.linalg.norm(np.multiply(prediction.shape, spacing)))
    rows = []
    for number, name in numbers.items():
        held = [[number] if regions is None else regions[number - 1]]
        masks = region_channels(prediction[None], held)[0], region_channels(label[None], held)[0]
        sizes = [int(mask.sum()) for mask in masks]
        found = FOUND[0 if all(sizes) else 1 if sizes[1] else 2 if sizes[0] else 3]
        values: tuple[float | None, float | None, float | None] = (0.0, 0.0, diagonal)
        if found == NEITHER:
            values = (None, None, None)
        elif found == BOTH:
            dice = 2 * int((masks[0] & masks[1]).sum()) / sum(sizes)
            values = (dice, *_surfaces(masks[0], masks[1], spacing, tolerance))
        rows.append(Scores(case, number, name, found, *values, sizes[0] * unit, sizes[1] * unit, units))
    return rows


def _surfaces(first: Tensor, second: Tensor, spacing: tuple[float, ...], tolerance: float) -> tuple[float, float]:
    """Surface Dice and HD95 of two masks that are not empty."""
    # Without what is around both, but for a rim, which keeps the border of the image a surface.
    marked = (first | second).nonzero()
    box = tuple(slice(int(low), int(high) + 1) for low, high in zip(marked.amin(0), marked.amax(0), strict=True))
    a, b = (torch.nn.functional.pad(mask[box], [1] * 2 * mask.ndim)[None, None].float() for mask in (first, second))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*always_return_as_numpy", FutureWarning)  # MONAI's own use of it
        surface_dice = compute_surface_dice(
            a, b, [tolerance], include_background=True, spacing=[spacing], use_subvoxels=True
        )
        hd95 = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=[spacing])
    return surface_dice.item(), hd95.item()


def read_mask(file: Path, names: Mapping[int, str], ignore: int | None = None) -> MetaTensor:
    """The mask of a file as whole numbers, (1, S); one channel of 0 and 1 for each class is taken, too.

    Args:
        file: of the mask.
        names: of the classes by number, if any are known: the segments of 3D Slicer are those of their names. Of fewer
            than two, a picture of 0 and 255 is one of 0 and 1.
        ignore: value of what nobody annotated.

    Raises:
        ValueError: naming the file, which is no mask.
    """
    classes = len(names)
    image = load_image(file)
    if list(names) == list(range(1, classes + 1)) and all(names.values()):
        image = named_segments(image, list(names.values()), ignore)
    values = image.as_tensor()
    picture = file.name.lower().endswith(PICTURES)
    if picture and len(values) in (3, 4):
        values = values[:3] if classes > 1 or is_lossy(str(file)) else painted(values[:3])
        values = values[:1] if bool((values == values[:1]).all()) else values
    if not picture and len(values) > 1 and bool(((values == 0) | (values == 1)).all()):
        with_background = len(values) == classes + 1 if classes else bool((values.sum(dim=0) == 1).all())
        values = numbers_of_channels(values, with_background, f"The mask {str(file)!r}")
    if len(values) != 1:
        raise ValueError(f"The mask {str(file)!r} has {len(values)} channels, not one of numbers.")
    wrong = (values - values.round()).abs() > WHOLE
    if wrong.any():
        raise ValueError(f"The mask {str(file)!r} holds {values[wrong][0].item():g}, which is no number of a class.")
    values = values.round()
    if (values < 0).any():
        raise ValueError(f"The mask {str(file)!r} holds {values.min().item():g}, which is no number of a class.")
    if picture and classes < 2 and is_lossy(str(file)):
        values = unsmeared(values)  # as in training
    if picture and classes < 2 and ignore != 255 and set(values.unique().tolist()) <= {0, 255}:
        values = values / 255  # as programs save a mask of one class
    return convert_to_dst_type(values, MetaTensor(image[:1]))[0]
