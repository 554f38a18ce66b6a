"""Names and values of settings, checked before any work starts and, as nothing here needs torch, before it is imported.

A setting is an entry of a configuration file of this bundle, by the name that `python -m monai.bundle run` takes:
`--epochs 2`, `--network_def#channels "[16,32]"`. MONAI puts any name into a configuration, known or not, and its
command line hands over words that are no Python literal as text: without these checks `--amp false` is a true value.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from medsegdiff_bundle.components import annotation, parameters

TRUE = ("true", "yes", "on", "y", "t", "1")
FALSE = ("false", "no", "off", "n", "f", "0")
NOTHING = ("none", "null", "")
FUSIONS = ("staple", "mean", "vote", "dice")
OUTPUTS = ("probabilities", "labels")
UNCERTAINTY_MAPS = ("entropy", "mutual_information", "variance", "disagreement")
# What MONAI's `tracking` adds to a configuration, and its command line takes.
TRACKING = ("tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0", "tracking")


def boolean(value: Any) -> bool:
    """True or false, in the words that people use for them."""
    word = str(value).strip().lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise ValueError("must be true or false")


def boolean_or(other: str) -> Callable[[Any], bool | str]:
    """True, false, or another word."""

    def check(value: Any) -> bool | str:
        if isinstance(value, str) and value.strip().lower() == other:
            return other
        try:
            return boolean(value)
        except ValueError as error:
            raise ValueError(f"{error} or {other}") from error

    return check


def text(value: Any) -> str:
    """Any text but an empty one."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be text")
    return value


def path(value: Any) -> str:
    """A file or folder; a name of digits, which a command line takes for a number, is one, too."""
    if isinstance(value, bool) or not isinstance(value, (str, os.PathLike, Integral)):
        raise ValueError("must be a path")
    return str(value)


def paths(value: Any) -> str | list[str]:
    """A file, or a list of several."""
    found = [path(each) for each in value] if isinstance(value, (list, tuple)) else [path(value)]
    if not found:
        raise ValueError("must be a path, or a list of paths")
    return found[0] if len(found) == 1 else found


def folder(value: Any) -> str:
    """A path that is not empty, as it is of a variable of a shell that is not set."""
    found = path(value)
    if not found:
        raise ValueError("must be a folder")
    return found


def whole(lowest: float = -math.inf, highest: float = math.inf) -> Callable[[Any], int]:
    """A whole number, of at least `lowest` and at most `highest`."""

    def check(value: Any) -> int:
        number = _number(value)
        if number != round(number) or number < lowest:
            raise ValueError("must be a whole number" + (f" of at least {lowest}" if lowest > -math.inf else ""))
        if number > highest:
            raise ValueError(f"must be a whole number of at most {highest}")
        return int(value) if isinstance(value, Integral) else round(number)

    return check


def number(lowest: float = -math.inf, highest: float = math.inf, among: str = "") -> Callable[[Any], float]:
    """A finite number, at least `lowest` and at most `highest`; `among` says that in words."""

    def check(value: Any) -> float:
        found = _number(value)
        if not lowest <= found <= highest:
            raise ValueError(f"must be a number {among}")
        return int(value) if isinstance(value, Integral) else found

    return check


def choice(*words: Any) -> Callable[[Any], Any]:
    """One of some words or numbers."""

    def check(value: Any) -> Any:
        if isinstance(value, (list, dict)) or value not in words:
            raise ValueError(f"must be one of {', '.join(map(str, words))}")
        return value

    return check


def several(kind: Callable[[Any], Any], what: str, fewest: int = 0) -> Callable[[Any], list]:
    """A list, of at least so many values; a value alone is a list of one."""

    def check(value: Any) -> list:
        value = value.tolist() if hasattr(value, "tolist") else value
        try:
            found = [kind(each) for each in (value if isinstance(value, (list, tuple)) else [value])]
        except ValueError as error:
            raise ValueError(f"must be a list of {what}") from error
        if len(found) < fewest:
            raise ValueError(f"must be a list of {what}, and not empty")
        return found

    return check


