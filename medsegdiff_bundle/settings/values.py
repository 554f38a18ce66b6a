"""Values of settings, of the type that they must have, and checked against one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from medsegdiff_bundle.components import annotation

from .kinds import ANNOTATED, KINDS, optional
from .names import parts, references
from .programs import is_program, texts


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


# Settings that act through a list of transforms, which another file may have replaced by one that does without them.
ACTS_IN = {"window": "preparation", "class_values": "label_checks", "class_ratios": "patches"}


def check_fit(config: Mapping[str, Any], names: Collection[str] | None = None) -> None:
    """Refuse values that do not fit the others: of axes that the images do not have, and such as nothing uses.

    Patches are of a training alone: where none is run, the file of another task may say those of other axes.

    Args:
        config: with values as `typed` makes them; what is a program there is left alone.
        names: of settings that must be of use; all, if that is None. What weights say of themselves may not be: it
            holds values in the place of references.

    Raises:
        ValueError: naming the setting.
    """
    of_training = names is None or "patch_size" in names
    _check_axes(config if of_training else {**config, "patch_size": None})
    for name, place in ACTS_IN.items():
        if names is not None and name not in names:
            continue
        if config.get(name) is not None and place in config and name not in references(config):
            raise ValueError(
                f"{name} {config[name]!r} would change nothing: no transform of {place} is made with it here."
            )


def _check_axes(config: Mapping[str, Any]) -> None:
    """Axes that the images do not have, results of volumes as pictures, and patches that fit into no memory."""
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
