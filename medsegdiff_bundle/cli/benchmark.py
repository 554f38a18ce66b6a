"""`medsegdiff benchmark`: what a fused mask costs, as ratios of times that are measured in turn in one run."""

from __future__ import annotations

import argparse

DESCRIPTION = """\
Time a fused mask with its map of uncertainty, and print what that is of the naive loop, of MONAI's DiffusionModelUNet
and of one pass of DynUNet, all with random weights. On a CPU the clock is the processor's time, on a GPU the wall's.
Every number is the median of the repeats."""
EXAMPLES = (
    "--task pictures --dtype bfloat16",
    "--switches",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    text = "hippocampus: volumes of 40 x 56 x 40; pictures: 256 x 256 (default: %(default)s)"
    parser.add_argument("-t", "--task", choices=("hippocampus", "pictures"), default="hippocampus", help=text)
    text = "bfloat16: autocast (default: %(default)s)"
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help=text)
    for flags, default, text in (
        (("-m", "--members"), 10, "members of the ensemble (default: %(default)s)"),
        (("--members-per-batch", "--members_per_batch"), None, "(default: what the configuration takes)"),
        (("-s", "--steps"), None, "of ours (default: what the configuration takes)"),
        (("--threads",), 1, "of the processor (default: %(default)s)"),
        (("--repeats",), 3, "of each measurement (default: %(default)s)"),
    ):
        parser.add_argument(*flags, type=int, default=default, metavar="N", help=text)
    parser.add_argument("--size", type=int, nargs="+", metavar="N", help="of the image (default: that of the task)")
    parser.add_argument("--channels", type=int, nargs="+", metavar="N", help="of ours (default: those of the task)")
    parser.add_argument("--contiguous", action="store_true", help="leave channels-last off")
    parser.add_argument("--untuned", action="store_true", help="leave the allocator of the C library as it is")
    parser.add_argument("--compile", action="store_true", help="torch.compile: minutes before the first call")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--profile", action="store_true", help="share of each operator in one denoising step")
    what.add_argument("--switches", action="store_true", help="gain of each switch, each in a process of its own")
    what.add_argument("--seconds", action="store_true", help="the seconds of one call of ours alone")


def run(options: argparse.Namespace) -> int:
    """Measure."""
    from medsegdiff_bundle import benchmark

    benchmark.run(options)
    return 0
