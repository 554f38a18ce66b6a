"""The arithmetic of scripts/scaling_estimate.py."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "scripts" / "scaling_estimate.py"


def estimate(*options):
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=60)


def test_by_hand():
    """1001 cases on 10 processes: one has 101 of 3.6 s, and all list 1001 of 36 ms, 0.10 + 0.01 hours."""
    process = estimate(
        *("--seconds_per_case", "3.6", "--listing_seconds_per_case", "0.036", "--megabytes_per_case", "2"),
        *("--volumes", "1001", "--processes", "1", "10"),
    )
    assert process.stdout.splitlines()[-2:] == [
        "| 1001 | 1 | 1.01 | 0.01 | 1.0 | 2.0 |",
        "| 1001 | 10 | 0.11 | 0.01 | 1.1 | 2.0 |",
    ]


def test_a_bad_value_is_named():
    process = estimate("--seconds_per_case", "0")
    assert process.returncode != 0 and "seconds_per_case must be positive, got 0.0." in process.stderr
