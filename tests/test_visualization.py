import pytest
import torch

from medsegdiff_bundle.visualization import PALETTE, contour_pictures, overlay_picture


def test_a_photograph_keeps_its_way_up():
    image = torch.zeros(3, 300, 260)  # MONAI's order: x first
    image[:, :, 200:] = 1.0  # bottom of the photograph
    picture = overlay_picture(image, torch.zeros(1, 300, 260))
    assert picture.shape == (3, 260, 600)
    assert picture[:, 250].mean() == 1 and picture[:, 10].mean() == 0


def test_a_volume_shows_its_fullest_slice_with_the_front_up():
    image = torch.zeros(1, 256, 256, 5)
    image[:, :, 200:, 3] = 1.0  # towards the front, in the slice of the mask
    mask = torch.zeros(1, 256, 256, 5)
    mask[0, :10, :10, 3] = 1
    picture = overlay_picture(image, mask, torch.zeros(1, 256, 256, 5))
    assert picture.shape == (3, 256, 768)
    assert picture[:, 10, :256].mean() == pytest.approx(1) and picture[:, 150, :256].mean() == 0
    # The mask, at the back and to the left, tints the middle panel only.
    assert picture[:, 250, 256 + 5].max() > 0.3 and picture[:, 250, 5].max() == 0


def test_small_pictures_are_enlarged_and_constant_ones_survive():
    picture = overlay_picture(torch.full((1, 30, 20), 7.0), torch.zeros(1, 30, 20))
    assert picture.shape == (3, 260, 780)
    assert torch.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1


def test_members_are_drawn_between_mask_and_uncertainty():
    mask = torch.zeros(1, 256, 300)
    mask[0, 100:150, 100:150] = 1
    members = torch.cat([mask, torch.zeros_like(mask)])
    picture = overlay_picture(torch.zeros(1, 256, 300), mask, torch.zeros(1, 256, 300), members)
    assert picture.shape == (3, 300, 4 * 256)
    panel = picture[..., 2 * 256 : 3 * 256]
    torch.testing.assert_close(panel[:, 120, 100], (0.3 + 0.7 / 2) * PALETTE[0])  # one of two
    assert panel[:, 120, 120].max() == panel[:, 120, 99].max() == 0


def test_contours_of_the_members_are_stronger_the_more_share_them():
    image, fused = torch.zeros(1, 40, 40), torch.zeros(40, 40, dtype=torch.uint8)
    fused[18:24, 18:24] = 1
    members = fused.repeat(4, 1, 1)
    members[3, 24:30, 18:24] = 1  # one member goes on to the right
    (pictures,) = contour_pictures(image, fused, members, torch.zeros(40, 40))
    assert pictures.position is None
    # The window starts 16 voxels before the mask, at 2, and ends at the border; 7 pixels per voxel.
    assert all(picture.shape == (3, 38 * 7, 38 * 7) for picture in pictures[1:])
    left, right, far_right = (16 * 7, 22 * 7 - 1, 28 * 7 - 1)
    row, blue = 19 * 7, PALETTE[0]
    assert pictures.image.max() == 0
    torch.testing.assert_close(pictures.fused[:, row, left], blue)
    torch.testing.assert_close(pictures.fused[:, row, right], blue)
    assert pictures.fused[:, row, far_right].max() == pictures.fused[:, row, left - 1].max() == 0
    torch.testing.assert_close(pictures.members[:, row, left], blue)
    torch.testing.assert_close(pictures.members[:, row, right], (0.3 + 0.7 * 3 / 4) * blue)
    torch.testing.assert_close(pictures.members[:, row, far_right], (0.3 + 0.7 * 1 / 4) * blue)
    assert pictures.uncertainty[:, row, left].min() == 1  # the contour is white


def test_slices_of_a_volume_go_through_what_is_marked():
    fused = torch.zeros(20, 20, 30)
    fused[5:15, 5:15, 10:20] = 2
    members, flat = fused[None].long(), torch.zeros(1, 20, 20, 30)
    assert [pictures.position for pictures in contour_pictures(flat, fused, members, fused / 2)] == [12, 14, 17]
    (middle,) = contour_pictures(flat, 0 * fused, 0 * members, fused / 2)
    assert middle.position == 15 and middle.members.max() == 0


@pytest.mark.parametrize("size", [(2400, 2400), (3000, 600)])
def test_large_pictures_are_thinned(size):
    """Of more elements than `torch.quantile` takes, and with everything in its place."""
    image, mask = torch.zeros(3, *size), torch.zeros(1, *size)
    image[:, size[0] // 2 :] = 1.0  # the right half
    mask[:, : size[0] // 2] = 1
    width, height = (length // 3 for length in size)
    picture = overlay_picture(image, mask, torch.zeros(1, *size), mask)
    assert picture.shape == (3, height, 4 * width)
    assert picture[:, :, : width // 2].max() == 0 and picture[:, :, width // 2 : width].min() == 1
    (pictures,) = contour_pictures(image, mask[0], mask, torch.zeros(size))
    assert pictures.image.shape == (3, height, 3 * width // 4)  # with half of its width beside the mask
    torch.testing.assert_close(pictures.fused[:, height // 2, width // 2 - 1], PALETTE[0])
    assert pictures.fused[:, height // 2, width // 2].min() == 1


def test_long_pictures_are_enlarged_no_further_than_the_limit():
    assert overlay_picture(torch.rand(1, 400, 20), torch.zeros(1, 400, 20)).shape == (3, 40, 2 * 800)
