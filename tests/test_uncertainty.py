"""Uncertainty maps against numbers worked out by hand."""

import math

import pytest
import torch

from medsegdiff_bundle.uncertainty import (
    disagreement,
    mutual_information,
    mutual_information_of_views,
    predictive_entropy,
    share_of_noise,
    variance,
)

METHODS = [predictive_entropy, mutual_information, variance]


def pixel(*members: list[float]) -> torch.Tensor:
    """One pixel of each member's distribution, (E, K, 1)."""
    return torch.tensor(members).unsqueeze(-1)


@pytest.mark.parametrize(
    ("members", "entropy", "information", "spread"),
    [
        (pixel([1.0, 0.0], [1.0, 0.0]), 0.0, 0.0, 0.0),
        (pixel([1.0, 0.0], [0.0, 1.0]), 1.0, 1.0, 0.25),
        (pixel([0.5, 0.5], [0.5, 0.5]), 1.0, 0.0, 0.0),
        # Mean (0.5, 0.5); members of 0.811278 bits each; deviation 0.25 everywhere.
        (pixel([0.75, 0.25], [0.25, 0.75]), 1.0, 1 - 0.811278, 0.0625),
        # Mean (0.75, 0.25): 0.811278 bits, all of it disagreement; variance 3/16.
        (pixel([1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]), 0.811278, 0.811278, 0.1875),
        # Three classes, three sure members: uniform mean; variance 1/3 - 1/9.
        (pixel([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]), 1.0, 1.0, 2 / 9),
        # Two sure members of four classes: 1 of 2 bits; variance 1/4 in two of the four.
        (pixel([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]), 0.5, 0.5, 0.125),
        # One member does not disagree with itself.
        (pixel([0.75, 0.25]), 0.811278, 0.0, 0.0),
    ],
)
def test_by_hand(members, entropy, information, spread):
    assert predictive_entropy(members).item() == pytest.approx(entropy, abs=1e-6)
    assert mutual_information(members).item() == pytest.approx(information, abs=1e-6)
    assert variance(members).item() == pytest.approx(spread, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 2, 5), (4, 3, 5, 6), (2, 4, 3, 4, 5), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_type_and_range(method, shape, dtype):
    members = (5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).softmax(1).to(dtype)
    result = method(members)
    assert result.shape == shape[2:] and result.dtype == torch.float32
    assert torch.all(result >= 0) and torch.all(result <= (0.25 if method is variance else 1))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (pixel([0.9, 0.1], [0.6, 0.4]), [0.0]),  # both vote for class 0, however sure
        (pixel([0.9, 0.1], [0.4, 0.6]), [0.5]),
        (pixel([0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8]), [0.25]),
        # Votes 1, 1, 2, 0, 1: three of five for class 1, one for class 2.
        (pixel([0, 1.0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0], [0, 1.0, 0]), [0.4, 0.2]),
        (pixel([0.2, 0.8]), [0.0]),
    ],
)
def test_disagreement_by_hand(members, expected):
    assert disagreement(members).flatten().tolist() == pytest.approx(expected)


def test_shape_of_disagreement():
    members = torch.randn(5, 4, 6, 7, generator=torch.Generator().manual_seed(0)).softmax(1)
    result = disagreement(members)
    assert result.shape == (3, 6, 7) and result.dtype == torch.float32
    assert 0 <= result.min() and 0.3 < result.max() <= 0.5
    torch.testing.assert_close(disagreement(members[[4, 2, 0, 1, 3]][:, [0, 3, 1, 2]]), result[[2, 0, 1]])


def test_mutual_information_is_part_of_the_entropy():
    members = torch.randn(5, 3, 200, generator=torch.Generator().manual_seed(0)).softmax(1)
    information = mutual_information(members)
    assert torch.all(information <= predictive_entropy(members))
    few = torch.randn(2, 8, 200, generator=torch.Generator().manual_seed(0)).mul(50).softmax(1)
    assert torch.all(mutual_information(few) <= math.log(2) / math.log(8) + 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_order_of_members_and_classes_does_not_matter(method):
    members = torch.randn(4, 3, 50, generator=torch.Generator().manual_seed(0)).softmax(1)
    torch.testing.assert_close(method(members[[2, 0, 3, 1]][:, [1, 2, 0]]), method(members))


@pytest.mark.parametrize("method", [*METHODS, disagreement])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        (torch.zeros(3, 2, 4, dtype=torch.int64), "torch.int64"),
        (torch.rand(3, 1, 4), r"\(3, 1, 4\)"),
        (torch.rand(3), r"\(3,\)"),
        (torch.zeros(0, 2, 4), r"\(0, 2, 4\)"),
        (torch.tensor([[[-1.0], [2.0]]]), "from -1 to 2"),
        (torch.tensor([[[math.nan], [1.0]]]), "nan"),
        (torch.tensor([[[0.9], [0.8]]]), "off by 0.7"),
    ],
)
def test_bad_values_are_named(method, members, message):
    with pytest.raises(ValueError, match=message):
        method(members)


def test_the_part_of_the_noise_in_the_mutual_information():
    """Two views: in the first pixel members of a view agree, in the second both views are alike, the third is sure."""
    sure = torch.eye(2)
    first, second = [0, 1, 0, 1], [0, 0, 1, 1]  # member m is of view m mod 2
    members = torch.stack([torch.stack([sure[a], sure[b], sure[0]], dim=1) for a, b in zip(first, second, strict=True)])
    whole, noise = mutual_information_of_views(members, 2)
    assert whole.tolist() == pytest.approx([1, 1, 0]) and noise.tolist() == pytest.approx([0, 1, 0])
    again, alone = mutual_information_of_views(members, 1)
    assert torch.equal(again, alone)
    more = torch.cat([members, members[:1]])  # the fifth fills no second view
    torch.testing.assert_close(mutual_information_of_views(more, 2), (whole, noise))
    with pytest.raises(ValueError, match="Each of 4 views needs two members, got 5."):
        mutual_information_of_views(more, 4)


@pytest.mark.parametrize(("each", "views"), [(2, 2), (3, 2), (4, 4)])
@pytest.mark.parametrize(("noise", "mirroring"), [(1.0, 0.0), (0.8, 0.2), (0.3, 0.7)])
def test_share_of_noise_whatever_the_number_of_members(each, views, noise, mirroring):
    """Members that vary by noise, and by their view in its part of the variance."""
    torch.manual_seed(0)
    of_views = mirroring**0.5 * torch.randn(views, 20000) / (1 - 1 / views) ** 0.5
    logits = 0.05 * (of_views.repeat(each, 1) + noise**0.5 * torch.randn(each * views, 20000))
    members = torch.stack([logits, torch.zeros_like(logits)], dim=1).softmax(1)
    whole, part = (float(values.double().sum()) for values in mutual_information_of_views(members, views))
    assert share_of_noise(whole, part, each, views) == pytest.approx(noise, abs=0.02)


def test_share_of_noise_of_members_that_are_one():
    assert math.isnan(share_of_noise(0, 0, 2, 2))


def test_noise_and_mirroring_add_up():
    members = torch.rand(6, 3, 50).softmax(1)
    whole, noise = mutual_information_of_views(members, 2)
    means = torch.stack([members[view::2].mean(0) for view in range(2)])
    torch.testing.assert_close(whole, noise + mutual_information(means), atol=1e-6, rtol=0)
