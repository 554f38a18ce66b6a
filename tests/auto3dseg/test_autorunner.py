"""MONAI's AutoRunner with the template: from a list of files to the mean of the folds."""

import json
import os
import sys
from pathlib import Path

import autorunner_trials
import forks
import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.apps.auto3dseg import AutoRunner

from medsegdiff_bundle.auto3dseg import TEMPLATES
from medsegdiff_bundle.auto3dseg.inference import Inference

SMALL = {**autorunner_trials.SETTINGS, "num_epochs": 2}


def save(file, values, affine):
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), file)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Four volumes of two folds, and one without a label; labels hold 0, 1 and 4; a folder's name has a space."""
    root = tmp_path_factory.mktemp("a set")
    random = np.random.default_rng(0)
    affine = np.diag([-1.0, -1.0, 1.5, 1.0])
    listed = {"training": [], "testing": [{"image": "test/scan.nii.gz"}]}
    for number in range(5):
        label = np.zeros((20, 18, 16), np.uint8)
        label[4:12, 4:12, 4:12] = 1
        label[12:16, 6:12, 4:10] = 4
        image = (random.normal(0, 10, label.shape) + 60 * (label > 0) + 60 * (label == 4)).astype(np.float32)
        name = f"case{number}" if number < 4 else "test/scan"
        save(root / f"{name}.nii.gz", image, affine)
        if number < 4:
            save(root / "labels" / f"case{number}.nii.gz", label, affine)
            entry = {"image": f"{name}.nii.gz", "label": f"labels/case{number}.nii.gz", "fold": number % 2}
            listed["training"].append(entry)
    (root / "list.json").write_text(json.dumps(listed))
    content = {"modality": "MRI", "datalist": str(root / "list.json"), "dataroot": str(root), "medsegdiff": SMALL}
    (root / "task.yaml").write_text(yaml.safe_dump({**content, "class_names": ["edge", "core"]}))
    return root / "task.yaml"


@pytest.fixture(scope="module")
def work(task, tmp_path_factory):
    """Folder of a run of AutoRunner in a process that did nothing before."""
    work_dir = tmp_path_factory.mktemp("a work")
    command = [sys.executable, "-m", "monai.apps.auto3dseg", "AutoRunner", "run", "--input", str(task)]
    words = ["--work_dir", str(work_dir), "--algos", "medsegdiff", "--templates_path_or_url", str(TEMPLATES)]
    environment = {**os.environ, "PATH": "/nowhere"}  # no python but the one that runs
    done = forks.run([*command, *words], env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return work_dir


def test_folds_are_filled_and_trained(work):
    for fold in range(2):
        folder = work / f"medsegdiff_{fold}"
        entries = json.loads((folder / "configs" / "medsegdiff.json").read_text())
        assert entries["class_names"] == ["edge", "core"]
        assert entries["spacing"] == [1.0, 1.0, 1.5] and entries["modality"] == "MR" and entries["fold"] == fold
        page = (folder / "configs" / "medsegdiff.md").read_text()
        assert "| `spacing` |" in page and "| `epochs` | `2` | As given. |" in page
        progress = yaml.safe_load((folder / "model" / "progress.yaml").read_text())
        assert 0 <= progress[-1]["best_avg_dice_score"] <= 1
        settings = json.loads((folder / "model" / "settings.json").read_text())
        assert (settings["fold"], settings["epochs"]) == (fold, 2)
        names = {Path(case["image"]).name for case in json.loads((folder / "cases.json").read_text())["cases"]}
        assert names == {f"case{number}.nii.gz" for number in range(4)}


def test_the_mean_of_the_folds_is_written(work, task):
    (file,) = (work / "ensemble_output").rglob("*.nii.gz")
    mask, image = nibabel.load(file), nibabel.load(task.parent / "test" / "scan.nii.gz")
    assert mask.shape == image.shape and np.allclose(mask.affine, image.affine)
    assert set(np.unique(mask.dataobj)) <= {0, 1, 2}
    probabilities = []
    for fold in range(2):
        found = Inference(work / f"medsegdiff_{fold}").infer({"image": str(task.parent / "test" / "scan.nii.gz")})
        assert found.shape == (3, *image.shape) and torch.allclose(found.sum(0), torch.ones(()), atol=1e-4)
        probabilities.append(found.as_tensor())
    expected = torch.stack(probabilities).mean(0).argmax(0).numpy()
    assert (np.asarray(mask.dataobj) == expected).mean() > 0.999


def test_a_second_run_trains_nothing(work, task, caplog):
    weights = {fold: (work / f"medsegdiff_{fold}" / "model" / "model.pt").stat().st_mtime_ns for fold in range(2)}
    options = {"work_dir": str(work), "algos": "medsegdiff", "templates_path_or_url": str(TEMPLATES)}
    with caplog.at_level("INFO"):
        AutoRunner(input=str(task), **options).run()
    assert "Skipping algorithm training" in caplog.text
    for fold, modified in weights.items():
        assert (work / f"medsegdiff_{fold}" / "model" / "model.pt").stat().st_mtime_ns == modified
