"""Configuration files, merged as MONAI's parser merges them, and where they lie."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .names import parts
from .programs import elsewhere


def bundle_root() -> Path:
    """Folder with `configs/` and `models/`: within an installed package, or around it in a checkout or bundle."""
    package = Path(__file__).parents[1]
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
            raise ValueError(elsewhere(before, where))
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


def bundle_files(root: Path) -> list[dict[str, Any]]:
    """Contents of all configuration files of a bundle."""
    files = [file for file in sorted((root / "configs").rglob("*.json")) if file.name != "metadata.json"]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]
