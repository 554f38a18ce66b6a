"""`medsegdiff configure FOLDER -o mine.json`: settings of a training from the data."""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

DESCRIPTION = """\
Check a data set in any form that 'check' takes, count it with MONAI's DataAnalyzer, measure steps of training, and
write one file of settings for 'train', with a page beside it that says why each number is what it is."""
EXAMPLES = (
    "data/Task04_Hippocampus -o hippocampus.json",
    "data/ct -o ct.json --memory 8GB --hours 12",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("data", metavar="FOLDER", help="the data set: a folder, or a table of files")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="JSON file to write; the page is FILE.md")
    parser.add_argument(
        "--memory", metavar="SIZE", help="for training, such as 8GB (default: a GPU's, or 8GB of a CPU)"
    )
    parser.add_argument("--hours", type=float, default=8.0, metavar="N", help="of training (default: 8)")
    parser.add_argument("-d", "--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    parser.add_argument("--class-names", metavar="LIST", help="names of the classes, as \"['liver','tumour']\"")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def run(options: argparse.Namespace) -> int:
    """Configure."""
    from medsegdiff_bundle import errors
    from medsegdiff_bundle.datalist import read_data_set
    from medsegdiff_bundle.files import check_writable

    target = Path(options.output)
    if target.suffix.lower() != ".json":
        raise ValueError(f"The file of settings must end in .json, got {options.output!r}.")
    if target.exists() and not options.overwrite:
        raise ValueError(f"There is a file {str(target)!r} already: --overwrite replaces it.")
    names = _names(options.class_names)
    data_set = read_data_set(options.data)
    check_writable(target.parent)
    errors.quiet_readers()
    from tqdm import tqdm

    from medsegdiff_bundle.cli.check import print_faults
    from medsegdiff_bundle.planning.configure import FaultyDataError, budget_of, configure

    budget = budget_of(options.memory, options.hours, options.device)
    quiet = options.quiet or not sys.stderr.isatty()

    def say(sentence: str) -> None:
        if not options.quiet:
            print(f"{sentence} ...", file=sys.stderr, flush=True)

    try:
        with tqdm(total=len(data_set.cases), desc="reading", disable=quiet, leave=False) as bar:
            plan = configure(data_set, target, budget, names, bar.update, say)
    except FaultyDataError as error:
        print_faults(error.faults)
        raise
    if plan.remark:
        print(f"warning: {plan.remark}", file=sys.stderr)
    if not options.quiet:
        patch = " x ".join(map(str, plan.settings["patch_size"]))
        batch, epochs = plan.settings["batch_size"], plan.settings["epochs"]
        print(f"{target}: {batch} patches of {patch}, {epochs} epochs, {plan.steps} steps.")
        print(f"{target.with_suffix('.md')} says why.")
    return 0


def _names(word: str | None) -> list[str] | None:
    if word is None:
        return None
    try:
        names = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        names = [name.strip() for name in word.split(",")]
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"--class-names must be a list of names, got {word!r}.")
    return list(names)
