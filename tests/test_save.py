"""Results in the files of their images: the same voxels at the same places, in every program."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from PIL import Image

from medsegdiff_bundle.datalist import image_datalist, result_ending
from medsegdiff_bundle.transforms import SaveImaged, load_image

ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".img", ".hdr", ".nii", ".nii.gz")


def rigid():
    rotation = np.linalg.qr(np.array([[0.9, -0.3, 0.1], [0.2, 1.1, 0.0], [-0.1, 0.1, 1.5]]))[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * [0.9, 1.1, 1.5], (-20, 13, 7)
    return affine


def saved(values, name, folder, affine=None, **options):
    """A result that `SaveImaged` writes of an image of that name."""
    values = MetaTensor(torch.as_tensor(values), affine=affine, meta={"filename_or_obj": f"images/{name}"})
    SaveImaged("pred", output_dir=folder, output_postfix="seg", **options)({"pred": values})
    return sorted(file.name for file in Path(folder).iterdir())


@pytest.mark.parametrize(
    ("image", "ending"),
    [
        *(("a.b.NRRD", ".nrrd"), ("a.img.gz", ".nii.gz"), ("a.nii", ".nii"), ("a.jpg", ".png"), ("a.tiff", ".png")),
        *(("series", ".nii.gz"), ("1.2.840.7", ".nii.gz"), ("series.zip", ".nii.gz"), ("a.mgz", ".mgz")),
    ],
)
def test_the_ending_is_that_of_the_image(image, ending):
    assert result_ending(image) == result_ending(image, "same") == ending
    assert result_ending(image, "NII.gz") == ".nii.gz"


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6, 1)])
def test_masks_have_the_geometry_of_their_images(ending, shape, tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (1, *shape), dtype=np.uint8)
    names = saved(mask, f"case.1{ending}", tmp_path / "out", rigid(), output_dtype="uint8")
    assert f"case.1_seg{ending}" in names and len(names) == (2 if ending in (".nhdr", ".mhd", ".img", ".hdr") else 1)
    read = load_image(tmp_path / "out" / f"case.1_seg{ending}")
    np.testing.assert_array_equal(read, mask)
    np.testing.assert_allclose(read.affine, rigid(), atol=1e-5)
    if ending not in (".mgz", ".mgh"):
        other = SimpleITK.ReadImage(str(tmp_path / "out" / f"case.1_seg{ending}"))
        assert other.GetPixelID() == SimpleITK.sitkUInt8 and other.GetSize() == shape
        for index in ((0, 0, 0), (6, 5, 0)):
            x, y, z = other.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose([-x, -y, z], (rigid() @ [*index, 1])[:3], atol=1e-4)


@pytest.mark.parametrize("ending", ENDINGS)
def test_maps_of_several_channels(ending, tmp_path):
    maps = np.random.default_rng(0).random((2, 7, 6, 5), dtype=np.float32)
    saved(maps, f"a{ending}", tmp_path, rigid())
    np.testing.assert_array_equal(load_image(tmp_path / f"a_seg{ending}"), maps)


def test_pictures(tmp_path):
    values = torch.tensor([[[0.0, 0.25], [0.5, 1.0], [0.0, 1.0]]])  # (1, W, H)
    assert saved(values, "a.jpg", tmp_path / "maps") == ["a_seg.png"]
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "maps" / "a_seg.png")), [[0, 127, 0], [63, 255, 255]]
    )
    assert saved(2 * values.round(), "a.gif", tmp_path / "classes", picture_scale=None) == ["a_seg.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "classes" / "a_seg.png")), [[0, 0, 0], [0, 2, 2]])
    assert saved(values.repeat(2, 1, 1), "a.png", tmp_path / "several") == ["a_seg.nii.gz"]
    for ending, shape in ((".nii.gz", (3, 2)), (".mha", (3, 2))):
        saved(values, f"b{ending}", tmp_path / "two", np.eye(4))
        read = load_image(tmp_path / "two" / f"b_seg{ending}")
        assert read.shape == (1, *shape) and torch.equal(read.as_tensor(), values)


def test_names_of_classes_as_totalsegmentator_writes_them(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (1, 7, 6, 5), dtype=np.uint8)
    for ending in (".nii.gz", ".nii", ".hdr"):
        saved(mask, f"a{ending}", tmp_path, rigid(), output_dtype="uint8", class_names=["left & right", "b"])
        file = nibabel.load(tmp_path / f"a_seg{ending}")
        np.testing.assert_array_equal(file.dataobj, mask[0])
        assert file.get_data_dtype() == np.uint8
        assert [int(file.header[f"{form}_code"]) for form in ("sform", "qform")] == [1, 1]
        np.testing.assert_allclose(file.header.get_qform(), rigid(), atol=1e-5)
        # As TotalSegmentator's load_multilabel_nifti reads it.
        text = file.header.extensions[0].get_content()
        text = text.decode() if isinstance(text, bytes) else text
        found = re.findall(r'<Label Key="(\d+)" Red="([\d.]+)"[^>]*>([^<]*)</Label>', text)
        assert [(key, name) for key, _, name in found] == [("1", "left &amp; right"), ("2", "b")]
        assert all(word in text for word in ("<CaretExtension>", '<VolumeInformation Index="0">', "<LabelTable>"))


def test_nothing_half_written(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        Path(arguments[1]).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(SimpleITK, "WriteImage", fail)
    with pytest.raises(ValueError, match="a_seg.nrrd' cannot be written: disk full."):
        saved(np.zeros((1, 4, 4, 4)), "a.nrrd", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_unknown_endings_are_refused():
    with pytest.raises(ValueError, match="output_ext must be one of .*, got '.jpg'."):
        SaveImaged("pred", output_dir="out", output_ext=".jpg")


def test_results_beside_their_images_are_no_images(tmp_path):
    image = SimpleITK.GetImageFromArray(np.zeros((4, 4, 4), dtype=np.uint8))
    for name in ("a.nrrd", "a_seg.nrrd", "a_uncertainty.nrrd", "b_seg.mha"):
        SimpleITK.WriteImage(image, str(tmp_path / name))
    assert [Path(case["image"]).name for case in image_datalist(tmp_path, 1, 3)] == ["a.nrrd", "b_seg.mha"]
