"""Parts of the network that are switched off."""

import pytest
import torch

from medsegdiff_bundle.evaluation.parts import PARTS, switched_off
from medsegdiff_bundle.networks import MedSegDiff, NeuralBandPassFilter


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = MedSegDiff(2, 1, 2, channels=[4, 8, 8], num_heads=2).eval()
    with torch.no_grad():
        for weight in made.parameters():  # a new network hands on nothing of some blocks, whose last weights are 0
            weight += 0.1 * torch.randn_like(weight)
    return made


def answer(network):
    generator = torch.Generator().manual_seed(1)
    image, mask = torch.randn(1, 1, 16, 24, generator=generator), torch.randn(1, 2, 16, 24, generator=generator)
    with torch.no_grad():
        return network(image, mask, torch.tensor([500]))


@pytest.mark.parametrize("part", PARTS)
def test_what_a_part_does_is_gone_inside_and_back_behind(part, network):
    whole = answer(network)
    with switched_off(network, part):
        assert (answer(network) - whole).abs().max() > 1e-4
    assert torch.equal(answer(network), whole)


def test_it_is_the_part_that_is_gone(network):
    """By hand: no SS-Former at all, a filter of equal numbers, gates of equal numbers."""
    with switched_off(network, "no_transformer"):
        without = answer(network)
    with switched_off(network, "no_band_pass_filter"):
        unfiltered = answer(network)
    with switched_off(network, "no_spatial_attention"):
        ungated = answer(network)
    with torch.no_grad():
        state = {name: value.clone() for name, value in network.state_dict().items()}
        for module in network.modules():
            if isinstance(module, NeuralBandPassFilter):
                module.head.weight.zero_()
                module.head.bias.fill_(2.0)
        torch.testing.assert_close(answer(network), unfiltered)
        network.load_state_dict(state)
        network.denoiser.transformer.forward = lambda h, *others: h
        torch.testing.assert_close(answer(network), without)
        del network.denoiser.transformer.forward
        for gate in network.anchor_gates:
            gate.forward = lambda anchor, own=gate.forward: own(anchor).mean((2, 3), keepdim=True) + 0 * own(anchor)
        torch.testing.assert_close(answer(network), ungated)


def test_a_part_that_is_not_there():
    plain = MedSegDiff(2, 1, 2, channels=[4, 8], num_transformer_blocks=0, num_anchor_levels=0)
    for part, name in PARTS.items():
        with pytest.raises(ValueError, match=f"The network has no {name}"), switched_off(plain, part):
            pass
    with pytest.raises(ValueError, match="There is no part 'nbp'"), switched_off(plain, "nbp"):
        pass
