"""STAPLE against hand calculation, closed properties and SimpleITK."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from packaging.version import Version

from medsegdiff_bundle import configuration
from medsegdiff_bundle.fusion import _distinct_patterns, expected_dice, staple

ROOT = Path(__file__).parent.parent


def blobs(num_members: int, size: int, dims: int, num_classes: int, seed: int, amplitude: float = 0.15) -> torch.Tensor:
    """Nested balls whose boundaries every member draws its own way, (E, ...), uint8."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, size)] * dims, indexing="ij")
    radius = torch.stack(axes).square().sum(0).sqrt()
    interpolation = {2: "bicubic", 3: "trilinear"}[dims]
    coarse = torch.randn(num_members, 1, *[max(size // 8, 2)] * dims, generator=generator)
    noise = torch.nn.functional.interpolate(coarse, size=[size] * dims, mode=interpolation).squeeze(1)
    perturbed = (radius + amplitude * noise).contiguous()
    thresholds = torch.linspace(0.3, 0.7, num_classes - 1)
    return (num_classes - 1 - torch.bucketize(perturbed, thresholds)).to(torch.uint8)


def noisy(num_members: int, size: int, num_classes: int, seed: int) -> torch.Tensor:
    """One truth of which members replace 10 to 60 % of the pixels by noise, (E, size, size), uint8."""
    generator = torch.Generator().manual_seed(seed)
    truth = blobs(1, size, 2, num_classes, seed)[0]
    noise = torch.randint(0, num_classes, (num_members, size, size), generator=generator).to(torch.uint8)
    rates = torch.linspace(0.1, 0.6, num_members).view(-1, 1, 1)
    return torch.where(torch.rand(noise.shape, generator=generator) < rates, noise, truth)


def independent(num_members: int, size: int, num_classes: int, seed: int) -> torch.Tensor:
    """Votes without any common truth, (E, size, size), uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, num_classes, (num_members, size, size), generator=generator).to(torch.uint8)


def itk_binary(members: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    staple_filter = SimpleITK.STAPLEImageFilter()
    staple_filter.SetForegroundValue(1)
    posterior = staple_filter.Execute([SimpleITK.GetImageFromArray(member.numpy()) for member in members])
    return (
        SimpleITK.GetArrayFromImage(posterior),
        np.array(staple_filter.GetSensitivity()),
        np.array(staple_filter.GetSpecificity()),
        staple_filter.GetElapsedIterations(),
    )


def itk_labels(members: torch.Tensor, num_classes: int, max_iterations: int) -> tuple[np.ndarray, np.ndarray]:
    staple_filter = SimpleITK.MultiLabelSTAPLEImageFilter()
    staple_filter.SetMaximumNumberOfIterations(max_iterations)
    labels = staple_filter.Execute([SimpleITK.GetImageFromArray(member.numpy()) for member in members])
    # ITK has a row per vote, the last of them "undecided", and a column per truth.
    confusion = [
        np.array(staple_filter.GetConfusionMatrix(e)).reshape(num_classes + 1, num_classes)[:-1].T
        for e in range(len(members))
    ]
    return SimpleITK.GetArrayFromImage(labels), np.stack(confusion)


def check_two_classes(members):
    posterior, sensitivity, specificity, iterations = itk_binary(members)
    result = staple(members)
    np.testing.assert_allclose(result.posterior.numpy(), posterior, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.sensitivity.numpy(), sensitivity, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.specificity.numpy(), specificity, rtol=0, atol=1e-6)
    assert result.iterations == iterations


def check_more_classes(members, num_classes):
    labels, confusion = itk_labels(members, num_classes, max_iterations=500)
    result = staple(members, num_classes, max_iterations=500)
    np.testing.assert_allclose(result.confusion.numpy(), confusion, rtol=0, atol=1e-4)
    assert (result.posterior.argmax(0).numpy() == labels).mean() >= 0.9999


@pytest.mark.parametrize(
    "members",
    [
        blobs(5, 64, 2, 2, seed=0),
        blobs(10, 96, 2, 2, seed=1, amplitude=0.3),
        blobs(3, 24, 3, 2, seed=2),
        noisy(5, 48, 2, seed=3),
        noisy(12, 32, 2, seed=4),  # more possible patterns than pixels
        independent(4, 16, 2, seed=5),
        independent(1, 16, 2, seed=6),
        torch.tensor([[[1, 1, 0, 0, 0, 0]], [[0, 0, 0, 1, 0, 0]]], dtype=torch.uint8),  # disjoint
        torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 0]]], dtype=torch.uint8),  # one full, one empty
    ],
    ids=["blobs", "wild blobs", "3d", "noisy", "many", "independent", "single", "disjoint", "opposite"],
)
def test_two_classes_agree_with_simpleitk(members):
    check_two_classes(members)


@pytest.mark.parametrize(
    ("members", "num_classes"),
    [
        (blobs(5, 64, 2, 4, seed=0), 4),
        pytest.param(
            blobs(10, 48, 2, 3, seed=1, amplitude=0.3),
            3,
            marks=pytest.mark.skipif(
                Version(SimpleITK.__version__) < Version("2.5.7"),
                reason="SimpleITK before 2.5.7 finds other votes here, up to 0.03 from these",
            ),
        ),
        (blobs(3, 20, 3, 5, seed=2), 5),
        (noisy(3, 48, 4, seed=3), 4),
        (noisy(6, 48, 3, seed=4), 3),
        (independent(5, 32, 3, seed=5), 3),
        (independent(3, 32, 4, seed=6), 4),
        (blobs(1, 32, 2, 3, seed=7), 3),
        (blobs(1, 32, 2, 3, seed=8).repeat(4, 1, 1), 3),
    ],
    ids=["blobs", "wild blobs", "3d", "noisy 3", "noisy 6", "independent 5", "independent 3", "single", "unanimous"],
)
def test_more_classes_agree_with_simpleitk(members, num_classes):
    check_more_classes(members, num_classes)


@pytest.fixture(scope="module")
def real_members():
    """Labels of 10 members that the shipped weights draw of a real volume, (10, X, Y, Z)."""
    config = configuration.load(
        [ROOT / "configs" / "inference.json"],
        {"bundle_root": str(ROOT), "device": "cpu", "amp": False, "ensemble_size": 10},
    )
    network = config.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(config.get_parsed_content("checkpoint"), weights_only=True))
    file = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"
    image = config.get_parsed_content("preprocessing")({"image": str(file)})["image"]
    probabilities = config.get_parsed_content("inferer")(image[None].as_tensor(), network)[0]  # (10, 3, X, Y, Z)
    labels = probabilities.argmax(1).to(torch.uint8)
    assert len(labels.flatten(1).unique(dim=0)) == 10
    return labels


def test_real_members_of_two_classes_agree_with_simpleitk(real_members):
    check_two_classes((real_members > 0).to(torch.uint8))


def test_real_members_of_more_classes_agree_with_simpleitk(real_members):
    check_more_classes(real_members, 3)


def test_two_members_of_more_classes_do_better_than_simpleitk():
    # SimpleITK starts from a majority vote, which two members do not have: 90 % correct, against 94 %.
    truth = blobs(1, 64, 2, 3, seed=0)[0]
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 3, (2, 64, 64), generator=generator).to(torch.uint8)
    rates = torch.tensor([0.1, 0.3]).view(2, 1, 1)
    members = torch.where(torch.rand(2, 64, 64, generator=generator) < rates, noise, truth)
    labels, _ = itk_labels(members, 3, 500)
    accuracy = (staple(members, 3).posterior.argmax(0) == truth).double().mean()
    assert accuracy > (labels == truth.numpy()).mean() + 0.02


def test_first_step_by_hand():
    # Members vote 1100, 1000, 0000: shares of foreground 2/3, 1/3, 0, 0, so 1 pixel of foreground and 3 of background.
    members = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    # Sensitivity: of that 1, member 0 has 2/3 + 1/3, member 1 2/3. Specificity: of the 3, member 0 has 2, member 1 8/3.
    p, q, prior = (1.0, 2 / 3, 0.0), (2 / 3, 8 / 9, 1.0), 1 / 4

    def posterior(votes):
        foreground, background = prior, 1 - prior
        for vote, sensitivity, specificity in zip(votes, p, q, strict=True):
            foreground *= sensitivity if vote else 1 - sensitivity
            background *= 1 - specificity if vote else specificity
        return foreground / (foreground + background)

    weights = [posterior(votes) for votes in members.T.tolist()]
    result = staple(members, max_iterations=1)
    assert result.iterations == 1
    assert weights[0] == pytest.approx(6 / 7)
    assert weights[1] == pytest.approx(3 / 11)
    total = sum(weights)
    assert result.sensitivity.tolist() == pytest.approx([1, weights[0] / total, 0])
    assert result.specificity.tolist() == pytest.approx([2 / (4 - total), (3 - weights[1]) / (4 - total), 1])


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("num_members", [1, 2, 5])
def test_unanimous_votes_come_back(num_classes, num_members):
    member = blobs(1, 32, 2, num_classes, seed=0)
    result = staple(member.repeat(num_members, 1, 1), num_classes)
    one_hot = torch.nn.functional.one_hot(member[0].long(), num_classes).movedim(-1, 0).float()
    torch.testing.assert_close(result.posterior, one_hot[1] if num_classes == 2 else one_hot, rtol=0, atol=0)
    assert torch.all(result.sensitivity == 1) and torch.all(result.specificity == 1)
    assert torch.all(result.confusion == torch.eye(num_classes))


@pytest.mark.parametrize("num_members", [1, 2, 3])
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("label", [0, 1])
def test_empty_and_full_are_finite(num_members, num_classes, label):
    result = staple(torch.full((num_members, 4, 4), label), num_classes)
    assert torch.all((result.posterior if num_classes == 2 else result.posterior[1]) == label)
    assert torch.all(result.sensitivity == 1) and torch.all(result.specificity == 1)
    assert torch.all(result.confusion == torch.eye(num_classes))


def test_disjoint_members_are_worth_nothing():
    members = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]])
    result = staple(members)
    torch.testing.assert_close(result.posterior, torch.full((8,), 0.25), rtol=0, atol=1e-4)
    larger = staple(torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0]])).posterior
    assert larger[0] > 0.5 > larger[3]


def test_class_that_nobody_votes_for():
    members = blobs(5, 32, 2, 3, seed=0)
    fewer, more = staple(members, 3), staple(members, 5)
    torch.testing.assert_close(more.posterior[:3], fewer.posterior)
    assert torch.all(more.posterior[3:] == 0)
    torch.testing.assert_close(more.confusion[:, :3, :3], fewer.confusion)
    assert torch.all(more.sensitivity[:, 3:] == 1) and torch.all(more.specificity[:, 3:] == 1)


def test_votes_that_no_class_explains_are_shared_by_the_prior():
    """The start knows no class for the last pixel, on which nobody agrees; each needs two votes that it never gets."""
    agreed = torch.tensor([1, 2, 3]).repeat_interleave(torch.tensor([10, 20, 30]))
    members = torch.cat([agreed.expand(3, 60), torch.tensor([[1], [2], [3]])], dim=1)
    shares = torch.tensor([31, 61, 91], dtype=torch.float64) / 183  # of all votes
    confusion = staple(members, 4, max_iterations=1).confusion
    assert confusion[0, 2, 1].item() == pytest.approx(shares[1].item() / (20 + shares[1].item()))
    assert confusion[0, 3, 1].item() == pytest.approx(shares[2].item() / (30 + shares[2].item()))


def test_a_class_without_votes_explains_nothing():
    """Half of the members contradict the other half, so every class with votes needs votes that it never gets."""
    truth = torch.tensor([9, 10, 12, 3, 9])
    members = torch.cat([truth.expand(35, 5) + 1, truth.expand(35, 5)])
    prior = torch.bincount(members.flatten(), minlength=15) / members.numel()
    result = staple(members, 15, max_iterations=1)
    torch.testing.assert_close(result.posterior, prior.view(-1, 1).expand(15, 5))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_order_of_members_does_not_matter(num_classes):
    members = noisy(5, 40, num_classes, seed=0)
    order = torch.tensor([3, 0, 4, 2, 1])
    result, permuted = staple(members, num_classes), staple(members[order], num_classes)
    torch.testing.assert_close(permuted.posterior, result.posterior, rtol=0, atol=1e-6)
    torch.testing.assert_close(permuted.confusion, result.confusion[order], rtol=0, atol=1e-9)
    torch.testing.assert_close(permuted.sensitivity, result.sensitivity[order], rtol=0, atol=1e-9)
    torch.testing.assert_close(permuted.specificity, result.specificity[order], rtol=0, atol=1e-9)


def test_good_members_outweigh_a_bad_majority():
    generator = torch.Generator().manual_seed(0)
    truth = blobs(1, 64, 2, 2, seed=0)[0].bool()
    flips = torch.tensor([0.02, 0.02, 0.4, 0.4, 0.4]).view(-1, 1, 1)
    members = truth ^ (torch.rand(5, 64, 64, generator=generator) < flips)
    result = staple(members)
    fused = result.posterior > 0.5
    majority = members.float().mean(0) > 0.5
    assert (fused != truth).sum() < 0.7 * (majority != truth).sum()
    # The performances that the members were made with; 4096 pixels, so within about 0.03.
    torch.testing.assert_close(result.specificity, 1 - flips.flatten().double(), rtol=0, atol=0.04)


def test_performance_of_more_classes():
    members = noisy(4, 48, 3, seed=0)
    result = staple(members, 3)
    assert result.posterior.shape == (3, 48, 48) and result.confusion.shape == (4, 3, 3)
    torch.testing.assert_close(result.posterior.sum(0), torch.ones(48, 48))
    torch.testing.assert_close(result.confusion.sum(2), torch.ones(4, 3, dtype=torch.float64))
    # Definition: of the weight of all other classes, the share where the member votes otherwise; from the pixels.
    for e in range(4):
        for k in range(3):
            weight = 1 - result.posterior[k].double()
            expected = (weight * (members[e] != k)).sum() / weight.sum()
            assert result.specificity[e, k].item() == pytest.approx(expected.item(), abs=1e-4)
            weight = result.posterior[k].double()
            expected = (weight * (members[e] == k)).sum() / weight.sum()
            assert result.sensitivity[e, k].item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int16, torch.int32, torch.int64])
def test_every_integer_type_and_layout(dtype):
    members = blobs(10, 40, 2, 2, seed=0)
    expected = staple(members)
    strided = members.permute(1, 2, 0).contiguous().permute(2, 0, 1).to(dtype)
    before = strided.clone()
    result = staple(strided)
    torch.testing.assert_close(result.posterior, expected.posterior, rtol=0, atol=0)
    assert torch.equal(strided, before)


@pytest.mark.parametrize("shape", [(50,), (5, 10), (2, 5, 5), (1, 2, 5, 5)])
def test_any_number_of_spatial_axes(shape):
    members = independent(3, 10, 2, seed=0).flatten(1)[:, :50]
    expected = staple(members).posterior
    result = staple(members.reshape(3, *shape))
    assert result.posterior.shape == shape and result.posterior.dtype == torch.float32
    torch.testing.assert_close(result.posterior.flatten(), expected)


@pytest.mark.parametrize("num_members", [3, 10, 70])
def test_patterns_equal_em_over_pixels(num_members):
    members = noisy(num_members, 24, 2, seed=0)
    result = staple(members, max_iterations=3)
    one_hot = torch.nn.functional.one_hot(members.long(), 2).double().flatten(1, 2)  # (E, P, K)
    posterior = one_hot.mean(0)  # (P, K)
    log_prior = posterior.mean(0).log()
    for _ in range(5):
        theta = torch.einsum("epv,pt->etv", one_hot, posterior) / posterior.sum(0).view(-1, 1)
        estimate, posterior = posterior, (torch.einsum("epv,etv->pt", one_hot, theta.log()) + log_prior).softmax(1)
    torch.testing.assert_close(result.posterior.flatten().double(), estimate[:, 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("num_members", "num_classes"),
    [(1, 2), (9, 2), (20, 2), (40, 2), (62, 2), (63, 2), (150, 2), (3, 7), (10, 7), (70, 7), (5, 300), (20, 300)],
)
def test_patterns_are_those_of_the_pixels(num_members, num_classes):
    """All ways to write a pattern: as a table, in 32 bits, in 64, and when 64 are too few."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randint(0, num_classes, (num_members, 60), generator=generator)
    members = few[:, torch.randint(0, 60, (700,), generator=generator)]
    votes, counts, patterns, codes = _distinct_patterns(members, num_classes)
    pattern_of_pixel = torch.from_numpy(patterns)[codes]
    votes = torch.from_numpy(votes)
    assert torch.equal(votes[:, pattern_of_pixel], members)
    assert torch.equal(torch.from_numpy(counts), torch.bincount(pattern_of_pixel))
    assert votes.shape[1] == len(torch.unique(votes, dim=1).T) == len(torch.unique(members, dim=1).T)


def test_metatensor_gives_plain_tensors():
    members = MetaTensor(blobs(3, 16, 2, 2, seed=0))
    assert type(staple(members).posterior) is torch.Tensor


@pytest.mark.parametrize(
    ("members", "num_classes", "message"),
    [
        (torch.rand(3, 4, 4), 2, "torch.float32"),
        (torch.zeros(0, 4, 4, dtype=torch.uint8), 2, r"\(0, 4, 4\)"),
        (torch.zeros(3, 0, dtype=torch.uint8), 2, r"\(3, 0\)"),
        (torch.zeros(3, dtype=torch.uint8), 2, r"\(3,\)"),
        (torch.tensor([[0, 1, 2]]), 2, r"0\.\.1, got 0\.\.2"),
        (torch.tensor([[0, -1, 2]]), 3, r"0\.\.2, got -1\.\.2"),
        (torch.tensor([[0, 256]]), 2, r"0\.\.256"),
        (torch.zeros(3, 4, dtype=torch.uint8), 1, "num_classes must be at least 2, got 1"),
    ],
)
def test_bad_values_are_named(members, num_classes, message):
    with pytest.raises(ValueError, match=message):
        staple(members, num_classes)


def test_what_is_not_given_is_as_documented():
    assert staple.__defaults__ == (2, 10_000) and expected_dice.__defaults__ == (2, None)
    members = torch.tensor([[0, 1, 1], [0, 1, 0]])
    assert staple(members).posterior.shape == expected_dice(members).labels.shape == (3,)


def test_max_iterations_must_be_positive():
    assert staple(torch.zeros(2, 4, dtype=torch.uint8), max_iterations=1).iterations == 1
    with pytest.raises(ValueError, match="max_iterations must be positive, got 0"):
        staple(torch.zeros(2, 4, dtype=torch.uint8), max_iterations=0)
