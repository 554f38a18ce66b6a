#!/usr/bin/env bash
# MONAI 1.6.1 with scikit-image 0.26.0: RemoveSmallObjects(d) removes objects of exactly min_size voxels (or mm3, with by_measure) as
# well, with scikit-image 0.25.2 it keeps them, as its documentation says ("objects smaller than this size are removed"). So the
# same configuration gives other masks by the version of scikit-image: with min_size=1 a lesion of one voxel is gone.
# scikit-image 0.26.0 renamed the parameter, takes the old one for the new, which includes the size, and warns of the name alone
# (its issue 8001); MONAI hands the number on by its position, and asks for scikit-image>=0.19.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
echo torch==2.13.0 > "$folder/constraints.txt"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q -c "$folder/constraints.txt" monai==1.6.1 numpy==2.4.6
cd "$folder"
for version in 0.25.2 0.26.0; do
    "$folder/venv/bin/pip" install -q -c "$folder/constraints.txt" scikit-image=="$version" numpy==2.4.6
    "$folder/venv/bin/python" -W ignore - "$version" <<'PYTHON'
import sys

import monai
import skimage
import torch
from monai.data import MetaTensor
from monai.transforms import RemoveSmallObjects

mask = torch.zeros(1, 12, 12, 12)
mask[0, 1, 1, 1] = 1  # 1 voxel
mask[0, 4:6, 4:6, 4:6] = 1  # 8 voxels, 64 mm3
mask = MetaTensor(mask, affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
found = {
    "min_size=1": int(RemoveSmallObjects(min_size=1)(mask).sum()),
    "min_size=8": int(RemoveSmallObjects(min_size=8)(mask).sum()),
    "min_size=64, by_measure=True": int(RemoveSmallObjects(min_size=64, by_measure=True)(mask).sum()),
}
print("MONAI", monai.__version__, "scikit-image", skimage.__version__)
print("voxels that are left of objects of 1 and of 8 voxels (64 mm3):", found)
assert skimage.__version__ == sys.argv[1]
expected = {"0.25.2": [9, 8, 8], "0.26.0": [8, 0, 0]}
assert list(found.values()) == expected[sys.argv[1]], found
PYTHON
done
echo "still so"
