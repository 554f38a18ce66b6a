#!/usr/bin/env bash
# MONAI 1.6.1: `BundleAlgo.train`, by which AutoRunner trains each fold, starts "python" as the shell finds it, not the Python that runs
# AutoRunner, and splits the command at spaces (`cmd.split()`), so that a folder with a space in its name ends in an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 pyyaml==6.0.3 fire==0.7.1 nibabel==5.4.2
"$folder/venv/bin/pip" install -q --no-deps monai==1.6.1
mkdir -p "$folder/other" "$folder/plain/scripts" "$folder/with space/scripts"
printf '#!/bin/sh\necho "another python" > "%s/who"\n' "$folder" > "$folder/other/python"
chmod +x "$folder/other/python"
echo 'import sys; open(sys.argv[0] + ".ran", "w").write(sys.executable)' > "$folder/plain/scripts/train.py"
cp "$folder/plain/scripts/train.py" "$folder/with space/scripts/train.py"
cd "$folder"
cat > trial.py <<'PYTHON'
import os
import sys

from monai.apps.auto3dseg import BundleAlgo

algo = BundleAlgo()
algo.output_path = sys.argv[1]
try:
    algo.train()
except RuntimeError as error:
    print("error:", next((line for line in str(error).splitlines() if "can't open file" in line), error))
PYTHON
PATH="$folder/other:$PATH" "$folder/venv/bin/python" trial.py "$folder/plain"
echo "run by $folder/venv/bin/python, trained by: $(cat who)"
test "$(cat who)" = "another python"
test ! -e "$folder/plain/scripts/train.py.ran"
said=$(PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/python" trial.py "$folder/with space" 2>&1)
echo "$said" | tail -1
echo "$said" | grep -q "can't open file '$folder/with'"
test ! -e "$folder/with space/scripts/train.py.ran"
PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/python" trial.py "$folder/plain"
test -s "$folder/plain/scripts/train.py.ran"
echo "still so"
