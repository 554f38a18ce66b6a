"""The guide for users of the public code names settings, classes and files that exist."""

import pydoc
import re
from pathlib import Path

import pytest

from medsegdiff_bundle import configuration

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "from_medsegdiff.md").read_text()


def our_settings():
    """What stands in backquotes in the second column of the table of flags."""
    table = GUIDE.split("## Flags and settings")[1].split("## Data")[0]
    for line in table.splitlines()[6:]:
        cells = line.split(" | ")
        if len(cells) == 3:
            parent = ""
            for name in re.findall(r"`(#?[a-z_]+(?:#[a-z_]+)*)`", cells[1]):
                parent = name.split("#")[0] or parent
                yield name if not name.startswith("#") else parent + name


@pytest.mark.parametrize("setting", sorted(set(our_settings())))
def test_settings_exist(setting):
    values = {"sample", "epsilon", "v_prediction", "cosine", "linear_beta"}
    configs = [configuration.load([ROOT / "configs" / name]) for name in ("train.json", "inference.json")]
    parent, _, name = setting.partition("#")
    if parent == "network_def":
        network = pydoc.locate(configs[0]["network_def"]["_target_"])
        assert name in network.__init__.__annotations__
    else:
        assert setting in values or any(setting in config for config in configs)


def test_there_are_settings():
    assert len(set(our_settings())) > 20


def test_schedulers_and_files_exist():
    for name in re.findall(r"`(\w+Scheduler)`", GUIDE):
        assert pydoc.locate(f"medsegdiff_bundle.schedulers.{name}") is not None
    for name in re.findall(r"configs/[a-z_/]+\.json", GUIDE):
        assert (ROOT / name).is_file()
    for name in re.findall(r"`([a-z_]+\.md)`", GUIDE):
        assert (ROOT / "docs" / name).is_file()
