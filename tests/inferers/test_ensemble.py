import copy
import inspect
import io

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from monai.utils import set_determinism
from torch import nn

from medsegdiff_bundle.inferers import EnsembleInferer, member_noise, sampling
from medsegdiff_bundle.inferers.ensemble import _labels
from medsegdiff_bundle.inferers.noise import level_mask, member_levels
from medsegdiff_bundle.networks import ConditionFeatures, MedSegDiff
from medsegdiff_bundle.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

SCHEDULERS = {
    "ddim": (DDIMScheduler, {}),
    "ddim_eta": (DDIMScheduler, {"eta": 1.0}),
    "ddpm": (DDPMScheduler, {}),
    "dpm": (DPMSolverMultistepScheduler, {}),
}
every_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


def scheduler(name="ddim", prediction_type="sample", **kwargs):
    cls, arguments = SCHEDULERS[name]
    return cls(100, "cosine", prediction_type, **arguments | kwargs)


def network(spatial_dims=2, in_channels=1, out_channels=3, **kwargs):
    torch.manual_seed(0)
    kwargs = {"channels": (4, 6), "num_heads": 2, "num_anchor_levels": 1, **kwargs}
    net = MedSegDiff(spatial_dims, in_channels, out_channels, **kwargs).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net


def images(batch=1, size=(9, 7), channels=1):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(3))


class Counting(nn.Module):
    """A network with a record of its calls; it works voxel by voxel."""

    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes
        self.encoded, self.denoised, self.forwarded = [], [], []

    def logits(self, image):
        return torch.cat([image * k for k in range(self.classes)], dim=1)

    def forward(self, image):
        self.forwarded.append(tuple(image.shape))
        return self.logits(image)

    def encode(self, image):
        self.encoded.append(tuple(image.shape))
        return ConditionFeatures(self.logits(image), None, [], None, None, None)

    def denoise(self, mask, timesteps, features):
        assert not torch.is_grad_enabled()
        self.denoised.append((tuple(mask.shape), int(timesteps)))
        return torch.tanh(mask + features.logits)


# Work done


@pytest.mark.parametrize(
    ("steps", "size", "per_batch", "batches"),
    [(1, 1, None, [1]), (4, 3, None, [3]), (3, 5, 2, [2, 2, 1]), (2, 3, 1, [1, 1, 1]), (2, 3, 9, [3])],
)
def test_condition_is_encoded_once_per_image(steps, size, per_batch, batches):
    net = Counting()
    out = EnsembleInferer(scheduler(), steps, size, per_batch)(images(2), net)
    assert out.shape == (2, size, 2, 9, 7)
    assert net.encoded == [(2, 1, 9, 7)] and net.forwarded == []
    expected = scheduler()
    expected.set_timesteps(steps)
    assert net.denoised == [((2 * n, 2, 9, 7), t) for n in batches for t in expected.timesteps.tolist()]


def test_condition_is_encoded_once_per_window():
    net = Counting()
    out = EnsembleInferer(scheduler(), 3, 4, 2, roi_size=(6, 4), overlap=0.5)(images(2, (12, 4)), net)
    assert out.shape == (2, 4, 2, 12, 4)
    assert net.encoded == [(1, 1, 6, 4)] * 6  # three windows for each of two images
    assert len(net.denoised) == 6 * 2 * 3 and {shape for shape, _ in net.denoised} == {(2, 2, 6, 4)}


@pytest.mark.parametrize("roi_size", [None, 6])
def test_anchor_only_calls_forward_alone(roi_size):
    net = Counting(3)
    image = images(2)
    out = EnsembleInferer(scheduler(), 3, 4, anchor_only=True, roi_size=roi_size)(image, net)
    assert len(net.forwarded) == (1 if roi_size is None else 8) and net.encoded == net.denoised == []
    torch.testing.assert_close(out, net.logits(image).softmax(dim=1)[:, None])


def test_arguments_go_to_encode():
    class Extra(Counting):
        def encode(self, image, factor, offset=0):
            return super().encode(image * factor + offset)

    image = images()
    inferer = EnsembleInferer(scheduler(), 2, 2)
    torch.testing.assert_close(inferer(image, Extra(), 3, offset=1), inferer(image * 3 + 1, Counting()))


