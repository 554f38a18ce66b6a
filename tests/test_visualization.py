"""Pictures: as the picture is; volumes by their affine, whatever the order and spacing of their axes."""

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from medsegdiff_bundle.grid import image_grid, image_modality
from medsegdiff_bundle.visualization import (
    PALETTE,
    contour_pictures,
    grey_window,
    overlay_picture,
    planes,
    uncertainty_colours,
)
from medsegdiff_bundle.visualization.marks import MARGIN


def pixels(*pictures):
    """Pictures without the letters and the scale around them."""
    return [picture[:, MARGIN : -2 * MARGIN, MARGIN:-MARGIN] for picture in pictures]


def correlation(first, second):
    assert first.shape == second.shape
    return np.corrcoef(first.flatten(), second.flatten())[0, 1]


def phantom(codes="RAS", rotation=None, spacing=(1.0, 1.0, 1.0)):
    """An image without any symmetry, its mask and affine: a block at the patient's right, front and top."""
    grid = torch.meshgrid(*[torch.linspace(0, 1, n) for n in (40, 48, 32)], indexing="ij")
    image = 0.2 + 0.2 * grid[0] + 0.3 * grid[1] ** 2 + 0.1 * torch.sin(9 * grid[2])
    image[28:36, 34:44, 22:28] = 1.0
    mask = (image == 1.0).float()
    affine = np.diag([*spacing, 1.0])
    if rotation is not None:
        affine[:3, :3] = rotation @ affine[:3, :3]
    found = []
    for values in (image, mask):
        volume = nibabel.Nifti1Image(values.numpy(), affine)
        turn = ornt_transform(io_orientation(np.diag([*spacing, 1.0])), axcodes2ornt(codes))
        volume = volume.as_reoriented(turn)
        found.append(torch.tensor(volume.get_fdata(dtype=np.float32).copy())[None])
    return (*found, volume.affine)


def about(angles):
    """Rotation by angles in degrees about x, y and z."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        turn = np.eye(3)
        first, second = [other for other in range(3) if other != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


@pytest.mark.parametrize("codes", ["LPS", "LAS", "PIR", "SRA", "ILA"])
@pytest.mark.parametrize("angles", [None, (12, -8, 20)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.7, 3)])
def test_the_same_picture_of_the_same_body(codes, angles, spacing):
    image, mask, affine = phantom(spacing=spacing)
    expected = overlay_picture(image, mask, mask, mask, affine=affine)
    other, turned, affine = phantom(codes, None if angles is None else about(angles), spacing)
    found = overlay_picture(other, turned, turned, turned, affine=affine)
    assert correlation(found, expected) > 0.99
    first, second = (
        contour_pictures(a, b[0], b, b[0], affine=c)
        for a, b, c in ((image, mask, phantom(spacing=spacing)[2]), (other, turned, affine))
    )
    assert [each.plane for each in second] == ["axial", "coronal", "sagittal"]
    for one, two in zip(first, second, strict=True):
        assert correlation(two.fused, one.fused) > 0.99


def test_radiological_convention_and_letters():
    """The block at the patient's right, front and top is on the left, above or on the left, and above."""
    image, mask, affine = phantom("LPS")
    letters = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
    for plane in planes(mask.shape[1:], affine):
        assert plane.letters == letters[plane.name]
        index = int(mask[0].nonzero().float().mean(0)[plane.through])
        rows, columns = plane.cut(mask, index)[0].nonzero().T
        height, width = plane.cut(mask, index).shape[1:]
        assert rows.max() < height / 2 and columns.max() < width / 2
    lettered = contour_pictures(image, mask[0], mask, mask[0], affine=affine)
    plain = contour_pictures(image, mask[0], mask, mask[0], affine=affine, letters=False)
    for one, two in zip(lettered, plain, strict=True):
        torch.testing.assert_close(pixels(one.image), pixels(two.image))
        change = (one.image - two.image).abs().amax(0) > 0
        height, width = change.shape
        # One letter in the middle of each edge, nothing elsewhere.
        for edge in (change[:MARGIN], change[-2 * MARGIN : -MARGIN]):
            assert abs(edge.nonzero()[:, 1].float().mean() - width / 2) < 3
        for edge in (change[:, :MARGIN], change[:, -MARGIN:]):
            assert abs(edge.nonzero()[:, 0].float().mean() - (height - MARGIN) / 2) < 3
        assert change.sum() < 4 * MARGIN**2 / 2


