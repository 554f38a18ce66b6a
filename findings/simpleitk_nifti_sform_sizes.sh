#!/usr/bin/env bash
# SimpleITK 2.5.7: of a NIfTI-1 file whose only place is an sform with other voxel sizes than the field pixdim, as of a volume with
# the affine matrix that leads into the space of a template, the directions and the corner are the sform's, the sizes pixdim's.
# nifti1.h (METHOD 3) places voxels by the sform alone, and so does nibabel 5.4.2. ITK says "unexpected scales in sform" on stderr.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q simpleitk==2.5.7 nibabel==5.4.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK

sform = np.diag([2.2, 3.3, 4.4, 1.0])  # a tenth larger than the voxels, which are 2 x 3 x 4 mm
image = nibabel.Nifti1Image(np.zeros((11, 11, 11), dtype=np.int16), None)
image.set_sform(sform, code=4)  # NIFTI_XFORM_MNI_152
image.set_qform(None, code=0)
image.header["pixdim"][1:4] = [2.0, 3.0, 4.0]
image.header.set_xyzt_units("mm")
nibabel.save(image, "a.nii")

by_nibabel = nibabel.load("a.nii")
assert (by_nibabel.header["qform_code"], by_nibabel.header["sform_code"]) == (0, 4)
by_itk = SimpleITK.ReadImage("a.nii")
last = (10, 10, 10)
places = {
    "nibabel": (by_nibabel.affine @ [*last, 1])[:3].round(3).tolist(),
    "SimpleITK": (np.array([-1, -1, 1]) * by_itk.TransformIndexToPhysicalPoint(last)).round(3).tolist(),  # LPS to RAS
}
print("SimpleITK", SimpleITK.Version.VersionString(), "nibabel", nibabel.__version__)
for program, place in places.items():
    print(f"{program:9} voxel 10, 10, 10 lies at {place} mm, by the sform at [22.0, 33.0, 44.0]")
assert places == {"nibabel": [22.0, 33.0, 44.0], "SimpleITK": [20.0, 30.0, 40.0]}, places
PYTHON
echo "still so"
