"""What is to be said about a case besides its numbers: how its image was prepared, and what a reader must know.

Each transform says its own, in whole sentences. They travel with the image's metadata, as text, which MONAI collates
and decollates like the file's name; `EnsembleStatisticsd` hands them on to `data["result"]`, from where MONAI Label's
answer, the report and its page take them.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import MetaTensor

WARNINGS, PROCESSING = KINDS = ("warnings", "processing")  # keys of the metadata and of the result


def add_warning(data: MutableMapping[Hashable, Any], sentence: str, key: Hashable = "image") -> None:
    """Say what may make the result wrong or incomplete, in one sentence for the reader of the report.

    Args:
        data: of one case, before or after inference; a reader, which has the metadata alone, gives that.
        sentence: without the name of the case, and without names or paths of a patient's folders.
        key: of the image.
    """
    _add(data, sentence, WARNINGS, key)


def add_processing(data: MutableMapping[Hashable, Any], sentence: str, key: Hashable = "image") -> None:
    """Say what was done to the image that its applied operations do not show, such as a turn while reading.

    Args:
        data: of one case, before or after inference; a reader, which has the metadata alone, gives that.
        sentence: such as "Turned as the Exif orientation 6 says."
        key: of the image.
    """
    _add(data, sentence, PROCESSING, key)


def remarks(metadata: Mapping[Any, Any]) -> dict[str, list[str]]:
    """Sentences of an image's metadata, {"warnings": [...], "processing": [...]}, each once, in their order."""
    return {kind: list(dict.fromkeys(str(metadata.get(kind) or "").splitlines())) for kind in KINDS}


def operations(image: MetaTensor) -> list[str]:
    """Sentences on what MONAI's transforms recorded on an image of turns and other sizes.

    `medsegdiff_bundle.transforms.Spacingd` says itself what it does.
    """
    said = []
    before = image.meta.get("original_affine", image.affine)
    turned = [_axes(affine) for affine in (before, image.affine)]
    done = [each for each in image.applied_operations if "orig_size" in each]
    after = [*(tuple(each["orig_size"]) for each in done[1:]), tuple(image.shape[1:])]
    for operation, new in zip(done, after, strict=False):
        kind, old = str(operation.get("class")), tuple(operation["orig_size"])
        if kind.startswith("Orientation") and turned[0] != turned[1]:
            said.append(f"Turned from {turned[0]} to {turned[1]}.")
        for part, word in (("Resize", "Resized"), ("Crop", "Cropped"), ("Pad", "Padded")):
            if part in kind and old != new:
                unit = "pixels" if image.ndim == 3 else "voxels"
                said.append(f"{word} from {_times(old)} to {_times(new)} {unit}.")
                break
    return said


def without_folders(sentence: str, *paths: Path) -> str:
    """A sentence with the names alone of files and folders that it gives with their folders."""
    for path in paths:
        for each in (path, path.absolute()):
            if str(each.parent) not in (".", "/"):
                sentence = sentence.replace(f"{each.parent}{os.sep}", "")
    return sentence


def _axes(affine: Any) -> str:
    return "".join(axis or "?" for axis in nibabel.orientations.aff2axcodes(np.asarray(affine)))


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(str(int(size)) for size in sizes)


def _add(data: MutableMapping[Hashable, Any], sentence: str, kind: str, key: Hashable) -> None:
    sentence = " ".join(sentence.split())
    if "result" in data:  # counted already
        said = data["result"].setdefault(kind, [])
        if sentence not in said:
            said.append(sentence)
        return
    metadata = data[key].meta if key in data else data
    metadata[kind] = "\n".join([*remarks(metadata)[kind], sentence])
