"""Random changes of the training, and their way to processes that load data."""

import pickle
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Resized

from medsegdiff_bundle import configuration
from medsegdiff_bundle.transforms import (
    LoadImaged,
    NormalizeIntensityd,
    RandAxesFlipd,
    RandBorderDiscd,
    RandColourMixd,
    RandExposured,
    RandSaturationd,
    for_image,
)

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
OF_PICTURES = [RandBorderDiscd, RandColourMixd, RandExposured, RandSaturationd]
GIVEN = {"bundle_root": str(ROOT), "device": "cpu"}


def square():
    """A picture of a bright lesion, each channel its own way, and its label."""
    label = torch.zeros(1, 60, 60)
    label[:, 25:40, 20:38] = 1
    return {"image": label * torch.tensor([3.0, 2.0, 1.0])[:, None, None] - 1, "label": label}


@pytest.mark.parametrize("kind", OF_PICTURES)
def test_a_change_follows_from_the_state_alone(kind):
    """Not from torch's own random numbers; the label and the caller's picture stay, and so does what a picture is."""
    results = []
    for seed in (0, 0, 1):
        torch.rand(seed + 3)
        case = square()
        image = MetaTensor(case["image"].clone(), meta={"name": "a"})
        changed = kind("image", prob=1.0).set_random_state(seed)({**case, "image": image})
        assert torch.equal(image.as_tensor(), square()["image"]) and torch.equal(changed["label"], case["label"])
        assert isinstance(changed["image"], MetaTensor) and changed["image"].meta["name"] == "a"
        assert changed["image"].dtype == torch.float32 and changed["image"].shape == (3, 60, 60)
        results.append(changed["image"].as_tensor())
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    plain = kind("image", prob=0.0).set_random_state(0)(square())
    assert torch.equal(plain["image"], square()["image"])


def test_the_key_of_the_image_comes_first():
    """Of what is chosen for it: the state of a random change is that of the first key."""
    both = Compose([Resized(["image", "label"], (8, 8)), Compose([Resized("label", (4, 4)), Resized("image", (4, 4))])])
    assert [each.keys for each in for_image(both.transforms, "image")] == [("image",), ("image",)]
    with pytest.raises(ValueError, match=r"Resized must name 'image' first of its keys, got \('label', 'image'\)."):
        for_image([Resized(["label", "image"], (8, 8))], "image")


@pytest.mark.parametrize("kind", OF_PICTURES)
def test_keys_change_alike_or_are_missing(kind):
    picture = square()["image"]
    both = kind(["a", "b"], prob=1.0).set_random_state(3)({"a": picture, "b": picture})
    assert torch.equal(both["a"], both["b"])
    assert kind(["a", "b"], prob=1.0, allow_missing_keys=True).set_random_state(3)({"b": picture}).keys() == {"b"}
    with pytest.raises(KeyError):
        kind(["a", "b"], prob=1.0)({"b": picture})


@pytest.mark.parametrize(("share", "expected"), [(1.0, [2, 2]), (0.0, [1, 3]), (0.5, [1.5, 2.5]), (-0.5, [0.5, 3.5])])
def test_saturation(share, expected):
    picture = torch.tensor([1.0, 3.0])[:, None, None].expand(2, 4, 5)
    found = RandSaturationd("image", prob=1.0, towards_grey=[share, share])({"image": picture})["image"]
    torch.testing.assert_close(found[:, 2, 2], torch.tensor(expected, dtype=torch.float32))


def test_exposure_is_cut_off_where_a_file_ends():
    picture = torch.tensor([[[0.0, 100.0, 200.0]]]).expand(3, 1, 3)
    found = RandExposured("image", prob=1.0, factors=[1.5, 1.5])({"image": picture})["image"]
    torch.testing.assert_close(found, torch.tensor([[[0.0, 150.0, 255.0]]]).expand(3, 1, 3))
    drawn = RandExposured("image", prob=1.0).set_random_state(0)({"image": picture})["image"][:, 0, 1] / 100
    assert len(drawn.unique()) == 3 and 0.8 <= drawn.min() and drawn.max() <= 1.4


def test_mixed_colours_keep_grey():
    mix = RandColourMixd("image", prob=1.0).set_random_state(0)
    assert not torch.allclose(mix(square())["image"], square()["image"], atol=0.05)
    grey = torch.rand(1, 8, 8).expand(3, -1, -1)
    torch.testing.assert_close(mix({"image": grey})["image"], grey)


