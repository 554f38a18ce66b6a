"""Large images keep to a memory without a word from the user, and small ones stay as they are."""

import math
import re

import pytest
import torch

from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.inferers.bounds import overlap_bytes, window_that_fits
from medsegdiff_bundle.networks import MedSegDiff
from medsegdiff_bundle.schedulers import DDIMScheduler

CT, CLASSES, MEMBERS = [512, 512, 300], 15, 5


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MedSegDiff(2, 1, 3, (4, 8), num_heads=2).eval()


def inferer(**options):
    scheduler = DDIMScheduler(schedule="cosine", prediction_type="sample", signal_scale=0.1)
    return EnsembleInferer(scheduler, num_inference_steps=1, ensemble_size=2, **options)


def test_windows_and_overlaps_of_a_ct_fit():
    """512 x 512 x 300 voxels, 15 classes, 5 members, the hippocampus's channels, in 6 GB: a quarter for each."""
    network = MedSegDiff(3, 1, CLASSES, (16, 32), num_heads=2)
    window = window_that_fits(CT, network, CLASSES, 0.25, MEMBERS, 6 * 10**9)
    assert window is not None and max(window) <= 96 and min(window) >= 32
    assert 10 * 4 * 16 * math.prod(window) <= 1.5e9
    assert overlap_bytes(CT, window, CLASSES, 0.25, MEMBERS) <= 1.5e9
    assert window_that_fits([43, 59, 47], network, 3, 0.25, MEMBERS, 6 * 10**9) is None


def test_small_images_are_taken_whole(network):
    image = torch.randn(1, 1, 24, 20)
    assert torch.equal(inferer(memory=10**9)(image, network), inferer()(image, network))


def test_large_ones_come_as_labels_of_windows(network, caplog):
    """The same as asked for by hand."""
    image = torch.randn(1, 1, 96, 80)
    with caplog.at_level("INFO"):
        found = inferer(memory=200_000)(image, network)
    assert found.shape == (1, 2, 1, 96, 80) and found.dtype == torch.uint8
    said = re.search(
        r"An image of 96 x 80 voxels in 0.0002 GB: windows of (\d+) x (\d+) and the members' labels", caplog.text
    )
    roi = tuple(map(int, said.groups()))
    assert max(roi) < 80
    assert torch.equal(found, inferer(roi_size=roi, output="labels")(image, network))


def test_windows_by_hand_stay(network):
    image = torch.randn(1, 1, 40, 40)
    by_hand = inferer(roi_size=24)(image, network)
    assert torch.equal(inferer(roi_size=24, memory=10**9)(image, network), by_hand)


def test_memory_is_a_whole_number():
    with pytest.raises(ValueError, match="memory must be a whole number of at least 1, got 0"):
        inferer(memory=0)
