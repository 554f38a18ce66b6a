import inspect
import io
import itertools
import re

import onnx
import onnxruntime
import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from medsegdiff_bundle.networks import (
    BaselineNetwork,
    ConditionFeatures,
    ConditionUNet,
    DenoisingUNet,
    MedSegDiff,
    NeuralBandPassFilter,
    SpectrumSpaceTransformer,
    TrainingNetwork,
    UncertainSpatialAttention,
)
from medsegdiff_bundle.networks.layers import ResBlock
from medsegdiff_bundle.schedulers import DDIMScheduler

SWITCHES = {
    "default": {},
    "no_anchor": {"num_anchor_levels": 0},
    "no_transformer": {"num_transformer_blocks": 0},
    "no_filter": {"num_filter_blocks": 0},
    "no_concat": {"image_concat": False},
    "one_anchor_level_one_block": {"num_anchor_levels": 1, "num_transformer_blocks": 1, "num_filter_blocks": 1},
    "residual": {"anchor_residual": True},
    "residual_no_concat": {"anchor_residual": True, "image_concat": False},
    "stop_gradient": {"stop_gradient": True},
    "epsilon": {"prediction_type": "epsilon"},
    "big_tokens": {"token_size": 3, "embed_dim": 6},
    "wider_denoiser": {"denoiser_channels": (6, 4, 10), "num_res_blocks": 2, "num_heads": 5},
    "blocks_of_dynunet": {"residual_condition": False, "num_res_blocks": 2},
    "coarse_denoiser": {"denoiser_channels": (6, 8)},
    "coarse_residual": {"denoiser_channels": (4, 6), "anchor_residual": True, "image_concat": False},
    "plain": {"num_anchor_levels": 0, "num_transformer_blocks": 0},
    "plain_residual": {"num_anchor_levels": 0, "num_transformer_blocks": 0, "anchor_residual": True},
}
every_switch = pytest.mark.parametrize("kwargs", SWITCHES.values(), ids=SWITCHES.keys())


def network(spatial_dims=2, in_channels=1, out_channels=3, **kwargs):
    torch.manual_seed(0)
    kwargs = {"channels": (4, 6, 8), "num_heads": 2, **kwargs}
    return MedSegDiff(spatial_dims, in_channels, out_channels, **kwargs).eval()


def data(net, batch=2, size=(13, 10), seed=1):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, net.in_channels, *size, generator=generator)
    return image, torch.randn(batch, net.out_channels, *size, generator=generator)


