"""Fixtures: a small Decathlon folder of parts of real cases, and overrides that make a run small."""

import json
import os
import sys
from pathlib import Path

import nibabel
import pytest

# Networks of a few voxels gain nothing from threads, which only wait for each other where other work fills the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
SAMPLE_DATA = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
SLOWEST = {"test_distributed.py", "test_bundle.py", "test_runs.py", "test_autorunner.py", "test_weights.py"}


def pytest_collection_modifyitems(items):
    """Files that take a minute come first, so that no worker begins one when the other has no more to do."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory):
    """A folder of the middle of some training and validation cases of the embedded data."""

    def make(training, validation):
        folder = tmp_path_factory.mktemp("hippocampus")
        dataset = json.loads((SAMPLE_DATA / "dataset.json").read_text())
        dataset |= {"training": dataset["training"][:training], "validation": dataset["validation"][:validation]}
        (folder / "dataset.json").write_text(json.dumps(dataset))
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir()
        for entry in dataset["training"] + dataset["validation"]:
            for file in (entry["image"], entry["label"]):
                nibabel.save(nibabel.load(SAMPLE_DATA / file).slicer[6:30, 10:42, 6:30], folder / file)
        return folder

    return make


@pytest.fixture(scope="session")
def small_dataset(make_dataset):
    """Three training and two validation cases."""
    return make_dataset(3, 2)


@pytest.fixture(scope="session")
def small_run(small_dataset):
    """Overrides of train.json or inference.json: a network of a few thousand weights, on the CPU."""
    return {
        "bundle_root": str(ROOT),
        "dataset_dir": str(small_dataset),
        "device": "cpu",
        "network_def#channels": [4, 8, 8],
        "network_def#num_transformer_blocks": 2,  # a part that the default task leaves out
        "network_def#num_heads": 2,
        "network_def#token_size": 8,
    }


@pytest.fixture
def run_script(monkeypatch, capfd):
    """What a script's `main` prints with some options; in this process, but for what it starts itself."""

    def printed(script, *options):
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, options)])
        capfd.readouterr()
        script.main()
        return capfd.readouterr().out

    return printed
