#!/usr/bin/env bash
# Pillow 13.0.0: an uncompressed TIFF whose Orientation tag (274) is 5 to 8 comes out garbled when it is opened by its path
# and right when it is opened as a file object, or when it is compressed by LZW.
# Expected by the TIFF 6.0 specification and by Pillow's own turning of such files: the same picture in all three cases.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import PIL
from PIL import Image

stored = np.arange(24, dtype=np.uint8).reshape(4, 6)  # rows, columns in the file
turned = stored.T[:, ::-1]  # orientation 6: row 0 of the file is the right-hand side
found = {}
for compression in ("raw", "tiff_lzw"):
    name = f"{compression}.tif"
    Image.fromarray(stored).save(name, tiffinfo={274: 6}, compression=compression)
    with Image.open(name) as picture:
        picture.load()
        found[compression, "path"] = np.asarray(picture)
    with open(name, "rb") as stream, Image.open(stream) as picture:
        picture.load()
        found[compression, "file object"] = np.asarray(picture)
print("Pillow", PIL.__version__)
for (compression, way), values in found.items():
    right = values.shape == turned.shape and (values == turned).all()
    print(f"{compression:9} {way:12} shape {values.shape} {'right' if right else 'GARBLED'}")
right = {key: values.shape == turned.shape and bool((values == turned).all()) for key, values in found.items()}
assert right == {
    ("raw", "path"): False,
    ("raw", "file object"): True,
    ("tiff_lzw", "path"): True,
    ("tiff_lzw", "file object"): True,
}, right
PYTHON
echo "still so"
