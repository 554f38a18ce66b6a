import hashlib
import itertools

import pytest
import torch

from medsegdiff_bundle.inferers import member_noise
from medsegdiff_bundle.inferers.noise import BLOCK, level_mask, member_levels


@pytest.mark.parametrize("dims", [2, 3])
def test_window_is_a_slice_of_the_whole(dims):
    size = (BLOCK + 9, 2 * BLOCK + 1, 7)[:dims]
    whole = member_noise(3, 1, 2, [0] * dims, (2, *size))
    starts = [(0, 5, BLOCK - 1), (0, 1, BLOCK), (0, 3)][:dims]
    for start in itertools.product(*starts):
        shape = [n - a for n, a in zip(size, start, strict=True)]
        window = member_noise(3, 1, 2, start, (2, *shape))
        assert torch.equal(window, whole[(slice(None), *(slice(a, None) for a in start))])
        small = member_noise(3, 1, 2, start, (2, *[2] * dims))
        assert torch.equal(small, whole[(slice(None), *(slice(a, a + 2) for a in start))])


def test_every_argument_matters():
    base = member_noise(0, 0, 0, [0, 0], (1, 8, 8))
    assert torch.equal(base, member_noise(0, 0, 0, [0, 0], (1, 8, 8)))
    for other in [(1, 0, 0, [0, 0]), (0, 1, 0, [0, 0]), (0, 0, 1, [0, 0]), (0, 0, 0, [1, 0]), (0, 0, 0, [0, BLOCK])]:
        assert (member_noise(*other, (1, 8, 8)) - base).abs().max() > 0.1


def test_standard_normal_and_white():
    noise = member_noise(7, 0, 0, [5, 9], (3, 4 * BLOCK, 3 * BLOCK)).double()
    count = noise.numel()  # 36864: the bounds are five standard errors
    assert noise.dtype == torch.float64 and noise.isfinite().all()
    assert noise.mean().abs() < 5 / count**0.5
    assert (noise.var() - 1).abs() < 5 * (2 / count) ** 0.5
    assert (noise.pow(4).mean() - 3).abs() < 5 * (96 / count) ** 0.5
    for shifted in (noise.roll(1, 0), noise.roll(1, 1), noise.roll(1, 2), noise.roll(BLOCK, 1), noise.roll(BLOCK, 2)):
        assert (noise * shifted).mean().abs() < 5 / count**0.5


def test_members_and_steps_are_independent():
    noises = [member_noise(0, member, step, [0, 0], (1, 64, 64)) for member in range(4) for step in range(3)]
    correlation = torch.corrcoef(torch.stack(noises).flatten(1))
    assert (correlation - torch.eye(12)).abs().max() < 5 / 64


def test_global_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    member_noise(0, 0, 0, [0, 0], (1, 8, 8))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("seed", [-1, 0, 2**62])
def test_any_seed(seed):
    assert member_noise(seed, 0, 0, [0, 0], (1, 2, 2)).shape == (1, 2, 2)


def test_definition():
    """The noise is part of the result: a change of its layout would change every published sample."""
    key = b"".join(number.to_bytes(8, "little", signed=True) for number in (4, 1, 2, 0, 1))  # seed to block
    seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") // 2
    expected = torch.randn(3, BLOCK, BLOCK, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(member_noise(4, 1, 2, [0, BLOCK], (3, BLOCK, BLOCK)), expected)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_levels_give_each_class_its_probability(num_classes):
    probabilities = torch.tensor([0.05, 0.15, 0.3, 0.4, 0.1])[:num_classes]
    probabilities = probabilities / probabilities.sum()
    levels = member_levels(3, 2048, num_classes)
    assert levels.shape == (2048, num_classes) and levels.min() > 0
    torch.testing.assert_close(levels.sum(dim=1), torch.ones(2048))
    masks = level_mask(probabilities.reshape(1, -1, 1), levels)
    assert masks.unique().tolist() == [-1, 1]
    share = ((masks + 1) / 2).mean(dim=1)[0, :, 0]
    torch.testing.assert_close(
        share, probabilities, rtol=0, atol=0.01
    )  # independent draws: 0.011 is one standard error


@pytest.mark.parametrize("members", [1, 4, 5, 10, 16])
def test_each_member_has_its_part_of_the_levels(members):
    for seed in range(5):
        levels = member_levels(seed, members, 2)[:, 1].sort().values
        torch.testing.assert_close(levels, (torch.arange(members) + 0.5) / members)


@pytest.mark.parametrize(("members", "views"), [(6, 2), (10, 2), (8, 4), (16, 4)])
def test_each_mirror_image_has_low_and_high_levels(members, views):
    for seed in range(20):
        levels = member_levels(seed, members, 2)[:, 0]
        for view in range(views):
            mine = levels[view::views]
            assert mine.min() < 0.5 < mine.max() and (mine.mean() - 0.5).abs() < 0.21


def test_levels_by_seed():
    levels = member_levels(0, 16, 3)
    assert torch.equal(levels, member_levels(0, 16, 3))
    assert any((member_levels(seed, 16, 3) - levels).abs().max() > 0.01 for seed in (1, -5))
