"""What it takes to segment many volumes with several processes: time and disk, from the cost of one case.

Measures that cost on the embedded cases with the shipped weights (loading, sampling, uncertainty and writing; one
process, the first slow case included), or takes it from the options. Prints a Markdown table. Examples:

    python scripts/scaling_estimate.py
    python scripts/scaling_estimate.py --seconds_per_case 20 --volumes 1000000 --processes 8 512
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


class Cost(NamedTuple):
    """Of one case."""

    seconds: float  # in the process that segments it
    listing_seconds: float  # in every process: each reads the header of each image before it starts
    megabytes: float  # written


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default=None, help="images to measure with; the embedded cases by default")
    parser.add_argument("--checkpoint", default=str(ROOT / "models" / "model.pt"), help="flat state dict")
    parser.add_argument("--seconds_per_case", type=float, default=None, help="instead of measuring anything")
    parser.add_argument("--listing_seconds_per_case", type=float, default=0.0, help="beside --seconds_per_case")
    parser.add_argument("--megabytes_per_case", type=float, default=0.0, help="beside --seconds_per_case")
    parser.add_argument("--volumes", type=int, nargs="+", default=[10**4, 10**6], help="how many there are")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8, 64, 512], help="one per GPU or machine")
    options = parser.parse_args()
    for name in ("volumes", "processes"):
        if min(getattr(options, name)) < 1:
            parser.error(f"{name} must be positive, got {min(getattr(options, name))}.")
    if options.seconds_per_case is not None and options.seconds_per_case <= 0:
        parser.error(f"seconds_per_case must be positive, got {options.seconds_per_case}.")
    return options


def measure(dataset_dir: str | None, checkpoint: str) -> Cost:
    """Segment the cases as `inference.json` does, into a folder that is thrown away."""
    from monai.bundle import ConfigWorkflow

    with tempfile.TemporaryDirectory() as folder:
        settings = {"bundle_root": str(ROOT), "output_dir": folder, "checkpoint": checkpoint}
        workflow = ConfigWorkflow(
            config_file=str(ROOT / "configs" / "inference.json"),
            logging_file=False,
            workflow_type="infer",
            **settings | ({} if dataset_dir is None else {"dataset_dir": dataset_dir}),
        )
        begin = time.perf_counter()
        cases = len(workflow.parser.get_parsed_content("dataset#data"))
        listed = time.perf_counter() - begin
        workflow.initialize()
        begin = time.perf_counter()
        workflow.run()
        spent = time.perf_counter() - begin
        device = workflow.parser.get_parsed_content("device")
        written = sum(path.stat().st_size for path in Path(folder).iterdir())
    print(f"Measured on {device}, {cases} cases.")
    return Cost(spent / cases, listed / cases, written / cases / 1e6)


def wall_seconds(volumes: int, processes: int, cost: Cost) -> float:
    """Time of the process with most cases; all processes start together and list every case."""
    return volumes * cost.listing_seconds + math.ceil(volumes / processes) * cost.seconds


def main() -> None:
    """Print the table."""
    options = arguments()
    if options.seconds_per_case is None:
        cost = measure(options.dataset_dir, options.checkpoint)
    else:
        cost = Cost(options.seconds_per_case, options.listing_seconds_per_case, options.megabytes_per_case)
    print(
        f"One case: {cost.seconds:.2f} s to segment, {1000 * cost.listing_seconds:.2f} ms to list, "
        f"{cost.megabytes:.3f} MB written."
    )
    print("| volumes | processes | hours | of them listing | process-hours | GB written |")
    print("|---|---|---|---|---|---|")
    for volumes in options.volumes:
        for processes in options.processes:
            hours = wall_seconds(volumes, processes, cost) / 3600
            listing = volumes * cost.listing_seconds / 3600
            print(
                f"| {volumes} | {processes} | {hours:.2f} | {listing:.2f} | {hours * processes:.1f} "
                f"| {volumes * cost.megabytes / 1000:.1f} |"
            )


if __name__ == "__main__":
    main()
