"""From the shell to an answer, in seconds of processor time: help, what is asked wrongly, one small volume.

Two checkouts of the package take turns, so that other work on the machine slows both alike. Prints a Markdown table of
medians, and the ratio of the second to the first. Example:

    python scripts/start_times.py CHECKOUT_OF_0.11 . --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import medsegdiff_bundle

SAMPLE = Path(medsegdiff_bundle.__file__).parent / "sample_data/hippocampus/imagesTr/hippocampus_001.nii.gz"
COMMANDS = {
    "--help": ["--help"],
    "a path that does not exist": ["segment", "missing.nii.gz", "-o", "OUT"],
    "a fusion that does not exist": ["segment", str(SAMPLE), "-o", "OUT", "--fusion", "meen"],
    "one small volume": ["segment", str(SAMPLE), "-o", "OUT", "--device", "cpu"],
}


def seconds(checkout: Path, words: list[str]) -> float:
    """Processor time of one command in a process of its own, of user and system."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "medsegdiff_bundle", *[folder if word == "OUT" else word for word in words]]
        before = os.times()
        subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=False)
        after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="checkout of one version")
    parser.add_argument("after", type=Path, help="checkout of another one")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command in each checkout")
    arguments = parser.parse_args()
    print("| command | before, s | after, s | after / before |\n|---|---|---|---|")
    for name, words in COMMANDS.items():
        runs = [
            [seconds(checkout, words) for checkout in (arguments.before, arguments.after)]
            for _ in range(arguments.rounds)
        ]
        before, after = (statistics.median(each) for each in zip(*runs, strict=True))
        print(f"| {name} | {before:.2f} | {after:.2f} | {after / before:.2f} |", flush=True)


if __name__ == "__main__":
    main()
