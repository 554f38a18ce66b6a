"""scripts/file_trials.py: each situation is a file with its label."""

import file_trials
import numpy as np
import pytest


@pytest.mark.parametrize("name", file_trials.SITUATIONS)
def test_a_situation_is_a_file_and_its_label(name, tmp_path):
    file, label = file_trials.SITUATIONS[name](tmp_path)
    assert file.is_file() and label.any()
    assert file_trials.dice(label, label) == " / ".join(["1.000"] * int(label.max()))
    assert file_trials.dice(np.zeros((1, 1)), label).startswith("mask of (1, 1), shown")
