import pytest
import torch
import torch.nn.functional as F

from medsegdiff_bundle.networks import NeuralBandPassFilter
from medsegdiff_bundle.networks.hartley_transform import token_grid

CPU = torch.device("cpu")
GRIDS = [[1, 1], [2, 2], [3, 4], [5, 7], [4, 1], [2, 3, 4], [3, 3, 5], [1, 2, 1]]


def table(grid):
    """Coordinates of every entry of a spectrum."""
    _, distinct, index = token_grid(grid, CPU)
    assert len(distinct.unique(dim=0)) == len(distinct) == len(index.unique())
    return distinct[index]


def random_filter(dims, **kwargs):
    torch.manual_seed(0)
    module = NeuralBandPassFilter(dims, num_heads=3, time_dim=8, **kwargs)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape))
    return module


def test_frequencies_by_hand():
    # Turns per voxel, size 4: 0, 1/4, 1/2, -1/4; size 3: 0, 1/3, -1/3. The Nyquist frequency is 1/2.
    expected = torch.tensor([[a, b] for a in (0, 0.5, 1, 0.5) for b in (0, 2 / 3, 2 / 3)])
    torch.testing.assert_close(table([4, 3]), expected)


@pytest.mark.parametrize("grid", GRIDS)
def test_frequencies_match_the_order_of_the_fft(grid):
    """A wave of a known frequency has its peak where the table says that frequency is."""
    full = table(grid)
    assert full.shape == (torch.Size(grid).numel(), len(grid))
    assert full.min() >= 0 and full.max() <= 1
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in grid], indexing="ij")
    for turns in ([0] * len(grid), [n // 2 for n in grid], [min(1, n // 2) for n in grid]):
        phase = sum(2 * torch.pi * k * x / n for k, x, n in zip(turns, axes, grid, strict=True))
        expected = torch.tensor([2 * k / n for k, n in zip(turns, grid, strict=True)])
        peak = torch.fft.fftn(torch.polar(torch.ones_like(phase), phase)).abs().flatten().argmax()
        torch.testing.assert_close(full[peak], expected)


@pytest.mark.parametrize("grid", [[3, 4], [5, 1], [2, 3, 4]])
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_mask_shape_and_range(grid, num_blocks):
    module = random_filter(len(grid), num_blocks=num_blocks)
    mask = module(torch.randn(2, 8), token_grid(grid, CPU))
    assert mask.shape == (2, 3, torch.Size(grid).numel(), torch.Size(grid).numel())
    assert mask.dtype == torch.float32 and mask.min() >= 0 and mask.max() <= 1
    assert mask.std() > 0.01


def test_mask_depends_on_time_head_and_frequency_but_not_on_the_sign():
    module = random_filter(2)
    a, b = module(torch.randn(2, 8), token_grid([5, 4], CPU)).unflatten(2, (5, 4)).unflatten(4, (5, 4))
    assert (a - b).abs().max() > 0.01
    assert (a[0] - a[1]).abs().max() > 0.01
    assert a.logit().flatten(1).std(dim=1).min() > 0.1  # of each head over the frequencies
    flipped = a.flip(1).roll(1, 1)  # frequency k of the query's first axis to -k
    torch.testing.assert_close(flipped, a)
    torch.testing.assert_close(a.flip(3).roll(1, 3), a)
    assert (a - a.roll(1, 1)).abs().max() > 1e-3


def test_mask_follows_its_equation():
    """Coordinates, R x (conv, LayerNorm, scale and shift by t, ReLU), conv and sigmoid, at one pair of frequencies."""
    module = random_filter(2, num_blocks=2)
    time = torch.randn(1, 8)
    mask = module(time, token_grid([4, 5], CPU)).unflatten(2, (4, 5)).unflatten(4, (4, 5))
    h = torch.tensor([[2 * 1 / 4, 2 * 1 / 5, 2 * 2 / 4, 2 * 2 / 5]])  # frequencies (-1, 1) and (2, -2)
    for conv, norm, scale_shift in zip(module.convs, module.norms, module.scale_shifts, strict=True):
        scale, shift = scale_shift(F.silu(time)).chunk(2, dim=1)
        h = F.relu(F.layer_norm(conv(h), (16,), norm.weight, norm.bias) * (1 + scale) + shift)
    torch.testing.assert_close(mask[:, :, 3, 1, 2, 3], torch.sigmoid(module.head(h)))


def test_a_new_filter_lets_most_through():
    torch.manual_seed(0)
    mask = NeuralBandPassFilter(3, num_heads=4, time_dim=16)(torch.randn(2, 16), token_grid([4, 5, 3], CPU))
    assert 0.7 < mask.min() and mask.max() < 0.98
    assert NeuralBandPassFilter(2, 1, 8).head.bias.item() == 2


def test_mask_is_exact_at_its_own_resolution():
    """The filter is a function of frequency: where two grids share a frequency they share the mask."""
    module = random_filter(2)
    time = torch.randn(1, 8)
    coarse = module(time, token_grid([2, 2], CPU)).unflatten(2, (2, 2)).unflatten(4, (2, 2))
    fine = module(time, token_grid([4, 4], CPU)).unflatten(2, (4, 4)).unflatten(4, (4, 4))
    torch.testing.assert_close(fine[:, :, ::2, ::2, ::2, ::2], coarse)


def test_needs_a_block():
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        NeuralBandPassFilter(2, 1, 8, num_blocks=0)
