"""Files of weights, and what lies beside them."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medsegdiff_bundle import model_file

from .doors import PROGRAM, Make, Trial, calling, holding, in_turn, running, segmenting, training_with
from .writers import Foreign, content, cut


def saved(change: Callable[[dict[str, Any]], Any], name: str = "x.pt", model: bool = True) -> Make:
    """Weights after a change, and what they say of their model."""

    def make(folder: Path) -> None:
        torch.save(change(torch.load(folder / "weights.pt", weights_only=True)), folder / name)
        if model:
            content = json.loads((folder / "weights.model.json").read_text())
            model_file.write_model(folder / name, {key: content[key] for key in content if key != "sha256"})

    return make


def flipped(place: float) -> Make:
    """Weights with a bit that flipped at a share of the file."""

    def make(folder: Path) -> None:
        data = bytearray((folder / "weights.pt").read_bytes())
        data[int(place * len(data))] ^= 16
        (folder / "x.pt").write_bytes(data)

    return make


def _model(change: Callable[[dict[str, Any]], Any]) -> Make:
    def make(folder: Path) -> None:
        shutil.copy(folder / "weights.pt", folder / "x.pt")
        content = json.loads((folder / "weights.model.json").read_text())
        text = change(content)
        (folder / "x.model.json").write_text(text if isinstance(text, str) else json.dumps(content))

    return make


def _entry(name: str, given: Any) -> Make:
    return _model(lambda content: content["configuration"].update({name: given}))


WEIGHTS: dict[str, tuple[tuple[str, ...], Make | None]] = {
    "empty": (("x.pt",), content(b"", "x.pt")),
    "a text": (("x.pt",), content("no", "x.pt")),
    "a page of HTML": (("x.pt",), content("<html>" * 99, "x.pt")),
    "cut": (("x.pt",), cut("weights.pt", "x.pt")),
    "a folder": (("x.pt",), lambda folder: (folder / "x.pt").mkdir()),
    **{f"a bit flipped at {place:.0%}": (("x.pt",), flipped(place)) for place in (0.1, 0.3, 0.5, 0.7)},
    "NaN": (("x.pt", "NaN"), saved(lambda w: {k: v * np.nan if v.is_floating_point() else v for k, v in w.items()})),
    "one weight less": (("x.pt",), saved(lambda w: dict([*w.items()][1:]))),
    "one weight more": (("x.pt",), saved(lambda w: {**w, "more": torch.zeros(1)})),
    "a weight of another shape": (("x.pt",), saved(lambda w: {k: v[:1] if v.ndim else v for k, v in w.items()})),
    "a list": (("x.pt",), saved(lambda w: [*w.values()])),
    "a number": (("x.pt",), saved(lambda w: 3)),
    "None": (("x.pt",), saved(lambda w: None)),
    "no weights": (("x.pt",), saved(lambda w: {})),
    "names without weights": (("x.pt",), saved(lambda w: dict.fromkeys(w, 1.0))),
    "a checkpoint with its optimizer": (("x.pt",), saved(lambda w: {"network": w, "optimizer": {}})),
    "a pickled class": (("x.pt",), saved(lambda w: {"a": Foreign()})),
    "of pictures, for volumes": (("image.nii.gz", "2"), lambda f: None),
    "a zip without tensors": (("x.pt",), lambda f: zipfile.ZipFile(f / "x.pt", "w").writestr("a", "b")),
    "a model file that is no JSON": (("x.model.json",), _model(lambda content: "{")),
    "a model file that is a list": (("x.model.json",), _model(lambda content: "[]")),
    "a model file that is empty": (("x.model.json",), _model(lambda content: "")),
    "a model file of other weights": (("x.model.json",), _model(lambda content: content.update(sha256="0" * 64))),
    "a model file without classes": (
        ("x.model.json", "class_names"),
        _model(lambda content: content["configuration"].pop("class_names") and None),
    ),
    "a model file with a program": (("x.model.json", PROGRAM), _entry("spacing", PROGRAM)),
    "a model file with classes twice": (("x.model.json", "class_names"), _entry("class_names", ["a", "a"])),
    "a model file with 4 axes": (("x.model.json", "spatial_dims"), _entry("spatial_dims", 4)),
    "a model file with other channels": (("x.pt",), _entry("image_channels", 2)),
    "a model file with a network that is a number": (("x.model.json", "network_def"), _entry("network_def", 3)),
    "a model file with a network that is unknown": (("NoSuchNet",), _entry("network_def", {"_target_": "NoSuchNet"})),
    "a model file with preparation that is a text": (("x.model.json", "preparation"), _entry("preparation", "no")),
    "a model file with a spacing that is a text": (("x.model.json", "spacing"), _entry("spacing", "no")),
    "a model file with a window that is negative": (("x.model.json", "roi_size"), _entry("roi_size", -3)),
    "a model file whose entries are a list": (("x.model.json",), _model(lambda c: c.update(configuration=[1]))),
    "a model file whose entries are null": (("x.model.json",), _model(lambda c: c.update(configuration=None))),
    "a model file that refers to itself": (("spacing",), _entry("spacing", "@spacing")),
    "a model file that refers to nothing": (("nothing",), _entry("spacing", "@nothing")),
}


def weights() -> Iterator[Trial]:
    """Bad weights, and what lies beside them."""
    for turn, (what, (named, make)) in enumerate(WEIGHTS.items()):
        name = "picture.pt" if what.startswith("of pictures") else "x.pt"
        doors = [
            Trial("medsegdiff segment", "weights", what, segmenting(checkpoint=name), named, make),
            Trial("segment()", "weights", what, calling(checkpoint=name), named, make),
            Trial("monai.bundle run", "weights", what, running(checkpoint=name), named, make),
            Trial("Segmenter", "weights", what, holding(checkpoint=name), named, make),
        ]
        yield from in_turn(doors, turn, 2)
        if turn % 4 == 0 and name == "x.pt" and "model" not in what:
            words, partly = training_with("pretrained", name), what == "a weight of another shape"
            words = [word for word in words if word != "-q"] if partly else words
            yield Trial("medsegdiff train", "weights", what, words, named, make, remark=partly)
