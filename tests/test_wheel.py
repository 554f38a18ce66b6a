"""The wheel: complete, and able to segment in an environment that never saw this repository."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"


def run(*words, **options):
    process = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the sources, so that the checkout stays clean."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("medsegdiff_bundle", "configs", "models", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", built, source)
    return next(built.glob("medsegdiff_bundle-*-py3-none-any.whl"))


def test_it_holds_every_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, target in (("medsegdiff_bundle", ""), ("configs", "medsegdiff_bundle/bundle/")):
        files = [file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
        assert {target + file.relative_to(ROOT).as_posix() for file in files} <= names
    assert "medsegdiff_bundle/bundle/models/model.pt" in names
    notice = next(name for name in names if name.endswith(".dist-info/licenses/docs/data_license.txt"))
    assert b"CC BY-SA 4.0" in zipfile.ZipFile(wheel).read(notice)
    assert wheel.stat().st_size < 100e6  # the package index takes no larger file


def test_it_segments_in_an_empty_folder(wheel, tmp_path):
    """The dependencies are those of this environment, but not its own link to this repository."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", code, env=environment).strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, env=environment)
    folder = tmp_path / "empty"
    folder.mkdir()
    where = run(
        python, "-c", "import medsegdiff_bundle; print(medsegdiff_bundle.__file__)", cwd=folder, env=environment
    )
    assert Path(where.strip()) == packages / "medsegdiff_bundle" / "__init__.py"

    command = packages.parents[2] / "bin" / "medsegdiff"
    assert run(command, "--version", cwd=folder, env=environment).startswith("medsegdiff ")
    image, label = (SAMPLE / part / "hippocampus_001.nii.gz" for part in ("imagesTr", "labelsTr"))
    words = (python, "-m", "medsegdiff_bundle", "segment", image, "-o", "out", "--members", "1", "--device", "cpu")
    printed = run(*words, cwd=folder, env=environment)
    assert re.fullmatch(
        r"hippocampus_001: anterior \d\.\d+ ml, posterior \d\.\d+ ml; mask in out/hippocampus_001_seg\.nii\.gz\n",
        printed,
    )
    mask = np.asarray(nibabel.load(folder / "out" / "hippocampus_001_seg.nii.gz").dataobj)
    expected = np.asarray(nibabel.load(label).dataobj)
    for value in (1, 2):
        both = ((mask == value) & (expected == value)).sum()
        assert 2 * both / ((mask == value).sum() + (expected == value).sum()) > 0.8
