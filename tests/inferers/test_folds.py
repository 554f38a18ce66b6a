"""Members of several networks of one kind."""

import pytest
import torch
from monai.data import MetaTensor

from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.networks import MedSegDiff
from medsegdiff_bundle.schedulers import DDIMScheduler


def networks(number):
    for seed in range(number):
        torch.manual_seed(seed)
        yield MedSegDiff(2, 1, 3, channels=[8, 8], num_heads=2, prediction_type="sample").eval()


def inferer(**words):
    return EnsembleInferer(DDIMScheduler(prediction_type="sample"), 2, 3, mirror_axes=[0], **words)


@pytest.mark.parametrize("words", [{}, {"anchor_only": True}, {"output": "labels"}, {"roi_size": [16, 16]}])
def test_the_mean_is_that_of_the_folds(words):
    image = MetaTensor(torch.rand(1, 1, 24, 20))
    each = [inferer(**words)(image, network) for network in networks(2)]
    states = [network.state_dict() for network in networks(2)]
    together = inferer(folds=states, **words)(image, next(networks(1)))
    assert isinstance(together, MetaTensor)
    torch.testing.assert_close(together.as_tensor(), torch.cat([part.as_tensor() for part in each], dim=1))
    if "output" not in words:
        mean = torch.stack([part.mean(dim=1) for part in each]).mean(dim=0)
        torch.testing.assert_close(together.mean(dim=1), mean)


def test_folds_share_the_memory(monkeypatch):
    found = []
    monkeypatch.setattr(EnsembleInferer, "_run", lambda self, image, *rest: found.append(self.memory) or image[:, None])
    inferer(folds=[network.state_dict() for network in networks(2)], memory=10**9)(
        torch.rand(1, 1, 8, 8), next(networks(1))
    )
    assert found == [5 * 10**8] * 2


def test_weights_of_another_network():
    with pytest.raises(ValueError, match="The weights of fold 1, from 0, do not fit"):
        folds = [next(networks(1)).state_dict(), {"a": torch.zeros(1)}]
        inferer(folds=folds)(torch.rand(1, 1, 8, 8), next(networks(1)))
