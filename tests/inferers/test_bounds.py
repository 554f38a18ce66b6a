"""Large images keep to a memory without a word from the user, and small ones stay as they are."""

import math
import re

import pytest
import torch

from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.inferers.bounds import finest_channels, output_that_fits, say_bounds, window_that_fits
from medsegdiff_bundle.inferers.windows import _Blender, kept_voxels
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


@pytest.mark.parametrize(("memory", "members", "edge"), [(6, MEMBERS, 96), (3.5, 10, 72), (1, MEMBERS, 40)])
def test_windows_and_what_they_keep_take_half_of_the_memory(memory, members, edge):
    """Of 512 x 512 x 300 voxels with 15 classes, and the hippocampus's channels."""
    network = MedSegDiff(3, 1, CLASSES, (16, 32), num_heads=2)
    window = window_that_fits(CT, network, CLASSES, 0.25, members, int(memory * 1e9), "labels")
    assert window == [edge] * 3
    kept = 2 * members * CLASSES * kept_voxels(CT, window, 0.25)
    assert 18 * 4 * 16 * math.prod(window) + kept <= memory / 2 * 1e9


def test_probabilities_take_more_than_labels():
    """They are kept in single precision, so the same memory holds smaller windows."""
    network = MedSegDiff(3, 1, CLASSES, (16, 32), num_heads=2)
    labels, probabilities = (
        window_that_fits(CT, network, CLASSES, 0.25, 10, 4 * 10**9, output) for output in ("labels", "probabilities")
    )
    assert max(probabilities) < max(labels)


@pytest.mark.parametrize(("size", "window"), [([90, 50, 70], [32, 20, 24]), ([60, 20], [16, 20])])
def test_kept_voxels_are_those_that_blending_keeps(size, window):
    blender = _Blender(size, window, 0.3, 2, torch.device("cpu"), torch.float16)
    index = next(blender.windows())
    blender.add(torch.zeros(2, 3, *window), slice(0, 2), index)
    assert sum(kept.nbytes for kept in blender.kept) == 2 * 2 * 3 * kept_voxels(size, window, 0.3)


def test_a_small_volume_fits_whole():
    network = MedSegDiff(3, 1, CLASSES, (16, 32), num_heads=2)
    assert window_that_fits([43, 59, 47], network, 3, 0.25, MEMBERS, 6 * 10**9, "probabilities") is None


VOXEL = 18 * 4 * 16  # bytes of 16 channels


@pytest.mark.parametrize(
    ("size", "edge", "smaller"),
    [([200, 200, 200], 96, 72), ([200, 200, 200], 72, 54), ([4096, 4096], 512, 384)],
)
def test_windows_by_hand_of_a_network(size, edge, smaller):
    """The largest of 96 voxels along an axis, 512 of a picture, and steps of a quarter less."""
    network, axes = MedSegDiff(len(size), 1, 2, (16, 16), num_transformer_blocks=0), len(size)
    needed = VOXEL * edge**axes + 2 * 3 * 2 * kept_voxels(size, [edge] * axes, 0.25)  # of 3 members and 2 classes
    assert window_that_fits(size, network, 2, 0.25, 3, 2 * needed, "labels") == [edge] * axes
    assert window_that_fits(size, network, 2, 0.25, 3, 2 * needed - 2, "labels") == [smaller] * axes


@pytest.mark.parametrize(
    ("size", "less", "expected"),
    [([200, 200, 200], 0, None), ([200, 200, 200], 2, [96, 96, 96]), ([200, 200, 40], 2, [96, 96, 40])],
)
def test_an_image_is_taken_whole_within_half_of_the_memory(size, less, expected):
    network = MedSegDiff(3, 1, 2, (16, 16), num_transformer_blocks=0)
    assert window_that_fits(size, network, 2, 0.25, 1, 2 * VOXEL * math.prod(size) - less, "labels") == expected


def test_no_window_is_smaller_than_32_voxels():
    network = MedSegDiff(3, 1, 2, (16, 16), num_transformer_blocks=0)
    assert window_that_fits([200, 200, 20], network, 2, 0.25, 1, 1, "labels") == [32, 32, 20]


def test_kept_voxels_by_hand():
    """Along 30 voxels windows of 10 begin at 0, 6, 13 and 20: they share 4. Along 16 they begin at 0 and 6."""
    assert kept_voxels([30, 16], [10, 10], 0.3) == 4 * 16 + 10 * 4
    assert kept_voxels([10, 16], [10, 10], 0.3) == 10 * 4


def test_members_are_kept_as_probabilities_within_a_quarter():
    size, needed = [10, 20], 4 * 3 * 5 * 2 * 200  # bytes x images x members x classes x voxels
    assert output_that_fits(size, 2, 5, 3, 4 * needed) == "probabilities"
    assert output_that_fits(size, 2, 5, 3, 4 * needed - 4) == "labels"


def test_channels_are_those_of_the_first_convolution():
    first = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.Conv3d(1, 7, 1), torch.nn.Conv2d(1, 5, 1))
    assert finest_channels(first) == 7 and finest_channels(first[2]) == 5
    assert finest_channels(first[0]) is None and finest_channels(len) is None
    assert window_that_fits([999, 999], len, 2, 0.25, 1, 1, "labels") is None


@pytest.mark.parametrize(
    ("window", "labels", "said"),
    [
        ([8, 9], False, ["An image of 30 x 40 voxels in 1.5 GB: windows of 8 x 9."]),
        (
            None,
            True,
            ["An image of 30 x 40 voxels in 1.5 GB: the members' labels in the place of their probabilities."],
        ),
        (None, False, []),
    ],
)
def test_what_is_said(window, labels, said, caplog):
    with caplog.at_level("INFO"):
        say_bounds([30, 40], window, labels, 1_500_000_000)
    assert [record.getMessage() for record in caplog.records] == said


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
