#!/usr/bin/env bash
# Pillow 12.3.0: of a grey TIFF whose PhotometricInterpretation is 0 (the lowest value is white), as digitisers of films write it,
# pictures of 8 bits are turned around when they are read, and those of 16 bits and of floats are not: the same picture is a
# positive or a negative by its depth. TIFF 6.0, page 37: with WhiteIsZero, 0 is imaged as white. tifffile 2026.3.3 hands on what is stored.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==12.3.0 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)
ramp = np.tile(np.arange(0, 250, 10), (4, 1))
for kind, turned in ((np.uint8, True), (np.uint16, False), (np.float32, False)):
    tifffile.imwrite("a.tif", ramp.astype(kind), photometric="miniswhite")
    stored, read = tifffile.imread("a.tif")[0], np.asarray(Image.open("a.tif"))[0]
    print(f"{np.dtype(kind)}: stored {stored[:3].tolist()} ..., read {read[:3].tolist()} ...")
    assert stored.tolist() == ramp[0].tolist()
    assert read.tolist() == ((255 - ramp) if turned else ramp)[0].tolist(), read
PYTHON
echo "still so"
