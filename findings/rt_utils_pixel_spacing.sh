#!/usr/bin/env bash
# rt-utils 1.2.7: of a DICOM series whose pixels are not square the contours of an RTSTRUCT lie elsewhere than the mask.
# PixelSpacing is row spacing, then column spacing (DICOM PS3.3, 10.7.1.3); image_helper.get_pixel_to_patient_transformation_matrix
# takes them the other way round, so a voxel 10 columns from the corner is placed 10 row spacings from it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rt-utils==1.2.7 pydicom==3.0.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from pydicom.dataset import Dataset
from rt_utils.image_helper import get_pixel_to_patient_transformation_matrix

slices = []
for z in (0.0, 3.0):
    item = Dataset()
    item.PixelSpacing = [2.0, 0.5]  # 2 mm from row to row, 0.5 mm from column to column
    item.ImagePositionPatient = [0.0, 0.0, z]
    item.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    item.SliceThickness = 3.0
    slices.append(item)
matrix = get_pixel_to_patient_transformation_matrix(slices)
column_10 = (matrix @ np.array([10.0, 0.0, 0.0, 1.0]))[:3]
print("rt-utils", version("rt-utils"))
print("column 10 of row 0 lies at x =", column_10[0], "mm; by the standard at 10 x 0.5 = 5.0 mm")
assert column_10[0] == 20.0, column_10
PYTHON
echo "still so"
