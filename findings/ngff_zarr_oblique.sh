#!/usr/bin/env bash
# ngff-zarr 0.50.0: NIfTI to OME-Zarr and on to ITK loses the place of a volume, without a word. nibabel_image_to_ngff_image keeps the
# corner in RAS, as NIfTI has it, and ngff_image_to_itk_image takes it for LPS: left and right, front and back change sides. Of an oblique
# volume the rotation is dropped, too; each axis gets the name of the nearest one. The docstring of the first says that spatial metadata are kept.
# Expected: voxels where nibabel 5.4.2 and SimpleITK 2.5.7 place them, or a refusal.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ngff-zarr==0.50.0 itkwasm==1.0b201 zarr==3.1.6 nibabel==5.4.2 simpleitk==2.5.7 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import nibabel
import ngff_zarr
import numpy as np
import SimpleITK

angle = np.radians(30)
turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
voxel, found = (10, 5, 2), {}
for name, rotation in (("straight", np.eye(3)), ("oblique", turned)):
    affine = np.eye(4)
    affine[:3, :3] = rotation * [1.0, 2.0, 3.0]
    affine[:3, 3] = [40, -20, 30]
    nibabel.save(nibabel.Nifti1Image(np.zeros((12, 14, 10), dtype=np.uint8), affine), f"{name}.nii")
    by_nibabel = nibabel.load(f"{name}.nii")
    by_itk = SimpleITK.ReadImage(f"{name}.nii")
    mirrored = np.array([-1, -1, 1])  # LPS to RAS
    places = {
        "nibabel": (by_nibabel.affine @ [*voxel, 1])[:3].round(2).tolist(),
        "SimpleITK": (mirrored * by_itk.TransformIndexToPhysicalPoint(voxel)).round(2).tolist(),
    }
    in_memory = ngff_zarr.nibabel_image_to_ngff_image(by_nibabel)
    ngff_zarr.to_ngff_zarr(f"{name}.ome.zarr", ngff_zarr.to_multiscales(in_memory, scale_factors=[]))
    read = ngff_zarr.from_ngff_zarr(f"{name}.ome.zarr").images[0]
    for way, image in (("in memory", in_memory), ("by a file", read)):
        back = ngff_zarr.ngff_image_to_itk_image(image)
        corner, spacing = np.array(back.origin), np.array(back.spacing)
        direction = np.array(back.direction).reshape(3, 3)
        places[f"ngff-zarr, {way}"] = (mirrored * (corner + direction @ (spacing * voxel))).round(2).tolist()
    found[name] = places
print("ngff-zarr", version("ngff-zarr"), "nibabel", nibabel.__version__, "SimpleITK", SimpleITK.Version.VersionString())
for name, places in found.items():
    for program, place in places.items():
        print(f"{name:8} {program:20} voxel {voxel} lies at {place} mm (RAS)")
for name, right in (("straight", [50.0, -10.0, 36.0]), ("oblique", [43.66, -6.34, 36.0])):
    places = list(found[name].values())
    assert places == [right, right, [-30.0, 30.0, 36.0], [-50.0, 10.0, 36.0]], found
PYTHON
echo "still so"