# The result


@every_scheduler
@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction"])
def test_equals_a_loop_that_encodes_at_every_step(name, prediction_type):
    net = network(prediction_type=prediction_type)
    image = images()
    steps = scheduler(name, prediction_type)
    steps.set_timesteps(4)
    with torch.no_grad():
        x = member_noise(5, 0, 0, [0, 0], (3, 9, 7))[None]
        for i, t in enumerate(steps.timesteps):
            noise = member_noise(5, 0, i + 1, [0, 0], (3, 9, 7))[None]
            x, _ = steps.step(net(image, x, t), t, x, noise=noise)
    expected = ((x + 1) / 2).clamp_min(1e-6)
    expected = (expected / expected.sum(dim=1, keepdim=True))[:, None]
    actual = EnsembleInferer(scheduler(name, prediction_type), 4, 1, seed=5)(image, net)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@every_scheduler
def test_a_member_is_its_own(name):
    """Not the ensemble's size, the batches of members, nor the batch of images changes a member."""
    net = network()
    image = images(2)
    whole = EnsembleInferer(scheduler(name), 3, 4)(image, net)
    for inferer, members in [
        (EnsembleInferer(scheduler(name), 3, 2), 2),
        (EnsembleInferer(scheduler(name), 3, 1), 1),
        (EnsembleInferer(scheduler(name), 3, 4, 1), 4),
        (EnsembleInferer(scheduler(name), 3, 4, 3), 4),
    ]:
        torch.testing.assert_close(inferer(image, net), whole[:, :members], rtol=1e-4, atol=1e-5)
    for i in range(2):
        alone = EnsembleInferer(scheduler(name), 3, 4)(image[i : i + 1], net)
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-4, atol=1e-5)


@every_scheduler
def test_members_differ_and_follow_the_seed(name):
    net = network()
    first, again, other = (EnsembleInferer(scheduler(name), 3, 3, seed=seed)(images(), net) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    members = torch.cat([first, other], dim=1)[0].flatten(1)
    distance = torch.cdist(members, members) + torch.eye(6)
    assert distance.min() > 1e-3


@pytest.mark.parametrize(
    "kwargs",
    [
        {"image_concat": False},
        {"num_anchor_levels": 0},
        {"num_transformer_blocks": 0},
        {"num_transformer_blocks": 0, "num_anchor_levels": 0},
        {"num_filter_blocks": 0},
        {"anchor_residual": True},
    ],
)
def test_every_kind_of_features_is_repeated_for_a_batch(kwargs):
    net = network(**kwargs)
    image = images(2)
    inferer = EnsembleInferer(scheduler(), 2, 2)
    alone = torch.cat([inferer(image[i : i + 1], net) for i in range(2)])
    torch.testing.assert_close(inferer(image, net), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 2), (3, 15)])
@pytest.mark.parametrize("size", [(5, 6), (3, 4, 5)])
def test_probabilities(in_channels, out_channels, size):
    net = network(len(size), in_channels, out_channels)
    out = EnsembleInferer(scheduler(), 2, 3)(images(2, size, in_channels), net)
    assert out.shape == (2, 3, out_channels, *size) and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1
    torch.testing.assert_close(out.sum(dim=2), torch.ones(2, 3, *size))


def test_a_voxel_that_no_class_wants():
    class Nothing(Counting):
        def denoise(self, mask, timesteps, features):
            return torch.full_like(mask, -1.0)

    out = EnsembleInferer(scheduler(), 2, 1)(images(), Nothing(4))
    torch.testing.assert_close(out, torch.full_like(out, 0.25))


def test_a_certain_mask_is_returned():
    truth = torch.nn.functional.one_hot(torch.arange(63).reshape(1, 9, 7) % 3, 3).movedim(-1, 1).float()

    class Certain(Counting):
        def denoise(self, mask, timesteps, features):
            return (2 * truth - 1).expand_as(mask)

    for name in SCHEDULERS:
        out = EnsembleInferer(scheduler(name), 5, 2)(images(), Certain(3))
        torch.testing.assert_close(out, truth[:, None].expand_as(out), rtol=0, atol=1e-5)


