"""Lower bounds of what the package needs: the page says them, and that they were tried."""

import importlib.util
import re
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parent.parent


def script():
    spec = importlib.util.spec_from_file_location("oldest_versions", ROOT / "scripts" / "oldest_versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bounds_are_of_the_package_and_its_extras():
    project = 'name = "a"\n[project]\ndependencies = [\n    "one>=1.2",  # of [use]\n    "two>=3",\n]\n'
    project += (
        'few = ["three>=4.5.6", "four-b>=2"]  # for it\ntest = ["a[few]", "five>=1"]\n\n[tool.x]\nsix = ["six>=6"]\n'
    )
    found = script()
    assert found.lower_bounds(project) == ["one==1.2", "two==3", "three==4.5.6", "four-b==2"]
    assert found.needs(project)["test"] == [("five", "1")]


def test_the_oldest_releases_that_were_tried_are_the_bounds():
    found = script()
    bounds = dict(bound.split("==") for bound in found.lower_bounds((ROOT / "pyproject.toml").read_text()))
    page = (ROOT / "docs" / "versions.md").read_text()
    row = re.search(r"^\| (3\.10\.\d+) \| (.*) \|$", page, re.M)
    tried = dict(zip(found.LISTED, row[2].split(" | "), strict=False))
    assert {name: Version(tried[name]) for name in found.LISTED} == {
        name: Version(bounds[name]) for name in found.LISTED
    }
    assert f"PyTorch {bounds['torch']}, MONAI {bounds['monai']} and numpy {bounds['numpy']} or newer" in page.replace(
        "\n", " "
    )
