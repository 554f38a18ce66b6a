#!/usr/bin/env bash
# MONAI 1.6.1: ConfigParser.parse writes "::" in the place of each "#" of every text, not of references alone. So a class name
# "lobe #2", a path "/data/set#1" or a sentence of metadata.json is another one once a configuration was parsed: masks and tables
# get other names, folders are not found, and the metadata that `ckpt_export` puts into TorchScript differ from the file.
# Expected: a text that is no reference, expression or macro stays as it is. A value that is looked up by an expression does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
echo torch==2.13.0 > "$folder/constraints.txt"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q -c "$folder/constraints.txt" monai==1.6.1 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import monai
from monai.bundle import ConfigParser

texts = {"name": "lobe #2", "path": "/data/set#1", "listed": ["#ff0000"], "_meta_": {"changelog": {"0.1": "issue #7"}}}
print(f"written: {texts}")
parser = ConfigParser({**texts, "looked_up": "$texts['name']"}, globals={"texts": texts})
parser.parse()
found = {name: parser.get(name) for name in texts}
print(f"monai {monai.__version__} has: {found}")
expected = {"name": "lobe ::2", "path": "/data/set::1", "listed": ["::ff0000"]}
expected["_meta_"] = {"changelog": {"0.1": "issue ::7"}}
assert found == expected, "this has changed"
assert parser.get_parsed_content("looked_up") == "lobe #2"
PYTHON
