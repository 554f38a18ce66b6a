"""Rules from numbers to settings, against what can be worked out by hand or is known of nnU-Net's plans."""

import numpy as np
import pytest

from medsegdiff_bundle.planning import rules
from medsegdiff_bundle.planning.fingerprint import Fingerprint


def fingerprint(shapes, spacings, shares=(0.9, 0.1)):
    shapes, spacings = np.asarray(shapes), np.asarray(spacings, dtype=float)
    number = len(shares)
    return Fingerprint(
        shapes.shape[1], len(shapes), shapes, spacings, 1, tuple(range(number)), shares, (len(shapes),) * number, ()
    )


def test_spacing_is_the_median():
    found = fingerprint([(100, 100, 80)] * 3, [(0.8, 0.8, 2), (0.9, 0.9, 2.5), (0.7, 0.7, 1.5)])
    assert rules.target_spacing(found) == (0.8, 0.8, 2.0)
    assert rules.resampled_shape(found, (0.8, 0.8, 2.0)) == (100, 100, 80)


def test_spacing_of_thick_slices_is_finer_than_the_median():
    """Ten times as long voxels, few of them: as of cardiac cine MR. The 10th percentile, no less than the others'."""
    thick = [(1.5, 1.5, 10)] * 8 + [(1.5, 1.5, 5)] * 3
    found = fingerprint([(200, 220, 10)] * 11, thick)
    assert rules.target_spacing(found) == (1.5, 1.5, 5.0)
    assert rules.target_spacing(fingerprint([(200, 220, 10)] * 11, [(1.5, 1.5, 10)] * 9 + [(1.5, 1.5, 1)] * 2)) == (
        1.5,
        1.5,
        1.5,
    )
    many_slices = fingerprint([(200, 220, 150)] * 11, thick)
    assert rules.target_spacing(many_slices) == (1.5, 1.5, 10.0)


def test_levels_of_isotropic_volumes_are_those_that_were_made_by_hand():
    """The hippocampus: configs/train.json has 4 levels of 16 to 128 channels and patches of 40 x 56 x 40."""
    found = rules.topology((36, 50, 36), (1, 1, 1), 16)
    assert found.channels == (16, 32, 64, 128) and found.patch == (40, 56, 40)
    assert found.strides == ((2, 2, 2),) * 3 and found.kernels == ((3, 3, 3),) * 4


def test_long_voxels_wait():
    """As nnU-Net plans prostate MR (0.6 x 0.6 x 3.6 mm): kernels 1 and no pooling along z until x and y caught up."""
    found = rules.topology((320, 256, 20), (0.62, 0.62, 3.6), 16)
    assert found.strides[:2] == ((2, 2, 1), (2, 2, 1))
    assert found.strides[2] == (2, 2, 2)
    assert found.kernels[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    assert all(
        edge % (2 ** sum(stride[axis] == 2 for stride in found.strides)) == 0 for axis, edge in enumerate(found.patch)
    )


@pytest.mark.parametrize("patch", [(5, 6, 7), (1, 64, 64), (33, 33, 1), (7, 9), (256, 192)])
def test_levels_of_any_size_make_a_network(patch):
    import torch

    from medsegdiff_bundle.networks import MedSegDiff
    from medsegdiff_bundle.planning.plan import network_arguments

    found = rules.topology(patch, (1.0,) * len(patch), 8)
    assert len(found.channels) == len(found.strides) + 1 == len(found.kernels)
    assert all(edge >= given for edge, given in zip(found.patch, patch, strict=True))
    network = MedSegDiff(**network_arguments(found, len(patch), 1, 2)).eval()
    if max(patch) < 100:
        with torch.no_grad():
            assert network(torch.zeros(1, 1, *found.patch)).shape[2:] == found.patch


def test_patches_shrink_to_a_cube():
    sizes = rules.patch_sizes((200, 220, 150), (0.8, 0.8, 2.5))
    assert sizes[0] == (200, 220, 150) and sizes[-1] == (32, 32, 32)
    assert all(
        all(a <= b for a, b in zip(small, large, strict=True)) for large, small in zip(sizes, sizes[1:], strict=False)
    )
    middle = next(size for size in sizes if np.prod(size) < 500_000)
    extent = np.asarray(middle) * (0.8, 0.8, 2.5)
    assert extent.max() / extent.min() < 1.4


def test_pictures_keep_their_shape():
    found = fingerprint([(1000, 750)] * 3, [(1, 1)] * 3)
    assert rules.picture_sizes(found)[0] == (256, 192)
    assert rules.picture_sizes(fingerprint([(100, 120)] * 3, [(1, 1)] * 3))[0] == (100, 120)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["left kidney", "right kidney"], True),
        (["kidney_left"], True),
        (["L hippocampus", "R hippocampus"], True),
        (["liver", "tumour"], False),
        (["bright lesion", "cleft"], False),
    ],
)
def test_classes_with_sides(names, expected):
    assert rules.has_sides(names) is expected


def test_rare_classes_are_drawn_as_often_as_frequent_ones():
    assert rules.class_ratios([0.9, 0.09, 0.0001]) == [0.3333, 0.3333, 0.3333]
    assert rules.class_ratios([0.9, 0.1, 0.0]) == [0.3333, 0.6667, 0.0]
