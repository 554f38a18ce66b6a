"""Texts that MONAI's parser acts on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


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


def elsewhere(name: str, found: Any) -> str:
    """Why an entry has no parts."""
    if isinstance(found, str) and is_program(found):
        return f"{name} is {found!r} since 0.13: change what it names."
    return f"{name} is {found!r}, which has no parts."
