"""Say beside weights what they are: classes, channels, voxel sizes, network, and how images get to it.

    python scripts/describe_weights.py --task isic                       # those that are shipped
    python scripts/describe_weights.py --task isic --checkpoint mean.pt

writes `<weights>.model.json`, as a training does beside its own. For weights that come from elsewhere, such as the mean
of several: what the configuration of the task says must be theirs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medsegdiff_bundle.evaluation.of_networks import inference_of, shipped_weights
from medsegdiff_bundle.model_file import describe_model, model_file, write_model
from medsegdiff_bundle.networks import MedSegDiff
from medsegdiff_bundle.weights import read_weights


def main() -> None:
    """Read the command line, and write the file of weights that the task's network takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, help="of configs/tasks")
    parser.add_argument("--checkpoint", type=Path, help="flat state dict; what is shipped by default")
    options = parser.parse_args()
    checkpoint = options.checkpoint or shipped_weights(options.task)
    config = inference_of(options.task)
    network: MedSegDiff = config.get_parsed_content("network_def")
    network.load_state_dict(read_weights(checkpoint))
    write_model(checkpoint, describe_model(config))
    print(model_file(checkpoint))


if __name__ == "__main__":
    main()
