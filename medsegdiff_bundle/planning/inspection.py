"""What one case of a data set holds, and what is wrong with it by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirstd
from monai.utils import convert_to_tensor

from medsegdiff_bundle.datalist import Case
from medsegdiff_bundle.datalist.naming import PICTURES
from medsegdiff_bundle.transforms import CheckGridd, LoadImaged
from medsegdiff_bundle.transforms.label_files import (
    WHOLE,
    is_lossy,
    named_segments,
    numbers_of_channels,
    painted,
    unsmeared,
)

MOST_VALUES = 256  # of a label; one with more is no label


class Fault(NamedTuple):
    """Something wrong with a data set.

    Attributes:
        case: whose, or "" for the set.
        kind: "list", "unreadable", "channels", "geometry", "labels", "empty", "duplicate" or "split".
        sentence: what.
        fatal: whether a training would end or learn what is wrong; otherwise it is worth a look.
    """

    case: str
    kind: str
    sentence: str
    fatal: bool = True


@dataclass
class CaseFacts:
    """What was found in a case; what is not known stays at its default.

    Attributes:
        name: of the case.
        shape: voxels along each axis, S, in the order of the file.
        spacing: of the voxels in mm, for each axis; empty of a picture.
        axcodes: directions of the axes, such as "LPS"; empty of a picture.
        channels: of the image.
        coloured: whether the channels of a picture differ.
        counts: voxels of each value of the label, of channels for classes the numbers of the classes.
        digest: of the values of the image, equal for equal ones.
        faults: of the case by itself.
    """

    name: str
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    axcodes: str = ""
    channels: int = 0
    coloured: bool = False
    counts: dict[int, int] = field(default_factory=dict)
    digest: str = ""
    faults: list[Fault] = field(default_factory=list)


def inspect_case(case: Case, class_names: Sequence[str] = (), ignore: int | None = None) -> CaseFacts:
    """Read a case, whatever is wrong with it.

    Args:
        case: of a data set.
        class_names: of the set, for labels that name what they hold.
        ignore: value of what was not annotated.
    """
    facts = CaseFacts(case.name)

    def fault(kind: str, sentence: str, fatal: bool = True) -> None:
        facts.faults.append(Fault(case.name, kind, sentence, fatal))

    if case.missing:
        fault("channels", f"It lacks the channel{'s' if len(case.missing) > 1 else ''} {', '.join(case.missing)}.")
    image = None if case.missing else _read("image", case.entry()["image"], fault)
    if image is not None:
        _describe(image, facts)
        if image.aminmax().min == image.aminmax().max:
            fault("empty", f"All voxels of the image are {float(image.max()):g}.")
    if case.label is None:
        fault("labels", "It has no label.")
        return facts
    label = _read("label", str(case.label), fault)
    if label is None:
        return facts
    if image is not None:
        try:
            label = CheckGridd("label", "image")({"image": image, "label": label})["label"]
        except ValueError as error:
            fault("geometry", str(error))
    try:
        label = named_segments(label, class_names, ignore)
    except ValueError as error:
        fault("labels", str(error))
    _count(label, facts, fault)
    return facts


def _read(key: str, files: str | list[str], fault: Callable[..., None]) -> MetaTensor | None:
    """An image (C, S), or None and a fault."""
    try:
        data = EnsureChannelFirstd(key)(LoadImaged(key)({key: files}))
    except (ValueError, OSError) as error:
        several = isinstance(files, list) and ("lies elsewhere" in str(error) or "has the shape" in str(error))
        missing = [file for file in ([files] if isinstance(files, str) else files) if not Path(file).exists()]
        if missing:
            fault("unreadable", f"The {key} {missing[0]!r} does not exist.")
        else:
            fault("geometry" if several else "unreadable", str(error))
        return None
    return MetaTensor(data[key])


def _describe(image: MetaTensor, facts: CaseFacts) -> None:
    """Note shape, voxels and values of an image (C, S)."""
    import nibabel

    plain = convert_to_tensor(image, track_meta=False)
    facts.shape, facts.channels = tuple(image.shape[1:]), len(image)
    if str(image.meta.get("filename_or_obj", "")).lower().endswith(PICTURES):
        colours = plain[:3] if len(plain) >= 3 else plain[:1]
        facts.coloured = bool((colours != colours[:1]).any())
    else:
        affine = image.affine.cpu().numpy()
        axes = len(facts.shape)
        facts.spacing = tuple(float(size) for size in np.linalg.norm(affine[:3, :axes], axis=0))
        facts.axcodes = "".join(code or "?" for code in nibabel.orientations.aff2axcodes(affine)[:axes])
    facts.digest = hashlib.sha256(plain.contiguous().numpy().tobytes()).hexdigest()


def _count(label: MetaTensor, facts: CaseFacts, fault: Callable[..., None]) -> None:
    """Note how many voxels hold each value of a label (C, S)."""
    values = convert_to_tensor(label, track_meta=False)
    if len(values) > 1:
        file = str(label.meta.get("filename_or_obj", ""))
        if file.lower().endswith(PICTURES) and not is_lossy(file):
            values = painted(values[:3])
        reduced = _one_channel(values, is_picture=file.lower().endswith(PICTURES))
        if reduced is None:
            fault("labels", f"The label has {len(values)} channels that are neither grey nor one of 0 and 1 per class.")
            return
        values = reduced
    if is_lossy(str(label.meta.get("filename_or_obj", ""))):
        values = unsmeared(values)
    whole = values.round()
    if ((values - whole).abs() > WHOLE).any():
        fault(
            "labels", f"The label holds {values[(values - whole).abs() > WHOLE][0].item():g}, which is no whole number."
        )
        return
    found, counts = whole.long().unique(return_counts=True)
    if len(found) > MOST_VALUES:
        fault(
            "labels", f"The label holds {len(found)} different values: it is no label, or went through a lossy format."
        )
        return
    facts.counts = dict(zip(found.tolist(), counts.tolist(), strict=True))


def _one_channel(values: torch.Tensor, is_picture: bool) -> torch.Tensor | None:
    """The greys of a picture, or numbers of the classes that channels of 0 and 1 stand for; None of anything else."""
    if is_picture:
        colours = values[:1] if len(values) < 3 else values[:3]
        return colours[:1] if not (colours != colours[:1]).any() else None
    if ((values != 0) & (values != 1)).any() or (values.sum(dim=0) > 1).any():
        return None
    return numbers_of_channels(values, bool((values.sum(dim=0) == 1).all()), "The label")
