"""Generalized energy distance against hand-computed numbers, a double loop, and what a distance has to do."""

import pytest
import torch

from medsegdiff_bundle.metrics import generalized_energy_distance


def masks(*rows: list[int]) -> torch.Tensor:
    """Masks of a few voxels, one row each."""
    return torch.tensor(rows)


def blobs(num_masks: int, num_classes: int = 2, size: int = 12, seed: int = 0) -> torch.Tensor:
    """Random labels that are empty now and then."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (num_masks, size, size), generator=generator)
    return labels * (torch.rand(num_masks, 1, 1, generator=generator) < 0.8)


def by_double_loop(members, raters, label=1):
    def distance(a, b):
        a, b = a == label, b == label
        union = (a | b).sum().item()
        return 1 - (a & b).sum().item() / union if union else 0.0

    def expectation(first, second):
        return sum(distance(a, b) for a in first for b in second) / (len(first) * len(second))

    return 2 * expectation(members, raters) - expectation(members, members) - expectation(raters, raters)


@pytest.mark.parametrize(
    ("members", "raters", "expected"),
    [
        # One of each: twice their distance, 1 - 1/2.
        (masks([1, 1, 0]), masks([1, 0, 0]), 1.0),
        # Disjoint: as far as it goes.
        (masks([1, 0]), masks([0, 1]), 2.0),
        # Empty against empty, and against a mask.
        (masks([0, 0]), masks([0, 0]), 0.0),
        (masks([0, 0]), masks([1, 0]), 2.0),
        # One member between two raters, IoU 1/2 with each, who share 1/3: 2 * 1/2 - 0 - (0 + 2/3 + 2/3 + 0) / 4.
        (masks([0, 1, 0]), masks([1, 1, 0], [0, 1, 1]), 1 - 1 / 3),
        # Members (A, A, B, empty), raters (A, B), A and B disjoint: E d(S, Y) = (1 + 1 + 1 + 2) / 8; of the 16 pairs of
        # members all differ but A and A, four times, and B and the empty with themselves: 10 / 16; E d(Y, Y') = 1 / 2.
        (masks([1, 0], [1, 0], [0, 1], [0, 0]), masks([1, 0], [0, 1]), 10 / 8 - 5 / 8 - 1 / 2),
    ],
)
def test_by_hand(members, raters, expected):
    assert generalized_energy_distance(members, raters).tolist() == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize(("num_members", "num_raters"), [(1, 1), (5, 3), (16, 4), (3, 7)])
def test_equals_the_double_loop_for_each_class(num_members, num_raters):
    members, raters = blobs(num_members, 3), blobs(num_raters, 3, seed=1)
    expected = [by_double_loop(members, raters, label) for label in range(3)]
    everything = generalized_energy_distance(members, raters, num_classes=3, include_background=True)
    assert everything.tolist() == pytest.approx(expected, abs=1e-6)
    assert generalized_energy_distance(members, raters, num_classes=3).tolist() == pytest.approx(expected[1:], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_is_a_distance_of_sets(seed):
    members, raters = blobs(6, seed=seed), blobs(4, seed=seed + 50)
    value = generalized_energy_distance(members, raters)
    assert value > 0
    torch.testing.assert_close(generalized_energy_distance(members.flip(0), raters.roll(1, 0)), value)
    torch.testing.assert_close(generalized_energy_distance(raters, members), value)
    torch.testing.assert_close(generalized_energy_distance(members.repeat(3, 1, 1), raters), value)


def test_rewards_the_right_distribution():
    """Raters of a nodule: two mark it small, one large, one not at all."""
    small, large, none = (torch.zeros(1, 16, 16, dtype=torch.uint8) for _ in range(3))
    small[:, 6:9, 6:9] = 1
    large[:, 5:11, 5:11] = 1
    raters = torch.cat([small, small, large, none])
    right = generalized_energy_distance(raters.repeat(4, 1, 1), raters)
    shares_off = generalized_energy_distance(torch.cat([small, large, large, none]), raters)
    one_mode = generalized_energy_distance(small.repeat(4, 1, 1), raters)
    nothing = generalized_energy_distance(none, raters)
    assert right.abs() < 1e-6
    assert right < shares_off < one_mode < nothing


def test_counts_are_exact_over_many_chunks_and_under_autocast():
    generator = torch.Generator().manual_seed(0)
    members = torch.rand(2, 300, 301, generator=generator) < 0.5
    raters = torch.rand(1, 300, 301, generator=generator) < 0.5
    expected = by_double_loop(members, raters)
    assert generalized_energy_distance(members, raters).item() == pytest.approx(expected, abs=1e-7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert generalized_energy_distance(members, raters).item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_any_type_of_labels(dtype):
    members, raters = blobs(4), blobs(3, seed=1)
    value = generalized_energy_distance(members.to(dtype), raters)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, generalized_energy_distance(members, raters.to(dtype)))


@pytest.mark.parametrize(
    ("members", "raters", "message"),
    [
        (masks([0, 2]), masks([0, 1]), "labels of members must be in 0..1"),
        (masks([0, 1]), masks([0, -1]), "labels of raters must be in 0..1"),
        (torch.tensor([[0.0, 0.3]]), masks([0, 1]), "whole numbers"),
        (torch.tensor([[0.0, float("nan")]]), masks([0, 1]), "0..1, got nan"),
        (masks([0, 1]), masks([0, 1, 1]), "the same voxels"),
        (masks([0, 1]), torch.zeros(0, 2), "at least one mask"),
    ],
)
def test_refuses_what_is_not_labels(members, raters, message):
    with pytest.raises(ValueError, match=message):
        generalized_energy_distance(members, raters)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_gpu_measures_like_the_cpu(num_classes):
    members, raters = blobs(16, num_classes), blobs(4, num_classes, seed=1)
    expected = generalized_energy_distance(members, raters, num_classes)
    found = generalized_energy_distance(members.cuda(), raters.cuda(), num_classes)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)
