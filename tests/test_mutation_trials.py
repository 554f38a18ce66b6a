"""scripts/mutation_trials.py: faults are put into the code, and those are told that no test finds."""

import gc
import random

import mutation_trials
import pytest
from mutation_trials import Mutant, Trials, apart, mutants_of, row

CODE = '''"""Something."""

import logging

Edges = int | None
logger = logging.getLogger(__name__)


def larger(number: int, than: int = 1) -> bool:
    """Whether it is."""
    if number is None:
        raise ValueError("no number" + "!")
    logger.info("larger %s", 2)
    return number > than


def down(number):
    while number > 0:
        number -= 1
    return number
'''
TESTS = """
from tiny.part.one import down, larger


def test_larger():
    assert larger(3) and not larger(0)


def test_down():
    assert down(3) == 0
"""


def test_faults_of_a_file():
    pytest.importorskip("mutmut")
    found = mutants_of(CODE, "part/one.py")
    assert [(each.line, each.old, each.new) for each in found if each.line < 17] == [
        (9, "1", "2"),
        (11, "is", "is not"),
        (14, "> than", ">= than"),
    ]
    assert [each.reached for each in found if each.line == 9] == [frozenset(range(10, 15))]
    for each in found:
        changed = each.text().splitlines()
        assert sum(a != b for a, b in zip(changed, CODE.splitlines(), strict=True)) == 1


@pytest.fixture
def trials(tmp_path, monkeypatch):
    pytest.importorskip("coverage")
    project = tmp_path / "project"
    for folder in ("tiny/part", "tests"):
        (project / folder).mkdir(parents=True)
    (project / "tiny" / "part" / "one.py").write_text(CODE)
    (project / "tests" / "test_part.py").write_text(TESTS)
    monkeypatch.setattr(mutation_trials, "ROOT", project)
    monkeypatch.setattr(mutation_trials, "CODE", "tiny")
    monkeypatch.setattr(mutation_trials, "PACKAGES", {"part": ["tests/test_part.py"]})
    monkeypatch.setattr(mutation_trials, "SECONDS", 1)
    (tmp_path / "copy").mkdir()
    made = Trials(tmp_path / "copy", "part", 10)
    made.reach()
    yield made
    gc.unfreeze()


def fault(line, old, new):
    assert CODE.count(old) == 1
    return Mutant("part/one.py", line, old, new, frozenset({line}), lambda: CODE.replace(old, new))


def test_what_no_test_finds_survives(trials):
    assert {name: test.lines["part/one.py"] & {14, 20} for name, test in trials.tests.items()} == {
        "tests/test_part.py::test_larger": {14},
        "tests/test_part.py::test_down": {20},
    }
    assert trials.survives(fault(14, "number > than", "number >= than"))
    assert not trials.survives(fault(14, "number > than", "number < than"))
    assert not trials.survives(fault(19, "number -= 1", "number += 1"))  # comes to no end
    assert not trials.survives(fault(1, "import logging", "import loggin"))
    assert (trials.folder / "tiny" / "part" / "one.py").read_text() == CODE


def test_tests_that_fail_by_themselves_end_the_trials(trials):
    (trials.folder / "tests" / "test_part.py").write_text("def test_wrong():\n    assert False\n")
    with pytest.raises(SystemExit, match="Without any fault the tests fail: tests/test_part.py"):
        trials.reach()


def test_what_is_told():
    assert apart("f(a, b)", "f(a)") == ("f(a, b)", "f(a)")
    old = "x" * 50 + "+" + "y" * 50
    assert apart(old, old.replace("+", "-")) == (
        f"...{'x' * 40}+{'y' * 40}...",
        f"...{'x' * 40}-{'y' * 40}...",
    )
    assert row("fusion | 900", 80, 8) == "| fusion | 900 | 80 | 72 | 8 | 90.0 ± 3.4 % |"
    assert random.Random(1).sample(range(100), 3) == [17, 72, 97]  # the sample of a seed is the same everywhere
