"""`medsegdiff sweep DATA`: scores against sampling steps, members, fusion and start."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medsegdiff_bundle import settings
from medsegdiff_bundle.cli.options import add_settings, task_files
from medsegdiff_bundle.files import check_writable, whole_file

if TYPE_CHECKING:
    from medsegdiff_bundle.evaluation.sweep import CaseRow, Row

DESCRIPTION = """\
Segment the validation cases of a data set with several numbers of steps and members, fuse them in several ways, and
print a table: Dice of the fused mask and of the anchor, GED^2 and matched IoU of the members against all readers, how
much a member marks as a multiple of what a reader does, Dice with a reader taken at random, and seconds."""
EXAMPLES = (
    "data/Task04_Hippocampus --steps 1 3 10 --members 1 5",
    "lungs/ --task lidc --steps 3 --members 16 --fusions mean dice --csv cases.csv",
)
COLUMNS = [
    *("start", "steps", "members", "fusion", "Dice per class", "fused", "anchor", "GED^2", "matched IoU", "marked"),
    *("with a reader", "anchor's", "seconds per case"),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    add_settings(parser, "train.json")
    tasks = ", ".join(path.stem for path in task_files())
    parser.add_argument("data", nargs="?", help="folder of the data set (default: the task's)")
    parser.add_argument("-t", "--task", help=f"of {tasks} (default: that of the weights, or hippocampus)")
    parser.add_argument("-c", "--checkpoint", metavar="FILE", help="weights (default: those of the task)")
    parser.add_argument("--section", default="validation", help="validation or test (default: %(default)s)")
    parser.add_argument("--cases", type=int, metavar="N", help="the first cases only (default: all)")
    for flags, default, text in (
        (("-s", "--steps"), [1, 2, 3, 5, 10], "sampling steps"),
        (("-m", "--members"), [1, 5, 10], "ensemble sizes"),
        (("--starts",), [-1], "timesteps at which the anchor takes the place of noise; -1 for pure noise"),
    ):
        shown = f"{text} (default: {' '.join(map(str, default))})"
        parser.add_argument(*flags, type=int, nargs="+", metavar="N", default=default, help=shown)
    parser.add_argument("--fusions", nargs="+", default=["mean", "staple"], help="ways to fuse (default: mean staple)")
    parser.add_argument("--csv", metavar="FILE", help="gets GED^2, matched IoU and Dice of each case")


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    for name, lowest in (("steps", 1), ("members", 1), ("cases", 1), ("starts", -1)):
        given = getattr(options, name)
        if any(number < lowest for number in (given if isinstance(given, list) else [given or lowest])):
            raise ValueError(f"--{name} must be at least {lowest}, got {given}.")
    for fusion in options.fusions:
        settings.typed("fusion", fusion)
    if options.task is not None and options.task not in [path.stem for path in task_files()]:
        raise ValueError(f"There is no task {options.task!r}.")
    if options.csv is not None:
        check_writable(Path(options.csv).parent)
    typed = {name: settings.typed(name, value, programs=False) for name, value in options.settings.items()}
    from monai.utils import set_determinism

    from medsegdiff_bundle import errors
    from medsegdiff_bundle.evaluation import of_networks, sweep

    errors.quiet_readers()
    set_determinism(seed=0)
    task, weights = of_networks.chosen(options.task, options.checkpoint)
    config = of_networks.load_task(task, options.data, options.section, typed, checkpoint=options.checkpoint)
    swept = sweep.Sweep(config, of_networks.trained(config, weights), options.fusions, options.cases)
    starts = [None if start < 0 else start for start in options.starts]
    head = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"
    for row in swept.rows(starts, options.steps, options.members):
        print(f"{head}{_line(row)}", flush=True)
        head = ""
    if options.csv is not None:
        _write(swept.of_cases, Path(options.csv))
    if swept.without_label:
        print(f"\nDice without the {swept.without_label} cases whose label is empty.")
    return 0


def _line(row: Row) -> str:
    each = " / ".join(f"{value:.4f}" for value in row.dice_per_class)
    return (
        f"| {row.start} | {row.steps} | {row.members} | {row.fusion} | {each} | {row.dice:.4f} | {row.anchor:.4f} "
        f"| {row.ged:.3f} | {row.matched_iou:.3f} | {row.marked:.2f} | {row.with_reader:.4f} "
        f"| {row.anchor_with_reader:.4f} | {row.seconds:.2f} |"
    )


def _write(rows: Sequence[CaseRow], path: Path) -> None:
    from medsegdiff_bundle.evaluation.sweep import CaseRow

    with whole_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CaseRow._fields)
        writer.writerows([*row[:5], *(f"{value:.4f}" for value in row[5:])] for row in rows)
