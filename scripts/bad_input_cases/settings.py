"""Wrong values of settings, and values that are programs to MONAI's parser."""

from __future__ import annotations

from collections.abc import Iterator

from .doors import (
    PROGRAM,
    Trial,
    calling,
    holding,
    in_turn,
    labelling,
    running,
    segmenting,
    training,
    training_with,
    value,
)

COUNT = ["0", "-1", "1.5", "abc", "", "nan", "inf", "[1]", "None", "true"]
NUMBER = ["-1", "nan", "inf", "abc", "", "[1]", "None", "true"]
SWITCH = ["maybe", "2", "[]", "nan", "None"]

OF_INFERENCE: dict[str, list[str]] = {
    "seed": ["-1", "1.5", "abc", "nan", "", "None", "true", "99999999999999999999999"],
    "ensemble_size": COUNT,
    "num_inference_steps": [*COUNT, "100000"],
    "fusion": ["best", "", "3", "None", "[]"],
    "output": ["masks", "", "None"],
    "overlap": ["1", "-0.1", "nan", "abc", "None"],
    "roi_size": ["abc", "0", "-5", "[32,0,32]", "[32,32]", "[]", "[32,32,32,32]", "1.5", "nan", "true"],
    "members_per_batch": ["0", "abc", "-1", "1.5"],
    "start_from_anchor": ["-1", "abc", "5000", "1.5"],
    "memory": ["lots", "5MB", "nan", "-1", "0", "inf"],
    "spacing": ["0", "-1", "nan", "[1,1]", "abc", "inf", "[]", "1e-30"],
    "amp": SWITCH,
    "anchor_only": SWITCH,
    "strict": ["maybe"],
    "report": ["maybe"],
    "mirror_members": ["maybe"],
    "device": ["quantum", "cuda:99", "7", "None", "cpu:x"],
    "uncertainty_maps": ["[nope]", "3", "nope"],
    "output_ext": [".xyz", "3", "png"],
    "also_write": ["[nope]", "nope", "3"],
    "class_names": ["['a','a']", "[]", "[1,2]", "['a']", "None"],
    "image_channels": ["0", "2", "abc"],
    "spatial_dims": ["4", "1", "2", "abc"],
    "mirror_axes": ["[5]", "-1", "abc", "[0,0]"],
    "checkpoint": ["nowhere.pt", "cases"],
    "weights_sha256": ["abc"],
    "schedule": ["nope", "3"],
    "prediction_type": ["nope"],
    "signal_scale": ["0", "nan", "abc", "-1"],
    "num_train_timesteps": ["0", "abc", "1.5"],
    "network_def#channels": ["[]", "[0,4]", "abc", "[4]", "3", "None"],
    "network_def#num_heads": ["3", "0", "abc"],
    "uncertainty_limit": ["2", "nan", "abc"],
    "no_such_setting": ["1"],
    "network_def#chanels": ["[4]"],
}
OF_TRAINING: dict[str, list[str]] = {
    "epochs": COUNT,
    "learning_rate": [*NUMBER, "0"],
    "batch_size": COUNT,
    "val_interval": ["0", "abc", "1.5"],
    "val_stride": ["0", "abc", "nan"],
    "patch_size": ["abc", "[16,16]", "[0,16,16]", "[-16,16,16]", "[]", "nan", "1.5", "None", "[100000,100000,100000]"],
    "alpha": ["-1", "nan", "abc"],
    "beta": ["-1", "nan", "None"],
    "dice_weight": ["-1", "inf"],
    "recycling": ["2", "-1", "nan"],
    "drawn_members": ["1", "abc"],
    "ema_decay": ["1", "2", "nan", "abc"],
    "num_workers": ["-1", "abc", "1.5"],
    "keep": ["0", "abc"],
    "resume": ["maybe", "2"],
    "fold": ["5", "-1", "abc"],
    "num_folds": ["1", "abc"],
    "pretrained": ["nowhere.pt", "cases"],
    "class_names": ["['a','a']", "[]"],
    "seed": ["abc", "-1", "99999999999999999999999"],
    "num_train_timesteps": ["0", "nan"],
    "num_inference_steps": ["2000", "0"],
    "mirror_axes": ["[3]", "abc"],
    "spacing": ["0", "nan", "[1,1]"],
    "optimizer#lr": ["abc", "-1", "nan"],
    "train_transforms#9": ["1"],
    "epoch": ["3"],
    "prediction_type": ["nope"],
    "device": ["quantum"],
    "amp": ["maybe", "None"],
}
# Of which MONAI's runner makes a traceback, before it looks into a file of this package.
BY_MONAI = ("train_transforms#9",)
# Words that stand for a value of Python calls alone, or that a door cannot hand over.
SHORTENED = {"99999999999999999999999": "99999999999"}


