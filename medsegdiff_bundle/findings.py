"""What is found in a mask besides its volume, and what is not plausible about it.

Letters in shapes: C channels, S spatial axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from torch import Tensor

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
EDGES = (("left", "right"), ("top", "bottom"))  # of a picture, whose axes are x and y
TOLERANCE = 0.05  # by how much of the smallest or largest member the fused mask may lie outside of them


def structure_findings(
    labels: Tensor, class_names: Sequence[str], image: Tensor | None = None, orientation: str | None = None
) -> dict[str, dict[str, Any]]:
    """What the mask of each class is like, by class name, as plain values for JSON.

    - `mean_intensity`: of the values of the image, one number, or a list of one for each channel; None where nothing is
      marked or no image is given.
    - `components`: connected parts, of voxels that share a face.
    - `border`: edges of the image that the structure reaches, where it may be cut off: anatomical directions of a
      volume, "left", "right", "top" and "bottom" of a picture, or "start of axis 1" where the directions are not known.

    Args:
        labels: (S), whole numbers.
        class_names: of the classes from 1 on.
        image: (C, S), with the values of its file.
        orientation: directions in which the axes of a volume grow, such as "LPS"; None: they are not known.
    """
    array = labels.detach().cpu().numpy().astype(np.uint8)
    boxes = [*ndimage.find_objects(array), *[None] * len(class_names)]
    found: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(class_names, start=1):
        box = boxes[number - 1]
        if box is None:
            found[name] = {"mean_intensity": None, "components": 0, "border": []}
            continue
        mask = array[box] == number
        means = [] if image is None else [float(each[box][mask].mean(dtype=np.float64)) for each in _arrays(image)]
        found[name] = {
            "mean_intensity": None if not means else means[0] if len(means) == 1 else means,
            "components": int(ndimage.label(mask)[1]),
            "border": list(_edges(box, array.shape, orientation)),
        }
    return found


def implausible(
    structures: Mapping[str, Mapping[str, Any]], unit: str, ranges: Mapping[str, Sequence[float]]
) -> list[str]:
    """Sentences on what is not plausible about the structures of a case.

    Args:
        structures: from `medsegdiff_bundle.statistics.ensemble_statistics`, with `structure_findings`.
        unit: of their volumes.
        ranges: by class name, smallest and largest volume of the training cases, in that unit; may lack some.
    """
    said = []
    for name, values in structures.items():
        volume, members = values["volume"], values["member_volumes"]
        low, high = min(members), max(members)
        if len(members) > 1 and not (1 - TOLERANCE) * low <= volume <= (1 + TOLERANCE) * high:
            said.append(
                f"Implausible: the fused mask of {name}, {volume:.4g} {unit}, lies outside of its members, "
                f"{low:.4g} to {high:.4g} {unit}."
            )
        if name in ranges and not ranges[name][0] <= volume <= ranges[name][1]:
            low, high = ranges[name]
            said.append(
                f"Implausible: {name}, {volume:.4g} {unit}, lies outside of the training cases, "
                f"{low:.4g} to {high:.4g} {unit}."
            )
        if values["border"]:
            said.append(f"{name} reaches the border of the image ({', '.join(values['border'])}): it may be cut off.")
    return said


def _arrays(image: Tensor) -> Iterator[np.ndarray]:
    for channel in image:
        yield channel.detach().cpu().numpy()


def _edges(box: Sequence[slice], shape: Sequence[int], orientation: str | None) -> Iterator[str]:
    for axis, (part, size) in enumerate(zip(box, shape, strict=True)):
        if size == 1:
            continue  # one slice has no neighbours that could be missing
        if orientation is not None:
            names = OPPOSITE[orientation[axis]], orientation[axis]
        elif len(shape) == 2:
            names = EDGES[axis]
        else:
            names = f"start of axis {axis + 1}", f"end of axis {axis + 1}"
        if part.start == 0:
            yield names[0]
        if part.stop == size:
            yield names[1]
