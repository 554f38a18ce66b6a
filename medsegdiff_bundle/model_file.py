"""Weights carry their model: beside `mine.pt`, `mine.model.json` says what it segments and how images get to it.

The file holds entries of the configuration that the weights were trained with: classes, channels, voxel sizes, window
of intensities, network, scheduler and sampler. References (`@spacing`) stay, so that a setting still changes what it
changed; what was a program is written as its value, and a file with programs is refused, as it may be anyone's.
Reading needs no torch.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import medsegdiff_bundle
from medsegdiff_bundle import configuration, settings
from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.given import put_in, texts_kept
from medsegdiff_bundle.provenance import checksum, weight_files

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

logger = logging.getLogger(__name__)

FOLD = ("fold", "num_folds")  # of the cases, that the weights were validated on; no part of what they do
STEPS = ("load", "preparation", "crop", "normalization", "clean")  # lists of transforms
ENTRIES = (
    *("spatial_dims", "image_channels", "class_names", "regions", "regions_class_order"),
    *("spacing", "patch_size", "mirror_axes", "modality"),
    *("num_train_timesteps", "schedule", "signal_scale", "prediction_type", "scheduler", "network_def"),
    *("displayable_configs", "start_from_anchor", "mirror_members", "roi_size", "overlap"),
    *STEPS,
)
PARTS = ("network_def", "scheduler")  # of these, components
# What they refer to and each configuration has.
OF_EVERY_RUN = ("bundle_root", "bundle_path", "num_classes", "multi_label")
OF_RUNS = ("imports", "begin", "initialize", "run", "finalize", "run_cases", "evaluator", "checkpoint", "output_dir")
MUST_FIT = ("class_names", "spatial_dims", "image_channels")  # or the weights segment something else
# What a component may be: a network, a scheduler or a transform, none of which writes files or calls what it is given.
COMPONENT = re.compile(
    r"(medsegdiff_bundle\.(networks|schedulers|transforms)\.|monai\.(transforms|networks\.nets)\.)?[A-Z]\w*"
)
# MONAI's LoadImaged makes anything whose name it is given.
READER = re.compile(r"((monai\.data\.|medsegdiff_bundle\.readers\.)?[A-Z]\w*Reader)?")
NO_COMPONENT = re.compile(
    "Sav|Writ|Lambda|TorchVision|CuCIM|Handler|Dataset|Download|Workflow|Algo|Runner|Bundle|Config"
)
ABSENT = object()
_COMPLETED: WeakSet[ConfigParser] = WeakSet()


def model_file(checkpoint: str | os.PathLike) -> Path:
    """Name of the file beside weights."""
    return Path(os.path.splitext(checkpoint)[0] + ".model.json")


def described_model() -> dict[str, Any] | None:
    """The model of the training whose configuration calls this, see `describe_model`.

    None, with a remark, if a file could not say it: inference must then be given the configuration.
    """
    from medsegdiff_bundle.workflow import calling_parser  # with torch and MONAI, which the rest here need not

    parser = calling_parser()
    assert parser is not None  # as it stands in a configuration
    try:
        for name in _unused(parser.get()):
            raise ValueError(f"{name} is not used, as the transforms of the training are others.")
        return describe_model(parser)
    except ValueError as error:
        logger.warning("The weights will not say what they segment: %s Segment with the settings of this run.", error)
        return None


def describe_model(parser: ConfigParser) -> dict[str, Any]:
    """What a configuration says of its model: `task`, `version` of this package, and the `configuration`'s entries.

    Of a fold of a cross-validation also `fold` and `num_folds`.

    Raises:
        ValueError: it has something that `read_model` would refuse, such as components of one's own.
    """
    config: Any = parser.get()
    names = [name for name in ENTRIES if name in config]
    names += sorted(configuration.behind(names, config) - {*names, *OF_EVERY_RUN})
    entries = {name: _without_programs(config[name], name, parser) for name in names}
    for name, value in entries.items():
        for text in _programs(_plain(value, name)):
            raise ValueError(f"{name} holds {text!r}, which is none of MONAI's or this package's components.")
    fold = {} if config.get("fold") is None else {name: _plain(config[name], name) for name in FOLD}
    return {"task": config.get("task"), "version": medsegdiff_bundle.__version__, **fold, "configuration": entries}


def no_weights(task: str, checkpoint: Any) -> str:
    """A sentence for weights that are not there; it names those of the folds of a cross-validation, if they are.

    Empty if all files are there.
    """
    missing = [file for file in weight_files(checkpoint) if not os.path.isfile(file)]
    if not missing:
        return ""
    checkpoint = missing[0]
    if os.path.isdir(checkpoint):
        return f"There are no weights in the folder {str(checkpoint)!r} itself: name a file, such as model.pt."
    folds = weights_of_folds(checkpoint)
    there = (
        f" There are those of folds, to be named as checkpoint, or all by --folds all: {', '.join(folds)}."
        if folds
        else ""
    )
    return f"There are no weights of the task {task!r}: the file {str(checkpoint)!r} does not exist.{there}"


def weights_of_folds(checkpoint: str | os.PathLike) -> list[str]:
    """Files of the folds of a cross-validation, where these are what is there of weights."""
    return sorted(map(str, Path(checkpoint).parent.glob(f"fold_*/{Path(checkpoint).name}")))


def write_model(checkpoint: str | os.PathLike, model: Mapping[str, Any]) -> None:
    """Write the file beside weights that are there, with their checksum."""
    content = {"sha256": checksum(checkpoint), **model}
    with whole_file(model_file(checkpoint)) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_model(checkpoint: Any) -> dict[str, Any] | None:
    """What weights say of their model; None if there is no such file, as of weights of version 0.12 and before.

    Of a list, of folds, all must say the same.

    Raises:
        ValueError: the file is of other weights, holds something else, or a program; or folds are of several models.
    """
    if isinstance(checkpoint, (list, tuple)):
        models = [read_model(file) for file in checkpoint]
        said = [None if model is None else model["configuration"] for model in models]
        for file, each in zip(checkpoint, said, strict=True):
            if each != said[0]:
                raise ValueError(f"The weights {str(checkpoint[0])!r} and {str(file)!r} are of different models.")
        return models[0]
    if not isinstance(checkpoint, (str, os.PathLike)) or not os.path.isfile(checkpoint):
        return None
    if not model_file(checkpoint).is_file():
        return None
    file = model_file(checkpoint)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entries, of_weights = dict(content["configuration"]), str(content["sha256"])
        missing = [name for name in MUST_FIT if name not in entries]
        if missing or not isinstance(content["task"], (str, type(None))):
            raise KeyError(missing[0] if missing else "task")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} does not describe weights: {type(error).__name__} {error}.") from error
    if of_weights != checksum(checkpoint):
        raise ValueError(
            f"{str(file)!r} describes other weights than those of {str(checkpoint)!r}: bring the file that came with "
            "them, or remove it."
        )
    for text in _programs(entries):
        raise ValueError(f"{str(file)!r} holds {text[:200]!r}, which may be a program.")
    try:
        _check_entries(entries)
        fold_of(content)
    except ValueError as error:
        raise ValueError(f"{str(file)!r} does not describe weights: {str(error)[:400]}") from error
    return dict(content)


def task_of(checkpoint: Any) -> str | None:
    """The task of `configs/tasks` that weights say, whose file also says how labels are read; None if it is of others.

    Weights that a task trained for other classes than its own are of none.
    """
    model, configs = read_model(checkpoint), settings.bundle_root() / "configs"
    if model is None or model["task"] not in configuration.tasks(configs):
        return None
    of_task = settings.read_object(configs / "tasks" / f"{model['task']}.json")
    return model["task"] if of_task.get("class_names") == model["configuration"]["class_names"] else None


def fold_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that part the cases as the training of a fold did, of what `read_model` found; none of others."""
    return {name: settings.typed(name, model[name]) for name in FOLD if name in model}


