import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from medsegdiff_bundle.networks.layers import (
    ResBlock,
    convolution,
    crop_like,
    is_left_alone,
    normalization,
    pad_to_multiple,
    per_axis,
    upsampling,
)
from medsegdiff_bundle.networks.timestep_embedding import TimestepEmbedding


@pytest.mark.parametrize(
    ("size", "factor", "minimum", "expected"),
    [
        ((1, 1), 4, 8, (8, 8)),
        ((8, 9), 4, 8, (8, 12)),
        ((13, 16), 8, 16, (16, 16)),
        ((1, 5, 17), 2, 4, (4, 6, 18)),
        ((3, 3), 1, 1, (3, 3)),
        ((5, 5, 5), (1, 4, 2), (2, 8, 4), (5, 8, 6)),
    ],
)
def test_padding_and_back(size, factor, minimum, expected):
    x = torch.randn(2, 3, *size)
    each = [[edge] * len(size) if isinstance(edge, int) else list(edge) for edge in (factor, minimum)]
    padded = pad_to_multiple(x, *each)
    assert padded.shape == (2, 3, *expected)
    assert torch.equal(crop_like(padded, list(size)), x)
    corner = (slice(None), slice(None), *[-1] * len(size))
    assert torch.equal(padded[corner], x[corner])


def test_arguments_of_each_level_and_axis():
    assert per_axis("strides", None, 2, 3, 2) == [[2, 2]] * 3
    assert per_axis("strides", [1, (2, 3), [1, 1]], 2, 3, 2) == [[1, 1], [2, 3], [1, 1]]
    for wrong in ([1], [1, 1, 1], [0, 1], [[1, 0], 1], [[1], 1], [[1, 1, 1], 1]):
        with pytest.raises(ValueError, match="strides must have 2 entries, each a positive number or 2 of them, got"):
            per_axis("strides", wrong, 2, 2, 2)


def test_no_padding_no_copy():
    x = torch.randn(1, 1, 8, 8)
    assert pad_to_multiple(x, [4, 4], [8, 8]) is x


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (2, 2), (3, 1), (6, 2), (8, 8), (9, 1), (12, 4), (20, 4), (64, 8)]
)
def test_normalization_takes_any_channels(channels, groups):
    norm = normalization(channels)
    assert (norm.num_groups, norm.num_channels) == (groups, channels)
    assert norm(torch.randn(1, channels, 2, 2)).isfinite().all()


