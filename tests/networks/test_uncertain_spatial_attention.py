import pytest
import torch
import torch.nn.functional as F

from medsegdiff_bundle.networks import UncertainSpatialAttention


def module(dims=2, channels=3, **kwargs):
    torch.manual_seed(0)
    return UncertainSpatialAttention(dims, channels, 4, **kwargs)


def set_gaussian(usa, mean=0.0, variance=1.0):
    with torch.no_grad():
        usa.mean.copy_(torch.as_tensor(mean).expand_as(usa.mean))
        usa.log_variance.copy_(torch.as_tensor(variance).log().expand_as(usa.log_variance))
    return usa


@pytest.mark.parametrize("size", [(1, 1), (9, 4), (2, 3, 5)])
def test_gate_is_one_map_between_one_and_two(size):
    usa = module(len(size))
    gate = usa(torch.randn(2, 3, *size))
    assert gate.shape == (2, 4, *size)
    assert (gate == gate[:, :1]).all()
    assert gate.min() > 1 and gate.max() < 2


def test_gate_is_one_plus_sigmoid_of_the_softened_feature():
    usa = module()
    anchor = torch.randn(2, 3, 7, 6)
    weight, bias = usa.to_gate.weight[0, :, 0, 0], usa.to_gate.bias
    projected = torch.einsum("c,nchw->nhw", weight, usa.soften(anchor)) + bias
    torch.testing.assert_close(usa(anchor), (1 + torch.sigmoid(projected))[:, None].expand(-1, 4, -1, -1))


@pytest.mark.parametrize("size", [(8, 7), (5, 6, 4)])
def test_narrow_gaussian_changes_nothing(size):
    anchor = torch.randn(2, 3, *size)
    torch.testing.assert_close(set_gaussian(module(len(size)), variance=1e-4).soften(anchor), anchor)


@pytest.mark.parametrize("size", [(8, 7), (5, 6, 4)])
@pytest.mark.parametrize("variance", [0.1, 1.0, 50.0])
def test_never_below_the_feature(size, variance):
    """f_anc = max(f * k, f)."""
    anchor = torch.randn(2, 3, *size)
    softened = set_gaussian(module(len(size)), variance=variance).soften(anchor)
    assert (softened >= anchor).all()
    if variance > 0.5:
        assert (softened > anchor).any()
    assert softened.max() <= anchor.max() + 1e-6  # a mean of values exceeds none of them


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mean_moves_along_its_axis(axis):
    usa = set_gaussian(module(3, 1), variance=1e-4)
    with torch.no_grad():
        usa.mean[axis] = 1.0  # looks one voxel ahead
    anchor = torch.zeros(1, 1, 5, 5, 5)
    anchor[0, 0, 2, 2, 2] = 1
    before = [2, 2, 2]
    before[axis] -= 1
    expected = anchor.clone()
    expected[(0, 0, *before)] = 1
    torch.testing.assert_close(usa.soften(anchor), expected)


@pytest.mark.parametrize(("size", "kernel_size"), [((9, 8), 5), ((6, 11), 3), ((5, 6, 7), 5), ((4, 4), 1)])
def test_against_a_dense_gaussian(size, kernel_size):
    """One convolution with the full d-dimensional window, normalised to sum one, per channel; the border goes on."""
    dims, radius = len(size), kernel_size // 2
    usa = module(dims, kernel_size=kernel_size)
    with torch.no_grad():
        usa.mean.copy_(torch.randn(dims, 3))
        usa.log_variance.copy_(torch.randn(3))
    kernel = torch.empty(3, 1, *[kernel_size] * dims)
    for channel in range(3):
        for index in torch.cartesian_prod(*[torch.arange(kernel_size)] * dims):
            offset = index - radius - usa.mean[:, channel]
            kernel[(channel, 0, *index)] = torch.exp(-0.5 * offset.square().sum() / usa.log_variance[channel].exp())
    kernel = kernel / kernel.flatten(1).sum(dim=1).reshape(3, *[1] * (dims + 1))
    anchor = torch.randn(2, 3, *size)
    convolve = F.conv2d if dims == 2 else F.conv3d
    blurred = convolve(F.pad(anchor, [radius] * (2 * dims), mode="replicate"), kernel.detach(), groups=3)
    torch.testing.assert_close(usa.soften(anchor), torch.maximum(blurred, anchor))


@pytest.mark.parametrize("size", [(8, 7), (5, 6, 4)])
@pytest.mark.parametrize("value", [-1.0, 2.0])
def test_no_frame_is_drawn_around_an_even_image(size, value):
    """With zeros beyond the border -1 became -0.49 in a corner."""
    anchor = torch.full((1, 3, *size), value)
    torch.testing.assert_close(set_gaussian(module(len(size))).soften(anchor), anchor)


def test_gaussian_sums_to_one_and_stays_finite():
    for variance in (1e-8, 1.0, 1e8):
        usa = set_gaussian(module(), mean=0.4, variance=variance)
        for axis in range(2):
            window = usa.gaussian(axis)
            assert window.shape == (3, 5) and window.isfinite().all()
            torch.testing.assert_close(window.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_module_of_another_type_softens_in_its_type(dtype):
    usa, anchor = set_gaussian(module(), mean=0.4), torch.randn(1, 3, 6, 5)
    expected = usa.soften(anchor)
    softened = usa.to(dtype).soften(anchor.to(dtype))
    assert softened.dtype == dtype
    torch.testing.assert_close(softened.float(), expected, rtol=0.02, atol=0.02)


def test_mean_and_variance_learn():
    usa = module()
    usa(torch.randn(2, 3, 8, 8)).square().sum().backward()
    for name, parameter in usa.named_parameters():
        assert parameter.grad.abs().min() > 0, name


@pytest.mark.parametrize("kernel_size", [0, 4, -3])
def test_bad_window(kernel_size):
    with pytest.raises(ValueError, match=f"kernel_size must be odd and positive, got {kernel_size}"):
        module(kernel_size=kernel_size)