@pytest.mark.parametrize("codes", ["RAS", "PIR"])
def test_a_sphere_is_round_and_the_scale_is_right(codes):
    spacing = np.array([0.5, 0.5, 4.0])
    axes = [(torch.arange(n) - (n - 1) / 2) * s for n, s in zip((240, 220, 31), spacing, strict=True)]
    grid = torch.meshgrid(*axes, indexing="ij")
    ball = (sum(each**2 for each in grid) < 42**2).float()
    turn = ornt_transform(io_orientation(np.eye(4)), axcodes2ornt(codes))
    volume = nibabel.Nifti1Image(ball.numpy(), np.diag([*spacing, 1])).as_reoriented(turn)
    ball = torch.tensor(volume.get_fdata(dtype=np.float32).copy())
    for each in contour_pictures(ball[None], ball, ball[None], ball, affine=volume.affine):
        (shown,) = pixels(each.image)
        rows, columns = (shown[0] > 0.5).nonzero().T
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert height == pytest.approx(width, rel=0.03)
        bar = (each.image[0, -2 * MARGIN :] > 0.5)[3 * MARGIN // 2].nonzero().flatten()
        length = 1 + int(bar[(bar.diff() > 1).nonzero()[0]] - bar[0])  # up to the gap before its text
        assert 84 * length / width == pytest.approx(20, abs=1)  # mm


def test_one_window_for_every_slice_and_plane():
    """The slices of a wedge: each value is the same grey in all of them."""
    image, mask, affine = phantom()
    image = 100 * image + 50 * torch.linspace(-1, 1, 32)
    window = grey_window(image, mask[0] > 0)
    greys = [window.shades(image[..., index]) for index in (0, 15, 31)]
    values = torch.cat([image[0, ..., index].flatten() for index in (0, 15, 31)])
    order = values.argsort()
    assert (torch.cat([grey[0].flatten() for grey in greys])[order].diff() >= 0).all()
    assert window.name == "" and window.low < window.high
    torch.testing.assert_close(
        (window.low, window.high), tuple(np.quantile(image.numpy(), [0.01, 0.99])), rtol=0.02, atol=1
    )


def test_windows_of_ct():
    body = torch.full((1, 40, 40, 10), -1000.0)
    body[:, 5:35, 5:35] = 40.0
    body[:, 10:20, 10:20], body[:, 25:30, 25:30] = -800.0, 900.0
    for inside, name in ((slice(10, 20), "lung"), (slice(25, 30), "bone"), (slice(21, 24), "soft tissue")):
        marked = torch.zeros(40, 40, 10, dtype=torch.bool)
        marked[inside, inside] = True
        assert grey_window(body, marked).name == f"CT, {name}"
    assert grey_window(body).high == 240 and grey_window(body + 1024).name == ""  # as MR and raw values begin at 0
    phase = torch.linspace(-4096, 4095, 8000).reshape(1, 20, 20, 20)
    assert grey_window(phase).name == grey_window((body + 500) / 400).name == grey_window(body, None, "MR").name == ""
    assert grey_window(torch.rand(1, 9, 9, 9) * 80, None, "CT") == (-160, 240, "CT, soft tissue")
    for key, value in (("00080060", {"vr": "CS", "Value": ["CT"]}), ("0008|0060", "CT ")):
        assert image_modality(MetaTensor(body, meta={key: value})) == "CT"
    assert image_modality(MetaTensor(body)) is None


def test_a_picture_is_drawn_as_it_is():
    image = torch.zeros(3, 300, 260)  # MONAI's order: x first
    image[:, :, 200:] = 128.0  # bottom of the photograph
    image[0, 0, 0] = 255.0
    picture = overlay_picture(image, torch.zeros(1, 300, 260))
    assert picture.shape == (3, 260, 600)  # neither letters nor scale
    assert (picture[:, 250] == 128 / 255).all() and picture[:, 10].mean() == 0  # with its own greys


def test_a_file_of_two_axes_lies_in_space():
    """NIfTI: as the slice of a volume."""
    image, mask, affine = phantom("LPS")
    flat = overlay_picture(image[..., 5], mask[..., 5], affine=affine)
    volume = overlay_picture(image[..., 5:6], mask[..., 5:6], affine=affine)
    torch.testing.assert_close(flat, volume)
    assert flat.shape[1] > 256 + 2 * MARGIN


@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 1, 1), (1, 7, 9), (30, 20, 1), (2, 2, 400)])
def test_thin_volumes(shape):
    image, mask = torch.rand(1, *shape), torch.ones(1, *shape)
    affine = np.diag([-2.0, 1.0, 0.3, 1.0])
    picture = overlay_picture(image, mask, image, mask, affine=affine)
    assert torch.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1
    slices = contour_pictures(image, mask[0], mask, image[0], affine=affine)
    assert len(slices) == (3 if min(shape) > 1 else 1)
    assert all(max(each.image.shape) <= 1024 + 3 * MARGIN for each in slices)


