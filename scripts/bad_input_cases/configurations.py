"""Configuration files, and words of the command lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .doors import OUT, SHORT, Make, Trial, in_turn, pairs, running, training
from .writers import content


def overlay(given: Any) -> Make:
    """A configuration file over others."""
    return content(given if isinstance(given, str) else json.dumps(given), "mine.json")


OVERLAYS: dict[str, tuple[tuple[str, ...], Any]] = {
    "no JSON": (("mine.json",), "{no"),
    "an empty file": (("mine.json",), ""),
    "a list": (("mine.json",), []),
    "a number": (("mine.json",), "3"),
    "null": (("mine.json",), "null"),
    "an unknown setting": (("epoch", "epochs"), {"epoch": 3}),
    "a wrong value": (("epochs", "many"), {"epochs": "many"}),
    "NaN": (("learning_rate", "nan"), '{"learning_rate": NaN}'),
    "a step of a list that is none": (("train_transforms#9",), {"train_transforms#9": 1}),
    "an entry of a list that is none": (("preparation#99",), {"preparation#99": 1}),
    "an entry of nothing": (("nothing#a",), {"nothing#a": 1}),
    "references in a circle": (("first",), {"first": "@second", "second": "@first", "epochs": "@first"}),
    "a reference to itself": (("epochs",), {"epochs": "@epochs"}),
    "a reference to nothing": (("nowhere",), {"epochs": "@nowhere"}),
    '"..." where the base has nothing': (("no_such",), {"no_such": ["..."]}),
    '"..." in a list for a dictionary': (("network_def",), {"network_def": ["..."]}),
    '"..." in a dictionary for a list': (("preparation",), {"preparation": {"...": ""}}),
    '"..." of what the base does not have': (("train", "..."), {"train": {"...": ""}}),
    '"..." as a value': (("epochs",), {"epochs": "..."}),
    "a base that is missing": (("nowhere.json",), {"base": "nowhere.json"}),
    "a base that is a number": (("base",), {"base": 3}),
    "a component that is unknown": (("NoSuchLoss",), {"loss": {"_target_": "NoSuchLoss"}}),
    "a component with an unknown argument": (("sizes",), {"loss#sizes": 3}),
    "a component in an unknown package": (("nowhere.Loss",), {"loss": {"_target_": "nowhere.Loss"}}),
    "a program that is none": (("epochs",), {"epochs": "$1 +"}),
    "a program that fails": (("epochs",), {"epochs": "$1 / 0"}),
    "no network": (("network",), {"network_def": None}),
    "handlers that are a text": (("handlers",), {"train#handlers": "none"}),
    "a network that is a text": (("network",), {"network_def": "unet"}),
    "an optimizer that is a number": (("optimizer",), {"optimizer": 3}),
}

# Of which MONAI's runner makes a traceback while it merges files, before it looks into any of ours.
BY_MONAI = ("no JSON", "an empty file", "a list", "a number", "null", "an entry of a list that is none")
BY_MONAI += ('"..." in a list for a dictionary',)


def configurations() -> Iterator[Trial]:
    """Bad configuration files, and words of the two command lines."""
    for turn, (what, (named, given)) in enumerate(OVERLAYS.items()):
        words = ["train", "cases", "-o", OUT, "-q", "--config", "mine.json"]
        words += pairs("--set {0}={1}", {name: value for name, value in SHORT.items() if name != "epochs"})
        run = running(training=True, files=["mine.json"])
        place = run.index("--epochs")
        run = run[:place] + run[place + 2 :]
        doors = [
            Trial("medsegdiff train", "configuration", what, words, named, overlay(given)),
            Trial("monai.bundle run training", "configuration", what, run, named, overlay(given)),
        ]
        yield from doors[:1] if what in BY_MONAI else in_turn(doors, turn, 1 + turn % 2)
    for what, words, named in (
        ("a file that is missing", ["train", "cases", "-o", OUT, "--config", "gone"], ("gone",)),
        ("a task that is none", ["train", "cases", "-o", OUT, "--task", "liver"], ("liver",)),
        ("a setting twice", training(["--epochs", "2", "--set", "epochs=3"]), ("epochs", "twice")),
        ("a setting without a value", training(["--learning-rate"]), ("learning-rate",)),
        ("a setting of one dash", training(["-epochs", "2"]), ("epochs",)),
        ("a command that is none", ["trian", "cases"], ("trian", "train")),
        ("no data", ["train"], ("data",)),
        ("a fold that is a text", training(["--fold", "first"]), ("fold", "first")),
        ("a fold of none", training(["--fold", "7"]), ("7",)),
        ("an empty output", ["train", "cases", "-o", ""], ("output",)),
        ("output into a file", ["train", "cases", "-o", "picture.png"], ("picture.png",)),
    ):
        yield Trial("medsegdiff train", "configuration", what, words, named)
    run = running()
    for what, words, named in (
        ("a run that is none", ["run", "runn", *run[1:]], ("runn",)),
        ("a setting without a value", [*run, "--roi_size"], ("roi_size",)),
        ("a setting of another file", [*run, "--epochs", "3"], ("epochs",)),
        ("a misspelt setting", [*run, "--ensemble_sise", "3"], ("ensemble_sise", "ensemble_size")),
    ):
        yield Trial("monai.bundle run", "configuration", what, words, named)
    for what, words, named in (
        ("evaluate: a folder that is missing", ["evaluate", "gone", "cases"], ("gone",)),
        ("evaluate: labels that are missing", ["evaluate", "cases", "gone"], ("gone",)),
        ("evaluate: nothing", ["evaluate"], ()),
        ("check: a folder that is missing", ["check", "gone"], ("gone",)),
        ("check: a picture", ["check", "picture.png"], ("picture.png",)),
        ("configure: a folder that is missing", ["configure", "gone", "-o", f"{OUT}/mine.json"], ("gone",)),
        ("compare: a folder that is missing", ["compare", "gone", "cases", "-o", OUT], ("gone",)),
        ("sweep: a folder that is missing", ["sweep", "gone"], ("gone",)),
        ("export: weights that are missing", ["export", "-c", "gone.pt", "-o", OUT], ("gone.pt",)),
        ("package: weights that are missing", ["package", "hippocampus", "-c", "gone.pt", "-o", OUT], ("gone.pt",)),
        ("benchmark: no steps", ["benchmark", "-s", "0"], ("steps", "0")),
        ("info: a word too many", ["info", "more"], ("more",)),
    ):
        yield Trial("other commands", "configuration", what, words, named)
