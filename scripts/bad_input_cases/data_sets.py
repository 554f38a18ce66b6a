"""Data sets that cannot be trained on, or teach less than they seem to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from .doors import Make, Trial, in_turn, running, training


def data_set(change: Callable[[Path, dict[str, Any]], Any]) -> Make:
    """The folder `set`, a copy of the cases after a change of its files, or of its list, which may become a text."""

    def make(folder: Path) -> None:
        shutil.copytree(folder / "cases", folder / "set")
        listed = json.loads((folder / "set" / "dataset.json").read_text())
        text = change(folder / "set", listed)
        written = text if isinstance(text, str) else json.dumps(listed)
        (folder / "set" / "dataset.json").write_text(written, encoding="utf-8", errors="surrogateescape")

    return make


def relabelled(change: Callable[[np.ndarray], np.ndarray], affine: Any = None, file: str = "label_001.nii.gz") -> Make:
    """A label, or another file, after a change."""

    def make(folder: Path, listed: dict[str, Any]) -> None:
        image = nibabel.load(folder / file)
        values = change(np.asarray(image.dataobj))
        nibabel.save(nibabel.Nifti1Image(values, image.affine if affine is None else affine), folder / file)

    return data_set(make)


def listed(**entries: Any) -> Make:
    """Another list."""
    return data_set(lambda folder, content: content.update(entries))


def replaced(file: str, data: bytes | None = None) -> Make:
    """A file of other bytes; None cuts it."""

    def make(folder: Path, listed: dict[str, Any]) -> None:
        (folder / file).write_bytes((folder / file).read_bytes()[:200] if data is None else data)

    return data_set(make)


IMAGE, LABEL = "image_001.nii.gz", "label_001.nii.gz"
ONE = {"image": IMAGE, "label": LABEL}
AWAY = np.eye(4) + np.array([[0, 0, 0, 99.0]] * 3 + [[0] * 4])
OTHERS = {"0": "background", "1": "liver", "2": "spleen"}
Fault = tuple[tuple[str, ...], Make]  # words of the sentence, and how the set is made
DATA: dict[str, Fault] = {
    "a list that is no JSON": (("dataset.json",), data_set(lambda folder, listed: "{no")),
    "an empty list": (("dataset.json",), data_set(lambda folder, listed: "")),
    "a list that is a list": (("dataset.json",), data_set(lambda folder, listed: "[]")),
    "a list that is a number": (("dataset.json",), data_set(lambda folder, listed: "3")),
    "a list in another encoding": (("dataset.json",), data_set(lambda folder, listed: "\udcff{")),
    "a list without training": (("training",), data_set(lambda folder, listed: listed.pop("training") and None)),
    "no cases of training": (("training",), listed(training=[])),
    "training that is a number": (("training",), listed(training=3)),
    "training that is a text": (("training",), listed(training="all")),
    "training that is null": (("training",), listed(training=None)),
    "training of numbers": (("training",), listed(training=[1, 2])),
    "training of empty cases": (("training",), listed(training=[{}])),
    "an image that is a number": (("training",), listed(training=[{"image": 3, "label": 4}])),
    "an image that is missing": (("gone.nii.gz",), listed(training=[{**ONE, "image": "gone.nii.gz"}])),
    "a label that is missing": (("gone.nii.gz",), listed(training=[{**ONE, "label": "gone.nii.gz"}])),
    "a case without label": ((IMAGE,), listed(training=[{"image": IMAGE}])),
    "an image that is the folder": (("training",), listed(training=[{**ONE, "image": ""}])),
    "labels without numbers": (("dataset.json",), listed(labels={"background": "a", "liver": "b"})),
    "an image that is a text": ((IMAGE,), replaced(IMAGE, b"no")),
    "an image of NaN": ((IMAGE,), relabelled(lambda x: x * np.nan, file=IMAGE)),
    "an image of two channels": ((IMAGE,), relabelled(lambda x: np.stack([x, x], -1), file=IMAGE)),
    "an image of two axes": ((IMAGE,), relabelled(lambda x: x[..., 0], file=IMAGE)),
    "a label of another size": ((LABEL,), relabelled(lambda x: x[:10])),
    "a label elsewhere": ((LABEL,), relabelled(lambda x: x, AWAY)),
    "a label with another class": ((LABEL, "7"), relabelled(lambda x: np.where(x > 0, 7, 0).astype(np.uint8))),
    "a label with -1": ((LABEL, "-1"), relabelled(lambda x: x.astype(np.int16) - 1)),
    "a label of 0.5": ((LABEL, "0.5"), relabelled(lambda x: x * np.float32(0.5))),
    "a label of NaN": ((LABEL,), relabelled(lambda x: x * np.float32(np.nan))),
    "a label of four channels": ((LABEL,), relabelled(lambda x: np.stack([x] * 4, -1).astype(np.uint8))),
    "a label of all classes everywhere": ((LABEL,), relabelled(lambda x: np.ones((*x.shape, 3), dtype=np.uint8))),
    "a label that is a text": ((LABEL,), replaced(LABEL, b"no")),
    "a label that is an empty file": ((LABEL,), replaced(LABEL, b"")),
    "a label that is cut": ((LABEL,), replaced(LABEL)),
    "a label of the validation with another class": (
        ("label_006.nii.gz", "9"),
        relabelled(lambda x: x * 0 + 9, file="label_006.nii.gz"),
    ),
}
REMARKS: dict[str, Fault] = {
    "a case twice": ((IMAGE, "already"), listed(training=[ONE, ONE])),
    "a case that trains and validates": ((IMAGE, "already"), listed(validation=[ONE])),
    "labels of background alone": ((IMAGE, "background"), relabelled(lambda x: x * 0)),
    "names of labels that are others": (("liver", "anterior"), listed(labels=OTHERS)),
    "an image of one value": ((IMAGE, "one value"), relabelled(lambda x: x * 0 + 7, file=IMAGE)),
}


def data_sets() -> Iterator[Trial]:
    """Each through one of the doors of training, and some through `medsegdiff check`."""
    for name in ("gone", "picture.png", "image.nii.gz"):
        yield Trial("medsegdiff train", "data set", f"the set {name}", training(data=name), (name,))
    yield Trial(
        "monai.bundle run training", "data set", "the set gone", running("dataset_dir", "gone", True), ("gone",)
    )
    empty: Fault = (("set",), lambda folder: (folder / "set").mkdir())
    for turn, (what, (named, make)) in enumerate({"an empty folder": empty, **DATA}.items()):
        doors = [
            Trial("medsegdiff train", "data set", what, training(data="set"), named, make),
            Trial("monai.bundle run training", "data set", what, running("dataset_dir", "set", True), named, make),
        ]
        yield from in_turn(doors, turn, 2 if turn % 4 == 0 else 1)
    for what, (named, make) in REMARKS.items():
        words = [word for word in training(data="set") if word != "-q"]
        yield Trial("medsegdiff train", "data set", what, words, named, make, remark=True)
