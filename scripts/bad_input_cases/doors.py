"""What a trial is, the ways into the program, and what every trial finds in its folder."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from PIL import Image

import medsegdiff_bundle
from medsegdiff_bundle import cli, configuration, errors, model_file
from medsegdiff_bundle.model_file import load

ROOT = Path(medsegdiff_bundle.__file__).parent.parent
SAMPLE = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
OUT = "out"  # folder of the results of every trial
TINY = {"network_def#channels": [4, 8, 8], "network_def#num_heads": 2, "network_def#token_size": 8}
# How each door is gone through: by words of one of the command lines, or by a call.
DOORS = {
    "segment()": "python",
    "Segmenter": "python",
    "medsegdiff segment": "command",
    "medsegdiff train": "command",
    "other commands": "command",
    "monai.bundle run": "runner",
    "monai.bundle run training": "runner",
    "MONAI Label's way": "python",
}
Make = Callable[[Path], Any]  # writes files into the folder of a trial
RAN = "ran"  # a file that a text leaves behind which is run
PROGRAM = f"$open('{RAN}','w')"


class Trial(NamedTuple):
    """A bad input.

    Attributes:
        door: one of `DOORS`.
        kind: what has the fault.
        what: the fault in words.
        call: words of a command line, or what makes the call.
        names: what the sentence must hold.
        make: writes files into the folder of the trial.
        remark: it is only remarked upon.
        lines: that standard error may have.
    """

    door: str
    kind: str
    what: str
    call: Any
    names: tuple[str, ...] = ()
    make: Make | None = None
    remark: bool = False
    lines: int = 1


def world(folder: Path) -> Path:
    """What is right: an image, a picture, weights of tiny networks of both, and a data set of five cases."""
    (folder / "cases").mkdir(parents=True)
    listed: dict[str, Any] = {"labels": {"0": "background", "1": "anterior", "2": "posterior"}}
    for section, numbers in {"training": ("001", "003", "004"), "validation": ("006", "007")}.items():
        listed[section] = []
        for number in numbers:
            pair = {"image": f"image_{number}.nii.gz", "label": f"label_{number}.nii.gz"}
            for kind, source in (("image", "imagesTr"), ("label", "labelsTr")):
                whole = nibabel.load(SAMPLE / source / f"hippocampus_{number}.nii.gz")
                nibabel.save(whole.slicer[4:28, 8:32, 4:28], folder / "cases" / pair[kind])
            listed[section].append(pair)
    (folder / "cases" / "dataset.json").write_text(json.dumps(listed))
    shutil.copy(folder / "cases" / "image_001.nii.gz", folder / "image.nii.gz")
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "picture.png")
    for task, name in (("hippocampus", "weights.pt"), ("isic", "picture.pt")):
        files = [ROOT / "configs" / "inference.json", ROOT / "configs" / "tasks" / f"{task}.json"]
        given = {**TINY, "bundle_root": str(ROOT), "checkpoint": str(folder / name)}
        given |= {"network_def#denoiser_channels": TINY["network_def#channels"]} if task == "isic" else {}
        parser = configuration.load(files, given)
        torch.manual_seed(0)
        torch.save(parser.get_parsed_content("network_def").state_dict(), folder / name)
        model_file.write_model(folder / name, model_file.describe_model(parser))
    return folder


def segmenting(words: Sequence[str] = (), image: str = "image.nii.gz", **given: str) -> list[str]:
    """Words of `medsegdiff segment`."""
    given = {"checkpoint": "weights.pt", "ensemble_size": "1", "device": "cpu", **given}
    return ["segment", image, "-o", OUT, "-q", *pairs("--set {0}={1}", given), *words]


def training(words: Sequence[str] = (), data: str = "cases") -> list[str]:
    """Words of `medsegdiff train`: one step."""
    return ["train", data, "-o", OUT, "-q", *pairs("--set {0}={1}", SHORT), *words]


SHORT = {  # of a training: one step
    **TINY,
    "epochs": 1,
    "batch_size": 1,
    "val_interval": 1,
    "patch_size": [16, 16, 16],
    "num_inference_steps": 1,
    "ensemble_size": 1,
    "device": "cpu",
}


def pairs(form: str, values: dict[str, Any]) -> list[str]:
    """Words of settings in the form of a command line."""
    texts = {name: value if isinstance(value, str) else repr(value).replace(" ", "") for name, value in values.items()}
    return [each.format(name, text) for name, text in texts.items() for each in form.split(" ")]


def running(
    name: str | None = None, word: str = "", training: bool = False, files: Sequence[str] = (), **others: str
) -> list[str]:
    """Words of `python -m monai.bundle`."""
    base = str(ROOT / "configs" / ("train.json" if training else "inference.json"))
    given: dict[str, Any] = {"bundle_root": str(ROOT), "output_dir": OUT}
    given |= {**SHORT, "dataset_dir": "cases"} if training else {"dataset_dir": "image.nii.gz", "device": "cpu"}
    given |= {} if training else {"checkpoint": "weights.pt", "ensemble_size": 1}
    given |= others
    if name is not None:
        given[name] = word
    config = [base, *files]
    listed = {"config_file": repr(config) if files else base, "meta_file": str(ROOT / "configs" / "metadata.json")}
    return ["run", *(["training"] if training else []), *pairs("--{0} {1}", {**listed, **given})]


def right() -> None:
    """Segment and train as every trial would if it had no fault."""
    calling()()
    calling(image="picture.png", task="isic", checkpoint="picture.pt", output_dir="pictures")()
    if status := cli.main(training(data="cases")):
        raise RuntimeError(f"The training ended with status {status}.")


def calling(**given: Any) -> Callable[[], object]:
    """A call of `segment`."""
    image = given.pop("image", "image.nii.gz")
    settings = {"checkpoint": "weights.pt", "output_dir": OUT, "device": "cpu", "ensemble_size": 1, **given}
    return lambda: medsegdiff_bundle.segment(image, **settings)


def holding(**given: Any) -> Callable[[], object]:
    """A `Segmenter` and its first call."""
    image = given.pop("image", "image.nii.gz")
    settings = {"checkpoint": "weights.pt", "output_dir": OUT, "device": "cpu", "ensemble_size": 1, **given}
    return lambda: medsegdiff_bundle.Segmenter(**settings)(image)


def training_with(name: str, word: str) -> list[str]:
    """Words of `medsegdiff train`, with a setting."""
    return ["train", "cases", "-o", OUT, "-q", *pairs("--set {0}={1}", {**SHORT, name: word})]


def in_turn(doors: Sequence[Trial], turn: int, number: int = 1) -> list[Trial]:
    """Some of the trials of one fault, which differ in their doors: each fault begins with the next one."""
    return [doors[(turn + each) % len(doors)] for each in range(number)]


def labelling(image: str = "image.nii.gz", **given: Any) -> Callable[[], object]:
    """What MONAI Label asks of the configuration: with what a request says the inferer and the steps around it."""
    settings = {"checkpoint": "weights.pt", "use_click": False, "device": "cpu", "bundle_root": str(ROOT)}

    def call() -> None:
        parser = load([ROOT / "configs" / "inference.json"], settings)
        for name, value in given.items():
            parser["displayable_configs"][name] = value
        try:
            parser.get_parsed_content("inferer")
            parser.get_parsed_content("postprocessing")
            parser.get_parsed_content("preprocessing")({"image": image})
        except Exception as error:
            raise ValueError(errors.sentence(error)) from error

    return call


def value(word: str) -> Any:
    """A word as the Python value that it is."""
    special = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf"), "true": True, "None": None}
    try:
        return special[word] if word in special else ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
