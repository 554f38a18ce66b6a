#!/usr/bin/env bash
# SimpleITK 2.5.7: the field `space units` of an NRRD file is dropped. Its lengths stay as numbers, neither the metadata of the image
# nor a copy that SimpleITK writes says their unit, and whoever takes them for mm is wrong by 1000 where it is "um".
# The same volume in NIfTI with micrometres in xyzt_units comes out in mm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q simpleitk==2.5.7 nibabel==5.4.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

header = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 2 3 4
space directions: (500,0,0) (0,500,0) (0,0,500)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (0,0,0)
space units: "um" "um" "um"

"""
Path("a.nrrd").write_bytes(header.encode() + np.arange(24, dtype="<i2").tobytes())
nifti = nibabel.Nifti1Image(np.zeros((2, 3, 4), dtype=np.int16), np.diag([-500.0, -500.0, 500.0, 1.0]))
nifti.header.set_xyzt_units("micron")
nibabel.save(nifti, "a.nii")

by_nrrd, by_nifti = SimpleITK.ReadImage("a.nrrd"), SimpleITK.ReadImage("a.nii")
told = [key for key in by_nrrd.GetMetaDataKeys() if "units" in key or "um" in by_nrrd.GetMetaData(key).split()]
SimpleITK.WriteImage(by_nrrd, "copy.nrrd")
copied = b"units" in Path("copy.nrrd").read_bytes()
print("SimpleITK", SimpleITK.Version.VersionString())
print("voxels of 500 um, NRRD: ", by_nrrd.GetSpacing(), "metadata with the unit:", told, "unit in a copy:", copied)
print("voxels of 500 um, NIfTI:", tuple(round(size, 6) for size in by_nifti.GetSpacing()))
assert by_nrrd.GetSpacing() == (500.0, 500.0, 500.0) and not told and not copied
assert np.allclose(by_nifti.GetSpacing(), 0.5)
PYTHON
echo "still so"
