#!/usr/bin/env bash
# SimpleITK 2.5.7 cannot read NIfTI-2, which nibabel 5.4.2 writes and reads: "Unable to determine ImageIO reader", though the ending
# is that of NIfTI-1. The same image as NIfTI-1 is read.
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

print("SimpleITK", SimpleITK.Version.VersionString(), "nibabel", nibabel.__version__)
values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
found = {}
for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
    for ending in (".nii", ".nii.gz"):
        name = f"{kind.__name__}{ending}"
        nibabel.save(kind(values, np.diag([2.0, 3.0, 4.0, 1.0])), name)
        again = nibabel.load(name)
        assert type(again) is kind and (np.asarray(again.dataobj) == values).all()
        try:
            found[name] = f"read, size {SimpleITK.ReadImage(name).GetSize()}"
        except RuntimeError as error:
            found[name] = str(error).splitlines()[-1].replace("sitk::ERROR: ", "")
        print(f"{name:19} {found[name]}")
for name, answer in found.items():
    wanted = "read, size (2, 3, 4)" if "Nifti1" in name else f'Unable to determine ImageIO reader for "{name}"'
    assert answer == wanted, (name, answer)
PYTHON
echo "still so"
