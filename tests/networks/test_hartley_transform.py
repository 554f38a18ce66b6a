import pytest
import torch

from medsegdiff_bundle.networks.hartley_transform import hartley_transform, token_grid

CPU = torch.device("cpu")
every_grid = pytest.mark.parametrize("sizes", [[1], [2], [5], [8], [3, 4], [16, 16], [2, 3, 4], [5, 7, 5], [9, 9, 12]])


def tokens(sizes):
    torch.manual_seed(0)
    return torch.randn(2, torch.Size(sizes).numel(), 3)


@every_grid
def test_twice_is_nothing(sizes):
    x, grid = tokens(sizes), token_grid(sizes, CPU)
    torch.testing.assert_close(hartley_transform(hartley_transform(x, grid), grid), x)
    for matrix in grid.basis:
        assert torch.equal(matrix, matrix.T)
        torch.testing.assert_close(matrix @ matrix, torch.eye(len(matrix)))


@pytest.mark.parametrize("size", [1, 2, 7, 12])
def test_is_the_real_minus_the_imaginary_part_of_fourier(size):
    x = tokens([size])
    spectrum = torch.fft.fft(x, dim=1, norm="ortho")
    torch.testing.assert_close(hartley_transform(x, token_grid([size], CPU)), spectrum.real - spectrum.imag)


@every_grid
def test_even_filter_is_that_of_fourier(sizes):
    x, grid = tokens(sizes), token_grid(sizes, CPU)
    mask = torch.rand(len(grid.coordinates))[grid.lookup].reshape(-1, 1)
    axes = list(range(1, 1 + len(sizes)))
    spectrum = torch.fft.fftn(x.unflatten(1, sizes), dim=axes) * mask.unflatten(0, sizes)
    expected = torch.fft.ifftn(spectrum, dim=axes)
    assert expected.imag.abs().max() < 1e-6
    actual = hartley_transform(mask * hartley_transform(x, grid), grid)
    torch.testing.assert_close(actual, expected.real.flatten(1, -2), rtol=1e-4, atol=1e-5)