def perturbed(net):
    """No parameter at a special value such as zero, where a gradient could vanish by symmetry."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


# Shapes


@pytest.mark.parametrize(
    ("spatial_dims", "in_channels", "out_channels", "batch", "size"),
    [
        (2, 1, 2, 1, (1, 1)),
        (2, 3, 2, 2, (7, 5)),
        (2, 3, 3, 1, (33, 8)),
        (2, 4, 15, 2, (1, 19)),
        (3, 1, 3, 1, (1, 1, 1)),
        (3, 1, 2, 2, (9, 4, 5)),
        (3, 4, 4, 1, (17, 3, 8)),
        (3, 2, 15, 1, (2, 13, 1)),
    ],
)
@pytest.mark.parametrize("prediction_type", ["sample", "epsilon"])
def test_shapes(spatial_dims, in_channels, out_channels, batch, size, prediction_type):
    net = network(spatial_dims, in_channels, out_channels, prediction_type=prediction_type, num_transformer_blocks=1)
    image, mask = data(net, batch, size)
    deepest = []
    net.condition_model.encoder[-1].register_forward_hook(lambda module, inputs, output: deepest.append(output.shape))
    net.denoiser.encoder[-1][-1].register_forward_hook(lambda module, inputs, output: deepest.append(output.shape))
    with torch.no_grad():
        logits = net(image)
        prediction = net(image, mask, torch.tensor(7))
    assert logits.shape == prediction.shape == mask.shape
    assert logits.dtype == prediction.dtype == torch.float32
    assert logits.isfinite().all() and prediction.isfinite().all()
    assert len(deepest) == 3
    for shape in deepest:
        assert min(shape[2:]) >= 2
        assert all(s == max(2, -(-whole // 4)) for s, whole in zip(shape[2:], size, strict=True))


@pytest.mark.parametrize(("spatial_dims", "in_channels", "out_channels"), [(2, 3, 2), (3, 1, 3)])
def test_defaults_make_a_network(spatial_dims, in_channels, out_channels):
    net = MedSegDiff(spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels).eval()
    image, mask = data(net, 1, (9, 20, 16)[:spatial_dims])
    with torch.no_grad():
        assert net(image=image, mask=mask, timesteps=torch.tensor(3)).shape == mask.shape
    assert len(net.anchor_gates) == 2 and len(net.denoiser.transformer.condition_from_denoiser) == 2


@pytest.mark.parametrize("levels", [2, 5])
def test_other_depths(levels):
    net = network(channels=tuple(range(2, 2 + 2 * levels, 2)), num_anchor_levels=1, num_heads=1)
    image, mask = data(net)
    assert net(image, mask, torch.tensor(3)).shape == mask.shape


@every_switch
@pytest.mark.parametrize(("spatial_dims", "size"), [(2, (13, 10)), (3, (6, 5, 9))])
def test_every_switch_runs_in_2d_and_3d(kwargs, spatial_dims, size):
    net = network(spatial_dims, **kwargs)
    image, mask = data(net, size=size)
    assert net(image, mask, torch.tensor([0, 999])).shape == mask.shape


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32, torch.float64])
def test_timesteps_of_any_kind(dtype):
    net = network()
    image, mask = data(net)
    with torch.no_grad():
        features = net.encode(image)
        expected = net.denoise(mask, torch.tensor([8, 8]), features)
        for timesteps in (torch.tensor(8), torch.tensor([8]), torch.tensor([8, 8])):
            torch.testing.assert_close(net.denoise(mask, timesteps.to(dtype), features), expected)
        each = net.denoise(mask, torch.tensor([8, 500]).to(dtype), features)
    torch.testing.assert_close(each[0], expected[0])
    assert (each[1] - expected[1]).abs().max() > 1e-4


def test_float_timesteps_are_not_rounded():
    net = network()
    image, mask = data(net)
    assert not torch.equal(net(image, mask, torch.tensor(8.0)), net(image, mask, torch.tensor(8.5)))


def test_one_network_takes_every_size():
    net = network(num_anchor_levels=1)
    names = set(net.state_dict())
    for size in [(5, 5), (40, 12), (1, 1)]:
        image, mask = data(net, size=size)
        assert net(image, mask, torch.tensor(1)).shape == mask.shape
    assert set(net.state_dict()) == names


def test_padding_only_replicates_the_border():
    net = network()
    image, mask = data(net, size=(13, 10))
    pad = (0, 2, 0, 3)  # 10 -> 12, 13 -> 16
    padded = [nn.functional.pad(x, pad, mode="replicate") for x in (image, mask)]
    with torch.no_grad():
        whole = net(*padded, torch.tensor(5))
        torch.testing.assert_close(net(image, mask, torch.tensor(5)), whole[..., :13, :10])
        torch.testing.assert_close(net(image), net(padded[0])[..., :13, :10])


# One way to the same numbers


@every_switch
def test_image_alone_gives_the_anchor(kwargs):
    net = network(**kwargs)
    image, mask = data(net)
    features = net.encode(image)
    assert isinstance(features, ConditionFeatures)
    assert torch.equal(net(image), features.logits)
    t = torch.tensor([3, 900])
    assert torch.equal(net(image, mask, t), net.denoise(mask, t, features))


@every_switch
def test_features_of_one_image_serve_many_masks(kwargs):
    net = perturbed(network(**kwargs))
    image, _ = data(net, batch=1)
    _, masks = data(net, batch=3)
    t = torch.tensor([2, 300, 900])
    with torch.no_grad():
        one = net.denoise(masks, t, net.encode(image))
        many = net.denoise(masks, t, net.encode(image.repeat(3, 1, 1, 1)))
        each = torch.cat([net(image, masks[i : i + 1], t[i]) for i in range(3)])
    torch.testing.assert_close(one, many)
    torch.testing.assert_close(one, each)


def test_same_result_twice_and_in_any_batch():
    net = network(dropout=0.5)
    image, mask = data(net, batch=3)
    t = torch.tensor([1, 50, 700])
    with torch.no_grad():
        first, second = net(image, mask, t), net(image, mask, t)
        alone = net(image[1:2], mask[1:2], t[1:2])
    assert torch.equal(first, second)
    torch.testing.assert_close(first[1:2], alone)


def test_dropout_is_on_in_training_only():
    net = network(dropout=0.5).train()
    image, mask = data(net)
    assert not torch.equal(net(image), net(image))
    assert not torch.equal(net(image, mask, torch.tensor(1)), net(image, mask, torch.tensor(1)))


def test_predicted_mask_is_a_scaled_softmax():
    net = network()
    image, mask = data(net)
    features = net.encode(image)
    prediction = net.denoise(mask, torch.tensor(4), features)
    logits = net.denoise_logits(mask, torch.tensor(4), features)
    torch.testing.assert_close(prediction, 2 * logits.softmax(dim=1) - 1)
    assert prediction.min() >= -1 and prediction.max() <= 1


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_other_predictions_are_unbounded(prediction_type):
    net = network(prediction_type=prediction_type)
    image, mask = data(net)
    features = net.encode(image)
    logits = net.denoise_logits(mask, torch.tensor(4), features)
    assert torch.equal(net.denoise(mask, torch.tensor(4), features), logits)


# Switches


@every_switch
def test_the_denoiser_sees_image_mask_and_timestep(kwargs):
    net = perturbed(network(**kwargs))
    image, mask = data(net)
    other_image, other_mask = data(net, seed=5)
    with torch.no_grad():
        base = net(image, mask, torch.tensor(4))
        for changed in (
            net(other_image, mask, torch.tensor(4)),
            net(image, other_mask, torch.tensor(4)),
            net(image, mask, torch.tensor(900)),
        ):
            assert (changed - base).abs().max() > 1e-5


def names(net):
    return {name.partition(".")[0] for name, _ in net.named_parameters()}


def test_switched_off_parts_are_gone():
    plain = network(num_anchor_levels=0, num_transformer_blocks=0)
    assert names(plain) == {"condition_model", "denoiser", "image_stem", "timestep_embedding"}
    assert not any("transformer" in name for name, _ in plain.named_parameters())
    assert names(network(image_concat=False)) == {"condition_model", "denoiser", "anchor_gates", "timestep_embedding"}
    no_filter = network(num_filter_blocks=0)
    assert no_filter.denoiser.transformer is not None
    assert not any("band_pass_filter" in name for name, _ in no_filter.named_parameters())


def test_all_off_is_a_conditional_unet_of_mask_and_image():
    """With every switch off the denoiser is a U-Net whose first convolution sees [mask, image], and nothing else."""
    net = perturbed(network(num_anchor_levels=0, num_transformer_blocks=0, prediction_type="epsilon"))
    image, mask = data(net, size=(12, 16))
    features = net.encode(image)
    assert features.gates == [] and features.tokens is None and features.key is None and features.value is None
    joint = nn.Conv2d(4, 4, 3, padding=1)
    joint.weight.data = torch.cat([net.denoiser.stem.weight.data, net.image_stem.weight.data], dim=1)
    joint.bias.data = net.denoiser.stem.bias.data + net.image_stem.bias.data
    time = net.timestep_embedding(torch.tensor(6))
    with torch.no_grad():
        h = joint(torch.cat([mask, image], dim=1))
        skips = []
        for down, blocks in zip(net.denoiser.downs, net.denoiser.encoder, strict=True):
            h = blocks[0](down(h), time)
            skips.append(h)
        skips.pop()
        for up, blocks in zip(net.denoiser.ups, net.denoiser.decoder, strict=True):
            h = blocks[0](torch.cat([up(h), skips.pop()], dim=1), time)
        expected = net.denoiser.head(nn.functional.silu(net.denoiser.norm(h)))
        torch.testing.assert_close(net(image, mask, torch.tensor(6)), expected)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_gates_per_anchor_level(levels):
    net = network(num_anchor_levels=levels)
    image, mask = data(net, size=(12, 16))
    features = net.encode(image)
    assert [tuple(gate.shape) for gate in features.gates] == [(2, 4, 12, 16), (2, 6, 6, 8)][:levels]
    without = features._replace(gates=[torch.ones_like(gate) for gate in features.gates])
    same = torch.equal(net.denoise(mask, torch.tensor(1), without), net.denoise(mask, torch.tensor(1), features))
    assert same == (levels == 0)


def test_residual_is_added_to_the_anchor():
    net = network(anchor_residual=True)
    image, mask = data(net)
    features = net.encode(image)
    with torch.no_grad():
        net.denoiser.head.weight.zero_()
        net.denoiser.head.bias.zero_()
    torch.testing.assert_close(net.denoise_logits(mask, torch.tensor(9), features), features.logits)
    torch.testing.assert_close(net(image, mask, torch.tensor(9)), 2 * net(image).softmax(dim=1) - 1)


def condition_gradients(net):
    """Greatest gradient of each condition parameter that the denoiser's output alone gives; -1 where there is none."""
    image, mask = data(net)
    _, mask = data(net, seed=7)
    prediction, _ = TrainingNetwork(net)(image, mask, torch.tensor([5, 400]))
    prediction.square().sum().backward()
    return {
        name: -1.0 if parameter.grad is None else parameter.grad.abs().max().item()
        for name, parameter in net.condition_model.named_parameters()
    }


