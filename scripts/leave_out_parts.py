"""Weights without the parts that the network of a task leaves out, as a flat state dict like `model.pt`.

For weights that were trained with a part that does nothing, such as the SS-Former, see `parts_table.py`: the
configuration of the task says that the network has none, and what is left gives the masks of the part switched off.

    python scripts/leave_out_parts.py models/isic.pt --task isic --output models/isic.pt
    python scripts/describe_weights.py --task isic
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from medsegdiff_bundle.evaluation.of_networks import inference_of
from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.weights import read_weights


def main() -> None:
    """Write the weights that the task's network has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="flat state dict")
    parser.add_argument("--task", required=True, help="of configs/tasks")
    parser.add_argument("--output", required=True, type=Path, help="file that is written")
    options = parser.parse_args()
    network = inference_of(options.task).get_parsed_content("network_def")
    found = read_weights(options.checkpoint)
    kept = {name: found[name] for name in network.state_dict() if name in found}
    network.load_state_dict(kept)  # refuses weights that lack something, or have another shape
    with whole_file(options.output) as file:
        torch.save(kept, file)
    print(f"{len(found) - len(kept)} of {len(found)} tensors left out")


if __name__ == "__main__":
    main()
