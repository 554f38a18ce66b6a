"""The `Examples:` of the classes that people meet first, run as they stand."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["networks.medsegdiff", "inferers.ensemble", "schedulers.ddim"])
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"medsegdiff_bundle.{name}"))
    assert found.attempted >= 3 and found.failed == 0
