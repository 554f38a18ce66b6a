"""Data sets in BIDS (Brain Imaging Data Structure 1.10): images of subjects, labels in derivatives."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ..headers import kind_of
from ..naming import VOLUMES, case_name
from .description import Case, DataSet, modality_of, read_json

LABELS = ("dseg", "seg", "mask")  # suffixes of discrete segmentations, in BIDS and of spinal cords, and of masks
NO_IMAGES = ("probseg", "bold", "events", "xfm", "boldref", "sbref", "dwi", "epi")
SPACES = ("sub", "ses", "acq", "run", "space", "res")  # entities in which image and label must agree, if they have them


class _File(NamedTuple):
    path: Path
    entities: dict[str, str]  # such as {"sub": "01", "ses": "a"}
    suffix: str  # such as "T1w"
    of: tuple[str, ...] = ()  # suffixes of the image in the name of a label, such as `sub-01_T2w_seg.nii.gz`

    def case(self) -> str:
        return "_".join(f"{name}-{self.entities[name]}" for name in ("sub", "ses", "run") if name in self.entities)


def is_bids(root: Path) -> bool:
    """Whether a folder says of itself that it is BIDS."""
    return (root / "dataset_description.json").is_file()


def read_bids(root: Path) -> DataSet:
    """Describe a folder with `dataset_description.json`, whose labels are `*_dseg.nii.gz` or `*_mask.nii.gz`.

    They lie in `derivatives/`, or the folder is a derivative itself and holds the images, too. The images of a label
    are those of its subject, session, run and space; their suffixes (T1w, FLAIR, ...) are the channels: those that more
    than half of the cases have. A label that has no image in its space gives way to one that has, and the mask of a
    brain to others. `*_T2w_seg.nii.gz` or `*_T2w_seg-manual.nii.gz` is of the image `T2w` alone. Names of classes are
    those of a `*_dseg.tsv`, or `label-` of a mask.

    Args:
        root: the folder.

    Raises:
        ValueError: there are no labels, or several of one image.
    """
    files = [
        _parsed(path) for path in sorted(root.rglob("sub-*")) if path.is_file() and path.name.lower().endswith(VOLUMES)
    ]
    labels = [file for file in files if file.suffix in LABELS]
    of_kind = ([file for file in labels if file.suffix == suffix] for suffix in LABELS)
    labels = next((each for each in of_kind if each), [])
    labels = [file for file in labels if file.entities.get("desc") != "brain"] or labels
    if not labels:
        raise ValueError(f"{str(root)!r} is BIDS and holds no *_dseg.nii.gz and no *_mask.nii.gz.")
    images = [file for file in files if kind_of(file.path) and file.suffix not in (*LABELS, *NO_IMAGES)]
    of_label = [(label, _images_of(label, images)) for label in labels]
    with_images = {label.case() for label, found in of_label if found}
    of_label = [(label, found) for label, found in of_label if found or label.case() not in with_images]
    labels = [label for label, _ in of_label]
    counts = Counter(suffix for _, found in of_label for suffix in found)
    channels = tuple(sorted(suffix for suffix, count in counts.items() if 2 * count > len(labels)))
    if not channels:
        raise ValueError(f"{str(root)!r} has no image that most of its {len(labels)} labels have.")
    cases: dict[str, Case] = {}
    for label, found in of_label:
        name = label.case()
        if name in cases:
            raise ValueError(
                f"{str(root)!r} has two labels of {name!r}: {cases[name].label!s} and {label.path!s}; keep one, or "
                "give a table that names those that count."
            )
        missing = tuple(suffix for suffix in channels if suffix not in found)
        paths = tuple(found[suffix].path if suffix in found else _expected(label, suffix) for suffix in channels)
        cases[name] = Case(name, paths, label.path, group=f"sub-{label.entities['sub']}", missing=missing)
    names, values = _classes(root, labels)
    return DataSet(
        root,
        "BIDS",
        tuple(cases[name] for name in sorted(cases)),
        names,
        values,
        channel_names=channels,
        modality=modality_of(channels),
        licence=read_json(root / "dataset_description.json").get("License"),
        listing="its folders",
    )


def _parsed(path: Path) -> _File:
    *parts, suffix = case_name(path).split("_")
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    return _File(path, entities, suffix.removesuffix("-manual"), tuple(part for part in parts if "-" not in part))


def _images_of(label: _File, images: list[_File]) -> dict[str, _File]:
    """Images on the grid of a label by their suffixes; those of its own folder first."""
    found: dict[str, _File] = {}
    for image in sorted(images, key=lambda image: image.path.parent != label.path.parent):
        if (not label.of or image.suffix in label.of) and all(
            image.entities.get(name) == label.entities.get(name) for name in SPACES if _both_say(name, image, label)
        ):
            found.setdefault(image.suffix, image)
    return found


def _both_say(name: str, image: _File, label: _File) -> bool:
    """Whether an entity tells an image from a label: the subject always does, and what both have, and the space."""
    return name in ("sub", "ses", "space") or name in image.entities and name in label.entities


def _expected(label: _File, suffix: str) -> Path:
    return label.path.with_name(f"{label.case()}_{suffix}.nii.gz")


def _classes(root: Path, labels: list[_File]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and values of the classes."""
    tables = sorted(root.rglob("*dseg.tsv"), key=lambda path: (len(path.parts), path))
    if tables and labels[0].suffix == "dseg":
        with tables[0].open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.DictReader(stream, delimiter="\t") if row.get("index", "").isdigit()]
        named = sorted((int(row["index"]), row.get("name") or f"class {row['index']}") for row in rows)
        named = [(value, name) for value, name in named if value > 0]
        return tuple(name for _, name in named), (0, *(value for value, _ in named))
    if labels[0].suffix == "mask":
        name = labels[0].entities.get("label") or labels[0].entities.get("desc") or "mask"
        return (name,), (0, 1)
    return (), ()
