import pytest
import torch
from monai.networks.nets import BasicUNet

from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.losses import MedSegDiffLoss
from medsegdiff_bundle.networks import BaselineNetwork, TrainingNetwork
from medsegdiff_bundle.prepare_batch import DiffusionTarget
from medsegdiff_bundle.schedulers import DDIMScheduler


def baseline(size_factor=16):
    torch.manual_seed(0)
    return BaselineNetwork(BasicUNet(2, 1, 3, features=(4, 4, 4, 4, 4, 4)), size_factor).eval()


@pytest.mark.parametrize("size", [(32, 32), (35, 50), (5, 33), (12, 16)])
def test_any_size(size):
    network, image = baseline().train(), torch.randn(2, 1, *size)
    logits = network(image)
    assert logits.shape == (2, 3, *size)
    if size == (32, 32):
        assert torch.equal(logits, network.network(image))


@pytest.mark.parametrize("steps", [1, 3])
def test_every_member_is_the_softmax(steps):
    network, image = baseline(), torch.randn(2, 1, 20, 30)
    scheduler = DDIMScheduler(schedule="cosine", prediction_type="sample", signal_scale=0.1)
    members = EnsembleInferer(scheduler, steps, 2, return_anchor=True)(image, network)
    expected = network(image).softmax(dim=1)[:, None].expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(members, expected, atol=1e-5, rtol=0)


def test_training_is_that_of_dice_and_cross_entropy():
    """The gradient is that of the anchor's loss alone, whatever the noisy mask."""
    network, image = baseline(), torch.randn(2, 1, 32, 32)
    label = torch.randint(0, 3, (2, 1, 32, 32))
    loss, timesteps = MedSegDiffLoss(alpha=1, beta=1.0), torch.tensor([3, 8])
    outputs = TrainingNetwork(network)(image, mask=torch.randn(2, 3, 32, 32), timesteps=timesteps)
    loss(outputs, DiffusionTarget(label, torch.zeros(2, 3, 32, 32), timesteps)).backward()
    found = [weight.grad.clone() for weight in network.parameters()]
    network.zero_grad()
    loss.segmentation_loss(network(image), label, 1.0).mean().backward()
    for gradient, weight in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(gradient, weight.grad)
    assert max(gradient.abs().max() for gradient in found) > 0


def test_size_factor_is_positive():
    with pytest.raises(ValueError, match="size_factor must be at least 1, got 0"):
        BaselineNetwork(torch.nn.Identity(), 0)
