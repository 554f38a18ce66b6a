"""`medsegdiff check FOLDER`: all that is wrong with a data set, before a training."""

from __future__ import annotations

import argparse
import csv
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medsegdiff_bundle.files import check_writable, whole_file

if TYPE_CHECKING:
    from medsegdiff_bundle.planning import Fault

DESCRIPTION = """\
Read every file of a data set (Decathlon, nnU-Net 2, BIDS, a folder of images and masks, a table of files) and print
one table of all faults: unreadable files, channels, geometry, values of labels, empty cases, duplicates, splits.
The exit status is 1 if a fault would end a training or spoil it."""
EXAMPLES = ("data/Task04_Hippocampus", "cases.csv -o faults.csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("data", metavar="FOLDER", help="the data set: a folder, or a table of files")
    parser.add_argument("-o", "--output", metavar="FILE", help="also write the table there, as CSV")


def run(options: argparse.Namespace) -> int:
    """Check."""
    from medsegdiff_bundle import errors
    from medsegdiff_bundle.datalist import read_data_set

    data_set = read_data_set(options.data)
    if options.output:
        check_writable(Path(options.output).parent)
    errors.quiet_readers()
    from tqdm import tqdm

    from medsegdiff_bundle.planning import check_data_set

    quiet = options.quiet or not sys.stderr.isatty()
    with tqdm(total=len(data_set.cases), desc="reading", disable=quiet, leave=False) as bar:
        _, faults = check_data_set(data_set, bar.update)
    if options.output:
        _write(faults, Path(options.output))
    fatal = sum(fault.fatal for fault in faults)
    if not options.quiet or fatal:
        print_faults(faults)
    if not options.quiet:
        remarks = len(faults) - fatal
        print(
            f"{len(data_set.cases)} cases of a data set in the form of {data_set.form}: "
            f"{fatal} fault{'s' * (fatal != 1)}, {remarks} remark{'s' * (remarks != 1)}."
        )
    return 1 if fatal else 0


def print_faults(faults: Sequence[Fault], width: int = 120) -> None:
    """Print a table of faults."""
    if not faults:
        return
    rows = [
        (fault.case or "(all)", fault.kind if fault.fatal else f"({fault.kind})", fault.sentence) for fault in faults
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    print(f"{'case':{first}}  {'fault':{second}}  what")
    for case, kind, sentence in rows:
        for number, line in enumerate(textwrap.wrap(sentence, max(40, width - first - second - 4))):
            print(f"{case if number == 0 else '':{first}}  {kind if number == 0 else '':{second}}  {line}")


def _write(faults: Sequence[Fault], path: Path) -> None:
    with whole_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "fault", "fatal", "what"])
        writer.writerows([fault.case, fault.kind, str(fault.fatal).lower(), fault.sentence] for fault in faults)
