"""Imports go one way: configs -> transforms, handlers, metrics -> fusion, uncertainty, ... -> monai, torch."""

import ast
import importlib.util
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "medsegdiff_bundle"
ALONE = ("networks", "schedulers", "inferers", "fusion", "uncertainty", "visualization", "datalist", "measured")


def imported(path):
    """Our own modules that a file imports, by their name below the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level > 1:
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medsegdiff_bundle."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("medsegdiff_bundle."))


@pytest.mark.parametrize("name", ALONE)
def test_json_introduces_them(name):
    """Networks, schedulers, inferers and pure functions import nothing of ours but these two and their own."""
    files = sorted((PACKAGE / name).glob("*.py")) or [PACKAGE / f"{name}.py"]
    for path in files:
        assert not set(imported(path)) - {name, "labels", "measured"}, path


def test_a_name_stands_for_one_thing():
    """No file in a folder has the name of what stands above; but commands have that of what they run."""
    above = {path.stem for path in PACKAGE.iterdir()}
    below = [path for path in PACKAGE.glob("*/**/*.py") if path.relative_to(PACKAGE).parts[0] != "cli"]
    assert not [path for path in below if path.stem in above - {"__init__"}]


def test_what_is_imported_is_there():
    """Also within functions, where nothing else would notice before a user does."""
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "scripts").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and (node.module or "").split(".")[0] == PACKAGE.name
                and not node.level
            ):
                module = importlib.import_module(node.module)
                for each in node.names:
                    there = hasattr(module, each.name) or importlib.util.find_spec(f"{node.module}.{each.name}")
                    assert there, f"{path}: {node.module} has no {each.name}"
