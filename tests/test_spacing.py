"""Voxel sizes: images come into the grid that the weights know, and what is found in them comes back."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, Orientationd
from scipy import ndimage

import medsegdiff_bundle
from medsegdiff_bundle import configuration
from medsegdiff_bundle.readers.nifti import is_sheared
from medsegdiff_bundle.remarks import remarks
from medsegdiff_bundle.transforms import LoadImaged, Spacingd

ROOT = Path(__file__).parent.parent
CASE = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"
SHEAR = np.array([[1, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def ball(affine, shape):
    """Voxels within 9 mm of the middle of a grid."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - (np.array(shape) - 1) / 2
    return np.linalg.norm(index @ affine[:3, :3].T, axis=-1) < 9


@pytest.fixture
def preprocessing():
    return Compose(
        [
            LoadImaged(["image", "label"], allow_missing_keys=True),
            EnsureChannelFirstd(["image", "label"], allow_missing_keys=True),
            Orientationd(["image", "label"], axcodes="RAS", labels=None, allow_missing_keys=True),
            Spacingd(["image", "label"], 1.0, ["bilinear", "nearest"], allow_missing_keys=True),
        ]
    )


@pytest.mark.parametrize(
    "affine",
    [
        *(np.diag([size, size, size, 1]) for size in (0.5, 0.7, 1.4, 2, 3)),
        np.diag([-1, 1, 2, 1.0]),
        np.array([[0, 0, 3, 1], [0.5, 0, 0, 2], [0, -0.5, 0, 3], [0, 0, 0, 1]]),
        SHEAR,
        np.diag([1, 1, 2, 1.0]) @ SHEAR,
    ],
    ids=lambda affine: str(affine[:3, :3].tolist()),
)
def test_there_and_back(affine, preprocessing, tmp_path):
    shape = tuple(np.ceil(24 / np.linalg.norm(affine[:3, :3], axis=0)).astype(int))
    inside = ball(affine, shape)
    for name in ("image", "label"):
        nibabel.save(nibabel.Nifti1Image(inside.astype(np.float32), affine), tmp_path / f"{name}.nii")
    case = preprocessing({name: str(tmp_path / f"{name}.nii") for name in ("image", "label")})
    there = case["image"].affine.numpy()
    np.testing.assert_allclose(np.linalg.norm(there[:3, :3], axis=0), 1, atol=1e-6)
    assert not is_sheared(there) and case["image"].shape == case["label"].shape
    assert set(case["label"].unique().tolist()) == {0, 1}
    volume = float((case["label"] > 0).sum())
    assert volume == pytest.approx(inside.sum() * abs(np.linalg.det(affine[:3, :3])), rel=0.1)
    assert remarks(case["image"].meta)["processing"][-1].startswith("Resampled from voxels of ")
    case["pred"] = case["image"].clone()
    back = Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=False)(case)["pred"]
    assert back.shape == (1, *shape)
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)
    found = back.numpy()[0] > 0.5
    assert 2 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.9


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.008, 0.995, 1, 1])], ids=["1 mm", "rounded"])
def test_voxels_of_that_size_are_left_alone(affine, preprocessing, tmp_path):
    values = np.random.default_rng(0).random((7, 8, 9), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "image.nii")
    case = preprocessing({"image": str(tmp_path / "image.nii")})
    assert torch.equal(
        case["image"].as_tensor()[0], torch.as_tensor(values if affine[0, 0] > 0 else values[::-1].copy())
    )
    assert not remarks(case["image"].meta)["processing"]
    case["pred"] = case["image"].clone()
    back = Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=False)(case)["pred"]
    assert torch.equal(back.as_tensor()[0], torch.as_tensor(values))


def test_what_else_a_case_holds(tmp_path):
    """MONAI Label puts the path of the image beside it, as text, and its metadata as a dictionary."""
    image = MetaTensor(torch.rand(1, 6, 6, 6), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    image.meta["filename_or_obj"] = "case.nii.gz"
    others = {"image_path": "case.nii.gz", "image_meta_dict": {"affine": image.affine}, "labels": None}
    case = Spacingd("image", [1, 1, 1])({"image": image, **others})
    assert case["image"].shape == (1, 11, 11, 11)
    assert {name: case[name] for name in others} == others


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.0, 1.0, 1.0]),
        ({"class_names": ["liver"]}, None),  # of which nobody said what voxels its weights know
        ({"class_names": ["liver"], "spacing": [2, 2, 3]}, [2, 2, 3]),
        ({"spacing": None}, None),
    ],
)
@pytest.mark.parametrize(
    ("name", "keys"), [("train.json", ["train_transforms", "val_transforms"]), ("inference.json", ["preprocessing"])]
)
def test_one_setting_for_all(name, keys, settings, expected):
    parser = configuration.load([ROOT / "configs" / name], {"bundle_root": str(ROOT), **settings})
    for key in keys:
        content = parser.get_parsed_content(key)
        steps = [step for step in getattr(content, "transforms", content) if isinstance(step, Spacingd)]
        assert [step.spacing_transform.pixdim.tolist() for step in steps] == ([] if expected is None else [expected])


def test_volumes_are_those_of_the_file(tmp_path):
    """Of half the voxel size the same ml, in the file's own grid; a unit of micrometres makes no difference."""
    image = nibabel.load(CASE)
    values = np.asarray(image.dataobj, dtype=np.float32)
    finer = ndimage.zoom(values, 1.25, order=1, grid_mode=True, mode="nearest")
    affine = image.affine @ np.diag([0.8, 0.8, 0.8, 1])
    nibabel.save(image, tmp_path / "plain.nii")
    nibabel.save(nibabel.Nifti1Image(finer, affine), tmp_path / "finer.nii")
    fine = nibabel.Nifti1Image(finer, np.diag([1000, 1000, 1000, 1]) @ affine)
    fine.header.set_xyzt_units("micron")
    nibabel.save(fine, tmp_path / "micron.nii")
    settings = {"anchor_only": True, "mirror_axes": [], "device": "cpu"}
    results = {result.name: result for result in medsegdiff_bundle.segment(tmp_path, **settings)}
    assert results["finer"].mask.shape == finer.shape
    np.testing.assert_array_equal(results["finer"].mask, results["micron"].mask)
    for name in ("anterior", "posterior"):
        plain, of_finer, of_micron = (
            results[case].report["structures"][name]["volume"] for case in ("plain", "finer", "micron")
        )
        assert of_finer == pytest.approx(plain, rel=0.05) and of_micron == pytest.approx(of_finer)
