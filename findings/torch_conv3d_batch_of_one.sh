#!/usr/bin/env bash
# PyTorch 2.13.0, CPU, float32: nn.Conv3d of one volume can take longer than of two. A batch of one goes to oneDNN only if
# channels x depth x height, without the width, is above 20,480; else PyTorch's own operator runs, which is slower.
# Seen on one thread of a CPU with AVX2, 32 channels, kernel 3: 20 x 32 x 20 voxels (32 x 20 x 32 = 20,480) take 1.7 times
# as long alone as two of them together; 20 x 33 x 20 voxels take 0.4 times as long as two.
# The profiler names the operator, so the check does not depend on the clock.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import time

import torch
from torch.profiler import ProfilerActivity, profile

torch.set_num_threads(1)
convolution = torch.nn.Conv3d(32, 32, 3, padding=1)
operators = {}
with torch.no_grad():
    for number, height in ((1, 32), (2, 32), (1, 33), (2, 33)):
        image = torch.randn(number, 32, 20, height, 20)
        convolution(image)
        with profile(activities=[ProfilerActivity.CPU]) as events:
            convolution(image)
        names = {event.key for event in events.key_averages()}
        operators[number, height] = "oneDNN" if "aten::mkldnn_convolution" in names else "PyTorch's own"
        started = time.process_time()
        for _ in range(5):
            convolution(image)
        seconds = (time.process_time() - started) / 5
        print(f"torch {torch.__version__}: {number} x 32 x 20 x {height} x 20: {operators[number, height]}, {seconds * 1e3:.0f} ms")
expected = {(1, 32): "PyTorch's own", (2, 32): "oneDNN", (1, 33): "oneDNN", (2, 33): "oneDNN"}
assert operators == expected, f"this has changed: {operators}"
PYTHON
