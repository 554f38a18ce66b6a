"""`medsegdiff segment IMAGE -o FOLDER`: `medsegdiff_bundle.segment` from a shell."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medsegdiff_bundle.cli import folds
from medsegdiff_bundle.cli.options import add_setting, add_settings, task_files
from medsegdiff_bundle.cli.train import configured_settings

if TYPE_CHECKING:
    from medsegdiff_bundle.segmentation import Segmentation

DESCRIPTION = "Write mask, uncertainty, a picture and a report of each image, and print the volumes."
EXAMPLES = (
    "scan.nii.gz -o results",
    "photos/ -o results --task isic --steps 3 --members 10",
    "scan.nii.gz -o results --task mine.json --folds all",
)
OF_SEGMENT = ("image", "task", "output_dir", "overwrite", "like")  # arguments of `segment` that are no settings
SHORT = (
    "checkpoint",
    "num_inference_steps",
    "ensemble_size",
    "fusion",
    "anchor_only",
    "seed",
    "device",
    "force",
    "memory",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    add_settings(parser, "inference.json")
    parser.add_argument("image", help="image file, folder of a DICOM series, or folder of images")
    parser.add_argument("-o", "--output", dest="output_dir", metavar="FOLDER", required=True, help="made if need be")
    parser.add_argument(
        "-t",
        "--task",
        help=f"what to segment: {', '.join(path.stem for path in task_files(with_weights=True))} (the default is "
        f"hippocampus), a file of 'configure', or with weights of yours one of "
        f"{', '.join(path.stem for path in task_files() if path not in task_files(with_weights=True))}",
    )
    parser.add_argument("-c", "--checkpoint", metavar="FILE", help="weights (default: those of the task)")
    parser.add_argument(
        "--folds",
        nargs="+",
        metavar="K",
        help="of 'train --fold', such as 0 1 2, or all: the mean of their networks, from folders beside the weights",
    )
    add_setting(parser, "-s", "--steps", name="num_inference_steps", metavar="N")
    add_setting(parser, "-m", "--members", name="ensemble_size", metavar="N")
    add_setting(parser, "-f", "--fusion", name="fusion", metavar="WORD")
    parser.add_argument("--anchor-only", action="store_true", default=None, help="one pass, no diffusion")
    add_setting(parser, "--seed", name="seed", metavar="N")
    parser.add_argument(
        "--memory", metavar="SIZE", help="for an image, such as 4GB (default: 6 GB of a CPU, all of a GPU)"
    )
    parser.add_argument("--like", metavar="REPORT", help="make the mask of a *_report.json again")
    parser.add_argument("-d", "--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    parser.add_argument("--overwrite", action="store_true", help="make results anew that are there already")
    parser.add_argument("--force", action="store_true", default=None, help="take images in which nothing can be found")


def run(options: argparse.Namespace) -> int:
    """Segment."""
    from medsegdiff_bundle import errors, quick_start, segmentation

    given = {"progress": sys.stderr.isatty() and not options.quiet, **options.settings}
    given |= {name: getattr(options, name) for name in SHORT if getattr(options, name) is not None}
    of_segment = {name: given.pop(name, getattr(options, name)) for name in OF_SEGMENT}
    task, output_dir = of_segment["task"], of_segment["output_dir"]
    if options.folds is not None:
        given["checkpoint"] = folds.weights(options.folds, given.get("checkpoint") or _weights_of(task))
    segmentation.check_request(options.image, task, given, output_dir=output_dir, like=options.like)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # says what the sentence below says
    errors.quiet_readers()
    errors.end_when_told()
    quick_start.import_segmenter()
    failures: list[str] = []

    def fail(file: str, sentence: str) -> None:
        failures.append(file)
        print(f"error: {sentence}", file=sys.stderr)

    on_result = _pass_over if options.quiet else _print_volumes
    segmentation.segment(**of_segment, **given, on_result=on_result, on_failure=fail)
    return 1 if failures else 0


def _weights_of(task: str | None) -> str:
    """Where the file of settings of a task expects the weights."""
    found = configured_settings(Path(task)) if task else None
    if found is None or not isinstance(found.get("checkpoint"), str):
        raise ValueError("--folds needs a file of settings that names the weights, as --task, or --checkpoint.")
    return str(found["checkpoint"])


def _pass_over(result: Segmentation) -> None:
    """Say nothing."""


def _print_volumes(result: Segmentation) -> None:
    unit = result.report["unit"]
    decimals = 3 if unit == "ml" else 0
    structures = result.report["structures"].items()
    sizes = [f"{name} {structure['volume']:.{decimals}f} {unit}" for name, structure in structures]
    print(f"{result.name}: {', '.join(sizes)}; mask in {result.mask_file}", flush=True)
