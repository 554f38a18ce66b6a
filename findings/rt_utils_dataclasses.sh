#!/usr/bin/env bash
# rt-utils 1.2.7 requires the package `dataclasses`, a backport for Python 3.6 that pip installs on newer versions, too (0.6 has no
# upper bound). Its module hides the standard library's wherever site-packages comes first, as with PYTHONPATH: then
# the first dataclass of any program that has imported `typing` fails, in torch for one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rt-utils==1.2.7
cd "$folder"
packages=$("$folder/venv/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
"$folder/venv/bin/pip" list 2>/dev/null | grep -E "^(rt-utils|dataclasses) "
cat > trial.py <<'PYTHON'
from __future__ import annotations

import dataclasses
import typing  # noqa: F401 - which nearly every program has


@dataclasses.dataclass
class Point:
    x: float = 0.0
PYTHON
"$folder/venv/bin/python" trial.py && echo "as installed: works"
if PYTHONPATH="$packages" "$folder/venv/bin/python" trial.py 2> error.txt; then
    echo "with site-packages on PYTHONPATH it works: no longer so"
    exit 1
fi
tail -1 error.txt
grep -q "has no attribute '_ClassVar'" error.txt
echo "still so"