@pytest.mark.parametrize("residual", [False, True])
def test_stop_gradient(residual):
    free = condition_gradients(perturbed(network(anchor_residual=residual)))
    # The anchor's head is reached by no denoiser loss: neither gates nor embedding come from it, the residual detaches.
    assert all((value > 0) == (not name.startswith(("head", "norm."))) for name, value in free.items())
    stopped = condition_gradients(perturbed(network(anchor_residual=residual, stop_gradient=True)))
    assert set(stopped.values()) == {-1.0}


def test_stop_gradient_changes_no_number():
    image, mask = data(network())
    a, b = (network(stop_gradient=stop)(image, mask, torch.tensor(3)) for stop in (False, True))
    assert torch.equal(a, b)


def test_residual_has_no_gradient_through_the_logits():
    net = network(anchor_residual=True, num_anchor_levels=0, num_transformer_blocks=0)
    assert set(condition_gradients(net).values()) == {-1.0}


# Training


SIX = ("num_anchor_levels", "num_transformer_blocks", "num_filter_blocks", "image_concat", "residual", "stop_gradient")
COMBINATIONS = [
    dict(zip(SIX, values, strict=True))
    for values in itertools.product((0, 2), (0, 2), (0, 2), (False, True), (False, True), (False, True))
    if (values[3] or values[0] or values[1]) and (values[1] or not values[2])
]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_parameter_learns(spatial_dims):
    assert len(COMBINATIONS) == 44
    for combination in COMBINATIONS if spatial_dims == 2 else COMBINATIONS[-1:]:
        kwargs = {"anchor_residual" if key == "residual" else key: value for key, value in combination.items()}
        net = perturbed(network(spatial_dims, channels=(4, 4, 6), **kwargs))
        image, mask = data(net, size=(10, 9, 8)[:spatial_dims])
        prediction, logits = TrainingNetwork(net)(image, mask, torch.tensor([5, 700]))
        generator = torch.Generator().manual_seed(3)
        weights = torch.randn(mask.shape, generator=generator)  # a sum alone has no gradient through a softmax
        (weights * (prediction.softmax(dim=1) + logits.softmax(dim=1))).sum().backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, (name, combination)
            assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, (name, combination)