@pytest.mark.parametrize("roi_size", [None, 6])
def test_labels(roi_size):
    net = network()
    image = images(2)
    kwargs = {"ensemble_size": 3, "members_per_batch": 2, "roi_size": roi_size, "return_anchor": True}
    probabilities = EnsembleInferer(scheduler(), 2, **kwargs)(image, net)
    labels = EnsembleInferer(scheduler(), 2, **kwargs, output="labels")(image, net)
    assert labels.shape == (2, 4, 1, 9, 7) and labels.dtype == torch.uint8
    assert torch.equal(labels.long(), probabilities.argmax(dim=2, keepdim=True))
    assert labels.unique().numel() > 1
    kwargs = {"anchor_only": True, "roi_size": roi_size, "output": "labels"}
    anchor = EnsembleInferer(scheduler(), 2, **kwargs)(image, net)
    assert torch.equal(anchor, labels[:, :1])


def test_labels_are_the_first_class_of_the_highest_probability():
    members = torch.randint(0, 3, (2, 3, 200, 4, 5), generator=torch.Generator().manual_seed(0)).float()
    labels = _labels(members)
    assert labels.dtype == torch.uint8
    first = (members == members.amax(dim=2, keepdim=True)).to(torch.uint8).argmax(dim=2, keepdim=True)
    assert torch.equal(labels.long(), first)


@pytest.mark.parametrize("roi_size", [None, 6])
def test_return_anchor_puts_it_first(roi_size):
    net = network()
    image = images(2)
    with_anchor = EnsembleInferer(scheduler(), 2, 3, return_anchor=True, roi_size=roi_size)(image, net)
    torch.testing.assert_close(with_anchor[:, 1:], EnsembleInferer(scheduler(), 2, 3, roi_size=roi_size)(image, net))
    anchor = EnsembleInferer(scheduler(), 2, 3, anchor_only=True, roi_size=roi_size)(image, net)
    torch.testing.assert_close(with_anchor[:, :1], anchor)
    if roi_size is None:
        torch.testing.assert_close(anchor[:, 0], net(image).softmax(dim=1).detach())


# Mirror images


@pytest.mark.parametrize(("axes", "views"), [((), [()]), ([1], [(), (1,)]), ([0, 1], [(), (0,), (1,), (0, 1)])])
@every_scheduler
def test_members_take_turns_with_the_mirror_images(name, axes, views):
    """Member m is what the network alone draws of mirror image m mod 2^axes, from noise that is mirrored with it."""
    net = network(anchor_residual=True)
    image = images(2)
    steps = scheduler(name)
    steps.set_timesteps(3)
    actual = EnsembleInferer(scheduler(name), 3, 5, 2, mirror_axes=axes)(image, net)
    for member in range(5):
        dims = [axis + 2 for axis in views[member % len(views)]]
        with torch.no_grad():
            x = member_noise(0, member, 0, [0, 0], (3, 9, 7)).expand(2, -1, -1, -1).flip(dims)
            for i, t in enumerate(steps.timesteps):
                noise = member_noise(0, member, i + 1, [0, 0], (3, 9, 7)).expand(2, -1, -1, -1).flip(dims)
                x, _ = steps.step(net(image.flip(dims), x, t), t, x, noise=noise)
        expected = ((x.flip(dims) + 1) / 2).clamp_min(1e-6)
        expected = expected / expected.sum(dim=1, keepdim=True)
        torch.testing.assert_close(actual[:, member], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("roi_size", [None, 6])
def test_a_network_without_a_side_sees_no_mirror(roi_size):
    image = images(2)
    kwargs = {"ensemble_size": 3, "roi_size": roi_size, "return_anchor": True}
    plain = EnsembleInferer(scheduler("ddim_eta"), 3, **kwargs)(image, Counting())
    mirrored = EnsembleInferer(scheduler("ddim_eta"), 3, mirror_axes=(0, 1), **kwargs)(image, Counting())
    torch.testing.assert_close(mirrored, plain)
    assert plain[:, 1].std() > 0 and not torch.equal(plain[:, 1], plain[:, 2])


def test_a_mirror_image_without_members_is_not_encoded():
    net = Counting()
    EnsembleInferer(scheduler(), 2, 3, mirror_axes=(0, 1))(images(), net)
    assert len(net.encoded) == 3


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 2)])
def test_volumes_are_mirrored_along_their_axes(axes):
    class Seeing(Counting):
        def encode(self, image):
            self.encoded.append(image)
            return super().encode(image)

    net, image = Seeing(), images(size=(3, 4, 5))
    EnsembleInferer(scheduler(), 1, 2, mirror_axes=axes)(image, net)
    assert torch.equal(net.encoded[0], image) and torch.equal(net.encoded[2], image.flip(axes[0] + 2))


