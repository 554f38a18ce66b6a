#!/usr/bin/env bash
# MONAI 1.6.1: a config that has a reference in an expression with the letters "import" in it, be it `__import__` or the name that is
# referred to, ends in a SyntaxError, whatever part of it is asked for. ConfigExpression.is_import_statement gives each expression
# with these letters to ast.parse before `@name` is replaced, and `@name` is not Python. The documentation of expressions allows it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install -q --no-deps monai==1.6.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import traceback
from importlib.metadata import version

from monai.bundle import ConfigParser

print("MONAI", version("monai"))
configs = {
    "reference": {"weight": 2, "asked": "$@weight * 2"},
    "__import__": {"weight": 2, "asked": "$__import__('math').sqrt(4)"},
    "both": {"weight": 2, "asked": "$__import__('math').sqrt(@weight * 2)"},
    "name": {"importance": 2, "asked": "$@importance * 2"},
    "beside it": {"importance": 2, "asked": 5, "other": "$@importance * 2"},
}
found = {}
for case, config in configs.items():
    try:
        found[case] = ConfigParser(dict(config)).get_parsed_content("asked")
    except SyntaxError as error:
        steps = [step.name for step in traceback.extract_tb(error.__traceback__)]
        found[case] = f"SyntaxError in {'is_import_statement' if 'is_import_statement' in steps else steps[-1]}"
    print(f"{case:10} {str(config):72} {found[case]}")
failed = "SyntaxError in is_import_statement"
assert found == {"reference": 4, "__import__": 2.0, "both": failed, "name": failed, "beside it": failed}, found
PYTHON
echo "still so"
