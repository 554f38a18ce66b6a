"""Dice of validation cases that were brought to voxels of other sizes, by the Condition Model of the shipped weights.

The image is interpolated linearly, the label class by class. Prints a Markdown table with the Dice of the mask in that
grid, and that of the mask of the file as it is, brought there likewise. Example:

    python scripts/voxel_sizes.py --dataset_dir FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from medsegdiff_bundle.datalist import segmentation_datalist
from medsegdiff_bundle.segmentation import Segmentation, segment

SIZES = tuple((size,) * 3 for size in (1, 0.5, 0.7, 1.2, 1.4))
Array = np.ndarray


def resampled(values: Array, size: tuple[float, ...]) -> Array:
    """Values of a volume of 1 mm in voxels of another size, about the same middle."""
    shape = [int(np.ceil(length / step)) for length, step in zip(values.shape, size, strict=True)]
    offset = (np.array(values.shape) - 1) / 2 - np.array(size) * (np.array(shape) - 1) / 2
    return np.asarray(ndimage.affine_transform(values, np.diag(size), offset, tuple(shape), order=1))


def classes(labels: Array, size: tuple[float, ...], number: int) -> Array:
    """Labels likewise, class by class."""
    return np.argmax([resampled((labels == k).astype(np.float32), size) for k in range(number)], axis=0)


def dice(mask: Array, label: Array, number: int) -> float:
    """Mean over the classes."""
    each = [(mask == k, label == k) for k in range(1, number)]
    return float(np.mean([2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in each]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_dir", required=True, help="of volumes with voxels of 1 mm")
    parser.add_argument("--stride", type=int, default=1, help="take every n-th validation case")
    arguments = parser.parse_args()
    cases = segmentation_datalist(arguments.dataset_dir, "validation", 1, 3)[:: arguments.stride]
    masks: dict[str, Array] = {}
    print("| voxels, mm | Dice | Dice of the mask at 1 mm, brought there |\n|---|---|---|")
    for size in SIZES:
        labels = {}
        with tempfile.TemporaryDirectory() as folder:
            for number, case in enumerate(cases):
                image = nibabel.load(case["image"])
                label = np.rint(np.asarray(nibabel.load(case["label"]).dataobj)).astype(int)
                values = resampled(np.asarray(image.dataobj, dtype=np.float32), size)
                labels[f"{number:04}"] = classes(label, size, 3)
                nibabel.save(nibabel.Nifti1Image(values, np.diag([*size, 1.0])), Path(folder) / f"{number:04}.nii")
            found: list[Segmentation] = segment(folder, anchor_only=True, mirror_axes=[], device="cpu")  # type: ignore[assignment]
        masks = masks or {each.name: each.mask for each in found}
        own = np.mean([dice(each.mask, labels[each.name], 3) for each in found])
        there = np.mean([dice(classes(masks[each.name], size, 3), labels[each.name], 3) for each in found])
        print(f"| {' x '.join(map(str, size))} | {own:.4f} | {there:.4f} |", flush=True)


if __name__ == "__main__":
    main()
