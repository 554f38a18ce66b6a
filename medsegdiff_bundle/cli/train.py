"""`medsegdiff train DATA -o FOLDER`: `configs/train.json` from a shell."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from medsegdiff_bundle.cli import bundle
from medsegdiff_bundle.cli.options import add_setting, add_settings
from medsegdiff_bundle.settings import is_program

DESCRIPTION = """\
Train on the cases of a data set, validate on others of it, and write the best weights as model.pt, with checkpoints, a
log, curves (as PNG, as a table, for TensorBoard), all settings, and pictures of a validation case. DATA is a folder, or
the file of settings that 'configure' wrote, which names its own."""
EXAMPLES = (
    "data/Task04_Hippocampus -o output --epochs 300 --set val_interval=10",
    "photos/ -o output --task isic --config augmentation/isic --resume",
    "mine.json --fold all",
)
SETTINGS = (
    "epochs",
    "learning_rate",
    "batch_size",
    "seed",
    "pretrained",
    "class_names",
    "device",
    "resume",
    "overwrite",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    add_settings(parser, "train.json")
    parser.add_argument("data", help="folder of the data set (see docs/formats.md), or the file that 'configure' wrote")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", help="(default: output, or where the file of settings expects the weights)"
    )
    bundle.add_overlays(parser)
    add_setting(parser, "-e", "--epochs", name="epochs", metavar="N")
    add_setting(parser, "-l", "--learning-rate", name="learning_rate", metavar="X")
    add_setting(parser, "-b", "--batch-size", name="batch_size", metavar="N")
    add_setting(parser, "--seed", name="seed", metavar="N")
    parser.add_argument(
        "--pretrained", metavar="FILE", help="weights to start from, where shapes agree (default: none)"
    )
    parser.add_argument("--classes", dest="class_names", nargs="+", metavar="NAME", help="of the numbers from 1 on")
    parser.add_argument(
        "--fold",
        metavar="K",
        help="validate on this part of the cases, from 0, or on each in turn: all (parts: the set's own, or num_folds)",
    )
    parser.add_argument("-d", "--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    parser.add_argument(
        "--resume",
        action="store_true",
        default=None,
        help="go on where a training in FOLDER stopped; --resume auto: if there is one",
    )
    parser.add_argument("--overwrite", action="store_true", default=None, help="replace the training that is in FOLDER")


def run(options: argparse.Namespace) -> int:
    """Train."""
    if not Path(options.data).exists():
        raise ValueError(f"There is no data set or file of settings {options.data!r}.")
    configured = configured_settings(Path(options.data))
    overlays = list(options.config) if configured is None else [options.data, *options.config]
    files = bundle.chosen_files("train.json", options.task, overlays)
    given: dict[str, Any] = {} if configured is not None else {"dataset_dir": options.data}
    output = Path(options.output or _output(configured))
    given |= options.settings
    given |= {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    if options.fold is None:
        bundle.run_bundle(files, {"output_dir": str(output), **given}, options.quiet, options.debug)
        return 0
    from medsegdiff_bundle.cli import folds

    chosen, number = folds.chosen(options.fold, given, configured)
    go_on = options.fold == "all" and not {**(configured or {}), **given}.get("overwrite")
    for fold in chosen:
        where = folds.folder(output, fold)
        if go_on and folds.is_done(where):
            if not options.quiet:
                print(f"Fold {fold} is done ({where}): --overwrite trains it anew.", file=sys.stderr)
            continue
        resume = {"resume": "auto"} if go_on else {}
        settings = {"output_dir": str(where), **resume, **given, "fold": fold, "num_folds": max(number, 2)}
        bundle.run_bundle(files, settings, options.quiet, options.debug)
    summary = folds.summarise(output, number)
    if summary and not options.quiet:
        print(summary)
    return 0


def configured_settings(file: Path) -> dict[str, Any] | None:
    """Content of a file that `medsegdiff configure` wrote; None of anything else, such as a table of cases."""
    if file.suffix.lower() != ".json" or not file.is_file():
        return None
    from medsegdiff_bundle.datalist.forms.description import read_any_json

    content = read_any_json(file)
    return content if isinstance(content, dict) and "cases" not in content else None


def _output(configured: dict[str, Any] | None) -> str:
    """Folder of a training that names none."""
    checkpoint = (configured or {}).get("checkpoint")
    plain = isinstance(checkpoint, str) and not is_program(checkpoint)
    return str(Path(checkpoint).parent) if plain and checkpoint else "output"