@pytest.mark.parametrize(("memory", "times"), [(None, 4), (10**9, 4), (2000, 8)])
def test_each_mirror_image_is_encoded_once_where_memory_allows(memory, times):
    """Members that begin with masks drawn from the mean anchor need all mirror images before the first of them."""
    kwargs = {"num_inference_steps": 1, "ensemble_size": 8, "members_per_batch": 2, "mirror_axes": (0, 1)}
    net, plain = Counting(), Counting()
    start = {"start_from_anchor": 50, "memory": memory, "roi_size": 64}
    found = EnsembleInferer(scheduler(), **kwargs, **start)(images(), net)
    assert len(net.encoded) == times
    once = EnsembleInferer(scheduler(), **kwargs, **{**start, "memory": None})(images(), plain)
    assert torch.equal(found, once)


def test_the_anchor_is_that_of_the_image_itself_and_alone_the_mean():
    net = network()
    image = images(2)
    with torch.no_grad():
        views = [net(image.flip(dims)).softmax(dim=1).flip(dims) for dims in ([], [2], [3], [2, 3])]
    members = EnsembleInferer(scheduler(), 1, 2, mirror_axes=(0, 1), return_anchor=True)(image, net)
    torch.testing.assert_close(members[:, 0], views[0])
    alone = EnsembleInferer(scheduler(), mirror_axes=(0, 1), anchor_only=True)(image, net)
    torch.testing.assert_close(alone[:, 0], torch.stack(views).mean(dim=0))
    assert not torch.allclose(alone[:, 0], views[0], atol=1e-3)


@pytest.mark.parametrize("axes", [(0, 0), (-1,)])
def test_bad_mirror_axes(axes):
    with pytest.raises(ValueError, match="mirror_axes must be different axes from 0, got"):
        EnsembleInferer(scheduler(), mirror_axes=axes)


def test_an_image_without_that_axis():
    with pytest.raises(ValueError, match=r"mirror_axes must be axes of the image, 0 to 1, got \(2,\)"):
        EnsembleInferer(scheduler(), mirror_axes=(2,))(images(), Counting())


# Windows


@pytest.mark.parametrize("roi_size", [9, (9, 7), 40, (8, 100), (9, 6)])
def test_a_window_as_large_as_the_image(roi_size):
    net = network()
    image = images(2)
    out = EnsembleInferer(scheduler("ddpm"), 3, 2, roi_size=roi_size)(image, net)
    assert out.shape == (2, 2, 3, 9, 7)
    torch.testing.assert_close(out.sum(dim=2), torch.ones(2, 2, 9, 7))
    whole = EnsembleInferer(scheduler("ddpm"), 3, 2)(image, net)
    covered = roi_size not in ((8, 100), (9, 6))
    assert torch.allclose(out, whole, rtol=1e-4, atol=1e-5) == covered


@every_scheduler
@pytest.mark.parametrize("size", [(40, 13), (7, 36, 5)])
def test_overlapping_windows_share_their_noise(name, size):
    """For a network that looks at one voxel at a time, windows make no difference at all."""
    image = images(2, size)
    whole = EnsembleInferer(scheduler(name), 4, 2)(image, Counting(3))
    windows = EnsembleInferer(scheduler(name), 4, 2, roi_size=5, overlap=0.6)(image, Counting(3))
    torch.testing.assert_close(windows, whole, rtol=1e-4, atol=1e-5)


def test_windows_of_a_batch_equal_those_of_each_image():
    net = network()
    image = images(2, (14, 11))
    inferer = EnsembleInferer(scheduler("ddim_eta"), 2, 3, 2, roi_size=(8, 8), overlap=0.25)
    alone = torch.cat([inferer(image[i : i + 1], net) for i in range(2)])
    together = inferer(image, net)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.sum(dim=2), torch.ones(2, 3, 14, 11))


