"""What is drawn: overlays of a whole slice, and contours around the structures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .greys import GreyWindow, grey_window
from .marks import with_marks
from .planes import Plane, planes

SMALLEST = 256  # pixels that a small picture is enlarged to
LARGEST = 1024  # most pixels along an edge
# Of the classes from 1 on, over and over: matplotlib's "tab10", which takes long to import.
TAB10 = "1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22 17becf"
PALETTE = torch.tensor([list(bytes.fromhex(colour)) for colour in TAB10.split()]) / 255
# From 0 to 1 in equal steps: matplotlib's "inferno", between which the colours are mixed.
INFERNO = "000004 160b39 420a68 6a176e 932667 bc3754 dd513a f37819 fca50a f6d746 fcffa4"
HEAT = np.array([list(bytes.fromhex(colour)) for colour in INFERNO.split()]) / 255


class ContourPictures(NamedTuple):
    """Pictures of one slice, each (3, H, W), float32 in [0, 1], with the letters and the scale of `overlay_picture`.

    Attributes:
        plane: "axial", "coronal" or "sagittal"; None for a picture.
        position: of the slice along its axis of the array; None for a picture.
        image: as it is.
        fused: image with the contour of the fused mask.
        members: image with the contours of all members; the more of them share a line, the stronger it is.
        uncertainty: map from dark (0) to bright (1), with the contour of the fused mask in white.
    """

    plane: str | None
    position: int | None
    image: Tensor
    fused: Tensor
    members: Tensor
    uncertainty: Tensor


def overlay_picture(
    image: Tensor,
    mask: Tensor,
    uncertainty: Tensor | None = None,
    members: Tensor | None = None,
    *,
    affine: npt.ArrayLike | None = None,
    letters: bool = True,
    window: GreyWindow | None = None,
) -> Tensor:
    """Image, image with its mask, with the contours of the members, and uncertainty map, in one row.

    A volume has a row for each plane, axial, coronal and sagittal, with the slice that holds most of the mask (the
    middle one if there is none), all at one scale. Patient right is on the left of the picture, patient front upwards
    in axial slices and on the left of sagittal ones, the head upwards in the others; letters at the edges say so, a bar
    tells the scale. A picture is drawn as it is.

    Args:
        image: (C, S); of a picture one channel is grey and three are RGB; else the first is shown.
        mask: (1, S), classes; 0 is left clear.
        uncertainty: (1, S), 0 to 1, or None.
        members: (E, S), classes, or None.
        affine: (4, 4), voxel to RAS in mm, also of an image of two axes that lies in space; None for a picture.
        letters: whether the directions of the affine are known.
        window: greys; None takes those of `grey_window`.

    Returns:
        (3, H, W), float32 in [0, 1]. Each part is at most `LARGEST` pixels along an edge, and the longest edge at least
        `SMALLEST`.
    """
    given = _plain(image=image, mask=mask, members=members, uncertainty=uncertainty, space=affine is not None)
    image, mask = given["image"], given["mask"]
    marked = mask[0] > 0
    window = window or grey_window(image, marked)
    found = planes(tuple(mask.shape[1:]), affine, letters)
    pixels = _pixels_per_mm(found, [slice(0, size) for size in mask.shape[1:]])
    rows = []
    for plane in found:
        index = _fullest(marked, plane)
        sizes = _sizes(plane, plane.cut(mask, index), pixels)
        grey = _resized(window.shades(_first(plane.cut(image, index), plane)), sizes, smooth=True)
        classes = _resized(plane.cut(mask, index), sizes)[0].long()
        row = [grey, torch.where(classes > 0, 0.5 * grey + 0.5 * _colours(classes), grey)]
        if "members" in given:
            drawn = _resized(plane.cut(given["members"], index), sizes).long()
            row.append(_drawn(grey, drawn, _line_width(plane, pixels)))
        if "uncertainty" in given:
            row.append(uncertainty_colours(_resized(plane.cut(given["uncertainty"], index), sizes)[0]))
        rows.append([with_marks(part, plane, pixels) for part in row])
    width = max(part.shape[2] for row in rows for part in row)
    return torch.cat([torch.cat([_centred(part, width) for part in row], dim=2) for row in rows], dim=1)


def contour_pictures(
    image: Tensor,
    fused: Tensor,
    members: Tensor,
    uncertainty: Tensor,
    *,
    affine: npt.ArrayLike | None = None,
    letters: bool = True,
    window: GreyWindow | None = None,
) -> list[ContourPictures]:
    """Slices through the structures, with contours, enlarged around what any member marks.

    A volume shows the slice of each plane which half of the marked voxels lie before (the middle one if nothing is
    marked). A contour lies inside its class, along the faces of the voxels.

    Args:
        image: (C, S); of a picture one channel is grey and three are RGB; else the first is shown.
        fused: labels, (S).
        members: labels, (E, S).
        uncertainty: (S), 0 to 1.
        affine: see `overlay_picture`, likewise the others.
        letters: likewise.
        window: likewise.

    Returns:
        The planes of a volume, or the one picture, all at one scale.
    """
    given = _plain(
        image=image, fused=fused[None], members=members, uncertainty=uncertainty[None], space=affine is not None
    )
    image, fused, members, uncertainty = given.values()
    marked = fused[0] > 0
    window = window or grey_window(image, marked)
    for member in members:  # one at a time: all of a large volume take gigabytes
        marked |= member > 0
    found = planes(tuple(marked.shape), affine, letters)
    box = _around(marked, found)
    pixels = _pixels_per_mm(found, box)
    pictures = []
    for plane in found:
        index = _median(marked, plane)
        cuts = [plane.cut(values, index) for values in (image, fused, members, uncertainty)]
        inside = [
            _turned(box[axis], turned, marked.shape[axis])
            for axis, turned in zip((plane.rows, plane.columns), plane.turned, strict=True)
        ]
        shown, labels, drawn, heat = (cut[..., inside[0], inside[1]] for cut in cuts)
        sizes = _sizes(plane, labels, pixels)
        grey = _resized(window.shades(_first(shown, plane)), sizes, smooth=True)
        labels, drawn, heat = (_resized(part, sizes) for part in (labels, drawn, heat))
        width = _line_width(plane, pixels)
        line, thin_line = (_contours(labels.long(), each)[0] for each in (width, 1 + width // 2))
        parts = (
            grey,
            torch.where(line > 0, _colours(line), grey),
            _drawn(grey, drawn.long(), width),
            torch.where(thin_line > 0, 1.0, uncertainty_colours(heat[0])),
        )
        pictures.append(ContourPictures(plane.name, index, *(with_marks(part, plane, pixels) for part in parts)))
    return pictures


def uncertainty_colours(values: Tensor) -> Tensor:
    """Values (H, W) from 0 to 1 as (3, H, W), from dark to bright."""
    stops = np.linspace(0, 1, len(HEAT))
    heat = [np.interp(values.clamp(0, 1).numpy(), stops, HEAT[:, channel]) for channel in range(3)]
    return torch.from_numpy(np.stack(heat)).float()


def _plain(space: bool, **parts: Tensor | None) -> dict[str, Tensor]:
    """Those given, as tensors without metadata; in space, an image of two axes is a volume of one slice."""
    given = {name: torch.as_tensor(part).detach().cpu() for name, part in parts.items() if part is not None}
    given = {name: part.as_subclass(Tensor) for name, part in given.items()}
    flat = space and given["image"].ndim == 3
    return {name: part[..., None] for name, part in given.items()} if flat else given


def _first(picture: Tensor, plane: Plane) -> Tensor:
    """The channels to show: three of a volume are no colours."""
    return picture if plane.name is None else picture[:1]


def _fullest(marked: Tensor, plane: Plane) -> int | None:
    """Index of the slice that holds most; of several the same whatever the direction of the axis."""
    if plane.through is None:
        return None
    counts = _counts(marked, plane.through)
    order = counts if plane.ascending else counts.flip(0)
    index = int(order.argmax()) if counts.any() else len(counts) // 2
    return index if plane.ascending else len(counts) - 1 - index


def _median(marked: Tensor, plane: Plane) -> int | None:
    """Index of the slice which half of the marked voxels lie before; likewise."""
    if plane.through is None:
        return None
    counts = _counts(marked, plane.through)
    order = (counts if plane.ascending else counts.flip(0)).cumsum(0)
    index = int((2 * order >= order[-1]).nonzero()[0]) if order[-1] > 0 else len(counts) // 2
    return index if plane.ascending else len(counts) - 1 - index


def _counts(marked: Tensor, axis: int) -> Tensor:
    # As torch would count with eight bytes for each voxel.
    return torch.from_numpy(np.count_nonzero(marked.numpy(), axis=tuple({*range(marked.ndim)} - {axis})))


def _around(marked: Tensor, found: Iterable[Plane]) -> list[slice]:
    """For each axis the window around what is marked, with half of its size to each side, at least 16 fine voxels."""
    spacing = {plane.rows: plane.spacing[0] for plane in found} | {plane.columns: plane.spacing[1] for plane in found}
    finest = min(spacing.values())
    box = []
    for axis in range(marked.ndim):
        indices = _counts(marked, axis).nonzero().flatten()
        if len(indices) == 0 or axis not in spacing:
            box.append(slice(0, marked.shape[axis]))
            continue
        first, last = int(indices[0]), int(indices[-1]) + 1
        margin = max(round(16 * finest / spacing[axis]), (last - first) // 2, 1)
        box.append(slice(max(first - margin, 0), min(last + margin, marked.shape[axis])))
    return box


def _turned(window: slice, turned: bool, size: int) -> slice:
    """A window of an axis that is drawn the other way round."""
    return slice(size - window.stop, size - window.start) if turned else window


def _pixels_per_mm(found: Iterable[Plane], box: list[slice]) -> float:
    """One scale for all planes: whole pixels for the finest voxels of a small image, `LARGEST` for a large one."""
    edges = [
        (box[axis].stop - box[axis].start, spacing)
        for plane in found
        for axis, spacing in zip((plane.rows, plane.columns), plane.spacing, strict=True)
    ]
    longest, finest = max(count * spacing for count, spacing in edges), min(spacing for _, spacing in edges)
    most = LARGEST * finest / longest
    wanted = -(-SMALLEST * finest // longest)
    return (max(1.0, min(wanted, most // 1)) if most >= 1 else most) / finest


def _sizes(plane: Plane, cut: Tensor, pixels: float) -> tuple[int, int]:
    """Rows and columns of pixels of a slice (..., H, W)."""
    height, width = (
        max(1, round(count * spacing * pixels)) for count, spacing in zip(cut.shape[-2:], plane.spacing, strict=True)
    )
    return height, width


def _resized(picture: Tensor, sizes: tuple[int, int], smooth: bool = False) -> Tensor:
    """(C, H, W) at another size, float32: each voxel as a block, and `smooth` where several share a pixel."""
    picture = picture.float()
    if smooth and sizes[0] <= picture.shape[1] and sizes[1] <= picture.shape[2]:
        return F.interpolate(picture[None], sizes, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return F.interpolate(picture[None], sizes, mode="nearest-exact")[0]


def _line_width(plane: Plane, pixels: float) -> int:
    return max(2, 1 + int(min(plane.spacing) * pixels) // 4)


def _centred(picture: Tensor, width: int) -> Tensor:
    """Picture (3, H, W) between black, `width` pixels wide."""
    left = (width - picture.shape[2]) // 2
    return F.pad(picture, [left, width - picture.shape[2] - left])


def _colours(classes: Tensor) -> Tensor:
    """Classes (H, W) as (3, H, W); 0 gets the colour of 1."""
    return PALETTE[(classes - 1).clamp(min=0) % len(PALETTE)].permute(2, 0, 1)


def _drawn(picture: Tensor, members: Tensor, width: int) -> Tensor:
    """Picture (3, H, W) with the contours of members (E, H, W), stronger the more of them share a line."""
    lines = _contours(members, width)
    share = (lines > 0).float().mean(0)
    strength = torch.where(share > 0, 0.3 + 0.7 * share, 0)
    # Where lines of several classes meet, the colour is that of the highest.
    return (1 - strength) * picture + strength * _colours(lines.amax(0))


def _contours(labels: Tensor, width: int) -> Tensor:
    """Labels (E, H, W) where a pixel of another class is within `width` rows or columns, 0 elsewhere."""
    padded = F.pad(labels[None].float(), [width] * 4, mode="replicate")[0]
    rows, columns = labels.shape[1:]
    edge = torch.zeros_like(labels, dtype=torch.bool)
    for shift in range(1, width + 1):
        for row, column in ((-shift, 0), (shift, 0), (0, -shift), (0, shift)):
            top, left = width + row, width + column
            edge |= padded[:, top : top + rows, left : left + columns] != labels
    return labels * edge