def test_training_network_returns_prediction_and_anchor():
    net = network()
    image, mask = data(net)
    t = torch.tensor([5, 700])
    training = TrainingNetwork(net)
    prediction, logits = training(image, mask=mask, timesteps=t)
    assert torch.equal(logits, net(image))
    assert torch.equal(2 * prediction.softmax(dim=1) - 1, net(image, mask, t))
    assert training.network is net


@pytest.mark.parametrize("size", [(10, 9), (6, 5, 8)])
@pytest.mark.parametrize("kwargs", [{"anchor_residual": True}, {"image_concat": False, "num_transformer_blocks": 0}])
def test_drawn_masks_of_an_image_share_its_features(size, kwargs):
    """Each is what it is alone, and the image is encoded once."""
    net = perturbed(network(len(size), **kwargs))
    image, mask = data(net, size=size)
    drawn = torch.randn(2, 2, *mask.shape[1:])
    t = torch.tensor([999, 999])
    with torch.no_grad():
        prediction, logits = TrainingNetwork(net)(image, drawn, t)
        assert prediction.shape == drawn.shape and torch.equal(logits, net(image))
        for member in range(2):
            alone, _ = TrainingNetwork(net)(image, drawn[:, member], t)
            torch.testing.assert_close(prediction[:, member], alone, atol=1e-4, rtol=1e-4)


def test_a_training_step_looks_at_no_value_and_copies_none_from_the_cpu():
    """Either would break the capture of a CUDA graph; tensors without values allow neither."""
    scheduler = DDIMScheduler(100, "cosine", "sample")
    training = TrainingNetwork(network(anchor_residual=True), recycling=0.5, scheduler=scheduler).to("meta")
    image, mask = (x.to("meta") for x in data(training.network))
    prediction, logits = training(image, mask, torch.zeros(len(mask), dtype=torch.long, device="meta"))
    (prediction.mean() + logits.mean()).backward()
    assert prediction.shape == logits.shape == mask.shape


