"""What weights know: a case unlike the training cases is flagged, or refused, and one like them is not."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import medsegdiff_bundle
from medsegdiff_bundle.case_numbers import Description, describe
from medsegdiff_bundle.known import Known, fit, left_out_distances, too_small, unlike, write_known
from medsegdiff_bundle.provenance import checksum

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr"
STRUCTURES = {"one": {"volume": 1.0, "pairwise_dice": 0.9, "components": 1}}


def drawn(number, seed=0):
    """Cases of three numbers, of which two go together."""
    generator = np.random.default_rng(seed)
    first = generator.normal(size=number)
    table = np.stack([first, first + 0.1 * generator.normal(size=number), 5 + generator.normal(size=number)], axis=1)
    return [dict(zip("abc", map(float, row), strict=True)) for row in table]


def test_distance_is_that_of_mahalanobis():
    """With the correlation shrunk: a case against it is still farther than one along it."""
    reference = fit(drawn(2000))
    middle = dict(zip(reference.names, reference.mean, strict=True))
    assert reference.distance(middle)[0] == pytest.approx(0)
    along, off = reference.distance({**middle, "a": 2.0, "b": 2.0})
    against, _ = reference.distance({**middle, "a": 2.0, "b": -2.0})
    assert off["a"] == pytest.approx(2, abs=0.2) and against > 2 * along
    matrix = 0.7 * reference.correlation + 0.3 * np.eye(3)
    z = np.array([off[name] for name in "abc"])
    assert along == pytest.approx(np.sqrt(z @ np.linalg.inv(matrix) @ z / 3))
    assert reference.distance({"c": 5.0})[0] == pytest.approx(0, abs=0.05)  # what a case has not does not count
    far, off = reference.distance({**middle, "a": 50.0})
    assert off["a"] > 40 and far == pytest.approx(reference.distance({**middle, "a": 100.0})[0])  # no more than so far
    assert reference.distance({**middle, "a": float("nan")})[0] == pytest.approx(far) and far > 2


def test_left_out_cases_are_as_far_as_new_ones():
    cases = drawn(100)
    new = [fit(cases).distance(case)[0] for case in drawn(1000, seed=1)]
    assert np.quantile(left_out_distances(cases), 0.9) == pytest.approx(np.quantile(new, 0.9), rel=0.15)


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    return tmp_path / "w.pt"


def known(weights, cases, settings=None, **now):
    file = weights.with_suffix(".known.json")
    write_known(file, cases, weights, settings or {"steps": 1}, (4, 4), "1.0")
    return Known(file, weights, {**(settings or {"steps": 1}), **now})


def described(cases):
    return [Description(case, case) for case in cases]


def test_written_and_read(weights):
    found = known(weights, described(drawn(200)))
    assert found.missing is None and found.cases == 200 and found.patch_size == (4, 4)
    good = [found.compare(case) for case in described(drawn(300, seed=2))]
    assert np.mean([unlike(each, 200) is not None for each in good]) <= 0.02
    (bad,) = described([{"a": 0.0, "b": 8.0, "c": 5.0}])
    said = unlike(found.compare(bad), 200)
    assert said.startswith("Unlike the 200 training cases, by ") and "b 8 (theirs -" in said
    json.dumps(found.compare(bad), allow_nan=False)


@pytest.mark.parametrize(("number", "beyond"), [(40, 0), (400, 3)])
def test_few_training_cases_are_beyond_the_limit(number, beyond, weights):
    """One in a hundred, each measured by a fit without it; of few cases none is."""
    cases = drawn(number)
    assert (left_out_distances(cases) > 1.0001 * known(weights, described(cases)).limit).sum() == beyond


def test_cases_that_are_all_alike_tell_nothing(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    cases = [Description({"size": 1.0}, {"size": 1.0})] * 30
    with pytest.raises(ValueError, match="The 30 training cases are all alike"):
        write_known(tmp_path / "model.known.json", cases, tmp_path / "model.pt", {}, [8, 8], "0")
    assert not (tmp_path / "model.known.json").exists()


def test_when_nothing_is_known(weights):
    cases = described(drawn(50))
    found = known(weights, cases)
    file = weights.with_suffix(".known.json")
    weights.write_bytes(b"others")
    assert Known(file, weights, {}).missing == "'w.known.json' is of other weights"
    assert Known(file, weights, {}).compare(cases[0]) is None
    right = json.loads(file.read_text()) | {"sha256": checksum(weights)}
    file.write_text(json.dumps(right))
    assert Known(file, weights, {}).missing is None
    wrong = [{"limit": float("nan")}, {"cases": float("inf")}, {"settings": 3}, {"patch_size": [4]}]
    wrong += [{"numbers": {**right["numbers"], "a": [0, 0, 0, 0]}}, {"numbers": {**right["numbers"], "a": ["x"] * 4}}]
    wrong += [{"correlation": right["correlation"][:1]}]
    changed = [json.dumps(right | each) for each in wrong]
    for content in ("{}", "[]", "no JSON", '{"numbers": {}, "correlation": []}', *changed):
        file.write_text(content)
        assert Known(file, weights, {}).missing == "'w.known.json' does not hold what weights know"
    file.unlink()
    assert "nothing is known" in Known(file, weights, {}).missing and found.missing is None


def test_numbers_of_another_sampler_do_not_count(weights):
    cases = described([{**case, "agreement on one": case["a"]} for case in drawn(50)])
    bad = Description(*[{"a": 0.0, "b": 0.0, "c": 5.0, "agreement on one": 50.0}] * 2)
    assert unlike(known(weights, cases).compare(bad), 50)
    assert not unlike(known(weights, cases, steps=3).compare(bad), 50)


def test_numbers_of_a_volume():
    """Extents, places and sizes in mm along the directions of the body, whatever the order of the axes in the file."""
    labels = torch.zeros(20, 30, 10, dtype=torch.uint8)
    labels[12:16, 4:8, 3:6] = 1
    image = torch.rand(1, 20, 30, 10) + 3 * (labels > 0)
    affine = np.diag([2.0, 1, 3, 1])
    found = describe(image, image, labels[None], torch.full(labels.shape, 0.25), STRUCTURES, affine).shown
    extents = [found[f"extent from {name}, mm"] for name in ("left to right", "back to front", "bottom to top")]
    assert extents == [40, 30, 30]
    place = [found[f"place of one {side}, mm"] for side in ("to the right", "to the front", "upwards")]
    assert place == pytest.approx([2 * (13.5 - 9.5), 5.5 - 14.5, 3 * (4 - 4.5)])
    assert found["share of its box that one fills"] == 1 and found["uncertainty inside the mask"] == 0.25
    assert found["contrast of one"] > 2
    turned = np.zeros((4, 4))
    turned[0, 1], turned[1, 0], turned[2, 2], turned[3, 3] = -2, 1, 3, 1
    flipped = [each.movedim(-3, -2).flip(-2) for each in (image, labels)]
    again = describe(image, flipped[0], flipped[1][None], torch.full((30, 20, 10), 0.25), STRUCTURES, turned).shown
    assert again == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize("value", [0, -1024])
def test_padding_is_in_no_number(value):
    """Neither the values around an image nor their place: as the image alone, whose middle moved with it."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(24, 30, 20, dtype=torch.uint8)
    labels[12:16, 4:8, 3:6] = 1
    image = 10 + torch.rand(1, 24, 30, 20, generator=generator) + 3 * (labels > 0)
    sure = torch.rand(labels.shape, generator=generator)
    rims = (8, 16, 4, 12, 20, 8)  # whole numbers of the largest scale
    wide, mask, map_ = (
        torch.nn.functional.pad(each, rims, value=fill) for each, fill in ((image, value), (labels, 0), (sure, 0.0))
    )
    seen = torch.nn.functional.pad(image - image.mean(), rims, value=0)
    expected = describe(image - image.mean(), image, labels[None], sure, STRUCTURES, np.eye(4)).shown
    assert describe(seen, wide, mask[None], map_, STRUCTURES, np.eye(4)).shown == pytest.approx(
        expected, rel=1e-4, abs=1e-5
    )


