import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.engines import PrepareBatch

from medsegdiff_bundle.losses import MedSegDiffLoss
from medsegdiff_bundle.networks import MedSegDiff, TrainingNetwork
from medsegdiff_bundle.prepare_batch import SegmentationPrepareBatch
from medsegdiff_bundle.schedulers import DDIMScheduler


def prepare(prediction_type="sample", classes=3, **kwargs):
    return SegmentationPrepareBatch(DDIMScheduler(1000, "cosine", prediction_type, **kwargs), classes)


def batch(n=4, size=(6, 5), dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (n, 1, *size), generator=generator)
    return {"image": torch.randn(n, 2, *size, generator=generator), "label": label.to(dtype)}


def one_hot(label):
    return 2 * torch.stack([(label[:, 0] == k).float() for k in range(3)], dim=1) - 1


@pytest.mark.parametrize("size", [(6, 5), (3, 4, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
def test_parts(size, dtype):
    data = batch(size=size, dtype=dtype)
    step = prepare()
    assert isinstance(step, PrepareBatch)
    image, target, (mask, timesteps), kwargs = step(data)
    assert torch.equal(image, data["image"]) and kwargs == {}
    assert target.label.dtype == torch.int64 and torch.equal(target.label, data["label"].long())
    assert mask.shape == target.target.shape == (4, 3, *size)
    assert mask.dtype == target.target.dtype == torch.float32
    assert timesteps is target.timesteps and target.timesteps.dtype == torch.int64


@pytest.mark.parametrize("signal_scale", [1.0, 0.3])
def test_noisy_mask_and_targets_belong_together(signal_scale):
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, with the same eps, t and x_0 behind all three targets."""
    data = batch(6)
    results = {}
    for prediction_type in ("epsilon", "sample", "v_prediction"):
        torch.manual_seed(1)
        step = prepare(prediction_type, signal_scale=signal_scale)
        _, target, (x_t, t), _ = step(data)
        results[prediction_type] = target.target
    abar = step.scheduler.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    x_0, epsilon = results["sample"], results["epsilon"]
    assert torch.equal(x_0, one_hot(data["label"]))
    assert epsilon.std() == pytest.approx(1, abs=0.15) and epsilon.mean() == pytest.approx(0, abs=0.15)
    torch.testing.assert_close(x_t, abar.sqrt() * x_0 + (1 - abar).sqrt() * epsilon)
    torch.testing.assert_close(results["v_prediction"], abar.sqrt() * epsilon - (1 - abar).sqrt() * x_0)


def test_timesteps_are_per_sample_and_uniform():
    torch.manual_seed(0)
    step, data = prepare(), batch(100, size=(1, 1))
    timesteps = torch.cat([step(data)[1].timesteps for _ in range(100)])
    assert timesteps.min() >= 0 and timesteps.max() <= 999
    assert timesteps.unique().numel() > 990  # of 1000 values after 10000 draws
    counts = timesteps.float().histc(10, 0, 1000)
    assert (counts - 1000).abs().max() < 5 * 30  # five standard deviations


def test_every_sample_has_its_own_noise():
    data = {key: value[:1].repeat(2, 1, 1, 1) for key, value in batch().items()}
    torch.manual_seed(0)
    noise = prepare("epsilon")(data)[1].target
    assert (noise[0] - noise[1]).abs().max() > 0.1
    assert (noise - prepare("epsilon")(data)[1].target).abs().max() > 0.1


def test_metadata_and_arrays():
    data = batch()
    expected = data["image"]
    for wrap in (MetaTensor, np.asarray):
        image, target, args, _ = prepare()({key: wrap(value) for key, value in data.items()})
        for tensor in (image, *target, *args):
            assert type(tensor) is torch.Tensor
        assert torch.equal(image, expected)


def test_keys():
    data = {"t1": batch()["image"], "mask": batch()["label"]}
    step = SegmentationPrepareBatch(DDIMScheduler(), 3, image_key="t1", label_key="mask")
    assert torch.equal(step(data, device="cpu", non_blocking=True)[0], data["t1"])


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (3, r"The label holds class 3, but num_classes is 3 \(0 to 2\)"),
        (-1, "The label holds class -1, but"),
        (255, "The label holds class 255, but"),
        (0.5, "The label holds 0.5, which is no class"),
        (float("nan"), "The label holds nan, which is no class"),
    ],
)
def test_bad_labels(value, sentence):
    data = batch()
    data["label"][2, 0, 1, 1] = value
    with pytest.raises(ValueError, match=sentence):
        prepare()(data)


@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction"])
def test_a_few_steps_of_training_lower_the_loss(prediction_type):
    """Batch, network and loss fit together, and descending the gradient descends the loss."""
    torch.manual_seed(0)
    network = MedSegDiff(2, 2, 3, channels=(8, 8), num_heads=2, num_anchor_levels=1, prediction_type=prediction_type)
    training, step, loss = TrainingNetwork(network), prepare(prediction_type), MedSegDiffLoss(prediction_type, alpha=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    data = batch(8, (8, 8))
    data["image"][:, :1] = data["label"]  # an easy task
    losses = []
    for _ in range(30):
        image, target, args, _ = step(data)
        value = loss(training(image, *args), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append({name: part.item() for name, part in loss.parts.items()})
    for name in ("diffusion", "anchor"):
        first, last = (sum(parts[name] for parts in some) for some in (losses[:5], losses[-5:]))
        assert last < 0.9 * first, name


def test_drawn_masks_begin_as_pure_noise():
    data = batch(3)
    data["label"] = torch.cat([data["label"], data["label"].flip(0)], dim=1)  # of two raters
    step = SegmentationPrepareBatch(DDIMScheduler(1000, "cosine", "sample"), 3, drawn_members=5)
    image, target, (noise, timesteps), _ = step(data)
    assert noise.shape == (3, 5, 3, 6, 5) and abs(noise.std().item() - 1) < 0.1
    assert timesteps.tolist() == [999] * 3 == target.timesteps.tolist()
    assert torch.equal(target.label, data["label"].long()) and torch.equal(image, data["image"])
    assert torch.equal(target.target, one_hot(data["label"][:, :1]))


def test_one_true_mask_is_denoised():
    data = batch()
    data["label"] = data["label"].repeat(1, 2, 1, 1)
    with pytest.raises(ValueError, match="the label holds 2: choose one, or drawn_members"):
        prepare()(data)
    with pytest.raises(ValueError, match="drawn_members must be None or at least 2, got 1"):
        SegmentationPrepareBatch(DDIMScheduler(10), 3, drawn_members=1)