@pytest.mark.parametrize("dims", [2, 3])
def test_sizes_of_convolutions(dims):
    x = torch.randn(1, 2, *(4, 6, 8)[:dims])
    assert convolution(dims, 2, 5, 3)(x).shape[1:] == (5, *x.shape[2:])
    assert convolution(dims, 2, 5, 1)(x).shape[1:] == (5, *x.shape[2:])
    assert convolution(dims, 2, 5, 3, stride=2)(x).shape[1:] == (5, *(n // 2 for n in x.shape[2:]))
    assert upsampling(dims, 2, 5, 3)(x).shape[1:] == (5, *(3 * n for n in x.shape[2:]))


@pytest.mark.parametrize("time_dim", [0, 8])
@pytest.mark.parametrize("out_channels", [4, 6])
def test_res_block(time_dim, out_channels):
    block = ResBlock(2, 4, out_channels, time_dim)
    x, time = torch.randn(3, 4, 5, 5), torch.randn(3, time_dim) if time_dim else None
    out = block(x, time)
    assert out.shape == (3, out_channels, 5, 5)
    with torch.no_grad():
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
    torch.testing.assert_close(block(x, time), block.skip(x))
    if time_dim:
        assert not torch.equal(ResBlock(2, 4, 4, 8)(x, time), ResBlock(2, 4, 4, 8)(x, -time))


def test_res_block_is_scaled_and_shifted_by_time():
    block = ResBlock(2, 4, 4, 8)
    with torch.no_grad():
        block.scale_shift.weight.zero_()
        block.scale_shift.bias.copy_(torch.tensor([-1.0] * 4 + [0.5] * 4))  # scale -1, shift 0.5: nothing of x remains
        block.conv2.bias.zero_()
    x = torch.randn(2, 4, 5, 5)
    h = block(x, torch.randn(2, 8)) - x
    expected = block.conv2(torch.nn.functional.silu(torch.full((2, 4, 5, 5), 0.5)))
    torch.testing.assert_close(h, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_res_block_with_one_time_for_all_is_as_with_one_each(dtype):
    block = ResBlock(2, 4, 6, 8)
    torch.nn.init.normal_(block.norm2.weight)
    torch.nn.init.normal_(block.norm2.bias)
    x, time = torch.randn(3, 4, 5, 5), torch.randn(1, 8)
    gradients = []
    for of_each in (time, time.expand(3, 8)):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            out = block(x, of_each)
        gradients.append([out, *torch.autograd.grad(out.float().square().sum(), block.parameters())])
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    for one, each in zip(*gradients, strict=True):
        assert (one - each).norm() <= tolerance * each.norm()


def test_timestep_embedding_by_hand():
    embedding = TimestepEmbedding(4)
    embedding.mlp = torch.nn.Identity()
    out = embedding(torch.tensor([0, 3]))
    expected = [[0, 0, 1, 1], [math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]]
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float32))


def test_timestep_embedding_tells_timesteps_apart():
    embedding = TimestepEmbedding(32)
    out = embedding(torch.arange(1000))
    assert out.shape == (1000, 32)
    distance = torch.cdist(out, out) + 1e3 * torch.eye(1000)
    assert distance.min() > 1e-4
    assert embedding(torch.tensor(3)).shape == embedding(torch.tensor([3])).shape == (1, 32)


onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@onednn
def test_one_volume_is_convolved_as_two_are():
    """PyTorch keeps a small batch of one from oneDNN, which takes it to a slower operator."""
    layer = convolution(3, 8, 8, 3)
    volumes = torch.randn(2, 8, 10, 12, 9)
    events = {}
    with torch.no_grad():
        for number in (1, 2):
            with profile(activities=[ProfilerActivity.CPU]) as found:
                result = layer(volumes[:number])
            events[number] = {event.key for event in found.key_averages()} & {
                "aten::mkldnn_convolution",
                "aten::slow_conv3d",
            }
        torch.testing.assert_close(layer(volumes[:1])[0], result[0], rtol=0, atol=1e-5)
    assert events == {1: {"aten::mkldnn_convolution"}, 2: {"aten::mkldnn_convolution"}}


@onednn
def test_one_volume_keeps_the_operator_that_others_know():
    """bfloat16, kernels of one voxel, oneDNN that is switched off, and what is recorded for another program."""
    weight, volume = torch.zeros(2, 2, 3, 3, 3), torch.zeros(1, 2, 4, 4, 4)
    assert is_left_alone(volume, weight)
    assert not is_left_alone(torch.zeros(2, 2, 4, 4, 4), weight)
    assert not is_left_alone(volume.bfloat16(), weight.bfloat16())
    assert not is_left_alone(volume, weight[:, :, :1, :1, :1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_left_alone(volume, weight)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not is_left_alone(volume, weight)
    traced = torch.jit.trace(convolution(3, 2, 2, 3), volume)
    assert "mkldnn" not in str(traced.inlined_graph) and "mkldnn" not in str(
        torch.jit.script(convolution(3, 2, 2, 3)).inlined_graph
    )


def test_gradients_of_one_volume():
    layer, volume = convolution(3, 2, 3, 3, 2), torch.randn(1, 2, 4, 6, 4, requires_grad=True)
    gradients = torch.autograd.grad(layer(volume).square().sum(), [volume, *layer.parameters()])
    with torch.backends.mkldnn.flags(enabled=False):
        expected = torch.autograd.grad(layer(volume).square().sum(), [volume, *layer.parameters()])
    for gradient, each in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, each, rtol=1e-4, atol=1e-4)