@pytest.mark.parametrize("empty", [True, False])
def test_numbers_of_a_picture(empty):
    labels = torch.zeros(12, 8, dtype=torch.uint8)
    labels[:3, :4] = 0 if empty else 1
    picture = torch.rand(3, 12, 8)
    structures = {"one": {"volume": float(labels.sum()), "pairwise_dice": 1.0, "components": int(not empty)}}
    found = describe(picture, picture, labels[None], torch.zeros(12, 8), structures, None)
    assert found.shown["share of one"] == (0 if empty else 0.125)
    assert ("place of one along axis 1, share" in found.shown) != empty
    assert "red minus green" in found.shown and not any("extent" in name for name in found.shown)
    assert all(np.isfinite([*found.shown.values(), *found.compared.values()]))


def test_numbers_of_the_texture():
    """Two plain halves and noise have other steps, and other deviations within small squares."""

    def of(picture):
        empty = torch.zeros(picture.shape[1:])
        return describe(picture, picture, empty[None].to(torch.uint8), empty, {}, None).shown

    noise = torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
    halves = 1e-3 * noise
    halves[:, :, 18:] += 2
    plain, rough = of(halves), of(noise)
    assert plain["95 % of the steps of 1 voxel"] < 0.01 and plain["50 % of the deviations within 4 voxels"] < 0.01
    assert plain["90 % of the deviations within 4 voxels"] == pytest.approx(1, abs=0.1)  # an eighth holds the border
    assert plain["kurtosis of the values"] == pytest.approx(1, abs=0.1)
    assert rough["25 % of the steps of 1 voxel"] == pytest.approx(np.sqrt(2) * 0.319, rel=0.2)  # of normal numbers
    assert rough["50 % of the deviations within 4 voxels"] == pytest.approx(1, rel=0.2)
    assert rough["kurtosis of the values"] == pytest.approx(3, rel=0.2)
    bright = noise.clone()
    bright[:, :4, :4] += 6
    assert of(bright)["skewness of the values"] > 0.5 and of(-bright)["skewness of the values"] < -0.5
    assert "50 % of the deviations within 4 voxels" not in of(noise[:, :7])


