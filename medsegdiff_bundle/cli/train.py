"""`medsegdiff train DATA -o FOLDER`: `configs/train.json` from a shell."""

from __future__ import annotations

import argparse

from medsegdiff_bundle.cli import bundle
from medsegdiff_bundle.cli.options import add_setting, add_settings

HELP = "train the weights of a task, or of your own classes"
DESCRIPTION = """\
Train on the cases of a data set, validate on others of it, and write the best weights as model.pt, with checkpoints,
curves for TensorBoard and pictures of a validation case."""
EXAMPLES = (
    "data/Task04_Hippocampus -o output --epochs 300 --set val_interval=10",
    "photos/ -o output --task isic --config augmentation/isic --resume",
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
    parser.add_argument("data", help="folder of the data set: see docs/formats.md")
    parser.add_argument("-o", "--output", metavar="FOLDER", default="output", help="(default: %(default)s)")
    bundle.add_overlays(parser)
    add_setting(parser, "-e", "--epochs", name="epochs", metavar="N")
    add_setting(parser, "-l", "--learning-rate", name="learning_rate", metavar="X")
    add_setting(parser, "-b", "--batch-size", name="batch_size", metavar="N")
    add_setting(parser, "--seed", name="seed", metavar="N")
    parser.add_argument(
        "--pretrained", metavar="FILE", help="weights to start from, where shapes agree (default: none)"
    )
    parser.add_argument("--classes", dest="class_names", nargs="+", metavar="NAME", help="of the numbers from 1 on")
    parser.add_argument("-d", "--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    parser.add_argument("--resume", action="store_true", default=None, help="go on where a training in FOLDER stopped")
    parser.add_argument("--overwrite", action="store_true", default=None, help="replace the training that is in FOLDER")


def run(options: argparse.Namespace) -> int:
    """Train."""
    files = bundle.chosen_files("train.json", options.task, options.config)
    given = {"dataset_dir": options.data, "output_dir": options.output, **options.settings}
    given |= {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    bundle.run_bundle(files, given, options.quiet, options.debug)
    return 0
