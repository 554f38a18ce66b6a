#!/usr/bin/env bash
# MONAI 1.6.1: partition_dataset(data, ratios=...) leaves cases out, without a word: each part is rounded for itself, and what the parts
# leave over belongs to none. Of 64 cases at [8, 1, 1] one is in no part, of 54 in ten equal parts four are; at 56 in ten the last part
# has 2 cases, the others 6. partition_dataset_classes does so for each class: of 72 cases of three classes three are in no part.
# Expected: parts that together are the data, as `num_partitions` gives them; the docstring of `drop_last` says that it is not for ratios.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
echo torch==2.13.0 > "$folder/constraints.txt"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q -c "$folder/constraints.txt" monai==1.6.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import monai
from monai.data import partition_dataset, partition_dataset_classes

print("MONAI", monai.__version__)
found = {}
for count, ratios in ((64, [8, 1, 1]), (54, [1] * 10), (56, [1] * 10)):
    parts = partition_dataset(list(range(count)), ratios=ratios)
    lost = sorted(set(range(count)) - {case for part in parts for case in part})
    found[count] = ([len(part) for part in parts], lost)
    print(f"{count} cases at {ratios}: {found[count][0]}, in no part: {lost}")
classes = [case % 3 for case in range(72)]
by_class = partition_dataset_classes(list(range(72)), classes, ratios=[8, 1, 1])
print(f"72 cases of 3 classes at [8, 1, 1]: {[len(part) for part in by_class]}, in no part: {72 - sum(map(len, by_class))}")
even = partition_dataset(list(range(54)), num_partitions=10)
print("54 cases, num_partitions=10:", [len(part) for part in even])
losing = [count for count in range(10, 201) if sum(map(len, partition_dataset(range(count), ratios=[8, 1, 1]))) < count]
print(f"of the counts from 10 to 200, {len(losing)} lose a case at [8, 1, 1]")
assert found[64] == ([51, 6, 6], [63]), found
assert found[54] == ([5] * 10, [50, 51, 52, 53]), found
assert found[56] == ([6] * 9 + [2], []), found
assert sum(map(len, even)) == 54, even
assert [len(part) for part in by_class] == [57, 6, 6], by_class
assert len(losing) == 38, losing
PYTHON
echo "still so"