def _names(name: str, word: str) -> tuple[str, ...]:
    """Words of the sentence about a setting: its name, and its value without the spaces that writing it adds."""
    last = name.split("#")[-1]
    if name in ("checkpoint", "pretrained"):
        return (word,)  # a file says enough
    if name in ("no_such_setting", "epoch"):
        return (name,)  # there is none, whatever its value
    if name == "optimizer#lr":
        last = "optimizer"
    return (last,) if not word or word[0] in "[" or word in ("true", "None") else (last, SHORTENED.get(word, word))


def settings() -> Iterator[Trial]:
    """Wrong values of settings, each through one of the doors."""
    faults = [(name, word) for name, words in OF_INFERENCE.items() for word in words]
    for turn, (name, word) in enumerate(faults):
        named, what = _names(name, word), f"{name} {word!r}"
        doors = [
            Trial("medsegdiff segment", "setting", what, segmenting(**{name: word}), named),
            Trial("Segmenter", "setting", what, holding(**{name: value(word)}), named),
            Trial("monai.bundle run", "setting", what, running(name, word), named),
        ]
        if word != "None":  # which stands for nothing there
            doors.append(Trial("segment()", "setting", what, calling(**{name: value(word)}), named))
        yield from in_turn(doors, turn)
    for name in ("ensemble_size", "num_inference_steps", "fusion"):
        for word in OF_INFERENCE[name]:
            given = labelling(**{name: value(word)})
            yield Trial("MONAI Label's way", "setting", f"{name} {word!r}", given, _names(name, word))
    faults = [(name, word) for name, words in OF_TRAINING.items() for word in words]
    for turn, (name, word) in enumerate(faults):
        named, what = _names(name, word), f"{name} {word!r}"
        doors = [
            Trial("medsegdiff train", "setting", what, training_with(name, word), named),
            Trial("monai.bundle run training", "setting", what, running(name, word, True), named),
        ]
        yield from doors[:1] if name in BY_MONAI else in_turn(doors, turn)


def programs() -> Iterator[Trial]:
    """Texts that MONAI's parser would run, as it does with those of its own command line."""
    names = ("seed", "fusion", "output", "device", "checkpoint", "roi_size", "class_names", "network_def#channels")
    for turn, (name, word) in enumerate((name, word) for name in names for word in (PROGRAM, "@seed", "%seed")):
        # Of a class of that name, the weights do not fit.
        named = (word,) if name == "checkpoint" else ("weights.pt" if name == "class_names" else name.split("#")[-1],)
        what = f"{name} {word}"
        doors = [
            Trial("segment()", "program", what, calling(**{name: word}), named),
            Trial("Segmenter", "program", what, holding(**{name: word}), named),
            Trial("medsegdiff segment", "program", what, segmenting(**{name: word}), named),
        ]
        yield from in_turn(doors, turn, 3 if word == PROGRAM else 1)
    for name in ("epochs", "seed", "class_names", "pretrained", "optimizer#lr", "loss", "fold", "resume"):
        named = (PROGRAM,) if name == "pretrained" else ("label" if name == "class_names" else name.split("#")[-1],)
        yield Trial("medsegdiff train", "program", f"{name} {PROGRAM}", training_with(name, PROGRAM), named)
    yield Trial("segment()", "program", "an image of that name", calling(image=PROGRAM), (PROGRAM,))
    yield Trial("medsegdiff segment", "program", "an image of that name", segmenting(image=PROGRAM), (PROGRAM,))
    yield Trial("medsegdiff train", "program", "a data set of that name", training(data=PROGRAM), (PROGRAM,))
    yield Trial("segment()", "program", "a task of that name", calling(task=PROGRAM), (PROGRAM,))
