"""The first command of docs/export.md, in a checkout that was never used."""

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent


def test_the_first_command_in_a_fresh_clone(tmp_path):
    command = (ROOT / "docs" / "export.md").read_text().split("```")[1].strip()
    for name in ("configs", "models", "medsegdiff_bundle"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where `python` is this one
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path)}
    process = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert torch.jit.load(tmp_path / "output" / "model.ts")(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 3, 16, 16, 16)