@pytest.mark.parametrize(("inner", "outer"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("kwargs", [{}, {"anchor_residual": True}, {"prediction_type": "epsilon"}])
def test_bfloat16_is_close(inner, outer, kwargs):
    net = perturbed(network(3, **kwargs))
    image, mask = data(net, size=(9, 8, 10))
    t = torch.tensor([5, 700])
    half = []
    net.condition_model.head.register_forward_hook(lambda module, inputs, output: half.append(output.dtype))
    with torch.no_grad():
        expected = TrainingNetwork(net)(image, mask, t)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
            actual = TrainingNetwork(net, amp=inner)(image, mask, t)
    assert half == [torch.float32, torch.bfloat16]
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == torch.float32 and a.isfinite().all()
        assert (a - b).abs().max() < 0.05 * b.abs().max()


def test_bfloat16_has_gradients_everywhere():
    net = perturbed(network())
    image, mask = data(net)
    prediction, logits = TrainingNetwork(net, amp=True)(image, mask, torch.tensor([5, 700]))
    (prediction.square().sum() + logits.square().sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.dtype == torch.float32, name


def test_filter_is_float32_under_autocast():
    net = network()
    image, mask = data(net)
    masks = []
    for module in net.modules():
        if type(module).__name__ == "NeuralBandPassFilter":
            module.register_forward_hook(lambda module, inputs, output: masks.append(output.dtype))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = net.encode(image)
        output = net.denoise(mask, torch.tensor(4), features)
    assert features.key.dtype == torch.bfloat16
    assert masks == [torch.float32] * 4
    assert output.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "weights", "tensors"),
    [
        ("default", 20756, 254),
        ("plain", 11242, 132),
        ("blocks_of_dynunet", 26776, 312),
        ("coarse_denoiser", 22955, 224),
    ],
)
def test_weights_that_were_saved_fit(name, weights, tensors):
    """Their number is part of the format: widths inside of a block change it."""
    saved = network(**SWITCHES[name]).state_dict()
    assert sum(each.numel() for each in saved.values()) == weights and len(saved) == tensors


def test_state_dict_loads_into_a_fresh_network():
    net = perturbed(network())
    keys = list(net.state_dict())
    image, mask = data(net)
    expected = net(image, mask, torch.tensor(4))
    assert list(net.state_dict()) == keys and "timestep_embedding.frequencies" not in keys
    other = network()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(image, mask, torch.tensor(4)), expected)
    assert len({id(p) for p in net.parameters()}) == len(keys)


# Export


@pytest.mark.parametrize(
    "name",
    ["default", "no_filter", "no_concat", "residual", "stop_gradient", "big_tokens", "blocks_of_dynunet", "plain"],
)
def test_torchscript(name):
    net = perturbed(network(**SWITCHES[name]))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(net), buffer)
    buffer.seek(0)
    scripted = torch.jit.load(buffer)
    for size in ((13, 10), (6, 17)):
        image, mask = data(net, size=size)
        with torch.no_grad(), torch.jit.optimized_execution(False):
            torch.testing.assert_close(scripted(image), net(image))
            torch.testing.assert_close(scripted(image, mask, torch.tensor(4)), net(image, mask, torch.tensor(4)))
            features, expected = scripted.encode(image), net.encode(image)
            assert features._fields == expected._fields
            torch.testing.assert_close(tuple(features), tuple(expected))
            t = torch.tensor([4, 600])
            torch.testing.assert_close(scripted.denoise(mask, t, features), net.denoise(mask, t, expected))
            logits = net.denoise_logits(mask, t, expected)
            torch.testing.assert_close(scripted.denoise_logits(mask, t, features), logits)


def test_torchscript_in_3d():
    net = perturbed(network(3))
    scripted = torch.jit.script(net)
    image, mask = data(net, size=(5, 9, 6))
    with torch.no_grad(), torch.jit.optimized_execution(False):
        expected = net(image, mask, torch.tensor(4))
        torch.testing.assert_close(scripted.denoise(mask, torch.tensor(4), scripted.encode(image)), expected)


def test_onnx(tmp_path):
    net = network()
    image, _ = data(net, batch=1)
    torch.onnx.export(net, (image,), str(tmp_path / "model.onnx"), dynamo=True, verbose=False)
    model = onnx.load(str(tmp_path / "model.onnx"))
    onnx.checker.check_model(model)
    assert len(model.graph.input) == len(model.graph.output) == 1
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [1, 3, 13, 10]
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), net(image).detach(), rtol=1e-3, atol=1e-4)


# A denoiser at a coarser level


@pytest.mark.parametrize(
    ("spatial_dims", "strides", "stride"),
    [(2, None, [2, 2]), (3, [[1, 2, 2], 2], [1, 2, 2]), (2, [[2, 1], 2], [2, 1])],
)
def test_a_coarse_denoiser_sees_means_and_answers_linearly(spatial_dims, strides, stride):
    coarse = {"denoiser_channels": (6, 8), "anchor_residual": True, "image_concat": False, "strides": strides}
    net = perturbed(network(spatial_dims, **coarse))
    image, mask = data(net, 1, (8, 8, 8)[:spatial_dims])
    pool = {2: torch.nn.AvgPool2d, 3: torch.nn.AvgPool3d}[spatial_dims](stride)
    means = pool(mask)
    for axis, factor in enumerate(stride):
        means = means.repeat_interleave(factor, dim=axis + 2)
    features, step = net.encode(image), torch.tensor([300])
    correction = net.denoise_logits(mask, step, features) - features.logits
    torch.testing.assert_close(net.denoise_logits(means, step, features) - features.logits, correction)
    assert not torch.allclose(net.denoise_logits(0 * mask, step, features) - features.logits, correction, atol=1e-3)
    assert [gate.shape[2:] for gate in features.gates] == [pool(mask).shape[2:]]