def optional(kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """None, or what `kind` takes."""

    def check(value: Any) -> Any:
        return None if value is None or isinstance(value, str) and value.lower() in NOTHING else kind(value)

    return check


def memory(value: Any) -> int:
    """Bytes: a number of them, or "8GB" (10^9), "8GiB" (2^30), "500MB"; at least 100 MB."""
    units = {"gib": 2**30, "gb": 10**9, "g": 10**9, "mib": 2**20, "mb": 10**6, "m": 10**6}
    word = str(value).strip().lower().replace(" ", "")
    unit = next((unit for unit in units if word.endswith(unit)), "")
    try:
        found = float(word[: len(word) - len(unit)]) * units.get(unit, 1)
    except ValueError:
        found = math.nan
    if not 10**8 <= found < math.inf:
        raise ValueError("must be like 8GB, of at least 100MB")
    return int(found)


def sizes(value: Any) -> int | list[int]:
    """Voxels, one number or one for each axis."""
    try:
        return whole(1)(value) if isinstance(value, (Integral, str)) else several(whole(1), "", 1)(value)
    except ValueError as error:
        raise ValueError("must be a positive whole number, or one for each axis") from error


def spacing(value: Any) -> list[float]:
    """Voxel sizes of a volume in mm, one for each of its three axes; one number stands for all."""
    wrong = "must be a voxel size in mm, or three, one for each axis"
    try:
        found = several(POSITIVE, "")(value)
    except ValueError as error:
        raise ValueError(wrong) from error
    if len(found) not in (1, 3):
        raise ValueError(wrong)
    return found * 3 if len(found) == 1 else found


def interval(value: Any) -> list[float]:
    """Two numbers, the lower one first."""
    wrong = "must be two numbers, the lower one first"
    try:
        found = several(number(), "")(value)
    except ValueError as error:
        raise ValueError(wrong) from error
    if len(found) != 2 or found[0] >= found[1]:
        raise ValueError(wrong)
    return found


def pattern(value: Any) -> str:
    """A regular expression."""
    found = text(value)
    try:
        re.compile(found)
    except re.error as error:
        raise ValueError(f"must be a regular expression ({error})") from error
    return found


def classes(value: Any) -> list[str]:
    """Names of classes without the background: at least one, each once, as reports and files go by them."""
    found = several(text, "names")(value)
    if not found or len(set(found)) < len(found):
        raise ValueError("must be a list of names, each of them once")
    return found


def regions(value: Any) -> list[list[int]]:
    """Classes that make each region."""
    wrong = "must be a list with a list of classes, from 1, for each region"
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(wrong)
    try:
        found = [several(whole(1), "")(each) for each in value]
    except ValueError as error:
        raise ValueError(wrong) from error
    if not all(found):
        raise ValueError(wrong)
    return found


def check_regions(config: Mapping[str, Any]) -> None:
    """Refuse regions that are not as many as their names, or as the numbers that they are written as.

    Raises:
        ValueError: naming both.
    """
    found, order = (typed(name, config.get(name)) for name in ("regions", "regions_class_order"))
    names = config.get("class_names")
    if isinstance(found, list) and isinstance(names, list) and len(found) != len(names):
        raise ValueError(f"regions are {len(found)} and class_names {len(names)}: {found} and {names}.")
    if isinstance(found, list) and isinstance(order, list) and len(found) != len(order):
        raise ValueError(f"regions_class_order must have a number for each of {len(found)} regions, got {order}.")
    if found is None and isinstance(order, list):
        raise ValueError("regions_class_order is the order of regions, and there are no regions.")


def device(value: Any) -> Any:
    """The name of a device, or a device."""
    if not isinstance(value, str) and not hasattr(value, "type"):
        raise ValueError("must be the name of a device")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (Real, str)):
        raise ValueError("must be a number")
    try:
        found = float(value)
    except OverflowError:  # of whole numbers of hundreds of digits
        found = math.inf
    except ValueError as error:
        raise ValueError("must be a number") from error
    if not math.isfinite(found):
        raise ValueError("must be a finite number")
    return found


POSITIVE = number(5e-324, among="above 0")
NOT_NEGATIVE = number(0, among="of at least 0")
SHARE = number(0, 1, "from 0 to 1")
BELOW_ONE = number(0, math.nextafter(1, 0), "from 0 to below 1")

