"""`medsegdiff prepare SET SOURCE TARGET`: a data set that cannot be read as it is handed out, as one that can."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DESCRIPTION = """\
Write a data set whose labels are no images as a folder of images and masks, which `check`, `configure` and `train`
read. The source stays as it is. What cannot be taken is listed with its reason, and the exit status is 1 then.
Sets: ddti, ultrasound of the thyroid, whose nodules are outlines in XML. Other sets of the paper need no such step."""
EXAMPLES = ("ddti downloads/DDTI data/ddti", "ddti downloads/DDTI data/ddti -q")
SETS = ("ddti",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("set", metavar="SET", choices=SETS, help=f"of {', '.join(SETS)}")
    parser.add_argument("source", metavar="SOURCE", type=Path, help="folder as it was handed out")
    parser.add_argument("target", metavar="TARGET", type=Path, help="folder that is made")


def run(options: argparse.Namespace) -> int:
    """Write it."""
    if not options.source.is_dir():
        raise ValueError(f"There is no folder {str(options.source)!r}.")
    from tqdm import tqdm

    from medsegdiff_bundle.planning.ddti import LICENCE, prepare_ddti

    quiet = options.quiet or not sys.stderr.isatty()
    with tqdm(total=len(list(options.source.glob("*.xml"))), desc="preparing", disable=quiet, leave=False) as bar:
        left_out = prepare_ddti(options.source, options.target, bar.update)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if not options.quiet:
        written = len(list((options.target / "masks").iterdir()))
        print(f"{options.target}: {written} pictures with masks, {len(left_out)} left out. {LICENCE}")
    return 1 if left_out else 0
