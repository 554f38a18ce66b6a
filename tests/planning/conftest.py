"""A small CT set with a rare class, and costs of steps that need no measurement."""

import json

import numpy as np
import pytest

from medsegdiff_bundle.planning import plan
from medsegdiff_bundle.planning.measure import Cost


@pytest.fixture
def no_measurements(monkeypatch):
    """Costs that follow from a formula: 1 microsecond and 1 kilobyte for each voxel and channel of the finest level.

    A window takes 0.1 s, and the end of an epoch 0.01 s.
    """

    def cost(network, batch_size, patch, device, amp, limit, recycling=0.5):
        amount = batch_size * np.prod(patch) * network["channels"][0]
        return Cost(float(amount) * 1e-6, int(amount) * 1000, 1000)

    monkeypatch.setattr(plan, "training_cost", cost)
    monkeypatch.setattr(plan, "window_seconds", lambda *args: 0.1)
    monkeypatch.setattr(plan, "epoch_seconds", lambda *args: 0.01)


def nifti(path, values, spacing):
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*spacing, 1.0])), path)


def ct_set(root, shape=(40, 48, 16), spacing=(0.8, 0.8, 2.5), cases=6):
    """Volumes in HU of which a rare class has 8 voxels."""
    random = np.random.default_rng(0)
    labels = {"background": 0, "liver": 1, "tumour": 2}
    described = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(described))
    for number in range(cases):
        label = np.zeros(shape, np.uint8)
        label[8:24, 8:24, 4:12] = 1
        label[10:12, 10:12, 5:7] = 2
        image = random.normal(-500, 100, shape)
        image[label == 1] = random.normal(100, 10, (label == 1).sum())
        image[label == 2] = random.normal(40, 10, 8)
        nifti(root / "imagesTr" / f"c{number}_0000.nii.gz", image.astype(np.int16), spacing)
        nifti(root / "labelsTr" / f"c{number}.nii.gz", label, spacing)
    return root


@pytest.fixture
def make_ct_set():
    return ct_set
