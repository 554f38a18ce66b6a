#!/usr/bin/env bash
# MedPy 0.5.2: `medpy.filter.image.resample` gives a volume whose header does not fit its voxels. They are spread from the centre of the
# first to the centre of the last (scipy.ndimage.zoom), the header says the wanted spacing and the old corner: what lies in the last of
# ten slices of 5 mm is 4 mm off at 1 mm, and structures are longer. Expected: the same places, as SimpleITK's Resample keeps them.
# The docstring says "re-sample an image to a new voxel-spacing" and that the header gets it, nothing of the places.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q medpy==0.5.2 simpleitk==2.5.7 scipy==1.15.3 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import SimpleITK
from medpy.filter.image import resample
from medpy.io import load, save

values = np.zeros((10, 16, 16), dtype=np.float32)  # slices first
values[9, 4:12, 4:12] = 1
image = SimpleITK.GetImageFromArray(values)
image.SetSpacing((1.0, 1.0, 5.0))
SimpleITK.WriteImage(image, "a.nii.gz")

array, header = load("a.nii.gz")
array, header = resample(array, header, (1.0, 1.0, 1.0), bspline_order=1)
save(array, "medpy.nii.gz", header)
by_medpy = SimpleITK.ReadImage("medpy.nii.gz")
by_itk = SimpleITK.Resample(image, (16, 16, 50), SimpleITK.Transform(), SimpleITK.sitkLinear, (0, 0, 0), (1, 1, 1))


def highest(volume):
    """Where the values are largest along the axis of the slices, mm."""
    profile = SimpleITK.GetArrayFromImage(volume)[:, 8, 8]
    return volume.TransformIndexToPhysicalPoint((8, 8, int(np.argmax(profile))))[2]


found = {"file": highest(image), "SimpleITK": highest(by_itk), "MedPy": highest(by_medpy)}
print("MedPy", version("medpy"), "SimpleITK", SimpleITK.Version.VersionString(), "scipy", version("scipy"))
print("size and spacing by MedPy:", by_medpy.GetSize(), by_medpy.GetSpacing())
for program, place in found.items():
    print(f"{program:9} the last slice lies at {place:.1f} mm")
assert by_medpy.GetSize() == (16, 16, 50) and np.allclose(by_medpy.GetSpacing(), 1), by_medpy
assert np.allclose(list(found.values()), [45, 45, 49]), found
PYTHON
echo "still so"
