"""How the value of each setting is read: the words of a command line, numbers, lists, and what is none of them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

TRUE = ("true", "yes", "on", "y", "t", "1")
FALSE = ("false", "no", "off", "n", "f", "0")
NOTHING = ("none", "null", "")
FUSIONS = ("staple", "mean", "vote", "dice")
OUTPUTS = ("probabilities", "labels")
UNCERTAINTY_MAPS = ("entropy", "mutual_information", "variance", "disagreement")


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


def several(kind: Callable[[Any], Any], what: str, fewest: int = 0, most: int | None = None) -> Callable[[Any], list]:
    """A list, of at least and at most so many values; a value alone is a list of one."""

    def check(value: Any) -> list:
        value = value.tolist() if hasattr(value, "tolist") else value
        try:
            found = [kind(each) for each in (value if isinstance(value, (list, tuple)) else [value])]
        except ValueError as error:
            raise ValueError(f"must be a list of {what}") from error
        if len(found) < fewest:
            raise ValueError(f"must be a list of {what}, and not empty")
        if most is not None and len(found) > most:
            raise ValueError(f"must be a list of {what}, and not of more")
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


def sha256(value: Any) -> str:
    """A checksum."""
    found = text(value)
    if not re.fullmatch("[0-9a-fA-F]{64}", found):
        raise ValueError("must be a checksum, SHA-256, of 64 hexadecimal digits")
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
    **dict.fromkeys(("picture_size", "slice_size"), optional(several(whole(1), "two positive whole numbers", 2, 2))),
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
    "weights_sha256": optional(sha256),
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
