"""Packages of all tasks, and an interpreter that has never seen this repository."""

import importlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def package():
    """The module that builds packages."""
    return importlib.import_module("medsegdiff_bundle.export.package")


@pytest.fixture(scope="session")
def build(package, tmp_path_factory):
    """Run `medsegdiff package` as a user does: task and output folder -> path of the zip.

    The hippocampus has its weights in the repository; other tasks get random ones, so that these tests need no others.
    """

    def run(task, output):
        command = [sys.executable, "-m", "medsegdiff_bundle", "package", task, "--output", str(output)]
        if task != "hippocampus":
            parser = ConfigParser(package.configurations(task)["inference.json"])
            parser["bundle_root"] = str(ROOT)
            torch.manual_seed(1)  # whose networks mark a part of the pictures
            weights = tmp_path_factory.mktemp("weights") / "random.pt"
            torch.save(parser.get_parsed_content("network_def").state_dict(), weights)
            command += ["--checkpoint", str(weights)]
        if task == "isic":  # in float32 its files are too large for the zoo's repository
            command += ["--url", (output / package.NAMES[task]).as_uri()]
        process = subprocess.run(command, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        return Path(process.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def stranger():
    """Run Python with the installed packages but without this one, in a folder of its own.

    Without site initialisation the hooks of an editable install do nothing, and no path of this repository is known.
    """
    # The standard library first: rt-utils brings a package `dataclasses` of Python 3.6, which would hide that of today.
    packages = dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))

    def run(folder, *arguments, path=()):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {"PYTHONPATH": os.pathsep.join([*map(str, path), *packages]), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-S", *map(str, arguments)]
        process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    return run


@pytest.fixture(scope="module", params=["hippocampus", "isic", "lidc"])
def bundle(request, build, package, stranger, tmp_path_factory):
    """Task and folder of its package, downloaded by MONAI."""
    task = request.param
    archive = build(task, tmp_path_factory.mktemp("built"))
    folder = tmp_path_factory.mktemp("downloaded")
    name = package.NAMES[task]
    stranger(
        folder,
        *("-m", "monai.bundle", "download", "--name", name, "--url", archive.as_uri(), "--bundle_dir", folder),
    )
    if task == "isic":
        stranger(folder, "-m", "monai.bundle", "download_large_files", "--bundle_path", folder / name)
    return task, folder / name