def test_a_coarse_denoiser_is_the_plain_one_of_the_pooled_mask():
    """The same weights, called by themselves at the coarser size."""
    net = perturbed(network(denoiser_channels=(6, 8)))
    image, mask = data(net, 2, (16, 24))
    features = net.encode(image)
    pooled = torch.nn.functional.avg_pool2d(mask, 2)
    time = net.timestep_embedding(torch.tensor([7]))
    arguments = features.stem, features.gates, features.tokens, features.key, features.value
    small = net.denoiser(pooled, time, *arguments)
    expected = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(net.denoise_logits(mask, torch.tensor([7]), features), expected)
    assert features.stem.shape[2:] == pooled.shape[2:]


# Arguments


def left_out(function):
    """What each argument is that need not be given."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


BLOCKS = {"num_res_blocks": 1, "dropout": 0.0, "strides": None, "kernel_sizes": None}


@pytest.mark.parametrize(
    ("part", "given", "expected"),
    [
        (
            MedSegDiff,
            (2, 1, 3, (4, 6)),
            BLOCKS
            | {
                "channels": (32, 64, 128, 256),
                "denoiser_channels": None,
                "residual_condition": True,
                "prediction_type": "sample",
                "num_anchor_levels": None,
                "gaussian_size": 5,
                "num_transformer_blocks": 2,
                "num_filter_blocks": 2,
                "num_heads": 4,
                "embed_dim": None,
                "token_size": 1,
                "image_concat": True,
                "anchor_residual": False,
                "stop_gradient": False,
                "multi_label": False,
            },
        ),
        (ConditionUNet, (2, 1, 3, (4, 6)), BLOCKS | {"residual": True}),
        (DenoisingUNet, (2, 3, (4, 6), 8, None), BLOCKS),
        (SpectrumSpaceTransformer, (2, 4, 4, 4, 2, 8), {"num_blocks": 2, "num_filter_blocks": 2, "token_size": 1}),
        (NeuralBandPassFilter, (2, 1, 8), {"num_blocks": 2, "hidden_dim": 16}),
        (UncertainSpatialAttention, (2, 1, 1), {"kernel_size": 5}),
        (ResBlock, (2, 4, 4), {"time_dim": 0, "dropout": 0.0, "kernel_size": 3}),
        (TrainingNetwork, (nn.Identity(),), {"amp": False, "recycling": 0.0, "scheduler": None}),
        (BaselineNetwork, (nn.Identity(), 1), {"multi_label": False}),
    ],
)
def test_what_is_not_given_is_as_documented(part, given, expected):
    assert left_out(part) == expected
    part(*given, **({"num_heads": 2} if part is MedSegDiff else {}))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"spatial_dims": 3},
        {"out_channels": 2},
        {"out_channels": 1, "multi_label": True},
        {"channels": (1, 1), "num_heads": 1},
        {"denoiser_channels": (4, 1, 8)},
        {"num_anchor_levels": 2},
        {"num_anchor_levels": 0, "num_filter_blocks": 0},
        {"num_transformer_blocks": 0, "image_concat": False},
        {"num_anchor_levels": 0, "num_transformer_blocks": 1, "image_concat": False},
        {"gaussian_size": 1, "num_heads": 8},
        {"prediction_type": "v_prediction"},
    ],
)
def test_the_ends_of_every_range_are_taken(kwargs):
    net = network(**kwargs)
    image, mask = data(net, size=(3, 6, 5)[: 3 if "spatial_dims" in kwargs else 2])
    assert net(image, mask, torch.tensor(4)).shape == mask.shape


def test_regions_are_counted_without_a_background():
    with pytest.raises(ValueError, match="out_channels counts regions and must be at least 1, got 0"):
        network(out_channels=0, multi_label=True)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3, got 1"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"out_channels": 1}, "out_channels counts the background too and must be at least 2, got 1"),
        ({"channels": (8,)}, "two or more levels"),
        ({"denoiser_channels": (8,)}, r"denoiser_channels must have two or more levels.*, got \(8,\) and \(4, 6, 8\)"),
        ({"denoiser_channels": (8, 8, 8, 8)}, r"levels, and no more than channels, got \(8, 8, 8, 8\)"),
        (
            {"denoiser_channels": (8, 8), "prediction_type": "epsilon"},
            "denoiser of 1 levels less .* needs prediction_type 'sample', got 'epsilon'",
        ),
        ({"channels": (8, 0, 8)}, "channels must be positive"),
        ({"num_res_blocks": 0}, "num_res_blocks must be at least 1, got 0"),
        ({"prediction_type": "noise"}, "got 'noise'"),
        ({"num_anchor_levels": 3}, "num_anchor_levels must be between 0 and 2, got 3"),
        ({"num_anchor_levels": -1}, "num_anchor_levels must be between 0 and 2, got -1"),
        ({"num_transformer_blocks": -1}, "cannot be negative, got -1 and 2"),
        ({"num_filter_blocks": -2}, "cannot be negative, got 2 and -2"),
        ({"anchor_residual": True, "prediction_type": "epsilon"}, "anchor_residual needs prediction_type 'sample'"),
        ({"num_heads": 3}, "num_heads must divide the positive token length 8, got 3"),
        ({"num_heads": 0}, "num_heads must divide the positive token length 8, got 0"),
        ({"embed_dim": 0}, "positive token length 0"),
        ({"token_size": 0}, "token_size must be at least 1, got 0"),
        ({"gaussian_size": 4}, "kernel_size must be odd and positive, got 4"),
        ({"image_concat": False, "num_anchor_levels": 0, "num_transformer_blocks": 0}, "Nothing tells the denoiser"),
    ],
)
def test_bad_arguments(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        network(**kwargs)


def test_mask_without_timesteps():
    net = network()
    with pytest.raises(ValueError, match="needs its timesteps"):
        net(*data(net))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_condition_unet_without_residuals_is_dynunet(spatial_dims):
    """With the weights of MONAI's network, and no others, it gives its segmentation."""
    torch.manual_seed(0)
    unet = ConditionUNet(spatial_dims, 3, 2, [4, 6, 8], residual=False)
    dynunet = DynUNet(spatial_dims, 3, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 6, 8])
    for block, theirs in zip(
        [*unet.encoder, *unet.decoder],
        [dynunet.input_block, *dynunet.downsamples, dynunet.bottleneck, *(up.conv_block for up in dynunet.upsamples)],
        strict=True,
    ):
        block[0].load_state_dict(perturbed(theirs).state_dict())
    for up, theirs in zip(unet.ups, dynunet.upsamples, strict=True):
        up.load_state_dict({"weight": theirs.transp_conv.conv.weight, "bias": torch.zeros(up.bias.shape)})
    unet.head.load_state_dict(dynunet.output_block.conv.conv.state_dict())
    image = torch.randn(2, 3, *[16] * spatial_dims)
    torch.testing.assert_close(unet(image)[0], dynunet.eval()(image))
    weights = sum(weight.numel() for weight in dynunet.parameters())
    assert sum(weight.numel() for weight in unet.parameters()) == weights + 6 + 4  # biases of `ups`


