"""`python -m medsegdiff_bundle segment IMAGE -o FOLDER`: `segment` from a shell."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medsegdiff_bundle.segmentation import Segmentation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words of the command line; None takes those of this process.

    Returns:
        Exit code: 0, or 2 after a sentence on what is wrong.
    """
    given = vars(_argument_parser().parse_args(arguments))
    given.pop("command")
    from medsegdiff_bundle.segmentation import segment  # takes seconds, which --help need not

    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # says what the sentence below says
    # MONAI's other DICOM reader regrets that it has no GPU decoder.
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    try:
        segment(on_result=_report, progress=sys.stderr.isatty(), **given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _report(result: Segmentation) -> None:
    unit = result.report["unit"]
    sizes = [f"{name} {structure['volume']:.3f} {unit}" for name, structure in result.report["structures"].items()]
    print(f"{result.name}: {', '.join(sizes)}; mask in {result.mask_file}", flush=True)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m medsegdiff_bundle", description="Diffusion segmentation.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "segment",
        help="segment an image, or the images of a folder",
        description="Write mask, uncertainty, a picture and a report of each image, and print the volumes.",
    )
    command.add_argument("image", help="NIfTI file, picture, folder of a DICOM series, or folder of images")
    command.add_argument("-o", "--output", dest="output_dir", metavar="FOLDER", required=True, help="made if need be")
    command.add_argument("--task", help="what to segment, such as hippocampus, isic or lidc (default: hippocampus)")
    command.add_argument("--checkpoint", metavar="FILE", help="weights (default: those of the task)")
    command.add_argument("--steps", dest="num_inference_steps", type=int, help="denoising steps per member")
    command.add_argument("--members", dest="ensemble_size", type=int, help="segmentations to draw and fuse")
    command.add_argument("--fusion", help="mean, vote, staple or dice")
    command.add_argument("--anchor-only", action="store_true", default=None, help="one pass, no diffusion")
    command.add_argument("--seed", type=int, help="of the members' noise")
    command.add_argument("--like", metavar="REPORT", help="make the mask of a *_report.json again")
    command.add_argument("--device", help="such as cpu or cuda:0")
    return parser


if __name__ == "__main__":
    sys.exit(main())
