"""scripts/finite_trials.py: in bfloat16 no case makes a loss, a gradient or a weight that is not finite."""

import finite_trials
import pytest
import torch

KINDS = len(finite_trials.LABELS) + len(finite_trials.IMAGES) + 1


@pytest.mark.parametrize("way", finite_trials.WAYS)
def test_each_case_once(way):
    counted, faults = finite_trials.train(way, KINDS)
    assert not faults and counted.total() == KINDS and len(counted) >= KINDS - 1


def test_what_is_not_finite_is_found():
    network = torch.nn.Linear(1, 1)
    assert not finite_trials.not_finite({"anchor": torch.tensor(1.0)}, network)
    network(torch.tensor([torch.inf])).sum().backward()
    with torch.no_grad():
        network.bias.fill_(torch.nan)
    found = finite_trials.not_finite({"anchor": torch.tensor(torch.nan)}, network)
    assert found == ["loss of the anchor", "gradient of weight", "weight bias"]