# Manners


def test_is_an_inferer_with_monais_argument_names():
    assert issubclass(EnsembleInferer, Inferer)
    assert list(inspect.signature(EnsembleInferer.__call__).parameters)[1:] == ["inputs", "network", "args", "kwargs"]
    net = network()
    inferer = EnsembleInferer(scheduler(), 2, 2)
    assert torch.equal(inferer(inputs=images(), network=net), inferer(images(), net))


def test_uses_the_network_it_is_given():
    inferer = EnsembleInferer(scheduler(), 2, 2)
    first, second = network(), network(out_channels=2)
    assert inferer(images(), first).shape[2] == 3
    assert inferer(images(), second).shape[2] == 2


@every_scheduler
def test_the_scheduler_is_not_touched(name):
    mine = scheduler(name)
    mine.set_timesteps(7)
    before = copy.deepcopy(vars(mine))
    inferer = EnsembleInferer(mine, 3, 2, 1)
    first = inferer(images(), Counting())
    assert mine.timesteps.tolist() == before["_buffers"]["timesteps"].tolist() and mine.num_inference_steps == 7
    assert torch.equal(inferer(images(), Counting()), first)
    other = EnsembleInferer(mine, 5, 2)(images(), Counting())
    assert other.shape == first.shape


def test_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    EnsembleInferer(scheduler("ddpm"), 3, 2)(images(), Counting())
    assert torch.equal(torch.rand(3), expected)


def test_no_graph_is_kept():
    out = EnsembleInferer(scheduler(), 2, 2, return_anchor=True)(images().requires_grad_(), network())
    assert not out.requires_grad


@pytest.mark.parametrize("roi_size", [None, 6])
def test_metadata_is_kept(roi_size):
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    batch = [MetaTensor(images()[0], affine=affine, meta={"filename_or_obj": f"{i}.nii.gz"}) for i in range(2)]
    inputs = next(iter(DataLoader(Dataset(batch), batch_size=2)))
    out = EnsembleInferer(scheduler(), 2, 3, roi_size=roi_size)(inputs, network())
    assert isinstance(out, MetaTensor) and out.shape == (2, 3, 3, 9, 7)
    for i, case in enumerate(decollate_batch(out)):
        assert case.shape == (3, 3, 9, 7)
        assert torch.equal(case.affine, affine) and case.meta["filename_or_obj"] == f"{i}.nii.gz"
    assert torch.equal(
        out.as_tensor(), EnsembleInferer(scheduler(), 2, 3, roi_size=roi_size)(images().repeat(2, 1, 1, 1), network())
    )
    assert type(EnsembleInferer(scheduler(), 2, 3)(images(), network())) is torch.Tensor


@pytest.mark.parametrize("kwargs", [{}, {"image_concat": False, "num_filter_blocks": 0}])
def test_scripted_network(kwargs):
    net = network(**kwargs)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(net), buffer)
    buffer.seek(0)
    scripted = torch.jit.load(buffer)
    for inferer in (
        EnsembleInferer(scheduler(), 2, 3, 2, return_anchor=True),
        EnsembleInferer(scheduler(), 2, 2, roi_size=6),
        EnsembleInferer(scheduler(), 2, 2, anchor_only=True),
    ):
        with torch.jit.optimized_execution(False):
            torch.testing.assert_close(inferer(images(2), scripted), inferer(images(2), net), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 7), (9, 7, 10)])
@pytest.mark.parametrize("kwargs", [{}, {"roi_size": 8, "mirror_axes": [0]}, {"return_anchor": True}])
def test_channels_last_changes_the_layout_alone(size, kwargs):
    net = network(len(size))
    image = images(2, size)
    expected = EnsembleInferer(scheduler(), 2, 3, **kwargs)(image, net)
    layouts = []
    memory_format = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    net.denoiser.encoder[0][0].conv1.register_forward_hook(
        lambda module, inputs, output: layouts.append((len(output), output.is_contiguous(memory_format=memory_format)))
    )
    found = EnsembleInferer(scheduler(), 2, 3, channels_last=True, **kwargs)(image, net)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # The convolution of a single small volume chooses its own.
    assert {kept for count, kept in layouts if count > 1} == {True}


