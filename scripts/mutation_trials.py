"""Do the tests notice a fault? Faults are put into the code one at a time, and the tests of its package run.

The faults are those of mutmut: an operator is another one, a number one more, an argument None or gone, a text another,
a condition always true, what is assigned None. A random sample of them is tried in each package. A fault is found when
a test of its package fails, or does not come to its end. Those run that reach its lines, the fastest first, until ten
seconds of the processor are used. Prints a table, and with `--survivors` what no test found.

Left out is what changes only what is told: annotations, docstrings, errors' and logged texts, `__repr__`, the names of
types and `__all__`. For Linux:

    pip install mutmut==3.8.1
    python scripts/mutation_trials.py --number 80 --seed 1 --survivors
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import math
import os
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    import libcst as cst

ROOT = Path(__file__).resolve().parent.parent
CODE = "medsegdiff_bundle"
REGIONS = "tests/regions/test_parts.py"  # of several packages
PACKAGES = {
    "fusion": ["tests/test_fusion.py", "tests/test_expected_dice.py"],
    "schedulers": ["tests/schedulers"],
    "metrics": ["tests/metrics", REGIONS],
    "networks": ["tests/networks", REGIONS],
    "inferers": ["tests/inferers", REGIONS],
}
SECONDS = 10  # of the processor, for what takes no time without the fault; a test may take as many times its own
MEMORY = 4 << 30  # bytes that a fault may take
NEEDLESS = ("cacheprovider", "unraisableexception", "threadexception", "faulthandler", "junitxml", "doctest")  # plugins
NO_TESTS = 5  # pytest's exit status


class Mutant(NamedTuple):
    """A fault.

    Attributes:
        file: below the package's folder.
        line: the first of what is changed.
        old: what stands there.
        new: what stands there instead.
        reached: lines of the file of which a test runs one if it can notice; none if any test may.
        text: of the whole file, made when it is asked for.
    """

    file: str
    line: int
    old: str
    new: str
    reached: frozenset[int]
    text: Callable[[], str]

    def __str__(self) -> str:
        """Where, and what."""
        return f"{self.file}:{self.line}: `{self.old}` -> `{self.new}`"


class Test(NamedTuple):
    """What a test takes without a fault, in seconds of the processor, and the lines that it runs, by file."""

    seconds: float
    lines: dict[str, set[int]]


# Mutants ------------------------------------------------------------------------------------------------------------


def mutants(package: str) -> list[Mutant]:
    """All of a package, in the order of its files and lines."""
    files = sorted((ROOT / CODE / package).glob("*.py"))
    return [each for file in files for each in mutants_of(file.read_text(), f"{package}/{file.name}")]


def mutants_of(text: str, name: str) -> list[Mutant]:
    """All of a file of this text and name."""
    import libcst as cst
    from libcst.metadata import MetadataWrapper, PositionProvider
    from mutmut.mutation.mutators import mutation_operators

    module = cst.parse_module(text)
    places = MetadataWrapper(module, unsafe_skip_copy=True).resolve(PositionProvider)
    found: list[Mutant] = []

    def lines(node: cst.CSTNode) -> frozenset[int]:
        return frozenset(range(places[node].start.line, places[node].end.line + 1))

    def walk(node: cst.CSTNode, reached: frozenset[int], in_function: bool) -> None:
        if left_out(node, module):
            return
        if in_function and isinstance(node, cst.SimpleStatementLine):
            reached = lines(node)
        for kind, changes in mutation_operators:
            for new in changes(node) if isinstance(node, kind) else ():
                old_text, new_text = module.code_for_node(node), module.code_for_node(new)
                text = functools.partial(changed, module, node, new)
                found.append(Mutant(name, places[node].start.line, *apart(old_text, new_text), reached, text))
        for child in node.children:
            inside = isinstance(child, cst.BaseSuite)
            if isinstance(node, cst.FunctionDef):  # the defaults of its arguments are noticed where its body runs
                walk(child, frozenset() if inside else lines(node.body), inside)
            elif in_function and isinstance(node, cst.BaseCompoundStatement) and not inside:
                walk(child, lines(child) | {places[node].start.line}, in_function)
            else:
                walk(child, reached, in_function)

    walk(module, frozenset(), False)
    return found


def changed(module: cst.Module, old: cst.CSTNode, new: cst.CSTNode) -> str:
    """Text of a file with one node in the place of another."""
    return module.deep_replace(old, new).code


def left_out(node: cst.CSTNode, module: cst.Module) -> bool:
    """Whether a node, and what it consists of, changes only what is told; or is no part of what runs."""
    import libcst as cst

    if isinstance(node, cst.Annotation | cst.Import | cst.ImportFrom | cst.Raise | cst.Decorator):
        return True
    if isinstance(node, cst.FunctionDef):
        return node.name.value == "__repr__"
    if isinstance(node, cst.Call):
        return module.code_for_node(node.func).startswith(("logger.", "logging.", "warnings."))
    if isinstance(node, cst.Assign):  # `Edges = int | Sequence[int]` is the name of a type
        return (
            re.fullmatch("__all__|logger|[A-Z][a-z]+[A-Za-z]*", module.code_for_node(node.targets[0].target))
            is not None
        )
    return False


def apart(old: str, new: str, around: int = 40) -> tuple[str, str]:
    """Two texts, each in one line, without the most of what they begin and end with alike."""
    old, new = " ".join(old.split()), " ".join(new.split())
    alike = len(os.path.commonprefix([old, new]))
    behind = len(os.path.commonprefix([old[alike:][::-1], new[alike:][::-1]]))
    first, last = max(0, alike - around), max(0, behind - around)
    return tuple(  # type: ignore[return-value]
        "..." * (first > 0) + each[first : len(each) - last] + "..." * (last > 0) for each in (old, new)
    )


# Tests --------------------------------------------------------------------------------------------------------------


class Reach:
    """Plugin of pytest: seconds and lines of each test; what a fixture runs counts for all tests of its file."""

    def __init__(self, coverage: Any, folder: Path) -> None:
        self.coverage, self.folder = coverage, folder
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Count its seconds, from the first fixture to the last."""
        begin = time.process_time()
        found = yield
        self.coverage.switch_context("")
        self.seconds[item.nodeid] = time.process_time() - begin
        return found

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Lines from here on are of its file."""
        self.coverage.switch_context(item.nodeid.split("::")[0])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Lines from here on are its own."""
        self.coverage.switch_context(item.nodeid)

    def tests(self) -> dict[str, Test]:
        """What was found out of each test."""
        data = self.coverage.get_data()
        run: dict[str, dict[str, set[int]]] = {}
        for file in data.measured_files():
            name = str(Path(file).relative_to(self.folder / CODE))
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    run.setdefault(context, {}).setdefault(name, set()).add(line)
        tests = {}
        for test, seconds in self.seconds.items():
            own, shared = run.get(test, {}), run.get(test.split("::")[0], {})
            lines = {file: own.get(file, set()) | shared.get(file, set()) for file in own.keys() | shared.keys()}
            tests[test] = Test(seconds, lines)
        return tests