def _check_entries(entries: Mapping[str, Any]) -> None:
    """Refuse entries that are no part of a model, or of other kinds than configurations have."""
    for name, value in entries.items():
        if name in (configuration.BASE, *OF_EVERY_RUN, *OF_RUNS):
            raise ValueError(f"{name} is no part of a model.")
        settings.typed(name, value, programs=name not in MUST_FIT)
        if name in PARTS and not (isinstance(value, dict) and "_target_" in value):
            raise ValueError(f"{name} must be a component, got {value!r}.")
        if name == "displayable_configs":
            if not isinstance(value, dict):
                raise ValueError(f"{name} must hold settings, got {value!r}.")
            for each, given in value.items():
                settings.typed(f"{name}#{each}", given)
        if name in STEPS and not (isinstance(value, list) and all(isinstance(step, (dict, str)) for step in value)):
            raise ValueError(f"{name} must be a list of transforms, got {value!r}.")


def complete_with_weights(
    parser: ConfigParser, folder: Path, given: Collection[str] = (), steps: Collection[str] = ()
) -> None:
    """Complete a configuration, see `configuration.complete`, as its weights say what they do.

    A training does not load the weights that a file of settings names for later, so they say nothing of it.

    Args:
        parser: of the configuration.
        folder: of the configuration files.
        given: names of settings that were given in place of those of files.
        steps: names of entries that are run, which tell whether it loads weights; none: it does.

    Raises:
        ValueError: the weights do not fit what the configuration says of classes or channels.
    """
    _COMPLETED.add(parser)
    config: Any = dict(parser.get())
    whole = configuration.with_weights_elsewhere(configuration.complete(config, folder))
    parser.set(texts_kept(whole, parser))
    first = [settings.parts(name)[0] for name in steps]
    if "checkpoint" not in whole or first and "checkpoint" not in configuration.behind(first, whole):
        return  # a training
    checkpoint = parser.get_parsed_content("checkpoint")
    if model := read_model(checkpoint):
        there = {
            name: whole[name] for name in ("checkpoint", configuration.ELSEWHERE) if configuration.ELSEWHERE in whole
        }
        as_said = configuration.complete(over_files(config, model, checkpoint, folder, given), folder)
        parser.set(texts_kept({**as_said, **there}, parser))
    elif (files := weight_files(checkpoint)) and os.path.isfile(files[0]):
        _remark(files[0], _said(parser.get_parsed_content("class_names")))