def test_a_compiled_network_gives_the_same(monkeypatch):
    """By the backend "eager", which needs no compiler: what torch traces runs as it is."""
    traced, torchs = [], torch.compile

    def backend(graph, example_inputs):
        traced.append(graph)
        return graph.forward

    compiled = []
    monkeypatch.setattr(
        torch, "compile", lambda function: compiled.append(function) or torchs(function, backend=backend)
    )
    net = network()
    expected = EnsembleInferer(scheduler(), 2, 4, 4)(images(), net)
    inferer = EnsembleInferer(scheduler(), 2, 4, 4, compile=True)
    for _ in range(2):
        torch.testing.assert_close(inferer(images(), net), expected, rtol=1e-4, atol=1e-5)
    assert len(compiled) == len(traced) == 1  # once a network, and nothing is left to Python in between
    inferer.anchor_only = True
    torch.testing.assert_close(inferer(images(), net)[:, 0], net(images()).softmax(1), rtol=1e-4, atol=1e-5)
    other = network(channels=(6, 8))
    inferer.anchor_only = False
    expected = EnsembleInferer(scheduler(), 2, 4, 4)(images(), other)
    torch.testing.assert_close(inferer(images(), other), expected, rtol=1e-4, atol=1e-5)
    assert len(compiled) == 2


