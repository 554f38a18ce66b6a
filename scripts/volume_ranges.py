"""Smallest and largest volume of each class in the training cases of a folder, as `volume_ranges` of `inference.json`.

A mask outside of them is flagged in its report. Volumes are in ml, of pictures in pixels. Example:

    python scripts/volume_ranges.py --dataset_dir FOLDER --class_names anterior posterior
"""

from __future__ import annotations

import argparse
import json

import torch

from medsegdiff_bundle.datalist import segmentation_datalist
from medsegdiff_bundle.grid import image_grid
from medsegdiff_bundle.transforms import load_image


def main() -> None:
    """Print the ranges, and of how many cases they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True, help="folder as for training")
    parser.add_argument("--class_names", nargs="+", required=True, help="of the classes from 1 on")
    options = parser.parse_args()
    cases = segmentation_datalist(options.dataset_dir, "training")
    volumes: dict[str, list[float]] = {name: [] for name in options.class_names}
    for case in cases:
        label = load_image(case["label"])
        affine = image_grid(label).affine
        voxel = 1.0 if affine is None else abs(float(torch.linalg.det(label.affine[:3, :3]))) / 1000
        for number, name in enumerate(options.class_names, start=1):
            count = int((label == number).sum())
            if count > 0:
                volumes[name].append(voxel * count)
    print(f"{len(cases)} training cases")
    print(json.dumps({name: [round(min(each), 4), round(max(each), 4)] for name, each in volumes.items() if each}))


if __name__ == "__main__":
    main()
