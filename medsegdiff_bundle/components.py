"""Arguments of the components that configurations name by `_target_`: their names, and the types that they say."""

from __future__ import annotations

import functools
import inspect
import pydoc
from collections.abc import Mapping


def parameters(target: str) -> set[str]:
    """Names of the arguments of a class or function by its dotted name; "**" among them if it takes any."""
    found = _signature(target)
    if found is None:
        return {"**"}
    return {"**" if each.kind is each.VAR_KEYWORD else each.name for each in found.values()}


def annotation(target: str, argument: str) -> str:
    """The type that a component says an argument has, such as "Sequence[int]"; "" if it says nothing."""
    found = _signature(target)
    if found is None or argument not in found or found[argument].annotation is inspect.Parameter.empty:
        return ""
    said = found[argument].annotation
    text = (said if isinstance(said, str) else inspect.formatannotation(said)).replace("collections.abc.", "")
    return text.removeprefix("Union[").removesuffix("]").replace(", ", " | ") if text.startswith("Union[") else text


@functools.cache  # as MONAI looks through all of its modules for a name without one
def _signature(target: str) -> Mapping[str, inspect.Parameter] | None:
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport:  # of a package that is not installed, which MONAI says better
        return None
    if found is None and "." not in target:  # one of MONAI's, which a configuration may name without its module
        from monai.bundle.config_item import ComponentLocator

        module = ComponentLocator().get_component_module_name(target)
        found = pydoc.locate(f"{module}.{target}") if isinstance(module, str) else None
    try:
        return inspect.signature(found).parameters if callable(found) else None
    except (TypeError, ValueError):  # of some that are written in C
        return None
