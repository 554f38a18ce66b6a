"""Normalisation: what was never measured enters no statistic, and everything else stays as MONAI has it."""

import pickle
from pathlib import Path

import monai.transforms
import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy import ndimage

from medsegdiff_bundle import configuration
from medsegdiff_bundle.remarks import remarks
from medsegdiff_bundle.transforms import CropMeasuredd, NormalizeIntensityd
from medsegdiff_bundle.transforms.intensity import MARGIN

ROOT = Path(__file__).parent.parent
IMAGES = sorted((ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr").glob("*.nii.gz"))


def normalized(image):
    return NormalizeIntensityd("image")({"image": torch.as_tensor(image, dtype=torch.float32)})["image"]


def by_monai(image):
    image = torch.as_tensor(image, dtype=torch.float32).clone()
    return monai.transforms.NormalizeIntensityd("image", channel_wise=True)({"image": image})["image"]


def tissue(*shape):
    """Values as of a CT, with some zeros inside, which are measured."""
    values = np.random.default_rng(0).normal(-40, 200, shape).astype(np.float32)
    values[tuple(size // 2 for size in shape)] = 0
    return values


@pytest.mark.parametrize("path", IMAGES, ids=[path.name for path in IMAGES])
def test_volumes_without_a_rim_are_as_monai_has_them(path):
    """To the last bit, though most of them hold zeros."""
    image = np.asarray(nibabel.load(path).dataobj)[None]
    assert torch.equal(normalized(image), by_monai(image))


@pytest.mark.parametrize("value", [0, -1024, 1234.5678, "mean", "minimum"])
@pytest.mark.parametrize("width", [1, 4, (8, 0)])
def test_a_rim(value, width):
    inside = tissue(20, 21, 22)
    inside[8, 9, 10] = inside.min() - 1
    value = {"mean": inside.mean(), "minimum": inside[8, 9, 10]}.get(value, value)
    width = width if isinstance(width, int) else [width, (0, 0), (0, 0)]
    padded = np.pad(inside, width, constant_values=value)
    is_rim = np.pad(np.zeros(inside.shape, bool), width, constant_values=True)
    found = normalized(padded[None])[0].numpy()
    assert (found[is_rim] == 0).all()
    np.testing.assert_allclose(found[~is_rim], by_monai(inside[None]).numpy().ravel(), atol=1e-5)


@pytest.mark.parametrize(
    "clipped",
    [
        lambda x: np.where(x < np.percentile(x, 20), 0, x),
        lambda x: np.minimum(x, np.percentile(x, 80)),
        lambda x: np.clip(x, *np.percentile(x, [5, 95])),
        lambda x: np.floor(8 * x / (x.max() + 1)),
    ],
    ids=["low", "high", "both", "few greys"],
)
@pytest.mark.parametrize("path", IMAGES[::5], ids=[path.name for path in IMAGES[::5]])
def test_clipped_tissue_was_measured(clipped, path):
    """Though a fifth of it may be of one value and reach the border here and there."""
    image = clipped(np.asarray(nibabel.load(path).dataobj, dtype=np.float32))[None]
    assert torch.equal(normalized(image), by_monai(image))


@pytest.mark.parametrize("outer", [-1000, -32768])
@pytest.mark.parametrize("path", IMAGES[::5], ids=[path.name for path in IMAGES[::5]])
def test_one_padding_beyond_another(outer, path):
    inside = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
    padded = np.pad(inside, 6)
    padded[:3], padded[:, :, -4:] = outer, outer
    is_rim = np.pad(np.zeros(inside.shape, bool), 6, constant_values=True)
    found = normalized(padded[None])[0].numpy()
    assert (found[is_rim] == 0).all() and (found[~is_rim] == 0).mean() < 0.02
    assert np.abs(found[~is_rim] - by_monai(inside[None]).numpy().ravel()).mean() < 0.05


@pytest.mark.parametrize("value", [0, -1024, "mean"])
@pytest.mark.parametrize("noise", [1e-3, 0.5])
def test_a_rim_with_noise(value, noise):
    inside = tissue(24, 24, 24)
    padded = np.pad(inside, 5, constant_values=inside.mean() if value == "mean" else value)
    is_rim = np.pad(np.zeros(inside.shape, bool), 5, constant_values=True)
    padded[is_rim] += np.random.default_rng(1).normal(0, noise, is_rim.sum()).astype(np.float32)
    found = normalized(padded[None])[0].numpy()
    assert (found[is_rim] == 0).mean() > 0.99
    assert np.abs(found[~is_rim] - by_monai(inside[None]).numpy().ravel()).mean() < 0.05


@pytest.mark.parametrize("factor", [0.8, 1.5, 2])
@pytest.mark.parametrize("order", [3, 5])
@pytest.mark.parametrize("rounded", [False, True])
def test_a_rim_that_a_spline_resampled(factor, order, rounded):
    """Rings surround it: what is measured is still told from it, up to the voxels of the step between both."""
    inside = np.asarray(nibabel.load(IMAGES[0]).dataobj).astype(np.float32)
    options = {"order": order, "mode": "nearest", "grid_mode": True}
    padded = ndimage.zoom(np.pad(inside, 8), factor, **options)
    is_rim = (
        ndimage.zoom(
            np.pad(np.zeros(inside.shape), 8, constant_values=1), factor, order=1, mode="nearest", grid_mode=True
        )
        > 0.5
    )
    found = normalized((padded.round() if rounded else padded)[None])[0].numpy()
    away = ndimage.binary_erosion(is_rim, iterations=2, border_value=1)
    assert (found[away] == 0).mean() > 0.99
    inner = ndimage.binary_erosion(~is_rim, iterations=3)
    assert (found[inner] == 0).mean() < 0.02
    assert abs(found[inner].mean()) < 0.5 and 0.7 < found[inner].std() < 1.2


@pytest.mark.parametrize("noise", [3, 10, 30])
def test_air_of_a_scanner_is_measured(noise):
    """Its noise is far more than what a conversion leaves of padding."""
    generator = np.random.default_rng(0)
    place = np.indices((40, 40, 30)) - np.array([20, 20, 15])[:, None, None, None]
    body = (place**2 / np.array([15, 17, 13])[:, None, None, None] ** 2).sum(axis=0) < 1
    air = np.hypot(*generator.normal(0, noise, (2, *body.shape)))
    head = np.where(body, 300 + 100 * ndimage.gaussian_filter(generator.normal(size=body.shape), 1), air)
    assert torch.equal(normalized(head[None]), by_monai(head[None]))


def test_corners_of_a_turned_grid_and_what_a_mask_left():
    """Also where the fill value lies amid those of the tissue, and in an enclosed part that is as large."""
    inside = tissue(30, 30, 30)
    turned = ndimage.rotate(inside + 40, 12, order=1, cval=0)
    outside = ndimage.rotate(np.ones_like(inside), 12, order=1, cval=0) == 0
    outside[12:17, 12:17, 12:17], turned[12:17, 12:17, 12:17] = True, 0
    found = normalized(turned[None])[0].numpy()
    assert (found[outside] == 0).all()
    assert abs(found[~outside].mean()) < 0.01 and abs(found[~outside].std() - 1) < 0.01


def test_padding_around_the_field_of_view_of_a_ct():
    inside = tissue(30, 30, 12)
    x, y = np.ogrid[:30, :30]
    corners = np.broadcast_to(((x - 14.5) ** 2 + (y - 14.5) ** 2 > 15**2)[..., None], inside.shape)
    inside[corners] = -2000
    found = normalized(np.pad(inside, 3)[None])[0, 3:-3, 3:-3, 3:-3].numpy()
    assert (found[corners] == 0).all()
    np.testing.assert_allclose(found[~corners], by_monai(inside[~corners][None]).numpy().ravel(), atol=1e-5)


def test_channels_have_rims_of_their_own():
    first, second = tissue(20, 20, 20), tissue(20, 20, 20)
    first[:5], second[..., 10:] = 7, -3
    found = normalized(np.stack([first, second]))
    assert (found[0, :5] == 0).all() and (found[1, ..., 10:] == 0).all()
    np.testing.assert_allclose(found[0, 5:].ravel(), by_monai(first[None, 5:]).ravel(), atol=1e-5)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 8, 8, 8)),  # nothing to measure
        np.pad(np.ones((1, 6, 6, 6)), [(0, 0), *[(3, 3)] * 3]),  # two values: either may be the structure
        np.pad(tissue(1, 20, 20), [(0, 0), (3, 0), (0, 0)]),  # a picture, whose black may be what left its range
        np.pad(tissue(1, 20, 20, 2), [(0, 0), (0, 0), (0, 0), (0, 0)]),
    ],
    ids=["constant", "two values", "one edge of a picture", "two slices"],
)
def test_what_may_be_measured_counts(image):
    assert torch.equal(normalized(image), by_monai(image))