def test_a_network_is_compiled_once(monkeypatch):
    """Until another one comes, and never for the anchor alone."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    first, second = Counting(), Counting()
    inferer = EnsembleInferer(scheduler(), 1, 1, compile=True)
    for each in (first, first, second, second, first):
        inferer(images(), each)
    EnsembleInferer(scheduler(), 1, 1)(images(), first)
    EnsembleInferer(scheduler(), 1, 1, compile=True, anchor_only=True)(images(), first)
    assert [function.__self__ for function in compiled] == [first, second, first]


def test_measuring_a_member_does_not_keep_the_network_from_being_compiled(monkeypatch):
    traced, torchs = [], torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda function: torchs(function, backend=lambda graph, _: traced.append(graph) or graph.forward),
    )
    monkeypatch.setattr(sampling, "free_memory", lambda device: 1)  # one at a time, and the first is measured
    inferer = EnsembleInferer(scheduler(), 1, 2, compile=True)
    inferer(images(), network())
    assert len(traced) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [(24, 20), (24, 20, 16)])
@pytest.mark.parametrize("kwargs", [{}, {"roi_size": 16}, {"mirror_axes": [0]}, {"channels_last": True}])
def test_a_gpu_gives_what_the_cpu_gives(size, kwargs):
    net, image = network(len(size)), images(1, size)
    inferer = EnsembleInferer(scheduler(), 2, 4, return_anchor=True, **kwargs)
    expected = inferer(image, net)
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        found = inferer(image.cuda(), net.cuda())
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("inner", "outer"), [(True, False), (False, True)])
def test_bfloat16(inner, outer):
    net = network()
    dtypes = []
    net.condition_model.head.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    image = images(2)
    expected = EnsembleInferer(scheduler(), 3, 2, return_anchor=True)(image, net)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
        out = EnsembleInferer(scheduler(), 3, 2, return_anchor=True, amp=inner)(image, net)
    assert dtypes == [torch.float32, torch.bfloat16]
    assert out.dtype == torch.float32 and (out - expected).abs().max() < 0.05
    torch.testing.assert_close(out.sum(dim=2), torch.ones(2, 3, 9, 7))


def test_built_from_json():
    config = {
        "steps": 2,
        "scheduler": {
            "_target_": "medsegdiff_bundle.schedulers.DDIMScheduler",
            "num_train_timesteps": 10,
            "prediction_type": "sample",
        },
        "inferer": {
            "_target_": "medsegdiff_bundle.inferers.EnsembleInferer",
            "scheduler": "@scheduler",
            "num_inference_steps": "@steps",
            "ensemble_size": 3,
            "members_per_batch": 2,
            "seed": 4,
            "roi_size": [6, 5],
            "overlap": 0.5,
        },
    }
    inferer = ConfigParser(config).get_parsed_content("inferer")
    assert isinstance(inferer, EnsembleInferer)
    assert inferer(images(), network()).shape == (1, 3, 3, 9, 7)


def test_in_monais_evaluator():
    torch.manual_seed(0)
    data = [{"image": MetaTensor(image), "label": image > 0} for image in images(3)]
    net = network()
    net.train()
    outputs = []
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=net,
        inferer=EnsembleInferer(scheduler(), 2, 3),
        postprocessing=lambda case: outputs.append(case["pred"]) or case,
    )
    evaluator.run()
    set_determinism(None)
    assert [tuple(pred.shape) for pred in outputs] == [(3, 3, 9, 7)] * 3
    expected = EnsembleInferer(scheduler(), 2, 3)(images(3), net.eval())
    torch.testing.assert_close(torch.stack([p.as_tensor() for p in outputs]), expected, rtol=1e-4, atol=1e-5)


def test_what_is_not_given_is_as_documented():
    inferer = EnsembleInferer(scheduler())
    told = {name: value for name, value in vars(inferer).items() if not name.startswith("_") and name != "scheduler"}
    assert told == {
        "num_inference_steps": 10,
        "ensemble_size": 10,
        "members_per_batch": None,
        "seed": 0,
        "roi_size": None,
        "overlap": 0.25,
        "start_from_anchor": None,
        "mirror_axes": (),
        "anchor_only": False,
        "return_anchor": False,
        "output": "probabilities",
        "amp": False,
        "channels_last": False,
        "compile": False,
        "progress": False,
        "memory": None,
        "multi_label": False,
        "folds": (),
    }


# Refusals


@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_inference_steps": 1, "ensemble_size": 1, "members_per_batch": 1, "memory": 1, "roi_size": 1},
        {"num_inference_steps": 100, "overlap": 0, "roi_size": (1, 1)},
        {"start_from_anchor": 0, "num_inference_steps": 1},
        {"start_from_anchor": 99, "num_inference_steps": 100, "overlap": 0.99},
        {"seed": -(2**63)},
        {"seed": 2**63 - 1},
    ],
)
def test_the_ends_of_every_range_are_taken(kwargs):
    inferer = EnsembleInferer(scheduler(), **kwargs)
    assert {name: getattr(inferer, name) for name in kwargs} == kwargs


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        (
            {"num_inference_steps": 0},
            "num_inference_steps must be a whole number from 1 to the 100 training timesteps, got 0",
        ),
        (
            {"num_inference_steps": 101},
            "num_inference_steps must be a whole number from 1 to the 100 training timesteps, got 101",
        ),
        ({"ensemble_size": 0}, "ensemble_size must be a whole number of at least 1, got 0"),
        ({"members_per_batch": 0}, "members_per_batch must be a whole number of at least 1, got 0"),
        ({"overlap": 1.0}, "overlap must be at least 0 and below 1, got 1.0"),
        ({"overlap": -0.1}, "overlap must be at least 0 and below 1, got -0.1"),
        ({"roi_size": 0}, "roi_size must be positive, got 0"),
        ({"roi_size": (8, -1)}, r"roi_size must be positive, got \(8, -1\)"),
        ({"ensemble_size": 2.5}, "ensemble_size must be a whole number of at least 1, got 2.5"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number .* got 2.5"),
        ({"ensemble_size": True}, "ensemble_size must be a whole number of at least 1, got True"),
        ({"seed": 2**63}, "seed must be a whole number of 64 bits, got 9223372036854775808"),
        ({"seed": -(2**63) - 1}, "seed must be a whole number of 64 bits, got -9223372036854775809"),
        ({"seed": 0.5}, "seed must be a whole number of 64 bits, got 0.5"),
        ({"seed": None}, "seed must be a whole number of 64 bits, got None"),
        ({"ensemble_size": None}, "ensemble_size must be a whole number of at least 1, got None"),
        ({"start_from_anchor": -1}, "start_from_anchor must be a timestep from 0 to 99, got -1"),
        ({"output": "logits"}, "output must be 'probabilities' or 'labels', got 'logits'"),
    ],
)
def test_bad_arguments(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        EnsembleInferer(scheduler(), **kwargs)


def test_roi_size_of_other_dimensions():
    with pytest.raises(ValueError, match=r"roi_size must have 2 numbers, one per axis of the image, got \(4, 4, 4\)"):
        EnsembleInferer(scheduler(), 2, roi_size=(4, 4, 4))(images(), network())


class Recording(Counting):
    """Remembers what it was asked to denoise."""

    def __init__(self):
        super().__init__()
        self.met = []

    def denoise(self, mask, timesteps, features):
        self.met.append((mask, int(timesteps)))
        return super().denoise(mask, timesteps, features)


@pytest.mark.parametrize("batch", [1, 2])
def test_start_from_masks_drawn_from_the_anchor(batch):
    """The network first meets a mask of the member's level, noised as at that timestep, and is asked about it."""
    network = Recording()
    image = images(batch)
    EnsembleInferer(scheduler(), num_inference_steps=2, ensemble_size=3, start_from_anchor=59)(image, network)
    assert [t for _, t in network.met] == [59, 29]
    anchor = torch.softmax(Counting().logits(image), dim=1)
    signal = scheduler().alphas_cumprod[59]
    for n in range(batch):
        for member in range(3):
            noise = member_noise(0, member, 0, (0, 0), (2, 9, 7))
            chosen = anchor[n, 1] > member_levels(0, 3, 2)[member, 1]  # of two classes the masks are level sets
            mask = torch.stack([~chosen, chosen]).float() * 2 - 1
            expected = signal.sqrt() * mask + (1 - signal).sqrt() * noise
            torch.testing.assert_close(network.met[0][0][3 * n + member], expected)


