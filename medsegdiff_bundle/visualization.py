"""Pictures for people: image, mask and uncertainty side by side, and the contours of the members.

Letters in shapes: E members, C channels, S spatial axes, H and W rows and columns of a picture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor

HEIGHT = 256  # pixels that a small picture is enlarged to
LENGTH = 1024  # most pixels along an edge; of a larger picture every second, third, ... row and column is drawn
PALETTE = torch.tensor(colormaps["tab10"](range(10)))[:, :3].float()  # of the classes from 1 on, over and over


def overlay_picture(
    image: Tensor, mask: Tensor, uncertainty: Tensor | None = None, members: Tensor | None = None
) -> Tensor:
    """Image, image with its mask, with the contours of the members, and uncertainty map, in one row.

    A volume shows the slice along its last axis that holds most of the mask (the middle one if there is none).

    Args:
        image: (C, S); one channel is grey, three are RGB, else the first is shown.
        mask: (1, S), classes; 0 is left clear.
        uncertainty: (1, S), 0 to 1, or None.
        members: (E, S), classes, or None.

    Returns:
        (3, H, W), float32 in [0, 1]. Each part of the row is at most `LENGTH` pixels along an edge, and at least
        `HEIGHT` pixels high where that allows it.
    """
    parts = {"image": image, "mask": mask, "members": members, "uncertainty": uncertainty}
    given = {name: torch.as_tensor(part).detach().cpu() for name, part in parts.items() if part is not None}
    volume = image.ndim == 4
    if volume:
        counts = (given["mask"][0] > 0).sum(dim=(0, 1))
        index = int(counts.argmax()) if counts.any() else given["mask"].shape[-1] // 2
        given = {name: part[..., index] for name, part in given.items()}
    given = {name: _thinned(_upright(part, volume)).float() for name, part in given.items()}
    scale = _scale(given["image"])
    given = {name: _enlarged(part, scale) for name, part in given.items()}
    grey, classes = _shades(given["image"]), given["mask"][0].long()
    row = [grey, torch.where(classes > 0, 0.5 * grey + 0.5 * _colours(classes), grey)]
    if "members" in given:
        row.append(_drawn(grey, given["members"].long(), _line_width(scale)))
    if "uncertainty" in given:
        row.append(_heat(given["uncertainty"][0]))
    return torch.cat(row, dim=2)


class ContourPictures(NamedTuple):
    """Pictures of one slice, each (3, H, W), float32 in [0, 1].

    Attributes:
        position: of the slice along the last axis; None for a picture.
        image: as it is.
        fused: image with the contour of the fused mask.
        members: image with the contours of all members; the more of them share a line, the stronger it is.
        uncertainty: map from dark (0) to bright (1), with the contour of the fused mask in white.
    """

    position: int | None
    image: Tensor
    fused: Tensor
    members: Tensor
    uncertainty: Tensor


def contour_pictures(image: Tensor, fused: Tensor, members: Tensor, uncertainty: Tensor) -> list[ContourPictures]:
    """Slices through the structures, with contours, enlarged around what any member marks.

    A volume shows up to three slices along its last axis, which a quarter, half and three quarters of the marked voxels
    lie before (the middle one if nothing is marked). A contour lies inside its class, along the faces of the voxels.

    Args:
        image: (C, S); one channel is grey, three are RGB, else the first is shown.
        fused: labels, (S).
        members: labels, (E, S).
        uncertainty: (S), 0 to 1.

    Returns:
        The slices of a volume in order, or the one picture; each at most `LENGTH` pixels along an edge, and at least
        `HEIGHT` pixels high where that allows it.
    """
    image, fused, members, uncertainty = (
        torch.as_tensor(x).detach().cpu() for x in (image, fused, members, uncertainty)
    )
    marked = (fused > 0) | (members > 0).any(0)
    volume = marked.ndim == 3
    window = _around(marked.any(-1) if volume else marked)
    pictures = []
    for index in _slices(marked) if volume else [None]:
        cut = (..., *window) if index is None else (..., *window, index)
        parts = [_thinned(_upright(x[cut], volume)) for x in (image, fused[None], members, uncertainty[None])]
        scale = _scale(parts[0])
        grey, labels, drawn, heat = (_enlarged(x.float(), scale) for x in parts)
        grey, width = _shades(grey), _line_width(scale)
        line, thin_line = (_contours(labels.long(), each)[0] for each in (width, 1 + scale // 8))
        pictures.append(
            ContourPictures(
                index,
                grey,
                torch.where(line > 0, _colours(line), grey),
                _drawn(grey, drawn.long(), width),
                torch.where(thin_line > 0, 1.0, _heat(heat[0])),
            )
        )
    return pictures


def _upright(picture: Tensor, volume: bool) -> Tensor:
    """Rows and columns (..., H, W) of axes (..., X, Y)."""
    # MONAI's first axis is x, a picture's rows are y; of a volume y points to the front, which is drawn upwards.
    return picture.transpose(-1, -2).flip(-2) if volume else picture.transpose(-1, -2)


def _shades(picture: Tensor) -> Tensor:
    """Image (C, H, W) as (3, H, W) in [0, 1]."""
    grey = picture if picture.shape[0] == 3 else picture[:1].expand(3, -1, -1)
    low, high = torch.quantile(grey, 0.01), torch.quantile(grey, 0.99)
    return ((grey - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def _colours(classes: Tensor) -> Tensor:
    """Classes (H, W) as (3, H, W); 0 gets the colour of 1."""
    return PALETTE[(classes - 1).clamp(min=0) % len(PALETTE)].permute(2, 0, 1)


def _heat(values: Tensor) -> Tensor:
    """Values (H, W) from 0 to 1 as (3, H, W)."""
    heat = torch.tensor(colormaps["inferno"](values.clamp(0, 1).numpy()))
    return heat[..., :3].float().permute(2, 0, 1)


def _drawn(picture: Tensor, members: Tensor, width: int) -> Tensor:
    """Picture (3, H, W) with the contours of members (E, H, W), stronger the more of them share a line."""
    lines = _contours(members, width)
    share = (lines > 0).float().mean(0)
    strength = torch.where(share > 0, 0.3 + 0.7 * share, 0)
    # Where lines of several classes meet, the colour is that of the highest.
    return (1 - strength) * picture + strength * _colours(lines.amax(0))


def _line_width(scale: int) -> int:
    return max(2, 1 + scale // 4)


def _thinned(picture: Tensor) -> Tensor:
    """Every second, third, ... row and column of (..., H, W), so that neither edge is longer than `LENGTH`."""
    every = -(-max(picture.shape[-2:]) // LENGTH)
    return picture[..., ::every, ::every]


def _scale(picture: Tensor) -> int:
    """How many times to enlarge (..., H, W)."""
    height, width = picture.shape[-2:]
    return min(-(-HEIGHT // height), LENGTH // max(height, width))


def _enlarged(picture: Tensor, scale: int) -> Tensor:
    return F.interpolate(picture[None], scale_factor=scale, mode="nearest")[0]


def _contours(labels: Tensor, width: int) -> Tensor:
    """Labels (E, H, W) where a voxel of another class is within `width` rows or columns, 0 elsewhere."""
    padded = F.pad(labels[None].float(), [width] * 4, mode="replicate")[0]
    rows, columns = labels.shape[1:]
    edge = torch.zeros_like(labels, dtype=torch.bool)
    for shift in range(1, width + 1):
        for row, column in ((-shift, 0), (shift, 0), (0, -shift), (0, shift)):
            top, left = width + row, width + column
            edge |= padded[:, top : top + rows, left : left + columns] != labels
    return labels * edge


def _around(marked: Tensor) -> tuple[slice, slice]:
    """Window of two axes (X, Y) around what is marked, with half of its size to each side, at least 16 voxels."""
    window = []
    for axis in range(2):
        found = marked.any(1 - axis).nonzero().flatten()
        if len(found) == 0:
            window.append(slice(None))
            continue
        first, last = int(found[0]), int(found[-1]) + 1
        margin = max(16, (last - first) // 2)
        window.append(slice(max(first - margin, 0), last + margin))
    return window[0], window[1]


def _slices(marked: Tensor) -> list[int]:
    """Indices of up to three slices along the last axis of (X, Y, Z)."""
    counts = marked.sum(dim=(0, 1))
    if not counts.any():
        return [marked.shape[-1] // 2]
    before = counts.cumsum(0) / counts.sum()
    return sorted({int((before >= share).nonzero()[0]) for share in (0.25, 0.5, 0.75)})
