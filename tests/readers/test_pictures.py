"""Pictures as phones, cameras and annotation tools save them."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from medsegdiff_bundle.datalist import image_datalist
from medsegdiff_bundle.transforms import CheckGridd, LoadImaged, PictureLabelsd, load_image

# What the standard says of tag 274 (Exif 2.3, 4.6.4): where row 0 and column 0 of the stored array (H, W) lie in the
# picture that is seen, and the array that is then seen.
SEEN = {
    1: lambda stored: stored,  # top, left
    2: lambda stored: stored[:, ::-1],  # top, right
    3: lambda stored: stored[::-1, ::-1],  # bottom, right
    4: lambda stored: stored[::-1],  # bottom, left
    5: lambda stored: stored.swapaxes(0, 1),  # left, top
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda stored: stored.swapaxes(0, 1)[::-1],  # left, bottom
}


@pytest.fixture(scope="module")
def stored():
    """A picture (24, 40, 3) of even squares of 8 pixels, which survive a JPEG, all of another grey."""
    return np.kron(np.arange(16, 256, 16, dtype=np.uint8).reshape(3, 5), np.ones((8, 8), dtype=np.uint8))


def save(array, path, orientation, **options):
    exif = Image.Exif()
    exif[274] = orientation
    if str(path).endswith(".tif"):
        options["tiffinfo"] = ImageFileDirectory_v2()
        options["tiffinfo"][274] = orientation
    else:
        options["exif"] = exif
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
def test_a_picture_is_turned_as_every_viewer_turns_it(ending, orientation, stored, tmp_path):
    path = save(stored, tmp_path / f"a{ending}", orientation)
    seen = SEEN[orientation](stored)
    for channels in (None, 1, 3):
        read = load_image(path, channels)
        np.testing.assert_allclose(read[0].T, seen, atol=4)  # of JPEG and WebP
    sixteen = save(stored.astype(np.uint16) * 257, tmp_path / "deep.tif", orientation)
    np.testing.assert_array_equal(load_image(sixteen)[0].T, SEEN[orientation](stored.astype(float) * 257))


@pytest.mark.parametrize("orientation", [2, 6])
@pytest.mark.parametrize("turned", ["image", "label"])
def test_image_and_mask_meet_in_the_grid_that_is_seen(turned, orientation, stored, tmp_path):
    """As a training reads them: one is stored turned, the other as it is seen."""
    mask = ((stored > 100) * 255).astype(np.uint8)
    files = {"image": (stored, "a.jpg"), "label": (mask, "m.png")}
    case = {}
    for key, (array, name) in files.items():
        way = orientation if key == turned else 1
        case[key] = str(save(array if key == turned else SEEN[orientation](array), tmp_path / name, way))
    read = LoadImaged("image", 1)(LoadImaged("label")(case))
    read = {key: read[key] if read[key].ndim == 3 else read[key][None] for key in ("image", "label")}
    found = CheckGridd("label")(PictureLabelsd("label", 2)(read))
    np.testing.assert_array_equal(found["label"][0] > 0, found["image"][0] > 100)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_gives_the_channels_that_are_asked_for(mode, channels, stored, tmp_path):
    picture = Image.fromarray(stored // 255 * 255 if mode == "1" else stored)
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    (Image.fromarray(stored.astype(np.uint16)) if mode == "I;16" else picture.convert(mode)).save(path)
    read = load_image(path, channels)
    assert read.shape == (channels, 40, 24)
    if mode not in ("1", "I;16"):
        np.testing.assert_allclose(read[0].T, stored, atol=4)


def test_a_mask_in_a_gif_has_the_values_of_its_greys(stored, tmp_path):
    """Programs sort the palette of a GIF as they like."""
    palette = Image.fromarray((stored < 100).astype(np.uint8))  # where 1 is black and 0 white
    palette.putpalette([255, 255, 255, 0, 0, 0])
    palette.save(tmp_path / "mask.gif")
    label = PictureLabelsd("label", 2)({"label": load_image(tmp_path / "mask.gif")})["label"]
    np.testing.assert_array_equal(label[0].T, stored >= 100)


def test_several_pictures_in_one_file(stored, tmp_path):
    pages = [Image.fromarray(np.roll(stored, shift, axis=1)) for shift in (0, 8)]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(ValueError, match=f"{name}' cannot be read: it holds 2 pictures, not one."):
            load_image(tmp_path / name, 1)
    pages[0].save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=pages[1:])
    np.testing.assert_allclose(load_image(tmp_path / "phone.jpg", 1)[0].T, stored, atol=4)


def test_a_picture_of_too_many_pixels(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ValueError, match="a.png' cannot be read: it has more than 0 megapixels: make it smaller."):
        load_image(tmp_path / "a.png", 1)


def test_a_folder_of_pictures(stored, tmp_path):
    for name in ("a.webp", "b.GIF", "c.jfif"):
        Image.fromarray(stored).save(tmp_path / name)
    assert [case["image"] for case in image_datalist(tmp_path, 1, 2)] == [
        str(tmp_path / name) for name in ("a.webp", "b.GIF", "c.jfif")
    ]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_a_picture_of_a_line(shape, tmp_path):
    Image.fromarray(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)).save(tmp_path / "a.png")
    said = f"a.png' cannot be read: it has {shape[1]} x {shape[0]} pixels: there is nothing to find in it."
    with pytest.raises(ValueError, match=said):
        load_image(tmp_path / "a.png", 3)


@pytest.mark.parametrize("kind", [np.uint16, np.uint8, np.float32])
def test_a_tiff_whose_lowest_value_is_white(kind, tmp_path):
    """As digitisers of films save it; Pillow turns pictures of 8 bits around, and no others."""
    ramp = np.tile(np.arange(0, 250, 10), (4, 1)).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", ramp, photometric="miniswhite")
    read = load_image(tmp_path / "a.tif", 1)[0].numpy().T
    assert (np.diff(read, axis=1) < 0).all() and read[0, 0] == 255