def test_mirror_images_start_from_their_mean_anchor():
    """A member of a mirror image begins with the mask that one of the image itself would begin with."""

    class Lopsided(Recording):
        def logits(self, image):
            return super().logits(image) * torch.linspace(0.2, 3, image.shape[-1])

    network = Lopsided()
    image = images(1)
    inferer = EnsembleInferer(scheduler(), 1, ensemble_size=4, start_from_anchor=0, mirror_axes=[1])
    inferer(image, network)
    views = [network.logits(image), network.logits(image.flip(3)).flip(3)]
    anchor = sum(torch.softmax(each, dim=1) for each in views) / 2
    drawn = level_mask(anchor, member_levels(0, 4, 2))[0]
    met = torch.stack(
        [network.met[0][0][0], network.met[1][0][0].flip(2), network.met[0][0][1], network.met[1][0][1].flip(2)]
    )
    assert torch.equal(met > 0, drawn > 0)  # so little noise at timestep 0 turns no sign


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"start_from_anchor": 100}, "start_from_anchor must be a timestep from 0 to 99, got 100."),
        ({"start_from_anchor": 4, "num_inference_steps": 6}, "from 1 to the 5 training timesteps"),
    ],
)
def test_bad_start(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        EnsembleInferer(scheduler(), **kwargs)


def test_a_network_that_predicts_something_else():
    inferer = EnsembleInferer(scheduler(prediction_type="epsilon"), 2, 1)
    with pytest.raises(ValueError, match="The network's prediction_type is 'sample', the scheduler's 'epsilon'."):
        inferer(images(), network(prediction_type="sample"))


@pytest.mark.parametrize("scheduler", [DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction"])
def test_defaults_fit_one_another(scheduler, prediction_type):
    """A scheduler that was told nothing predicts what the network does, and stays as it is."""
    torch.manual_seed(0)
    plain = MedSegDiff(2, 1, 2, channels=(4, 8), num_heads=2, token_size=2, anchor_residual=False,
                       prediction_type=prediction_type).eval()  # fmt: skip
    image, own = torch.rand(1, 1, 16, 16), scheduler()
    found = EnsembleInferer(own, num_inference_steps=2, ensemble_size=2)(image, plain)
    told = EnsembleInferer(scheduler(prediction_type=prediction_type), num_inference_steps=2, ensemble_size=2)
    assert torch.equal(found, told(image, plain))
    assert own.prediction_type == "epsilon" and scheduler().prediction_type == "epsilon"


def test_ready_made_classes_need_no_arguments():
    network = MedSegDiff(spatial_dims=2, in_channels=1, out_channels=2).eval()
    members = EnsembleInferer(DDIMScheduler())(torch.rand(1, 1, 32, 32), network)
    assert members.shape == (1, 10, 2, 32, 32)
