"""`medsegdiff export -o FOLDER`: the network as ONNX, for software without torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsegdiff_bundle.cli import bundle

DESCRIPTION = """\
Write encoder.onnx, denoiser.onnx and sampler.json, what `scripts/onnx_sample.py` samples from with numpy and
onnxruntime alone. Both files are compared with the network on sizes that the export never saw; nothing is written if
they differ."""
EXAMPLES = (
    "-o output/onnx",
    "-o output/onnx --task isic --checkpoint mine.pt --steps 2",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="of the three files, made if need be")
    bundle.add_overlays(parser)
    parser.add_argument("-c", "--checkpoint", metavar="FILE", help="weights (default: those of the task)")
    parser.add_argument("-s", "--steps", type=int, metavar="N", help="sampling steps (default: those of the task)")


def run(options: argparse.Namespace) -> int:
    """Export."""
    files = bundle.chosen_files("inference.json", options.task, options.config)
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {options.steps}.")
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ValueError("The export needs packages: pip install -e '.[export]'.") from error
    import torch

    from medsegdiff_bundle.export import onnx

    config = onnx.read_config(files, options.checkpoint)
    if options.steps is not None:
        config["displayable_configs#num_inference_steps"] = options.steps
    torch.manual_seed(0)
    difference = onnx.write(config, Path(options.output))
    if not options.quiet:
        print(f"largest difference from torch: {difference:.1e}")
    return 0