def test_a_volume_shows_its_fullest_slices_and_without_a_mask_the_middle_ones():
    image, mask = torch.zeros(1, 256, 256, 5), torch.zeros(1, 256, 256, 5)
    image[:, :, 200:, 3] = 1.0  # towards the front, in the slice of the mask
    mask[0, :10, :10, 3] = 1
    picture = overlay_picture(image, mask, torch.zeros(1, 256, 256, 5))
    assert picture.shape == (3, 256 + 2 * 5, 3 * 256)
    assert picture[:, 10, :256].mean() == pytest.approx(1) and picture[:, 150, :256].mean() == 0
    # The mask, at the back and to the left, which is the right of the picture, tints the middle part only.
    assert picture[:, 250, 2 * 256 - 5].max() > 0.3 and picture[:, 250, 256 - 5].max() == 0
    middle = contour_pictures(image, 0 * mask[0], 0 * mask, 0 * mask[0])
    assert [each.position for each in middle] == [2, 128, 128]


def test_small_pictures_are_enlarged_and_constant_ones_survive():
    picture = overlay_picture(torch.full((1, 30, 20), 7.0), torch.zeros(1, 30, 20))
    assert picture.shape == (3, 9 * 20, 2 * 9 * 30)
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
    assert pictures.plane is pictures.position is None
    # The window starts 16 voxels before the mask, at 2, and ends at the border; 7 pixels per voxel.
    assert all(picture.shape == (3, 38 * 7, 38 * 7) for picture in pictures[2:])
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


@pytest.mark.parametrize("size", [(2560, 2560), (3072, 512)])
def test_large_pictures_are_reduced(size):
    """Of more elements than `torch.quantile` takes, and with everything in its place."""
    image, mask = torch.zeros(3, *size), torch.zeros(1, *size)
    image[:, size[0] // 2 :] = 255.0  # the right half
    mask[:, : size[0] // 2] = 1
    width, height = (round(1024 / max(size) * length) for length in size)
    picture = overlay_picture(image, mask, torch.zeros(1, *size), mask)
    assert picture.shape == (3, height, 4 * width)
    assert picture[:, :, : width // 2 - 2].max() < 0.01 and picture[:, :, width // 2 + 2 : width].min() > 0.99
    (pictures,) = contour_pictures(image, mask[0], mask, torch.zeros(size))
    assert max(pictures.image.shape) == 1024  # with half of its width beside the mask
    edge = round(pictures.image.shape[2] * 2 / 3)
    torch.testing.assert_close(pictures.fused[:, height // 2, edge - 2], PALETTE[0])
    assert pictures.fused[:, height // 2, edge + 2].min() > 0.99


def test_colours_are_those_of_matplotlib():
    from matplotlib import colormaps

    torch.testing.assert_close(PALETTE, torch.tensor(colormaps["tab10"](range(10)))[:, :3].float())
    values = torch.linspace(0, 1, 50)[None]
    inferno = torch.tensor(colormaps["inferno"](values.numpy()))[0, :, :3].float()
    assert (uncertainty_colours(values)[:, 0].T - inferno).abs().max() < 0.04


def test_the_grid_of_a_file():
    image = MetaTensor(torch.zeros(1, 4, 5, 6), affine=np.diag([-2.0, 3.0, 4.0, 1.0]))
    grid = image_grid(image)
    assert grid.summary() == {"shape": [4, 5, 6], "spacing": [2, 3, 4], "orientation": "LAS", "obliquity": 0}
    turned = image_grid(MetaTensor(torch.zeros(1, 4, 5, 6), affine=phantom("LPS", about((0, 0, 20)))[2]))
    assert turned.orientation == "LPS" and turned.obliquity == pytest.approx(20)
    unknown = image_grid(MetaTensor(torch.zeros(1, 4, 5, 6), meta={"sform_code": 0, "qform_code": 0}))
    assert unknown.orientation is None and unknown.spacing == (1, 1, 1)
    picture = image_grid(MetaTensor(torch.zeros(3, 4, 5), meta={"filename_or_obj": "a.JPG"}))
    assert picture == ((4, 5), None, None, None, None)