def test_one_disc_on_the_border():
    disc = RandBorderDiscd("image", prob=1.0).set_random_state(0)
    changed = []
    for _ in range(20):
        where = (disc(square())["image"] != square()["image"]).any(dim=0)
        assert not where[24:36, 24:36].any()
        if where.any():
            assert len(disc.changed(square()["image"], disc.draw(3)).shape) == 3
        changed.append(where.float().mean().item())
    assert 0.03 < max(changed) < 0.2
    colour = torch.tensor([5.0, 6.0, 7.0])[:, None, None]
    found = disc.changed(torch.zeros(3, 101, 51), (torch.tensor([0.0]), torch.tensor([0.3]), colour))
    assert found[:, 50, 50].tolist() == [5, 6, 7] and found[:, 50, 0].tolist() == [0, 0, 0]  # to the right


def test_stronger_augmentation_zooms_picture_and_label_alike():
    parser = configuration.load([CONFIGS / file for file in ("train.json", "augmentation/isic.json")], GIVEN)
    zoom = parser.get_parsed_content("normalized_augmentation")[0].set_random_state(0)
    zoom.prob = 1.0
    areas = []
    for _ in range(20):
        case = zoom(square())
        assert case["image"].shape == (3, 60, 60) and case["label"].shape == (1, 60, 60)
        assert set(case["label"].unique().tolist()) == {0, 1}
        assert ((case["image"][0] > 0.5) != (case["label"][0] > 0)).float().mean() < 0.05
        areas.append(case["label"].mean().item() / square()["label"].mean().item())
    assert min(areas) < 0.8 and max(areas) > 1.25


def test_flips_along_each_axis_by_itself():
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    seen = set()
    flips = RandAxesFlipd(["image", "label"], axes=[0, 2]).set_random_state(0)
    for _ in range(40):
        case = flips({"image": image, "label": image})
        assert torch.equal(case["image"], case["label"])
        seen.add(tuple(case["image"].flatten().tolist()))
    expected = [image, image.flip(1), image.flip(3), image.flip(1, 3)]
    assert seen == {tuple(each.flatten().tolist()) for each in expected}
    assert RandAxesFlipd("image", axes=[]).transforms == ()


def test_for_image_alone():
    both = Resized(["image", "label"], [4, 4], mode=["bilinear", "nearest"])
    only_label, normalize = LoadImaged("label"), NormalizeIntensityd("image")
    chosen = for_image([Compose([both, only_label]), normalize])
    assert [type(each) for each in chosen] == [Resized, NormalizeIntensityd]
    case = {"image": torch.rand(1, 8, 8), "label": torch.rand(1, 8, 8)}
    found = chosen[0](case)
    assert found["image"].shape == (1, 4, 4) and found["label"] is case["label"]
    assert both(case)["label"].shape == (1, 4, 4)  # the training's own
    torch.testing.assert_close(found["image"], both(case)["image"], rtol=0, atol=0)
    with pytest.raises(ValueError, match="Resized must name 'image' first of its keys, got \\('label', 'image'\\)"):
        for_image([Resized(["label", "image"], [4, 4])])


@pytest.mark.parametrize(
    "files",
    [
        ["tasks/hippocampus.json", "augmentation/hippocampus.json"],
        ["tasks/isic.json", "augmentation/isic.json"],
        ["tasks/lidc.json", "augmentation/lidc.json"],
    ],
)
def test_spawned_processes_get_them(files):
    """Each transform pickles, and what is drawn afterwards is the same."""
    parser = configuration.load([CONFIGS / file for file in ("train.json", *files)], GIVEN)
    for name in ("train#preprocessing", "validate#preprocessing"):
        transform = parser.get_parsed_content(name)
        copy = pickle.loads(pickle.dumps(transform))
        assert [type(each) for each in copy.transforms] == [type(each) for each in transform.transforms]
    case = {"image": torch.rand(3, 32, 32), "label": torch.ones(1, 32, 32)}
    augmentation = [each for each in parser.get_parsed_content("normalized_augmentation") if "image" in each.keys]
    steps = Compose(augmentation).set_random_state(0)
    copy = pickle.loads(pickle.dumps(steps))
    assert torch.equal(steps(dict(case))["image"], copy(dict(case))["image"])
