"""Bad inputs through every door, and how each is refused: in one sentence that names it, with nothing written.

A door is a way into the program: `segment()`, `Segmenter`, the command line, `python -m monai.bundle run`, and what
MONAI Label makes of the configuration. A trial is a fault of a setting, a file, a data set, weights or a configuration,
see `bad_input_cases.py`. Each runs in a child of this process, in a folder of its own, and must end with an error of
one line that holds the words of the trial; its status is not 0, nothing lies in the folder of results, and no traceback
is printed. What is only remarked upon, as training goes on, is a trial whose sentence is a warning.

Prints the number of trials by door and kind, and a Markdown table of those that fail. `--whole 20` runs as many of the
trials of the two command lines once more as processes of their own. Linux alone. Example:

    python scripts/bad_inputs.py --whole 20
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import re
import resource
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import bad_input_cases
import children
import torch
from bad_input_cases import DOORS, OUT, RAN, Trial

import medsegdiff_bundle
from medsegdiff_bundle import cli

LIMIT = 60  # seconds of the processor for a trial
TOLD = "parsing config_file"  # how MONAI's warning begins that files are programs, before it looks into one
MEMORY = 8 << 30  # bytes of a trial besides what this process has
Call = Callable[[], object]


class Outcome(NamedTuple):
    """What became of a trial."""

    status: int
    said: str  # on standard error
    printed: str  # on standard output
    written: list[str]  # in the folder of results
    seconds: float  # of the processor


def command(words: Sequence[str]) -> None:
    """`medsegdiff`."""
    sys.exit(cli.main(list(words)))


def runner(words: Sequence[str]) -> None:
    """`python -m monai.bundle`, as the interpreter does it."""
    sys.argv = ["monai.bundle", *words]
    warnings.filterwarnings("ignore", message=TOLD)
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def python(call: Call) -> None:
    """A call whose error is a sentence: `ValueError`, of one line."""
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # as a caller may do, who has the error
    try:
        call()
    except ValueError as error:
        print(f"error: {str(error).replace(chr(10), chr(10) + 'error: ')}", file=sys.stderr)  # each a sentence more
        sys.exit(2)


def outcome(trial: Trial, folder: Path) -> Outcome:
    """Run a trial in a child of this process, within a folder."""
    if trial.make is not None:
        trial.make(folder)
    child = os.fork()
    if child == 0:
        _be_child(trial, folder)
    _, code, used = os.wait4(child, 0)
    return _outcome(os.waitstatus_to_exitcode(code), folder, used.ru_utime + used.ru_stime)


def _be_child(trial: Trial, folder: Path) -> None:
    """Be the child."""
    os.chdir(folder)
    children.write_to(Path(".stdout"), Path(".stderr"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    door = {"command": command, "runner": runner}.get(DOORS[trial.door], python)
    os._exit(children.status(lambda: door(trial.call)))


def _outcome(status: int, folder: Path, seconds: float = 0.0) -> Outcome:
    said, printed = ((folder / name).read_text(errors="replace") for name in (".stderr", ".stdout"))
    files = [*(folder / OUT).rglob("*"), folder / RAN]
    written = sorted(str(file.relative_to(folder)) for file in files if file.is_file())
    return Outcome(status, said, printed, written, seconds)


def whole(trial: Trial, folder: Path) -> Outcome:
    """Run a trial of a command line as a process of its own."""
    if trial.make is not None:
        trial.make(folder)
    module = "medsegdiff_bundle" if DOORS[trial.door] == "command" else "monai.bundle"
    root = str(Path(medsegdiff_bundle.__file__).parent.parent)
    with (folder / ".stdout").open("w") as out, (folder / ".stderr").open("w") as err:
        done = subprocess.run(
            [sys.executable, "-W", f"ignore:{TOLD}", "-m", module, *trial.call],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": root},
            stdout=out,
            stderr=err,
        )
    return _outcome(done.returncode, folder)


def fault(trial: Trial, found: Outcome) -> str:
    """What is wrong with how a trial ended, or nothing."""
    lines = [line for line in found.said.splitlines() if line.startswith("error: ")]
    warned = re.sub(r"\s+", " ", found.said + found.printed)  # where a training says what it does
    if "Traceback" in found.said + found.printed:
        return "a traceback"
    if trial.remark:
        return "" if found.status == 0 and all(word in warned for word in trial.names) else "no remark"
    if found.status == 0:
        return "taken"
    if found.status < 0:
        return f"ended by signal {-found.status} after {found.seconds:.0f} s"
    if len(lines) != 1:
        return f"{len(lines)} sentences"
    if DOORS[trial.door] != "python" and len(found.said.splitlines()) > trial.lines:
        return f"{len(found.said.splitlines())} lines"
    if missing := [word for word in trial.names if word not in lines[0]]:
        return f"does not name {', '.join(missing)}"
    if found.written:
        return f"wrote {', '.join(found.written[:3])}"
    return ""


def shown(found: Outcome) -> str:
    """The sentence of an outcome for a table, or the end of what it said."""
    lines = [line for line in found.said.splitlines() if line.startswith("error: ")] or found.said.splitlines()[-1:]
    return (lines[0] if lines else "").replace("|", "\\|")[:240]


def import_all(folder: Path) -> None:
    """Import what a right run of each kind imports, so that the children need not, each by itself."""

    def call() -> None:
        bad_input_cases.right()
        Path("modules").write_text("\n".join(sys.modules))

    found = outcome(Trial("segment()", "", "what is right", call), folder)
    if found.status or found.said.startswith("error: "):
        raise RuntimeError(f"What is right failed: {found.said}")
    for name in (folder / "modules").read_text().splitlines():
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def run(trials: Sequence[Trial], way: Callable[[Trial, Path], Outcome], every: Callable[..., None]) -> None:
    """Run trials, each in a new folder with what `bad_input_cases.world` made, and hand on what became of each."""
    with tempfile.TemporaryDirectory() as scratch:
        world = bad_input_cases.world(Path(scratch) / "world")
        for number, trial in enumerate([None, *trials]):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            for file in world.iterdir():
                (folder / file.name).symlink_to(file)
            if trial is None:
                import_all(folder)
                continue
            every(trial, way(trial, folder))


def faults(numbers: Sequence[int]) -> list[tuple[str, str, str, str]]:
    """What does not end as promised of some trials: door, trial, what is wrong, what was said.

    For a process that is new: PyTorch may refuse to train in the child of one that trained itself.

    Args:
        numbers: indices of the trials.
    """
    trials = bad_input_cases.trials()
    found: list[tuple[str, str, str, str]] = []

    def every(trial: Trial, ended: Outcome) -> None:
        if wrong := fault(trial, ended):
            found.append((trial.door, trial.what, wrong, ended.said))

    run([trials[number] for number in numbers], outcome, every)
    return found


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", type=int, default=0, metavar="N", help="trials to run as processes, too")
    parser.add_argument("--only", default="", metavar="WORD", help="trials whose door, kind or name holds it")
    parser.add_argument("--show", action="store_true", help="every sentence, not of failures alone")
    return parser.parse_args()


def main() -> int:
    """Run them."""
    options = arguments()
    torch.set_num_threads(1)
    trials = [each for each in bad_input_cases.trials() if options.only in f"{each.door} {each.kind} {each.what}"]
    failures: list[tuple[Trial, str, Outcome]] = []

    def every(trial: Trial, found: Outcome) -> None:
        wrong = fault(trial, found)
        if options.show:
            print(f"{trial.door}: {trial.what}: {shown(found)} ({found.seconds:.1f} s)", flush=True)
        if wrong:
            failures.append((trial, wrong, found))

    begin = time.monotonic()
    run(trials, outcome, every)
    lines = [trial for trial in trials if DOORS[trial.door] != "python"]
    sample = lines[:: max(1, len(lines) // options.whole)][: options.whole] if options.whole else []
    run(sample, whole, every)
    counted = Counter((trial.door, trial.kind) for trial in trials)
    print("| door | kind | trials | failed |\n|---|---|---|---|")
    failed = Counter((trial.door, trial.kind) for trial, _, _ in failures)
    for (door, kind), number in counted.items():
        print(f"| {door} | {kind} | {number} | {failed[door, kind]} |")
    number = len(trials) + len(sample)
    print(f"\n{number} trials, {len(sample)} of them as processes, {len(failures)} failed,", end=" ")
    print(f"{time.monotonic() - begin:.0f} s\n")
    if failures:
        print("| door | trial | fault | sentence |\n|---|---|---|---|")
    for trial, wrong, found in failures:
        print(f"| {trial.door} | {trial.what} | {wrong} | {shown(found)} |")
    return int(bool(failures))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:
        traceback.print_exc()
        sys.exit(1)