def test_a_picture_in_a_frame():
    inside = tissue(40, 30)
    framed = np.pad(inside, [(0, 0), (5, 5)], constant_values=255)
    found = normalized(framed[None])[0]
    assert (found[:, :5] == 0).all() and (found[:, -5:] == 0).all()
    np.testing.assert_allclose(found[:, 5:-5].numpy(), by_monai(inside[None])[0].numpy(), atol=1e-5)


def test_values_of_few_grey_levels_are_measured():
    """As after a conversion to 8 bits by the brightest voxel: each level fills large parts that reach the border."""
    image = np.asarray(nibabel.load(IMAGES[1]).dataobj).astype(np.float32)
    few = np.floor((image - image.min()) / (image.max() - image.min()) * 47.999) + 1
    found = normalized(few[None])[0].numpy()
    expected = by_monai(few[None])[0].numpy()
    assert np.abs(found - expected).max() < 0.2
    padded = normalized(np.pad(few, 3)[None])[0, 3:-3, 3:-3, 3:-3].numpy()
    assert np.abs(padded - expected).max() < 0.2


def test_the_callers_array_and_the_metadata_stay():
    image = MetaTensor(torch.as_tensor(np.pad(tissue(1, 9, 9, 9), 2)), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    before = image.clone()
    found = NormalizeIntensityd("image")({"image": image})["image"]
    assert torch.equal(image, before) and not torch.equal(found, image)
    assert isinstance(found, MetaTensor) and torch.equal(found.affine, image.affine)
    assert remarks(found.meta)["processing"] and not remarks(image.meta)["processing"]
    array = tissue(1, 9, 9, 9)
    kept = array.copy()
    assert isinstance(NormalizeIntensityd("image")({"image": array})["image"], np.ndarray)
    np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("task", ["hippocampus", "isic", "lidc"])
def test_every_configuration_has_the_rule(task):
    for name, keys in (("train", ["train_transforms", "val_transforms"]), ("inference", ["preprocessing#transforms"])):
        files = [ROOT / "configs" / file for file in (f"{name}.json", f"tasks/{task}.json")]
        parser = configuration.load(files, {"bundle_root": str(ROOT), "device": "cpu"})
        for key in keys:
            steps = [step for step in parser.get_parsed_content(key) if "NormalizeIntensity" in type(step).__name__]
            assert [type(step) for step in steps] == [NormalizeIntensityd]


@pytest.mark.parametrize("filling", [0.0, -1024.0, 5000.0])
@pytest.mark.parametrize("rim", [1, 12])
def test_wide_padding_is_cut_off_and_comes_back_as_background(filling, rim):
    """A network finds structures in a wide field of one value, which no training image had."""
    generator = torch.Generator().manual_seed(0)
    inner = 100 + 20 * torch.randn(1, 14, 12, 10, generator=generator)
    left = min(rim, MARGIN)
    padded = torch.nn.functional.pad(inner, [rim] * 6, value=filling)
    data = {"image": MetaTensor(padded), "label": MetaTensor(padded != filling)}
    steps = Compose([NormalizeIntensityd("image"), CropMeasuredd(["image", "label"])])
    cropped = steps(data)
    assert cropped["image"].shape == cropped["label"].shape == (1, *(size + 2 * left for size in inner.shape[1:]))
    plain = NormalizeIntensityd("image")({"image": MetaTensor(inner.clone())})["image"]
    expected = torch.nn.functional.pad(convert_to_tensor(plain, track_meta=False), [left] * 6)
    torch.testing.assert_close(convert_to_tensor(cropped["image"], track_meta=False), expected)
    values = convert_to_dst_type(expected, cropped["image"])[0]
    back = Invertd("values", steps, orig_keys="image")({"image": cropped["image"], "values": values})["values"]
    whole = torch.nn.functional.pad(convert_to_tensor(plain, track_meta=False), [rim] * 6)
    torch.testing.assert_close(convert_to_tensor(back, track_meta=False), whole)


@pytest.mark.parametrize("make", [torch.zeros, lambda *size: torch.randn(*size)])
def test_without_padding_nothing_is_cut_off(make):
    data = NormalizeIntensityd("image")({"image": MetaTensor(make(1, 6, 5, 7))})
    cropped = CropMeasuredd("image")(data)
    assert torch.equal(convert_to_tensor(cropped["image"]), convert_to_tensor(data["image"]))
    pickle.dumps(CropMeasuredd("image"))  # for workers