# How each setting is read. A setting that is missing here is taken as it is.
KINDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("bundle_root", "dataset_dir", "ckpt_dir"), path),
    "checkpoint": paths,
    "output_dir": folder,
    **dict.fromkeys(("amp", "anchor_only", "multi_label", "channels_last", "compile", "progress"), boolean),
    **dict.fromkeys(("report", "dicom_seg", "overwrite", "force", "strict", "debug", "mirror_members"), boolean),
    **dict.fromkeys(("epochs", "val_interval", "val_stride", "batch_size", "image_channels"), whole(1)),
    **dict.fromkeys(("num_inference_steps", "ensemble_size", "num_train_timesteps", "passes_per_epoch"), whole(1)),
    "seed": whole(0, 2**63 - 1),
    "num_workers": whole(0),
    **dict.fromkeys(("beta", "dice_weight"), NOT_NEGATIVE),
    "output_ext": optional(text),
    "resume": boolean_or("auto"),
    "keep": whole(1),
    "also_write": several(text, "names"),
    "alpha": optional(NOT_NEGATIVE),
    **dict.fromkeys(("learning_rate", "signal_scale", "process_group_timeout"), POSITIVE),
    **dict.fromkeys(("ema_decay", "overlap"), BELOW_ONE),
    **dict.fromkeys(("task", "schedule", "prediction_type"), text),
    "pretrained": lambda value: "" if str(value).lower() in NOTHING else path(value),
    "spatial_dims": choice(2, 3),
    "num_classes": whole(1),
    "num_labels": whole(2),
    "regions": optional(regions),
    "regions_class_order": optional(several(number(1, 255, "from 1 to 255"), "numbers from 1 to 255")),
    "ignore_label": optional(whole(1)),
    "class_values": optional(several(whole(), "whole numbers, that of the background first", 2)),
    "class_ratios": optional(several(NOT_NEGATIVE, "numbers of at least 0, one for each class", 2)),
    "case_pattern": optional(pattern),
    "window": optional(interval),
    "window_values": interval,
    "device": device,
    **dict.fromkeys(("recycling", "eta"), SHARE),
    "class_names": classes,
    "uncertainty_maps": several(choice(*UNCERTAINTY_MAPS), f"some of {', '.join(UNCERTAINTY_MAPS)}"),
    "patch_size": several(whole(1), "positive whole numbers", 1),
    **dict.fromkeys(("picture_size", "slice_size"), optional(several(whole(1), "two positive whole numbers", 2))),
    "mirror_axes": several(whole(0), "axes, from 0"),
    "roi_size": optional(sizes),
    "spacing": optional(spacing),
    "members_per_batch": optional(whole(1)),
    "memory": optional(memory),
    "drawn_members": optional(whole(2)),
    "fold": optional(whole(0)),
    "num_folds": whole(2),
    "start_from_anchor": optional(whole(0)),
    "fusion": choice(*FUSIONS),
    "output": choice(*OUTPUTS),
    "use_click": optional(boolean),
    "weights_sha256": optional(text),
    "shipped_weights": optional(path),
    "modality": optional(text),
    "uncertainty_limit": optional(SHARE),
}

# How an argument of a component is read, by the type that it says it has.
ANNOTATED: dict[str, Callable[[Any], Any]] = {
    "bool": boolean,
    "int": whole(),
    **dict.fromkeys(("float", "float | Tensor", "float | torch.Tensor"), number()),
    "Sequence[int]": several(whole(), "whole numbers"),
    "Sequence[float]": several(number(), "numbers"),
}


def parts(name: str) -> list[str]:
    """Names on the way to a setting: `a#b` and `a::b` are b in a; a plus sign before it asks MONAI to add to it."""
    return re.split("#|::", name.removeprefix("+"))


def kind(name: str, config: Mapping[str, Any] | None = None) -> Callable[[Any], Any] | None:
    """How a setting is read; None if it is taken as it is.

    Args:
        name: of the setting, see `parts`.
        config: that it is part of, whose components say what their arguments are; None leaves them as they are.
    """
    steps = parts(name)
    if len(steps) == 1 or steps[0] == "displayable_configs":
        return KINDS.get(steps[-1])
    component: Any = config
    for step in steps[:-1]:
        component = component.get(step) if isinstance(component, Mapping) else None
    if not isinstance(component, Mapping) or "_target_" not in component:
        return None
    said = annotation(str(component["_target_"]), steps[-1])
    read = ANNOTATED.get(said.removesuffix(" | None"))
    return optional(read) if read is not None and said.endswith(" | None") else read


def typed(name: str, value: Any, programs: bool = True, config: Mapping[str, Any] | None = None) -> Any:
    """Value of a setting, of the type that it must have.

    Args:
        name: of the setting, see `parts`.
        value: as it was given, such as the word "false".
        config: see `kind`.
        programs: whether expressions and references of MONAI's configurations stay as they are, as they may be written
            into a configuration file. Otherwise they are texts like others.

    Raises:
        ValueError: it is no such value; or it is a program, of a setting of which nothing else is known.
    """
    read = kind(name, config)
    if read is None:
        if not programs and (found := next(filter(is_program, texts(value)), None)) is not None:
            raise ValueError(f"{name} would run {found!r}, as MONAI's parser does: write it into a configuration file.")
        return value
    if programs and any(map(is_program, texts(value))):
        return value
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}, got {value!r}.") from error