def load(files: Iterable[Path], settings: Mapping[str, Any]) -> ConfigParser:
    """MONAI's parser of complete files, see `complete_with_weights`, with settings that are values.

    Args:
        files: the first in the folder of all configurations; later ones over earlier ones.
        settings: in place of theirs.
    """
    from monai.bundle import ConfigParser

    paths = [Path(file) for file in files]
    parser = ConfigParser()
    parser.read_config([str(path) for path in paths])
    put_in(parser, settings)
    complete_with_weights(parser, paths[0].parent, settings)
    return parser


def is_completed(parser: ConfigParser) -> bool:
    """Whether `complete_with_weights` has completed a configuration, with which what was given looks like a file's."""
    return parser in _COMPLETED


def over_files(
    config: Mapping[str, Any],
    model: Mapping[str, Any],
    checkpoint: str | os.PathLike | list[str],
    folder: Path,
    given: Collection[str] = (),
) -> dict[str, Any]:
    """A configuration, not completed yet, with what weights say in place of what this bundle's files say.

    What the user says stays: settings that were given, and entries of files of their own. Where a configuration parts
    cases into folds, those of the validation are the ones that the weights were validated on.

    Args:
        config: of files and settings.
        model: see `read_model`.
        checkpoint: the file of weights, for the sentence.
        folder: of the configuration files.
        given: names of settings that were given.

    Raises:
        ValueError: the user says other classes or channels than the weights have.
    """
    known = _of_this_bundle(config.get("task"), folder)
    names = {"#".join(settings.parts(name)) for name in given}
    result = {**config, "task": model["task"] or config.get("task", configuration.OTHER)}
    for name, value in {"regions": None, **model["configuration"]}.items():
        found = config.get(name, ABSENT)
        of_user = name == "class_names" and found is not ABSENT or name == "regions" and found not in (ABSENT, None)
        if of_user or name in MUST_FIT and name in names:
            said = settings.typed(name, found)
            if said != value and not str(said).startswith("$"):
                raise ValueError(
                    f"The weights {weight_files(checkpoint)[0]!r} are of {name} {_said(value)}, not {_said(said)}."
                )
        result[name] = _over(value, found, [each.get(name, ABSENT) for each in known], name, names)
    alone = len(weight_files(checkpoint)) == 1
    if alone and "fold" in config and config["fold"] is None and "fold" not in names:
        result.update(fold_of(model))  # the cases of other folds have trained the weights
    return result


