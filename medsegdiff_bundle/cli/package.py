"""`medsegdiff package TASK`: one zip for MONAI's model zoo."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsegdiff_bundle.cli.options import task_files

DESCRIPTION = """\
Write <name>_v<version>.zip, a bundle that needs nothing of this project: complete configurations, metadata, weights,
TorchScript, documents, licences and code. The same input gives the same bytes. It is built in a checkout."""
EXAMPLES = (
    "hippocampus -o dist",
    "isic -o dist --url https://example.org/weights",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("task", help=f"of {', '.join(path.stem for path in task_files(with_weights=True))}")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="of the zip, made if need be")
    parser.add_argument("-c", "--checkpoint", metavar="FILE", help="weights (default: those of the task)")
    parser.add_argument("--url", help="where you will offer files that are too large for the zoo's repository")


def run(options: argparse.Namespace) -> int:
    """Build it, and print its path."""
    from medsegdiff_bundle.export.package import package

    weights = Path(options.checkpoint) if options.checkpoint else None
    print(package(options.task, Path(options.output), weights, options.url))
    return 0
