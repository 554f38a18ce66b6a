"""What large volumes take in memory on their way, with the same numbers as before to the last bit."""

import re
from pathlib import Path

import monai.transforms
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from medsegdiff_bundle.case_numbers import describe
from medsegdiff_bundle.transforms import Spacingd, WarnUncertaind, resample

CLEAR = Path("/proc/self/clear_refs")
TURN = np.eye(4)
TURN[:3, :3] = Rotation.from_euler("xyz", [0.1, -0.4, 0.3]).as_matrix()
SHEAR = np.array([[1, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def grown(call):
    """Bytes by which a call raises the resident memory of this process at its peak."""

    def field(name):
        return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    CLEAR.write_text("5")  # the peak is that from here on
    before = field("VmRSS")
    kept = call()
    assert kept is not None
    return field("VmHWM") - before


needs_peaks = pytest.mark.skipif(not CLEAR.exists(), reason="the peak of a part of a process is Linux's")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("mode", "dtype"), [("bilinear", torch.float32), ("nearest", torch.uint8)])
@pytest.mark.parametrize(
    ("own", "new", "size"),
    [
        (np.diag([0.8, 0.8, 2.5, 1]), np.diag([1, 1, 1, 1.0]), (13, 17, 60)),
        (np.diag([2, 1, 1, 1.0]), np.diag([1, 2, 0.5, 1]), (33, 11, 47)),  # halves, where "nearest" rounds either way
        (np.diag([1, 1, 2, 1.0])[[1, 0, 2, 3]], np.diag([-0.7, 0.9, 1.3, 1]), (21, 30, 1)),
        (TURN @ np.diag([0.7, 0.7, 1.25, 1]), TURN @ np.diag([1, 1, 1, 1.0]), (12, 16, 30)),
        (TURN @ SHEAR, np.eye(4), (20, 25, 26)),
    ],
)
def test_resampling_is_monais(own, new, size, mode, dtype, align_corners, monkeypatch):
    monkeypatch.setattr(resample, "SLAB", 1000)  # several slabs, and a last one that is thinner
    values = (torch.rand(2, 16, 22, 24, generator=torch.Generator().manual_seed(0)) * 16).to(dtype)
    found = []
    for kind in (monai.transforms.SpatialResample, resample.SpatialResample):
        image = MetaTensor(values.clone(), affine=torch.as_tensor(own), meta={"filename_or_obj": "a.nii"})
        step = kind(mode, "border", align_corners)
        there = step(image, torch.as_tensor(new), size)
        found.append((there, step.inverse(there.clone()), there.applied_operations))
    for theirs, ours in zip(found[0][:2], found[1][:2], strict=True):
        assert torch.equal(theirs.as_tensor(), ours.as_tensor().float())
        assert str(theirs.meta) == str(ours.meta) and torch.equal(theirs.affine, ours.affine)
    (theirs,), (ours,) = found[0][2], found[1][2]
    assert {**theirs, "id": 0, "extra_info": str(theirs["extra_info"])} == {
        **ours,
        "id": 0,
        "extra_info": str(ours["extra_info"]),
    }
    assert ours["class"] == "SpatialResample" and found[1][1].dtype == dtype and not found[1][1].applied_operations


def test_what_is_not_made_in_slabs():
    """A picture, a tensor without an affine, another kind of interpolation, and labels of a training, in float32."""
    resampled = resample.SpatialResample("nearest")
    picture = MetaTensor(torch.rand(1, 6, 8), affine=torch.eye(3))
    assert resampled(picture, torch.diag(torch.tensor([2.0, 2, 1])), (3, 4)).shape == (1, 3, 4)
    assert resampled(torch.rand(1, 4, 4, 4), torch.diag(torch.tensor([2.0, 2, 2, 1])), (2, 2, 2)).shape == (1, 2, 2, 2)
    volume = MetaTensor(torch.rand(1, 4, 4, 4), affine=torch.eye(4))
    half = torch.diag(torch.tensor([2.0, 2, 2, 1]))
    spline, theirs = (
        kind(3)(volume.clone(), half, (2, 2, 2))
        for kind in (resample.SpatialResample, monai.transforms.SpatialResample)
    )
    assert torch.equal(spline.as_tensor(), theirs.as_tensor())
    label = (volume > 0.5).float()
    case = Spacingd(["image", "label"], 2.0, ["bilinear", "nearest"])({"image": volume, "label": label})
    assert case["label"].dtype == torch.float32


@needs_peaks
def test_resampling_takes_little_more_than_the_volumes(monkeypatch):
    monkeypatch.setattr(resample, "SLAB", 2**14)
    labels = MetaTensor(torch.ones(5, 96, 96, 96, dtype=torch.uint8), affine=torch.eye(4))
    case = Spacingd("image", 0.75)({"image": MetaTensor(torch.rand(1, 128, 128, 128), affine=torch.eye(4) * 0.5)})
    assert case["image"].shape == (1, 86, 86, 86)
    finer = torch.diag(torch.tensor([0.75, 0.75, 0.75, 1]))
    voxels = 128**3
    # Five labels of a byte, and a channel in eight bytes; MONAI's takes 56 for the places of the voxels alone.
    assert grown(lambda: resample.SpatialResample("nearest")(labels, finer, (128, 128, 128))) < 20 * voxels


@needs_peaks
@pytest.mark.parametrize("limit", [None, 0.9])
def test_the_uncertainty_inside_the_mask_takes_no_places_of_voxels(limit):
    case = {"pred": torch.ones(1, 160, 160, 160), "uncertainty": torch.rand(1, 160, 160, 160)}
    assert grown(lambda: WarnUncertaind("pred", limit)(case)) < 12 * 160**3


@needs_peaks
def test_numbers_of_a_case():
    """Known of large volumes, too, where the places of all voxels took four times the image."""
    random = torch.Generator().manual_seed(0)
    image = torch.rand(1, 128, 128, 128, generator=random)
    labels = torch.zeros(1, 128, 128, 128)
    labels[0, 30:60, 30:60, 30:60] = 1
    structures = {"organ": {"volume": 27.0, "components": 1, "pairwise_dice": 0.9}}
    found = []

    def numbers():
        found.append(describe(image, 50 * image, labels, image[0], structures, np.eye(4)))
        return found

    assert grown(numbers) < 40 * 128**3
    shown = found[0].shown
    part = image[0].diff(dim=0).abs() / image.std(correction=0)
    assert shown["steps along axis 1 of 1 voxel"] == pytest.approx(part.mean().item(), rel=1e-5)
    along = torch.cat([image[0].diff(dim=axis).abs().flatten() for axis in range(3)]) / image.std(correction=0)
    for percent in (25, 50, 75, 95):
        expected = np.percentile(along[:: len(along) // 1_000_000].numpy(), percent)
        assert shown[f"{percent} % of the steps of 1 voxel"] == pytest.approx(expected, rel=1e-5)
