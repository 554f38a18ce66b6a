"""What only a GPU can show; everything else is tested on the CPU, and the rest of the suite runs the same on both."""

import copy
import logging
from pathlib import Path

import monai
import pytest
import torch

from medsegdiff_bundle.fusion import staple
from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.metrics import generalized_energy_distance, hungarian_matched_iou
from medsegdiff_bundle.networks import MedSegDiff, TrainingNetwork, graph_training
from medsegdiff_bundle.schedulers import DDIMScheduler

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MedSegDiff(3, 1, 3, channels=(8, 16, 16), num_heads=2).eval()


@pytest.fixture
def image():
    return torch.randn(1, 1, 32, 40, 24, generator=torch.Generator().manual_seed(0))


def sample(network, image, device, **kwargs):
    arguments = {"num_inference_steps": 3, "ensemble_size": 4, "mirror_axes": [0], "return_anchor": True, **kwargs}
    inferer = EnsembleInferer(DDIMScheduler(100, "cosine", "sample", eta=0.5), **arguments)
    return inferer(image.to(device), network.to(device)).cpu()


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_gpu_draws_the_same_members(network, image, channels_last, monkeypatch):
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
        monkeypatch.setattr(backend, "allow_tf32", False)
    expected = sample(network, image, "cpu")
    found = sample(network, image, "cuda", channels_last=channels_last)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_bfloat16_moves_the_members_little(network, image):
    exact, rough = sample(network, image, "cuda"), sample(network, image, "cuda", amp=True)
    assert 0 < (exact - rough).abs().mean() < 0.01


def test_a_compiled_denoiser_draws_the_same_members(network, image):
    torch.testing.assert_close(
        sample(network, image, "cuda", compile=True), sample(network, image, "cuda"), rtol=0, atol=5e-3
    )


def test_too_little_memory_takes_smaller_batches(network, caplog):
    image = torch.randn(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = sample(network, image, "cuda", ensemble_size=16, members_per_batch=2)
    torch.cuda.empty_cache()
    # Room for a few members, far from all of them.
    limit = torch.cuda.memory_reserved() + 2**30
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
    try:
        with caplog.at_level(logging.WARNING):
            found = sample(network, image, "cuda", ensemble_size=16, members_per_batch=16)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "Out of memory with" in caplog.text
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_a_gpu_fuses_like_the_cpu(num_classes):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, num_classes, (48, 48), generator=generator)
    wrong = torch.randint(0, num_classes, (10, 48, 48), generator=generator)
    agreed = torch.rand(10, 48, 48, generator=generator) < 0.8
    members = torch.where(agreed, truth, wrong).to(torch.uint8)
    expected, found = staple(members, num_classes), staple(members.cuda(), num_classes)
    assert found.posterior.is_cuda and found.iterations == expected.iterations
    torch.testing.assert_close(found.posterior.cpu(), expected.posterior, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.confusion.cpu(), expected.confusion, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sensitivity.cpu(), expected.sensitivity, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.specificity.cpu(), expected.specificity, rtol=0, atol=1e-6)


def test_metrics_of_members_on_a_gpu():
    masks = torch.randint(0, 2, (20, 32, 32), generator=torch.Generator().manual_seed(0))
    for metric in (generalized_energy_distance, hungarian_matched_iou):
        expected = metric(masks[:16], masks[16:])
        torch.testing.assert_close(metric(masks[:16].cuda(), masks[16:].cuda()).cpu(), expected)


def test_a_graphed_training_step_has_the_gradients_of_the_plain_one():
    torch.manual_seed(0)
    plain = TrainingNetwork(MedSegDiff(2, 1, 3, channels=(8, 16, 16), num_heads=2)).cuda()
    graphed = graph_training(copy.deepcopy(plain), 4, 1, 3, (32, 32))
    for _ in range(2):  # the second time with gradients from before
        image, mask = torch.randn(4, 1, 32, 32, device="cuda"), torch.randn(4, 3, 32, 32, device="cuda")
        timesteps = torch.randint(0, 1000, (4,), device="cuda")
        for network in (plain, graphed):
            network.zero_grad(set_to_none=True)
            prediction, logits = network(image, mask, timesteps)
            (prediction.square().mean() + logits.square().mean()).backward()
        for (name, weight), other in zip(plain.named_parameters(), graphed.parameters(), strict=True):
            torch.testing.assert_close(other.grad, weight.grad, rtol=1e-3, atol=1e-5, msg=name)


def bundle_run(*names, run_id="run", **settings):
    monai.bundle.run(run_id=run_id, config_file=[str(ROOT / "configs" / name) for name in names], **settings)


def test_training_goes_on_and_its_weights_segment(small_run, tmp_path):
    settings = {**small_run, "device": "cuda", "output_dir": str(tmp_path)}
    training = {**settings, "num_workers": 2, "val_interval": 1}
    bundle_run("train.json", run_id="training", epochs=1, **training)
    bundle_run("train.json", run_id="training", epochs=2, resume=True, **training)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["iteration"] == 4
    bundle_run("train.json", "gpu_train.json", run_id="training", epochs=3, resume=True, **training, batch_size=1)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["iteration"] == 34
    settings["checkpoint"] = str(tmp_path / "model.pt")
    bundle_run("train.json", "evaluate.json", **settings)
    bundle_run("inference.json", **settings)
    masks = list(tmp_path.rglob("*_seg.nii.gz"))
    assert len(masks) == 2
