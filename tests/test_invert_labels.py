"""From the network's space into that of the image file, for the mean of probabilities and for labels."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Resized, Spacingd, SpatialCropd
from PIL import Image

from medsegdiff_bundle import configuration
from medsegdiff_bundle.transforms import FuseEnsembled, InvertLabelsd
from medsegdiff_bundle.transforms import LoadImaged as OurLoadImaged
from medsegdiff_bundle.transforms.invert import interpolated

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


def centres(edge):
    """Of pixels, from -1 to 1 along an edge of the picture."""
    return (torch.arange(edge) + 0.5) * 2 / edge - 1


def disc(height, width):
    """A disc of a third of the height, as a picture of any size shows it: (H, W) bool."""
    rows, columns = np.meshgrid(centres(height), centres(width), indexing="ij")
    return rows**2 + columns**2 < 0.4


def smooth(size):
    """Probabilities (2, W, H) of the disc, of a network that works at a small size."""
    first, second = torch.meshgrid(*map(centres, size), indexing="ij")
    foreground = torch.sigmoid(20 * (0.4 - first**2 - second**2))
    return torch.stack([1 - foreground, foreground])


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray((200 * disc(240, 320)).astype(np.uint8)).save(path)
    return path


def test_a_picture_gets_a_smooth_outline(picture):
    """Nearest neighbours make stairs of ten pixels, each a strip of wrong ones."""
    resize = Compose(
        [OurLoadImaged("image"), EnsureChannelFirstd("image"), Resized("image", (24, 24), mode="bilinear")]
    )
    case = resize({"image": str(picture)})
    assert interpolated(case["image"])
    case["pred"] = MetaTensor(smooth((24, 24))).copy_meta_from(case["image"])
    found = InvertLabelsd("pred", resize)(case)["pred"]
    case["pred"] = MetaTensor(smooth((24, 24)).argmax(0, keepdim=True).float()).copy_meta_from(case["image"])
    nearest = InvertLabelsd("pred", resize)(case)["pred"]
    expected = torch.from_numpy(disc(240, 320).T)
    assert found.shape == nearest.shape == (1, 320, 240) and found.dtype == torch.float32
    wrong, wrong_nearest = ((labels.as_tensor()[0] != expected).float().mean() for labels in (found, nearest))
    assert wrong < wrong_nearest / 2, (wrong, wrong_nearest)


@pytest.mark.parametrize(("spacing", "answer"), [((1.0, 2.0, 3.0), False), ((1.0, 1.0, 1.0), True)])
def test_a_volume_is_interpolated_where_its_voxels_were(spacing, answer, tmp_path):
    """Turned and cropped, and resampled or not; three classes, of which one lies outside of the crop."""
    labels = torch.zeros(9, 10, 11)
    labels[2:6, 3:8, 3:8], labels[6:8, 3:8, 3:8] = 1, 2
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(labels.numpy(), affine), tmp_path / "a.nii.gz")
    transform = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", spacing, mode="nearest"),
            SpatialCropd("image", roi_start=(3, 0, 0), roi_end=(9, 40, 40)),
        ]
    )
    case = transform({"image": str(tmp_path / "a.nii.gz")})
    assert interpolated(case["image"]) is answer
    values = case["image"].as_tensor()[0].long()
    assert set(values.unique().tolist()) <= {0, 1, 2}
    probabilities = torch.nn.functional.one_hot(values, 3).movedim(-1, 0).float()
    case["pred"] = MetaTensor(probabilities).copy_meta_from(case["image"])
    found = InvertLabelsd("pred", transform)(case)["pred"]
    kept = labels.clone()
    kept[6:] = 0  # cut off, along the first axis, which is turned
    assert found.shape == (1, 9, 10, 11)
    if answer:
        assert (found.as_tensor()[0] != kept).float().mean() < 0.03  # the rims, resampled twice
    else:
        assert torch.equal(found.as_tensor()[0], kept)
    np.testing.assert_allclose(found.affine, affine)


def test_labels_take_no_probabilities_on_the_way(monkeypatch, tmp_path):
    """Where nothing is interpolated one map of labels goes back, whatever the number of classes."""
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 7, 8), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    transform = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", "RAS", labels=None)])
    case = transform({"image": str(tmp_path / "a.nii.gz")})
    shapes = []
    invert = InvertLabelsd("pred", transform)
    whole = invert._invert
    monkeypatch.setattr(
        invert, "_invert", lambda values, *rest, **more: shapes.append(values.shape) or whole(values, *rest, **more)
    )
    case["pred"] = MetaTensor(torch.rand(15, 6, 7, 8).softmax(0)).copy_meta_from(case["image"])
    assert torch.equal(invert(case)["pred"].as_tensor(), case["pred"].as_tensor().argmax(0, keepdim=True).float())
    assert shapes == [(1, 6, 7, 8)]


def test_nan_is_no_background():
    case = {"image": MetaTensor(torch.zeros(1, 4, 4), meta={"original_affine": 2 * np.eye(4)})}
    case["pred"] = MetaTensor(torch.full((2, 4, 4), torch.nan))
    with pytest.raises(ValueError, match="The probabilities hold NaN"):
        InvertLabelsd("pred", Compose([]))(case)


@pytest.mark.parametrize(("method", "channels"), [("mean", 2), ("vote", 1), ("dice", 1), ("staple", 1)])
def test_only_a_mean_stays_probabilities(method, channels):
    members = torch.rand(3, 2, 4, 4).softmax(1)
    fused = FuseEnsembled("pred", method, labels=False)({"pred": members})["pred"]
    assert fused.shape == (channels, 4, 4)
    if method == "mean":
        torch.testing.assert_close(fused, members.mean(0))


@pytest.mark.parametrize("part", ["inference", "validation"])
def test_the_configurations_choose_the_class_last(part, picture):
    """Members of smooth probabilities in place of a network's: the mask of a picture, and of the anchor."""
    files = {"inference": ["inference.json", "tasks/isic.json"], "validation": ["train.json", "tasks/isic.json"]}[part]
    parser = configuration.load([CONFIGS / file for file in files])
    prefix = "" if part == "inference" else "validate#"
    parser.update({"bundle_root": str(ROOT), "patch_size": [24, 24], "device": "cpu"})
    transform = parser.get_parsed_content(f"{prefix}preprocessing")
    postprocessing = parser.get_parsed_content(f"{prefix}postprocessing")
    case = transform({"image": str(picture)} if part == "inference" else {"image": str(picture), "label": str(picture)})
    members = smooth((24, 24)).expand(3, -1, -1, -1)
    case["pred"] = MetaTensor(members.clone()).copy_meta_from(case["image"])
    last = 3 if part == "inference" else len(postprocessing.transforms)
    for step in postprocessing.transforms[: last + 1]:
        case = step(case)
    expected = torch.from_numpy(disc(240, 320).T)
    for key in ("pred",) if part == "inference" else ("pred", "anchor"):
        assert (case[key].as_tensor()[0] != expected).float().mean() < 0.01