class Chosen:
    """Plugin of pytest: only some tests, the fastest first, each with a limit of its time."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep those, in their order."""
        items[:] = sorted((each for each in items if each.nodeid in self.seconds), key=self._seconds)

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Limit the time of the test that begins."""
        limit_time(SECONDS * (1 + self._seconds(item)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """End the process with the first failure: nothing has to be told or tidied up."""
        if report.failed:
            os._exit(1)

    def _seconds(self, item: pytest.Item) -> float:
        return self.seconds[item.nodeid]


def load(libraries: list[str]) -> None:
    """Load what the tests use of others: once, and not for each fault."""
    for name in libraries:
        with contextlib.suppress(Exception):  # what is no module, or a part of one that was loaded in another way
            importlib.import_module(name)


def limit_time(seconds: float) -> None:
    """End this process after some more seconds of the processor."""
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), resource.RLIM_INFINITY))


def in_child(work: Callable[[], int], seconds: float) -> int:
    """Exit status of a process that does the work, negative if a signal ended it, in so many seconds of the clock."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(nowhere, stream)
            status = work()
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])


class Trials:
    """A copy of the project, its tests, and what they reach.

    Args:
        folder: for the copy.
        package: whose tests run.
        seconds: of the processor, for the tests of a fault, the fastest of those that reach it; one runs in any case.
    """

    def __init__(self, folder: Path, package: str, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.files = PACKAGES[package]
        for entry in ROOT.iterdir():
            if entry.name in (CODE, "tests"):
                shutil.copytree(entry, folder / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
            elif not entry.name.startswith("."):
                (folder / entry.name).symlink_to(entry)
        self.tests: dict[str, Test] = {}

    def _pytest(self, files: list[str], plugin: object) -> int:
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        os.environ["PYTHONPATH"] = str(self.folder)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        options = ["-o", "addopts=", "--import-mode=importlib", "-x", "--tb=no", "-W", "ignore"]
        options += [
            "--basetemp",
            str(self.folder / "temporary"),
        ]  # pytest's own folder is shared, and tidied at the end
        options += [each for name in NEEDLESS for each in ("-p", f"no:{name}")]
        return int(pytest.main([*files, *options], plugins=[plugin]))

    def reach(self) -> None:
        """Run all tests without a fault, and note what they reach."""

        def work() -> int:
            import coverage

            measured = coverage.Coverage(data_file=None, config_file=False, source=[str(self.folder / CODE)])
            plugin = Reach(measured, self.folder)
            measured.start()
            status = self._pytest(self.files, plugin)
            measured.stop()
            own = ("__", CODE, "tests", "test_", "conftest")
            libraries = [name for name in sys.modules if not name.startswith(own)]
            (self.folder / "reach").write_bytes(pickle.dumps((plugin.tests(), libraries)))
            return status

        if in_child(work, 3600) != 0:
            raise SystemExit(f"Without any fault the tests fail: {' '.join(self.files)}")
        self.tests, libraries = pickle.loads((self.folder / "reach").read_bytes())
        load(libraries)
        gc.freeze()  # no process need look at what all of them share

    def survives(self, mutant: Mutant) -> bool:
        """Whether all tests pass with a fault."""
        reaching = [name for name, test in self.tests.items() if mutant.reached & test.lines.get(mutant.file, set())]
        chosen: dict[str, float] = {}
        for name in sorted(reaching or self.tests, key=lambda name: self.tests[name].seconds):
            if chosen and sum(chosen.values()) + self.tests[name].seconds > self.seconds:
                break
            chosen[name] = self.tests[name].seconds
        file = self.folder / CODE / mutant.file
        right, times = file.read_bytes(), file.stat()
        file.write_text(mutant.text())
        try:
            return self._passes(chosen)
        finally:
            file.write_bytes(right)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # which Python's own copy of it names

    def _passes(self, seconds: dict[str, float]) -> bool:
        def work() -> int:
            sys.dont_write_bytecode = True
            limit_time(3 * SECONDS)
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
            return self._pytest(sorted({name.split("::")[0] for name in seconds}), Chosen(seconds))

        slow = 20 * SECONDS * (len(seconds) + sum(seconds.values()))  # for what waits without using the processor
        return in_child(work, min(slow, 3600)) in (0, NO_TESTS)


# ---------------------------------------------------------------------------------------------------------------------


def row(name: str, tried: int, survived: int) -> str:
    """A line of the table; the share has its standard error."""
    share = 1 - survived / tried
    error = math.sqrt(share * (1 - share) / tried)
    return f"| {name} | {tried} | {tried - survived} | {survived} | {100 * share:.1f} ± {100 * error:.1f} % |"


def main() -> None:
    """Draw, try, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", choices=PACKAGES, default=list(PACKAGES), help="packages to try")
    parser.add_argument("--number", type=int, default=80, help="of faults, in each package")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, default=10, help="of the processor, for the tests of a fault")
    parser.add_argument("--survivors", action="store_true", help="print those that no test found")
    parser.add_argument("--only", nargs="+", metavar="FILE:LINE", help="all faults of these lines, and no others")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("| package | faults | tried | found | not found | share |\n|---|---|---|---|---|---|", flush=True)
    tried: list[Mutant] = []
    survived: list[Mutant] = []
    for package in options.modules:
        found = mutants(package)
        if options.only:
            chosen = [each for each in found if f"{each.file}:{each.line}" in options.only]
        else:
            chosen = random.Random(options.seed).sample(found, min(options.number, len(found)))
        if not chosen:
            continue
        with tempfile.TemporaryDirectory() as folder:
            trials = Trials(Path(folder), package, options.seconds)
            trials.reach()
            left = [each for each in chosen if trials.survives(each)]
        print(row(f"{package} | {len(found)}", len(chosen), len(left)), flush=True)
        tried += chosen
        survived += left
    print(row("all | ", len(tried), len(survived)))
    if options.survivors:
        print("\n" + "\n".join(f"- {each}" for each in sorted(survived)))


if __name__ == "__main__":
    main()
