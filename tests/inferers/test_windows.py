import itertools

import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference

from medsegdiff_bundle.inferers.windows import blend_windows, window_starts

SIZES = [((20, 9), (8, 9)), ((9, 21), (4, 5)), ((7, 8, 19), (4, 8, 6)), ((12, 6, 5), (12, 6, 5)), ((6, 6), (3, 4))]


def members(window, start):
    """Two members of three classes, which depend on the place and on the window's mean, so that windows differ."""
    axes = [torch.arange(s, s + n) for s, n in zip(start, window.shape[2:], strict=True)]
    positions = torch.meshgrid(*axes, indexing="ij")
    ramp = sum((axis + 1) * position for axis, position in enumerate(positions)) / 100
    values = torch.stack([ramp + k + 10 * e + window.mean() for e in range(2) for k in range(3)])
    return values.reshape(1, 2, 3, *window.shape[2:])


def all_at_once(window, start, following):
    return [(slice(0, 2), members(window, start))]


def one_by_one(window, start, following):
    return [(slice(e, e + 1), members(window, start)[:, e : e + 1]) for e in (1, 0)]


def gaussian(roi):
    weights = torch.ones(())
    for edge in roi:
        weights = weights.unsqueeze(-1) * compute_importance_map((edge,), mode="gaussian")
    return weights


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6, 0.99])
@pytest.mark.parametrize(("size", "edge"), [(20, 8), (9, 9), (100, 7), (512, 96), (8, 1)])
def test_starts_cover_the_axis_evenly_with_enough_overlap(size, edge, overlap):
    starts = window_starts(size, edge, overlap)
    assert starts[0] == 0 and starts[-1] == size - edge
    steps = [b - a for a, b in itertools.pairwise(starts)]
    if steps:
        assert max(steps) - min(steps) <= 1 and 1 <= max(steps) <= max(1, int(edge * (1 - overlap)))
        fewer = (size - edge) / max(len(steps) - 1, 1)
        assert len(steps) == 1 or fewer > max(1, int(edge * (1 - overlap)))


@pytest.mark.parametrize(("size", "roi"), SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("batch", [1, 2])
def test_equals_the_weighted_mean_of_all_windows(size, roi, overlap, batch):
    image = torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(0))
    weights, expected, total = gaussian(roi), torch.zeros(batch, 2, 3, *size), torch.zeros(size)
    starts = [window_starts(*axis, overlap) for axis in zip(size, roi, strict=True)]
    for start in itertools.product(*starts):
        box = tuple(slice(a, a + n) for a, n in zip(start, roi, strict=True))
        total[box] += weights
        for n in range(batch):
            window = image[(slice(n, n + 1), slice(None), *box)]
            expected[(n, slice(None), slice(None), *box)] += weights * members(window, start)[0]
    for batches in (all_at_once, one_by_one):
        actual = blend_windows(image, roi, overlap, 2, batches, lambda x: x)
        torch.testing.assert_close(actual, expected / total)


@pytest.mark.parametrize(("size", "roi"), [((20, 9), (8, 9)), ((10, 22, 6), (4, 4, 6))])
def test_equals_monais_blending_where_its_windows_are_evenly_spaced(size, roi):
    image = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    expected = sliding_window_inference(
        image,
        roi,
        1,
        lambda window, at: members(window, [a.start for a in at[0][2:]]).flatten(1, 2),
        0.5 if len(size) == 3 else 0.25,
        roi_weight_map=gaussian(roi),
        with_coord=True,
    )
    actual = blend_windows(image, roi, 0.5 if len(size) == 3 else 0.25, 2, all_at_once, lambda x: x)
    torch.testing.assert_close(actual.flatten(1, 2), expected)


def test_every_voxel_is_finished_once_and_at_once():
    """What is complete after a window goes: no piece is larger than a window, and together they are the image."""
    finished = torch.zeros(12, 30, dtype=torch.int64)
    pieces = []

    def finish(probabilities):
        pieces.append(probabilities.shape[-2:].numel())
        return probabilities.argmax(dim=2, keepdim=True).to(torch.uint8)

    labels = blend_windows(torch.zeros(1, 1, *finished.shape), (6, 10), 0.5, 2, all_at_once, finish)
    assert labels.shape == (1, 2, 1, 12, 30) and labels.dtype == torch.uint8
    assert len(pieces) == 3 * 5 and sum(pieces) == finished.numel() and max(pieces) <= 60


def test_what_is_kept_may_be_of_half_precision():
    """At a corner of the image the product of Gaussian weights is below the least number of half precision."""
    image = torch.randn(1, 1, 33, 47, generator=torch.Generator().manual_seed(0))

    def shares(window, start, following):
        return [(slice(0, 2), torch.sigmoid(members(window, start)))]

    exact, half = (
        blend_windows(image, (16, 20), 0.25, 2, shares, lambda x: x, precision)
        for precision in (torch.float32, torch.float16)
    )
    assert 0 < (exact - half).abs().max() < 2**-10


def test_each_window_is_told_the_next():
    told = []

    def note(window, start, following):
        told.append((start, following))
        return [(slice(0, 1), torch.ones(1, 1, 1, *window.shape[2:]))]

    blend_windows(torch.zeros(2, 1, 8, 12), (6, 8), 0, 1, note, lambda x: x)
    places = [[0, 0], [2, 0], [0, 4], [2, 4]]
    assert told == 2 * list(itertools.zip_longest(places, places[1:]))
