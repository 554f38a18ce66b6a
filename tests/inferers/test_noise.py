import hashlib
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from medsegdiff_bundle.inferers import member_noise
from medsegdiff_bundle.inferers import noise as noise_module
from medsegdiff_bundle.inferers.noise import BLOCK, WindowNoise, level_mask, member_levels


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


@pytest.fixture
def drawn(monkeypatch):
    """Shapes of all blocks that are drawn."""
    shapes = []
    draw = torch.randn

    def noting(shape, **kwargs):
        shapes.append(shape)
        return draw(shape, **kwargs)

    monkeypatch.setattr(noise_module.torch, "randn", noting)
    return shapes


WINDOWS = [(0, 0), (0, 20), (0, 40), (25, 0), (25, 20), (25, 40)]  # of 40 x 45 pixels, which need 2 x 2 or 3 blocks


def of_windows(noise, windows, keys, shape):
    """The noise of each window for each member and step."""
    found = []
    for window, following in itertools.pairwise([*windows, None]):
        for member, step in keys:
            found.append(torch.empty(shape))
            noise.fill(found[-1], member, step, window, following)
    return found


@pytest.mark.parametrize("capacity", [math.inf, 2 * 45 * 50 * 40 * 4, 0])
def test_windows_one_after_the_other_have_the_noise_of_their_places(capacity):
    keys = [(0, 0), (0, 1), (3, 0)]
    found = of_windows(WindowNoise(5, capacity), WINDOWS, keys, (2, 40, 45))
    expected = [member_noise(5, *key, window, (2, 40, 45)) for window in WINDOWS for key in keys]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("capacity", "blocks"), [(math.inf, [4, 2, 0, 6, 3, 0]), (0, [4, 6, 4, 6, 9, 6])])
def test_what_a_window_shares_with_the_next_is_drawn_once(drawn, capacity, blocks):
    noise = WindowNoise(5, capacity)
    for (window, following), expected in zip(itertools.pairwise([*WINDOWS, None]), blocks, strict=True):
        drawn.clear()
        noise.fill(torch.empty(2, 40, 45), 0, 0, window, following)
        assert drawn == [(2, BLOCK, BLOCK)] * expected
    assert noise.size() == 0


def test_no_more_noise_is_kept_than_the_capacity():
    one = 3 * 40 * 44 * 4  # of the window at 0, 20, up to the end of the first one's blocks at 64
    noise = WindowNoise(5, 2 * one)
    for member in range(4):
        noise.fill(torch.empty(3, 40, 45), member, 0, (0, 0), (0, 20))
    assert noise.size() == 2 * one


@pytest.mark.parametrize("following", [(0, 64), (0, 100), (1, 1), (0, 0), None])
def test_nothing_is_kept_for_a_window_that_is_not_beside(following):
    noise = WindowNoise(5, math.inf)
    noise.fill(torch.empty(3, 40, 45), 0, 0, (0, 0), following)
    assert noise.size() == 0


def test_a_window_that_was_not_announced_has_its_own_noise():
    noise, found = WindowNoise(5, math.inf), torch.empty(2, 40, 45)
    noise.fill(found, 0, 0, (0, 0), (0, 20))
    noise.fill(found, 0, 0, (0, 21), None)
    assert torch.equal(found, member_noise(5, 0, 0, (0, 21), (2, 40, 45)))


def test_threads_share_the_blocks(monkeypatch):
    alone = member_noise(1, 0, 0, (3, 5, 7), (4, 40, 40, 40))
    monkeypatch.setattr(noise_module, "NUMBERS_PER_THREAD", 1)
    monkeypatch.setattr(noise_module.torch, "get_num_threads", lambda: 3)
    begun = []
    monkeypatch.setattr(
        noise_module, "ThreadPoolExecutor", lambda number: begun.append(number) or ThreadPoolExecutor(number)
    )
    assert torch.equal(member_noise(1, 0, 0, (3, 5, 7), (4, 40, 40, 40)), alone)
    assert begun == [3]


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