@pytest.mark.parametrize(
    ("windows", "shape", "small"),
    [
        (None, (99, 99), False),
        (16, (99, 99), True),
        ((32, 48), (99, 99), False),
        ((32, 40), (99, 99), True),
        ((32, 40), (99, 40), False),  # the image itself is no larger
    ],
)
def test_windows_smaller_than_patches(windows, shape, small):
    assert (too_small(windows, (32, 48), shape) is not None) == small
    assert too_small(windows, (), shape) is None


def test_an_image_of_the_training_is_known():
    result = medsegdiff_bundle.segment(sorted(SAMPLES.iterdir())[0], device="cpu")
    compared = result.report["known"]
    assert compared["distance"] < 0.8 * compared["limit"] and len(compared["furthest"]) == 3
    assert not [each for each in result.report["warnings"] if each.startswith("Unlike")]


@pytest.mark.parametrize("kind", ["noise", "sphere", "photograph", "wrong voxel size"])
def test_what_the_weights_do_not_know_is_flagged_or_refused(kind, tmp_path):
    generator = np.random.default_rng(0)
    shape, affine = (35, 50, 36), np.eye(4)
    if kind == "noise":
        values = generator.random(shape)
    elif kind == "sphere":
        values = np.where(sum((np.indices(shape) - 18.0) ** 2) < 100, 40, -100) + generator.normal(0, 5, shape)
    elif kind == "photograph":
        values = np.asarray(Image.linear_gradient("L").resize(shape[1::-1]), dtype=float)[..., None].repeat(36, axis=2)
    else:
        image = nibabel.load(sorted(SAMPLES.iterdir())[0])
        values, affine = np.asarray(image.dataobj), image.affine @ np.diag([0.4, 0.4, 0.4, 1])
    file = tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), file)
    result = medsegdiff_bundle.segment(file, device="cpu")
    assert any(each.startswith("Unlike the ") for each in result.report["warnings"])
    with pytest.raises(ValueError, match="image.nii.gz' is refused .strict.: Unlike the .* training cases"):
        medsegdiff_bundle.segment(file, output_dir=tmp_path / "out", device="cpu", strict=True)
    assert not list(tmp_path.glob("out/*"))


def test_small_windows_are_said():
    result = medsegdiff_bundle.segment(sorted(SAMPLES.iterdir())[0], device="cpu", roi_size=16, ensemble_size=1)
    said = "windows of 16 x 16 x 16 are smaller than the patches of 40 x 56 x 40"
    assert any(said in each for each in result.report["warnings"])
