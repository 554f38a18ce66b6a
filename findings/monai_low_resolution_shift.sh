#!/usr/bin/env bash
# MONAI 1.6.1: RandSimulateLowResolution(d), made for images whose labels stay as they are, shifts the image at its default modes: by
# 0.66 voxels along each axis in the mean of its default zooms (0.5 to 1), by one voxel at a zoom of 1/3, always to higher indices. It
# takes the lowest voxel of each block (F.interpolate, "nearest") and puts it at the centre of the block ("trilinear"). So a network
# learns borders beside those of the labels. Expected: an image that stays in its place, as with downsample_mode="nearest-exact".
# The documentation says that it corresponds to nnU-Net's transform, and nothing of a shift.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
echo torch==2.13.0 > "$folder/constraints.txt"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q -c "$folder/constraints.txt" monai==1.6.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import monai
import torch
from monai.transforms import RandSimulateLowResolution

grid = torch.stack(torch.meshgrid(*[torch.arange(60.0)] * 3, indexing="ij"))
image = torch.exp(-((grid - 29.5) ** 2).sum(0, keepdim=True) / 128)  # a blob with a deviation of 8 voxels, in the centre


def shift(transform):
    """How far the blob's centre of gravity moves along each axis, voxels."""
    blurred = transform(image)
    return [float((axis * blurred[0]).sum() / blurred.sum()) - 29.5 for axis in grid]


found = {}
for mode in ("nearest", "nearest-exact"):
    third = RandSimulateLowResolution(prob=1.0, zoom_range=(1 / 3, 1 / 3), downsample_mode=mode)
    found["zoom 1/3", mode] = shift(third)
    default = RandSimulateLowResolution(prob=1.0, downsample_mode=mode)
    default.set_random_state(0)
    draws = torch.tensor([shift(default) for _ in range(100)])
    found["zooms 0.5 to 1, mean of 100", mode] = draws.mean(0).tolist()
assert shift(RandSimulateLowResolution(prob=1.0, zoom_range=(1 / 3, 1 / 3))) == found["zoom 1/3", "nearest"], "the default is another mode"
print("MONAI", monai.__version__, "torch", torch.__version__)
for (zooms, mode), voxels in found.items():
    print(f"{zooms:27} {mode:13} shifted by {[round(each, 2) for each in voxels]} voxels")
assert all(abs(each - 1) < 0.05 for each in found["zoom 1/3", "nearest"]), found
assert all(abs(each) < 0.05 for each in found["zoom 1/3", "nearest-exact"]), found
assert all(0.6 < each < 0.7 for each in found["zooms 0.5 to 1, mean of 100", "nearest"]), found
assert all(abs(each) < 0.1 for each in found["zooms 0.5 to 1, mean of 100", "nearest-exact"]), found
PYTHON
echo "still so"
