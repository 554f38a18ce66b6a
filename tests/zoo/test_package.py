"""Packages for the model zoo, downloaded and used where this repository was never seen."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.zoo
HERE = Path(__file__).parent
SCHEMA = HERE.parent / "meta_schema_20240725.json"


@pytest.fixture(scope="module")
def data(bundle, small_dataset, tmp_path_factory):
    """A dataset that the task can read."""
    task, _ = bundle
    if task == "hippocampus":
        return small_dataset
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for case in "abcdef":
        picture = generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(picture if task == "isic" else picture[..., 0]).save(folder / "images" / f"{case}.png")
        Image.fromarray(generator.integers(0, 2, (40, 50), dtype=np.uint8)).save(folder / "masks" / f"{case}.png")
    return folder


def test_the_environment_is_that_of_a_stranger(stranger, tmp_path):
    code = "import importlib.util; print(importlib.util.find_spec('medsegdiff_bundle'))"
    assert stranger(tmp_path, "-c", code).strip() == "None"


@pytest.fixture(scope="module")
def segmented(bundle, data, stranger, tmp_path_factory):
    """Folder of what `inference.json` makes of the dataset's validation cases."""
    _, folder = bundle
    output = tmp_path_factory.mktemp("segmented")
    stranger(
        output,
        *("-m", "monai.bundle", "run", "--config_file", folder / "configs" / "inference.json"),
        *("--bundle_root", folder, "--dataset_dir", data, "--output_dir", "result", "--device", "cpu"),
    )
    return output / "result"


def test_run(segmented):
    assert len([path for path in segmented.iterdir() if "_seg." in path.name]) == 2


def test_the_zoo_accepts_it(bundle, data, stranger, tmp_path):
    """Verification and `load`, the latter with the code that pip installed from the package."""
    _, folder = bundle
    installed = tmp_path / "installed"
    process = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
        + ["--target", str(installed), str(folder)],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "verified" in stranger(tmp_path, HERE / "verify.py", folder, SCHEMA, data, installed)


def test_training_replaces_the_weights(bundle, data, stranger, tmp_path):
    """Which is why MONAI Label, after a training, segments with the new ones."""
    task, folder = bundle
    before = (folder / "models" / "model.pt").read_bytes()
    size = [16, 16, 16] if task == "hippocampus" else [32, 32]
    stranger(
        tmp_path,
        *("-m", "monai.bundle", "run", "training", "--config_file", folder / "configs" / "train.json"),
        *("--bundle_root", folder, "--dataset_dir", data, "--output_dir", "result", "--device", "cpu"),
        *("--epochs", 1, "--patch_size", str(size), "--num_inference_steps", 1, "--ensemble_size", 1),
    )
    assert (folder / "models" / "model.pt").read_bytes() != before
    (folder / "models" / "model.pt").write_bytes(before)


def test_monai_deploys_operator(bundle, data, segmented, stranger, tmp_path):
    """The operator's mask is that of `inference.json`, from either file of weights."""
    task, folder = bundle
    (file, *_) = sorted(path for path in segmented.iterdir() if "_seg." in path.name)
    (image,) = data.glob(f"images*/{file.name.replace('_seg', '')}")
    stranger(tmp_path, HERE / "deploy_operator.py", folder, image, tmp_path)
    expected = nibabel.load(file).get_fdata() if task == "hippocampus" else np.asarray(Image.open(file)).T / 255
    assert len(np.unique(expected)) > 1
    for model in ("model.ts", "model.pt"):
        # A volume arrives as (D, H, W); of a picture the operator keeps the axes as MONAI has them.
        found = np.load(tmp_path / f"{model}.npy")
        np.testing.assert_array_equal(found.T if task == "hippocampus" else found, expected)


def test_contents(bundle, package):
    task, folder = bundle
    configs = {path.name: json.loads(path.read_text()) for path in (folder / "configs").glob("*.json")}
    assert set(configs) == {path.name for path in (HERE.parent.parent / "configs").glob("*.json")}
    output = configs["metadata.json"]["network_data_format"]["outputs"]["pred"]
    assert list(output["channel_def"].values()) == ["background", *configs["inference.json"]["class_names"]]
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert any("sample_data" in name for name in files) == (task == "hippocampus")
    card = (folder / "docs" / "README.md").read_text()
    headings = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert headings == [
        "Model overview",
        "Data",
        "Training configuration",
        "Input",
        "Output",
        "Performance",
        "MONAI bundle commands",
        "Limitations",
        "References",
        "License",
    ]
    assert all((folder / "docs" / name).is_file() for name in ("data_license.txt", "method.md"))
    for page in (folder / "docs").glob("*.md"):
        for figure in re.findall(r"\((figures/.*?)\)", page.read_text()):
            assert (folder / "docs" / figure).is_file(), f"{page.name} shows {figure}"
    own = HERE.parent.parent / "docs" / ("" if task == "hippocampus" else f"tasks/{task}")
    assert (folder / "docs" / "cases.csv").read_bytes() == (own / "cases.csv").read_bytes()


def test_the_same_bytes_again(build, tmp_path):
    """Built twice, from processes of different hash seeds and in folders of different names; TorchScript included."""
    digests = set()
    for folder in ("a", "b"):
        archive = build("lidc", tmp_path / folder)
        digests.add(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert len(digests) == 1
    with zipfile.ZipFile(archive) as opened:
        assert {name.split("/")[0] for name in opened.namelist()} == {archive.name.split("_v")[0]}
        for place in (HERE.parent.parent, sys.prefix):  # nothing tells where it was built
            assert not [name for name in opened.namelist() if str(place).encode() in opened.read(name)]