def _of_this_bundle(task: Any, folder: Path) -> list[dict[str, Any]]:
    """What the bundle's own files say, with the file of a task and without."""
    found = []
    for base in ("inference.json", "train.json"):
        for files in ([folder / base], [folder / base, folder / "tasks" / f"{task}.json"]):
            if all(file.is_file() for file in files):
                found.append(settings.read_files(files))
    return found


def _over(value: Any, found: Any, known: list[Any], name: str, given: Collection[str]) -> Any:
    """A value of the weights, if what is found is of this bundle; what is the user's own, even within, stays."""
    if name in given:
        return found
    if not isinstance(value, dict) or not isinstance(found, dict):
        return value if found is ABSENT or found in known else found
    inside = [each for each in known if isinstance(each, dict)]
    if found.get("_target_") not in (None, value.get("_target_"), *(each.get("_target_") for each in inside)):
        return found
    result = {}
    for key in {**value, **found}:
        own = _over(
            value.get(key, ABSENT),
            found.get(key, ABSENT),
            [each.get(key, ABSENT) for each in inside],
            f"{name}#{key}",
            given,
        )
        if own is not ABSENT:
            result[key] = own
    return result


def _without_programs(value: Any, name: str, parser: ConfigParser) -> Any:
    """A value of a configuration with what its programs make in their place, and without components left out."""
    if isinstance(value, str):
        return _plain(parser.get_parsed_content(name), name) if value.startswith("$") else value
    if isinstance(value, dict):
        return {key: _without_programs(each, f"{name}#{key}", parser) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        inside = [_without_programs(each, f"{name}#{index}", parser) for index, each in enumerate(value)]
        left_out = [isinstance(each, dict) and each.pop("_disabled_", False) for each in inside]
        return [each for each, left in zip(inside, left_out, strict=True) if not left]
    return value


def _plain(value: Any, name: str) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be written beside the weights: {value!r} is no plain value.") from error


def _programs(value: Any) -> Iterator[str]:
    """Texts that MONAI's parser would act on, but for references, and components that are none of a model."""
    if isinstance(value, str) and value.startswith(("$", "%")):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _programs(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "reader" and not all(READER.fullmatch(str(reader or "")) for reader in _listed(each)):
                yield str(each)
            elif key == "_target_" and (not COMPONENT.fullmatch(str(each)) or NO_COMPONENT.search(str(each))):
                yield str(each)
            elif key == "_mode_" or key.startswith(("$", "%", "+")) or "#" in key or "::" in key:
                yield key
            yield from _programs(each)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _unused(config: Mapping[str, Any]) -> list[str]:
    """Entries of the way of an image to the network that a training does not use, but inference would."""
    of_training = config.get("train", {}).get("preprocessing")
    used = configuration.behind([settings.parts(name)[0] for name in settings.references(of_training)], config)
    return [name for name in ("load", "preparation", "normalization") if config.get(name) and name not in used]


@functools.cache  # once for each
def _remark(checkpoint: str, class_names: str) -> None:
    logger.warning(
        "The weights %r do not say what they segment, as %r is not there: %s is what the settings say.",
        checkpoint,
        model_file(checkpoint).name,
        class_names,
    )


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
