"""The inputs of `fuzz_headers.py`, led by what they reach in this package's own code.

Each input comes from a right file, or from an earlier input that reached something new in the code, by the changes of
`fuzz_headers.py` and, once in ten times, by those of libFuzzer, which know the numbers and texts that the code
compares. What is a fault, and what kinds of files there are, is as there. The process goes on after a fault, and
another one follows a process that an input ended. For Linux and Python 3.11 to 3.13:

    pip install atheris==3.0.0
    python scripts/fuzz_guided.py --number 10000
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import atheris

with atheris.instrument_imports(include=["medsegdiff_bundle"]):
    from fuzz_headers import KINDS, MEMORY, Kind, common_options, outcome, silence, too_long

LONGEST = 1 << 16  # bytes of an input
SEVERE = 60  # seconds after which libFuzzer ends the process
GOOD = ("result", "refused")


def mutation(kind: Kind, right: bytes) -> Callable[[bytes, int, int], bytes]:
    """What makes an input of another, or of the right file."""

    def change(data: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        data = chance.choice([data, right])
        if data and chance.random() < 0.9:
            try:
                changed = kind.change(data, chance)
            except (ValueError, RecursionError):  # of what is no JSON by now
                changed = b""
            if changed and len(changed) <= longest:
                return changed
        found: bytes = atheris.Mutate(data, longest)
        return found

    return change


def fuzz(name: str, number: int, seed: int, folder: Path) -> None:
    """Try inputs, and note each outcome as a line; ends the process, perhaps at any input."""
    kind = KINDS[name]
    signal.signal(signal.SIGPROF, too_long)
    (folder / "files").mkdir()
    file = kind.make(folder / "files")
    right = file.read_bytes()
    if outcome(kind, file, right) != "result":
        raise RuntimeError(f"The right file of the kind {name} failed.")
    (folder / "corpus").mkdir(exist_ok=True)
    (folder / "corpus" / "right").write_bytes(right)
    notes = (folder / "notes").open("a")

    def one(data: bytes) -> None:
        (folder / "last").write_bytes(data)
        notes.write("\n")  # an input whose line stays empty ends the process
        notes.flush()
        said = outcome(kind, file, data)
        notes.write(said.replace("\n", " "))
        notes.flush()
        if said not in GOOD and not (kept := folder / quote(said.partition(": ")[0], safe=" ")).exists():
            kept.write_bytes(data)

    words = [f"-runs={number}", f"-seed={seed}", f"-max_len={LONGEST}", f"-timeout={SEVERE}", "-rss_limit_mb=0"]
    words += ["-len_control=0", "-mutate_depth=2", f"-artifact_prefix={folder}/"]
    atheris.Setup(["fuzz", *words, str(folder / "corpus")], one, custom_mutator=mutation(kind, right))
    atheris.Fuzz()


def tried(name: str, number: int, seed: int, keep: Path | None) -> tuple[Counter[str], int]:
    """Number of inputs by what became of them, and how many reached something new.

    Args:
        name: of `KINDS`.
        number: of inputs.
        seed: of libFuzzer.
        keep: folder that gets the first input of each fault.
    """
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        while (done := sum(counted.values())) < number:
            shutil.rmtree(folder / "files", ignore_errors=True)
            (folder / "notes").unlink(missing_ok=True)
            child = os.fork()
            if child == 0:
                _be_child(name, number - done, seed + done, folder)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            lines = (folder / "notes").read_text().split("\n")[1:] if (folder / "notes").is_file() else []
            if not lines:
                raise RuntimeError(f"No input of the kind {name} was tried.")
            if not lines[-1]:
                lines[-1] = f"the process ended by {code}"
                shutil.copy(folder / "last", folder / lines[-1])
            counted.update(lines)
        faults = {said.partition(": ")[0] for said in counted} - {*GOOD}
        for fault in faults if keep is not None else ():
            shutil.copy(folder / quote(fault, safe=" "), keep / f"{name} {quote(fault, safe=' ')}")
        return counted, len(list((folder / "corpus").iterdir()))


def _be_child(name: str, number: int, seed: int, folder: Path) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where libFuzzer and ITK talk
    try:
        fuzz(name, number, seed, folder)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    os._exit(1)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = common_options(__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="that gets the first input of each fault")
    return parser.parse_args()


def main() -> int:
    """Try them, and print the counts and the faults."""
    options = arguments()
    silence()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    columns = ("kind", "inputs", "results", "refused", "faults", "reached something new", "seconds")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    found: list[str] = []
    for name in options.kind:
        begin = time.monotonic()
        counted, kept = tried(name, options.number, options.seed, options.keep)
        faults = {said: number for said, number in counted.items() if said not in GOOD}
        cells = [counted.total(), counted["result"], counted["refused"], sum(faults.values()), kept]
        print(f"| {name} | {' | '.join(map(str, cells))} | {time.monotonic() - begin:.0f} |", flush=True)
        found += [f"{name}, {number} times: {said}" for said, number in faults.items()]
    print("\n".join(["", *found]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