@pytest.mark.parametrize("num_res_blocks", [1, 2])
def test_condition_unet_alone(num_res_blocks):
    model = ConditionUNet(2, 3, 5, (4, 6, 8), num_res_blocks)
    logits, features, embedding = model(torch.randn(2, 3, 8, 12))
    assert logits.shape == (2, 5, 8, 12) and embedding.shape == (2, 8, 2, 3)
    assert [tuple(f.shape) for f in features] == [(2, 4, 8, 12), (2, 6, 4, 6)]


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("recycling", [0.0, 1.0])
def test_recycling_feeds_the_networks_own_masks(recycling, amp):
    """With everything recycled the true mask cannot matter; without, it must. Every weight keeps its gradient.

    Autocast caches the weights that it casts: those of the pass without gradients must not serve the one with.
    """
    torch.manual_seed(0)
    network = MedSegDiff(2, 1, 2, channels=(4, 8, 8), num_heads=2)
    training = TrainingNetwork(network, amp, recycling, DDIMScheduler(prediction_type="sample"))
    image, timesteps = torch.randn(2, 1, 16, 16), torch.tensor([3, 500])
    outputs = []
    for mask in (torch.zeros(2, 2, 16, 16), torch.ones(2, 2, 16, 16)):
        torch.manual_seed(1)
        outputs.append(training(image, mask, timesteps)[0])
    assert torch.equal(*outputs) == (recycling == 1.0)
    outputs[0].sum().backward()
    assert all(weight.grad is not None for weight in network.denoiser.parameters())


