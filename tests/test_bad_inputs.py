"""scripts/bad_inputs.py: a bad input through each door, of each kind; and settings that no text of a caller runs."""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import bad_input_cases
import bad_inputs
import forks
import pytest

from medsegdiff_bundle import settings

TRIALS = bad_input_cases.trials()
FIRST = {(trial.door, trial.kind): number for number, trial in reversed([*enumerate(TRIALS)]) if not trial.remark}
SLOW = ("monai.bundle run", "monai.bundle run training")  # whose processes take longest to start


def test_there_are_hundreds_of_them():
    assert len(TRIALS) >= 300 and {trial.door for trial in TRIALS} == set(bad_input_cases.DOORS)
    assert len({(trial.door, trial.kind, trial.what) for trial in TRIALS}) == len(TRIALS)


@pytest.mark.skipif(sys.platform != "linux", reason="children of a process, and /proc")
def test_each_door_refuses_each_kind():
    """The first of each; the runner's doors once, and with a None, which MONAI passes over."""
    chosen = [number for (door, kind), number in FIRST.items() if door not in SLOW or kind == "setting"]
    chosen += [number for number, trial in enumerate(TRIALS) if trial.what == "amp 'None'"]
    with ProcessPoolExecutor(1, forks.PYTHON) as new:
        found = new.submit(bad_inputs.faults, chosen).result()
    assert len(chosen) > 15 and not found


@pytest.mark.parametrize("word", ["$open('ran','w')", "$print(1)", "@seed", "%epochs"])
@pytest.mark.parametrize("name", [*settings.KINDS, "network_def#channels", "inferer", "preparation#0"])
def test_no_text_of_a_caller_is_run(name, word, tmp_path, monkeypatch):
    """It stays the text that it is, where text is wanted, and is refused elsewhere."""
    monkeypatch.chdir(tmp_path)
    try:
        found = settings.typed(name, word, programs=False)
    except ValueError as error:
        assert str(error).startswith(name) and repr(word) in str(error)
    else:
        assert found in (word, [word])
    assert not Path("ran").exists()


def test_what_is_right_is_no_fault():
    """A trial that ends well is one that fails here."""
    trial = TRIALS[0]
    taken = bad_inputs.Outcome(0, "", "", [], 0.0)
    assert bad_inputs.fault(trial, taken) == "taken"
    assert bad_inputs.fault(trial, taken._replace(status=2, said="Traceback ...")) == "a traceback"
    said = f"error: {' '.join(trial.names)}"
    assert bad_inputs.fault(trial, taken._replace(status=2, said=said)) == ""
    assert bad_inputs.fault(trial, taken._replace(status=2, said=f"{said}\n{said}")) == "2 sentences"
    assert bad_inputs.fault(trial, taken._replace(status=2, said=said, written=["out/a"])) == "wrote out/a"
    assert bad_inputs.fault(trial, taken._replace(status=2, said="error: no")).startswith("does not name")