def check_axes(config: Mapping[str, Any]) -> None:
    """Refuse axes that the images do not have, results of volumes as pictures, and patches that fit into no memory.

    Args:
        config: with values as `typed` makes them; what is a program there is left alone.

    Raises:
        ValueError: naming the setting.
    """
    axes: Any = config.get("spatial_dims")
    if axes not in (2, 3):
        return
    for name, fitting in {"roi_size": (axes,), "patch_size": (1, axes)}.items():
        value = config.get(name)
        if isinstance(value, (list, tuple)) and len(value) not in fitting:
            raise ValueError(f"{name} must have {axes} numbers, one for each axis of the images, got {value!r}.")
    patch: Any = config.get("patch_size")
    known = isinstance(patch, (list, tuple)) and all(isinstance(size, int) for size in patch)
    if known and (voxels := math.prod(patch * (axes // len(patch)))) >= 2**31:
        raise ValueError(f"patch_size {patch!r} is {voxels:.2g} voxels: there is no room for them.")
    if axes == 3 and str(config.get("output_ext")).lower().lstrip(".") == "png":
        raise ValueError(f"output_ext must be of a format for volumes, got {config['output_ext']!r}.")
    mirrored = config.get("mirror_axes")
    if isinstance(mirrored, (list, tuple)) and any(isinstance(axis, int) and axis >= axes for axis in mirrored):
        raise ValueError(f"mirror_axes must be axes of the images, 0 to {axes - 1}, got {mirrored!r}.")


def is_program(text: str) -> bool:
    """Whether MONAI's parser acts on a text: an expression, a reference or a macro."""
    return text.startswith(("$", "@", "%"))


def texts(value: Any) -> Iterator[str]:
    """All texts in a value, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for each in [*value, *value.values()] if isinstance(value, Mapping) else value:
            yield from texts(each)


def check_names(given: Mapping[str, Any], config: Mapping[str, Any], merged: Any = None, files: str = "") -> None:
    """Refuse settings that a configuration does not have.

    Args:
        given: values by name.
        config: the content of the configuration files.
        merged: the same with what is given in it. A name that it refers to is known.
        files: their names, for the sentence.

    Raises:
        ValueError: naming the setting, and the nearest one there is.
    """
    referred = set(references(config if merged is None else merged))
    for name, value in given.items():
        if not name.startswith("_"):
            _check_name(name, value, config, referred, files)


def _check_name(name: str, value: Any, config: Any, referred: set[str], files: str) -> None:
    where, steps = config, parts(name)
    for depth, step in enumerate(steps):
        if isinstance(where, Mapping) and step not in where:
            if not _is_new("#".join(steps[: depth + 1]), where, referred):
                before = "#".join([*steps[:depth], ""])
                raise ValueError(_unknown(name, before, step, where, files))
            return
        if isinstance(where, Sequence) and not isinstance(where, str):
            if not step.isdigit() or int(step) >= len(where):
                raise ValueError(f"There is no {name!r}: {'#'.join(steps[:depth])} has {len(where)} entries, from 0.")
            where = where[int(step)]
        elif isinstance(where, Mapping):
            where = where[step]
        elif isinstance(where, str):
            raise ValueError(f"There is no {name!r}: {_elsewhere('#'.join(steps[:depth]), where)}")
        else:
            return  # nothing, or a number, in the place of what it may hold
    if isinstance(value, Mapping) and isinstance(where, Mapping) and "_target_" not in value:
        for key, inner in value.items():
            _check_name(f"{name}#{key}", inner, config, referred, files)


def _is_new(name: str, where: Mapping[str, Any], referred: set[str]) -> bool:
    """Whether a name that a part of a configuration lacks is one that it may get."""
    step = parts(name)[-1]
    if name in referred or step.startswith("_") or step in TRACKING and step == name:
        return True
    if "_target_" in where:
        accepted = parameters(str(where["_target_"]))
        return step in accepted or "**" in accepted and not nearest(step, where)
    return step != name and not nearest(step, where)


def check_spelling(merged: Mapping[str, Any], known: Iterable[Mapping[str, Any]], extra: Iterable[str] = ()) -> None:
    """Refuse entries of a merged configuration that nothing refers to and that are nearly the name of a setting.

    For files of the user's own, which may add entries as they like.

    Args:
        merged: all of it.
        known: contents of files whose entries are right.
        extra: other names that are right.

    Raises:
        ValueError: naming the entry, and the nearest one there is.
    """
    right = {name for content in known for name in content}
    referred = set(references(merged))
    for name, value in merged.items():
        if name in right or name in referred or name in TRACKING or name in extra or name.startswith(("_", "+")):
            continue
        if "#" not in name and "::" not in name and (similar := nearest(name, right)) and not isinstance(value, list):
            raise ValueError(f"There is no setting {name!r}: did you mean {similar!r}?")


def references(config: Any) -> Iterator[str]:
    """Names that a configuration refers to by `@name`, with those that they lie in."""
    if isinstance(config, str):
        for found in re.findall(r"@((?:\w|#|::)+)", config) if config[:1] in ("$", "@") else []:
            steps = parts(found)
            yield from ("#".join(steps[:end]) for end in range(1, len(steps) + 1))
    elif isinstance(config, (Mapping, list, tuple)):
        for each in config.values() if isinstance(config, Mapping) else config:
            yield from references(each)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of some names, if any is nearly the same, in capitals or not."""
    plain = {each.lower(): each for each in names if not each.startswith("_")}
    found = difflib.get_close_matches(name.lower(), plain, n=1, cutoff=0.75)
    return plain[found[0]] if found else None


def _unknown(name: str, before: str, step: str, where: Mapping[str, Any], files: str) -> str:
    known = {*where, *(parameters(str(where["_target_"])) - {"**"} if "_target_" in where else ())}
    similar = nearest(step, known)
    hint = f": did you mean {before + similar!r}?" if similar else "."
    return f"{files or 'The configuration'} has no setting {name!r}{hint}"


def bundle_root() -> Path:
    """Folder with `configs/` and `models/`: within an installed package, or around it in a checkout or bundle."""
    package = Path(__file__).parent
    for root in (package / "bundle", package.parent):
        if (root / "configs" / "inference.json").is_file():
            return root
    raise ValueError(f"There is no configs/inference.json in {str(package / 'bundle')!r} or {str(package.parent)!r}.")


def read_object(file: Path) -> dict[str, Any]:
    """Content of a file that must hold a JSON object.

    Raises:
        ValueError: naming the file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} is not a JSON file: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} must hold a JSON object, got a {type(content).__name__}.")
    return content


def read_files(files: Iterable[Path]) -> dict[str, Any]:
    """Contents of configuration files, later ones over earlier ones, as MONAI's parser merges them."""
    content: dict[str, Any] = {}
    for file in files:
        for name, value in read_object(file).items():
            try:
                _put(content, name, value)
            except ValueError as error:
                raise ValueError(f"{str(file)!r} sets {name!r}, but {error}") from error
    return content


def _put(content: dict[str, Any], name: str, value: Any) -> None:
    """Set an entry of merged files."""
    steps = parts(name)
    where: Any = content
    for depth, step in enumerate(steps):
        before = "#".join(steps[:depth])
        if isinstance(where, list):
            if not step.isdigit() or int(step) >= len(where):
                of_base = "..." in where  # see `configuration`
                raise ValueError(
                    f"{before} is {where} there, what its base says: change the whole of it."
                    if of_base
                    else f"{before} has {len(where)} entries, from 0."
                )
        elif not isinstance(where, dict):
            raise ValueError(_elsewhere(before, where))
        elif depth < len(steps) - 1 and step not in where:
            raise ValueError(f"there is no {'#'.join(steps[: depth + 1])}.")
        place: Any = int(step) if isinstance(where, list) else step
        if depth < len(steps) - 1:
            where = where[place]
    if name.startswith("+") and (isinstance(where, list) or place in where):
        if not isinstance(value, (list, dict)) or type(where[place]) is not type(value):
            raise ValueError(f"{'#'.join(steps)} is {where[place]!r}, to which {value!r} cannot be added.")
        value = [*where[place], *value] if isinstance(value, list) else {**where[place], **value}
    where[place] = value


def _elsewhere(name: str, found: Any) -> str:
    """Why an entry has no parts."""
    if isinstance(found, str) and is_program(found):
        return f"{name} is {found!r} since 0.13: change what it names."
    return f"{name} is {found!r}, which has no parts."


def bundle_files(root: Path) -> list[dict[str, Any]]:
    """Contents of all configuration files of a bundle."""
    files = [file for file in sorted((root / "configs").rglob("*.json")) if file.name != "metadata.json"]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]