def test_a_recycled_mask_is_the_networks_own_from_pure_noise():
    """By the steps of the paper: predicted from noise at the last timestep, noised to the sample's, some of them."""
    network, seen = perturbed(MedSegDiff(2, 1, 2, channels=(4, 8), num_heads=2)), []
    scheduler = DDIMScheduler(100, "cosine", "sample")
    training = TrainingNetwork(network, False, 0.3, scheduler)
    image, mask = torch.randn(12, 1, 8, 8), torch.randn(12, 2, 8, 8)
    timesteps = torch.arange(0, 96, 8)
    hook = network.denoiser.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(5)
    training(image, mask, timesteps)
    hook.remove()
    torch.manual_seed(5)
    with torch.no_grad():
        own = network(image, torch.randn_like(mask), torch.full((12,), 99))
    recycled = scheduler.add_noise(own, torch.randn_like(mask), timesteps)
    chosen = torch.rand(12) < 0.3
    assert 0 < chosen.sum() < 12
    assert len(seen[0]) == chosen.sum()  # the others are not denoised for nothing
    torch.testing.assert_close(seen[-1], torch.where(chosen.reshape(-1, 1, 1, 1), recycled, mask))


def test_recycling_needs_a_scheduler_a_probability_and_masks():
    network = MedSegDiff(2, 1, 2, channels=(4, 8, 8), num_heads=2)
    scheduler = DDIMScheduler()
    with pytest.raises(ValueError, match="from 0 to 1, got 1.5"):
        TrainingNetwork(network, recycling=1.5, scheduler=scheduler)
    with pytest.raises(ValueError, match="from 0 to 1, got -0.1"):
        TrainingNetwork(network, recycling=-0.1, scheduler=scheduler)
    with pytest.raises(ValueError, match="recycling 0.5 needs a scheduler"):
        TrainingNetwork(network, recycling=0.5)
    network = MedSegDiff(2, 1, 2, channels=(4, 8, 8), num_heads=2, prediction_type="epsilon")
    with pytest.raises(ValueError, match="needs prediction_type 'sample', got 'epsilon'"):
        TrainingNetwork(network, recycling=0.5, scheduler=scheduler)


# Voxels that are longer along some axes


@pytest.mark.parametrize("residual", [True, False])
def test_strides_and_kernels_per_axis(residual):
    """Levels halve the axes whose strides say so, in both U-Nets, and any size is taken."""
    network = MedSegDiff(
        3,
        1,
        3,
        (4, 8, 8),
        num_heads=2,
        strides=[[1, 2, 2], 2],
        kernel_sizes=[[1, 3, 3], 3, 3],
        residual_condition=residual,
    ).eval()
    assert (network.size_factors, network.size_factor) == ([2, 4, 4], 4)
    image, mask = torch.randn(1, 1, 5, 9, 12), torch.randn(1, 3, 5, 9, 12)
    features = network.encode(image)
    assert [gate.shape[2:] for gate in features.gates] == [(6, 12, 12), (6, 6, 6)]
    assert features.tokens.shape[1] == 3 * 3 * 3
    assert network.denoise(mask, torch.tensor(5), features).shape == mask.shape
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(image), network(image))
    kernels = {
        tuple(layer.kernel_size) for layer in network.condition_model.encoder[0].modules() if hasattr(layer, "stride")
    }
    assert kernels == {(1, 3, 3)}


@pytest.mark.parametrize(
    ("strides", "kernels", "stride", "kernel"),
    [(None, None, (2, 2), (3, 3)), ([1], [3, 5], (1, 1), (5, 5)), ([[1, 2]], [1, [1, 3]], (1, 2), (1, 3))],
)
def test_each_unet_takes_its_strides_and_kernels(strides, kernels, stride, kernel):
    sizes = {"strides": strides, "kernel_sizes": kernels}
    for unet in (ConditionUNet(2, 1, 3, (4, 6), **sizes), DenoisingUNet(2, 3, (4, 6), 8, None, **sizes)):
        assert unet.downs[1].stride == unet.ups[0].stride == stride
        assert unet.downs[1].kernel_size == unet.encoder[1][0].conv1.kernel_size == kernel


def test_strides_of_none_are_those_of_two():
    torch.manual_seed(0)
    plain = MedSegDiff(2, 1, 2, (4, 8, 8), num_heads=2).eval()
    given = MedSegDiff(2, 1, 2, (4, 8, 8), num_heads=2, strides=[2, [2, 2]], kernel_sizes=[3, 3, 3]).eval()
    given.load_state_dict(plain.state_dict())
    image = torch.randn(1, 1, 9, 10)
    assert torch.equal(plain(image), given(image))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"strides": [2]}, "strides must have 2 entries, each a positive number or 2 of them, got [2]"),
        ({"strides": [2, [2, 2, 2]]}, "strides must have 2 entries"),
        ({"kernel_sizes": [3, 3]}, "kernel_sizes must have 3 entries"),
        ({"kernel_sizes": [3, 2, 3]}, "kernel_sizes must be odd"),
    ],
)
def test_bad_strides(arguments, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        MedSegDiff(2, 1, 2, (4, 8, 8), num_heads=2, **arguments)
