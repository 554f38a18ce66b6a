"""Volumes as 3D Slicer, ITK-SNAP, FreeSurfer and others save them: the same voxels at the same places."""

import gzip
import os
import pickle
import re
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from medsegdiff_bundle.datalist import decathlon_datalist, image_datalist, segmentation_datalist
from medsegdiff_bundle.remarks import remarks
from medsegdiff_bundle.transforms import CheckGridd, CheckLabelsd, LoadImaged, PlaceByITKd, SaveImaged, load_image

OBLIQUE = np.array([[0.9, -0.3, 0.1, -20], [0.2, 1.1, 0.0, 13], [-0.1, 0.1, 1.5, 7], [0, 0, 0, 1]])
ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".img", ".hdr", ".img.gz", ".nii", ".nii.gz", ".NRRD")


def rigid(shear=OBLIQUE):
    """The rotation and the voxel sizes of a matrix, as ITK takes no other."""
    left, _, right = np.linalg.svd(shear[:3, :3] / np.linalg.norm(shear[:3, :3], axis=0))
    affine = shear.copy()
    affine[:3, :3] = left @ right * np.linalg.norm(shear[:3, :3], axis=0)
    return affine


AFFINE = rigid()


def itk_image(values, affine=AFFINE, vector=False):
    """An image of SimpleITK with the axes (X, Y, Z), or with vectors behind them."""
    image = SimpleITK.GetImageFromArray(values.transpose(2, 1, 0, *range(3, values.ndim)), isVector=vector)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing)
    image.SetOrigin(lps[:3, 3])
    image.SetDirection((lps[:3, :3] / spacing).ravel())
    return image


def save(values, path, affine=AFFINE):
    if path.name.lower().endswith((".mgz", ".mgh")):
        nibabel.save(nibabel.MGHImage(values, affine), path)
    elif path.name.lower().endswith((".nii", ".nii.gz", ".img", ".hdr", ".img.gz")):
        kind = nibabel.Nifti1Image if ".nii" in path.name else nibabel.Nifti1Pair
        image = kind(values, affine)
        image.set_qform(affine, 1)
        nibabel.save(image, path)
    else:
        SimpleITK.WriteImage(itk_image(values, affine), str(path), useCompression=True)
    return path


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).integers(-900, 900, (7, 6, 5)).astype(np.int16)


@pytest.mark.parametrize("ending", ENDINGS)
def test_voxels_and_their_places(ending, values, tmp_path):
    path = save(values, tmp_path / f"case.1{ending}")
    read = load_image(path)
    np.testing.assert_array_equal(read[0], values)
    np.testing.assert_allclose(read.affine, AFFINE, atol=1e-5)
    assert read.meta["filename_or_obj"] == str(path)
    assert image_datalist(path, 1, 3) == image_datalist(str(path), 1) == [{"image": str(path)}]
    assert [case["image"] for case in image_datalist(tmp_path, 1, 3)] == [re.sub(r"\.img$", ".hdr", str(path))]
    with pytest.raises(ValueError, match=r"has 1 channel\(s\), the network takes 2."):
        image_datalist(path, 2)


def test_files_that_belong_to_an_image_are_not_left_out(values, tmp_path, caplog):
    for name in ("a.mhd", "b.nhdr", "c.hdr"):
        save(values, tmp_path / name)
    for name in ("a_left.stl", "a.seg.nrrd", "a_rtstruct.dcm", "b_report.html", "b_seg.nhdr", "b_seg.raw.gz"):
        (tmp_path / name).write_bytes(b"")
    found = [case["image"] for case in image_datalist(tmp_path, 1, 3)]
    assert found == [str(tmp_path / name) for name in ("a.mhd", "b.nhdr", "c.hdr")]
    assert "Left out" not in caplog.text


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LAS", (-1, 1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
    ],
)
def test_each_space_of_an_nrrd_file(space, signs, values, tmp_path):
    """NRRD's own definition, teem.sourceforge.net/nrrd/format.html: what each axis of the space points to."""
    header = (
        f"NRRD0005\ntype: short\ndimension: 3\nspace: {space}\nsizes: 7 6 5\nendian: little\nencoding: raw\n"
        "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (10,20,30)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + values.tobytes(order="F"))
    read = load_image(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(read[0], values)
    expected = np.diag([*signs, 1]) @ np.array([[1, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
    np.testing.assert_allclose(read.affine, expected)


def with_units(path, field, words):
    """Give a header of NRRD a field that ITK neither writes nor reads."""
    content = path.read_bytes().replace(b"\nkinds:", f"\n{field}: {words}\nkinds:".encode(), 1)
    if field == "units":  # of the axes, where no space is given
        for name in (b"space", b"space origin"):
            content = re.sub(rb"(?m)^" + name + rb": .*\n", b"", content)
        content = re.sub(rb"(?m)^space directions: .*$", b"spacings: 500 600 700", content)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr"])
@pytest.mark.parametrize(
    ("field", "words", "factor", "name"),
    [
        ("space units", '"um" "um" "um"', 1e-3, "micrometres"),
        ("space units", '"µm" "µm" "µm"', 1e-3, "micrometres"),
        ("Space Units", '"microns"  "microns" "microns"', 1e-3, "micrometres"),
        ("space units", '"Millimeters" "mm" "mm"', 1, None),
        ("space units", '"m" "m" "m"', 1e3, "metres"),
        ("space units", '"cm" "cm" "cm"', 10, "centimetres"),
        ("space units", '"mm" "mm" "mm"', 1, None),
        ("space units", '"" "" ""', 1, None),
        ("units", '"um" "um" "um"', 1e-3, "micrometres"),
    ],
)
def test_units_of_an_nrrd_file(ending, field, words, factor, name, values, tmp_path):
    """Lengths are in mm, but a mask has the numbers of its image, as other programs pass over the unit."""
    path = with_units(save(values, tmp_path / f"a{ending}"), field, words)
    image = load_image(path)
    given = np.diag([-500.0, -600, 700, 1]) if field == "units" else AFFINE
    np.testing.assert_allclose(image.affine, np.diag([factor, factor, factor, 1]) @ given, atol=1e-9)
    said = [] if name is None else [f"Lengths in the header are in {name}; here they are in mm."]
    assert remarks(image.meta)["processing"] == said
    SaveImaged("pred", tmp_path, "seg", output_dtype="uint8")({"pred": (image > 0).float()})
    by_itk, mask = (SimpleITK.ReadImage(str(tmp_path / f"{name}{ending}")) for name in ("a", "a_seg"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.Mask(by_itk, mask)).T > 0, values > 0)
    placed = PlaceByITKd("pred")({"pred": image})["pred"]
    np.testing.assert_allclose(placed.affine, given, atol=1e-9)
    label = CheckGridd("label")({"image": image, "label": load_image(tmp_path / f"a_seg{ending}")})["label"]
    np.testing.assert_array_equal(label[0], values > 0)


@pytest.mark.parametrize("ending", [".mha", ".mhd"])
@pytest.mark.parametrize(("word", "factor"), [("um", 1e-3), ("cm", 10), ("Millimeters", 1), ("?", 1)])
def test_units_of_a_metaimage(ending, word, factor, values, tmp_path):
    """As of NRRD; a mask in NIfTI is in mm, and says so."""
    path = save(values, tmp_path / f"a{ending}")
    path.write_bytes(
        path.read_bytes().replace(b"ElementSpacing", f"DistanceUnits = {word}\nElementSpacing".encode(), 1)
    )
    image = load_image(path)
    millimetres = np.diag([factor, factor, factor, 1]) @ AFFINE
    np.testing.assert_allclose(image.affine, millimetres, atol=1e-9)
    SaveImaged("pred", tmp_path, "seg", output_dtype="uint8")({"pred": (image > 0).float()})
    by_itk, mask = (SimpleITK.ReadImage(str(tmp_path / f"{name}{ending}")) for name in ("a", "a_seg"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.Mask(by_itk, mask)).T > 0, values > 0)
    label = CheckGridd("label")({"image": image, "label": load_image(tmp_path / f"a_seg{ending}")})["label"]
    np.testing.assert_array_equal(label[0], values > 0)
    SaveImaged("pred", tmp_path, "seg", output_ext=".nii.gz", output_dtype="uint8")({"pred": (image > 0).float()})
    written = nibabel.load(tmp_path / "a_seg.nii.gz")
    np.testing.assert_allclose(written.affine, millimetres, rtol=1e-5, atol=1e-5)
    assert written.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('"mm" "mm" "um"', "its header gives lengths in the units 'mm', 'mm', 'um': one unit for all axes is read"),
        ('"um" "um" ""', "its header gives lengths in the units 'um', 'um', '': one unit for all axes is read"),
        ('"ms" "ms" "ms"', "its header gives lengths in the unit 'ms': mm, cm, m, um and nm are read"),
        ('"inch" "inch" "inch"', "its header gives lengths in the unit 'inch': mm, cm, m, um and nm are read"),
    ],
)
def test_units_that_are_none(words, said, values, tmp_path):
    path = with_units(save(values, tmp_path / "a.nrrd"), "space units", words)
    with pytest.raises(ValueError, match=re.escape(f"a.nrrd' cannot be read: {said}.")):
        load_image(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty.mha", "it is empty"),
        ("empty.nrrd", "it is empty"),
        ("cut.mha", "it is truncated or damaged"),
        ("cut.nrrd", "it is truncated or damaged"),
        ("cut.mhd", "it is truncated or damaged"),
        ("axes.mha", "its header tells 3 3 axes"),
        ("alone.mhd", "its values 'alone.zraw' are missing"),
        ("alone.hdr", "its values 'alone.img' are missing"),
        ("analyze.hdr", "its values 'analyze.img' are missing"),
        ("alone.img", "its header 'alone.hdr' is missing"),
    ],
)
def test_parts_that_are_missing(name, said, values, tmp_path, capfd):
    """Of which the libraries behind ITK would talk on standard error, too."""
    path = tmp_path / name
    path.write_bytes(b"")
    if name.startswith("cut"):
        SimpleITK.WriteImage(itk_image(values), str(path))
        cut = path.with_suffix(".raw") if name == "cut.mhd" else path
        cut.write_bytes(cut.read_bytes()[:-100])
    if name == "axes.mha":
        SimpleITK.WriteImage(itk_image(values), str(path))
        path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"NDims = 3 3"))
    if name == "analyze.hdr":
        nibabel.save(nibabel.AnalyzeImage(values, np.eye(4)), path)
        path.with_suffix(".img").unlink()
    if name == "alone.mhd":
        SimpleITK.WriteImage(itk_image(values), str(path), useCompression=True)
        path.with_suffix(".zraw").unlink()
    if name == "alone.hdr":
        nibabel.save(nibabel.Nifti1Pair(values, np.eye(4)), path)
        path.with_suffix(".img").unlink()
    if name == "alone.img":
        nibabel.save(nibabel.AnalyzeImage(values, np.eye(4)), path)
        path.with_suffix(".hdr").unlink()
    with pytest.raises(ValueError, match=re.escape(f"{name}' cannot be read: {said}.")):
        load_image(path)
    if name in ("empty.mha", "empty.nrrd", "alone.img"):  # which headers show
        with pytest.raises(ValueError, match=re.escape(f"{name}' cannot be read: {said}.")):
            image_datalist(path, 1, 3)


def test_analyze_as_itk_reads_it(values, tmp_path):
    """It does not say where it lies: for ITK-SNAP and 3D Slicer the first voxel is the origin of LPS."""
    nibabel.save(nibabel.AnalyzeImage(values, np.diag([1.0, 2, 3, 1])), tmp_path / "a.img")
    for ending in ("img", "hdr"):
        read = load_image(tmp_path / f"a.{ending}")
        np.testing.assert_array_equal(read[0], values)
        np.testing.assert_allclose(read.affine, np.diag([-1.0, -2, 3, 1]))
        assert remarks(read.meta)["warnings"] == [
            "The header gives the axes of the volume no directions: here they are taken to point left, to the back "
            "and up, as in programs built on ITK, such as 3D Slicer; nibabel and others take other ones."
        ]


def test_analyze_that_spm_placed(values, tmp_path):
    """By a matrix in a file of MATLAB beside it; another file of that name is passed over."""
    nibabel.save(nibabel.Spm99AnalyzeImage(values, AFFINE), tmp_path / "a.img")
    for ending in ("img", "hdr"):
        read = load_image(tmp_path / f"a.{ending}")
        np.testing.assert_array_equal(read[0], values)
        np.testing.assert_allclose(read.affine, AFFINE, atol=1e-5)
        (said,) = remarks(read.meta)["warnings"]
        assert said.startswith("The volume is placed by 'a.mat', as in SPM")
    for content in (b"", b"no file of MATLAB", (tmp_path / "a.mat").read_bytes()[:200]):
        (tmp_path / "a.mat").write_bytes(content)
        said = remarks(load_image(tmp_path / "a.img").meta)["warnings"]
        assert said[1:] == ["'a.mat', which lies beside it, holds no place of SPM's and is passed over."]


def test_channels_of_one_file(tmp_path):
    channels = np.random.default_rng(0).normal(size=(7, 6, 5, 2)).astype(np.float32)
    for ending in ("nrrd", "mha"):
        SimpleITK.WriteImage(itk_image(channels, vector=True), str(tmp_path / f"a.{ending}"))
        four = SimpleITK.GetImageFromArray(channels.transpose(3, 2, 1, 0), isVector=False)
        SimpleITK.WriteImage(four, str(tmp_path / f"b.{ending}"))
        for name in "ab":
            assert image_datalist(tmp_path / f"{name}.{ending}", 2, 3)
            np.testing.assert_array_equal(load_image(tmp_path / f"{name}.{ending}"), channels.transpose(3, 0, 1, 2))
    nibabel.save(nibabel.MGHImage(channels, AFFINE), tmp_path / "a.mgz")
    assert load_image(tmp_path / "a.mgz").shape == (2, 7, 6, 5)


def test_axes_of_length_one_behind(values, tmp_path):
    five = SimpleITK.GetImageFromArray(values.transpose(2, 1, 0)[None, None], isVector=False)
    assert five.GetDimension() == 5
    SimpleITK.WriteImage(five, str(tmp_path / "a.mha"))
    assert image_datalist(tmp_path / "a.mha", 1, 3)
    np.testing.assert_array_equal(load_image(tmp_path / "a.mha")[0], values)
    times = SimpleITK.GetImageFromArray(np.zeros((2, 3, 5, 6, 7), dtype=np.uint8), isVector=False)
    SimpleITK.WriteImage(times, str(tmp_path / "b.mha"))
    with pytest.raises(ValueError, match="b.mha' cannot be read: it has 5 axes, 7 x 6 x 5 x 3 x 2: three and one of"):
        image_datalist(tmp_path / "b.mha")


def test_a_picture_in_a_file_of_volumes(tmp_path):
    picture = np.arange(20, dtype=np.uint8).reshape(4, 5)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(picture), str(tmp_path / "a.mha"))
    assert image_datalist(tmp_path / "a.mha", 1, 2)
    np.testing.assert_array_equal(load_image(tmp_path / "a.mha")[0], picture.T)
    with pytest.raises(ValueError, match="a.mha' has 2 axes, the network takes 3."):
        image_datalist(tmp_path / "a.mha", 1, 3)


def test_segments_of_3d_slicer(values, tmp_path):
    layers = np.zeros((7, 6, 5, 2), dtype=np.uint8)
    layers[:3, ..., 0], layers[4:, ..., 1] = 1, 1
    image = itk_image(layers, vector=True)
    for number, layer in enumerate((0, 1)):
        image.SetMetaData(f"Segment{number}_ID", f"Segment_{number}")
        image.SetMetaData(f"Segment{number}_Layer", str(layer))
        image.SetMetaData(f"Segment{number}_LabelValue", "1")
    SimpleITK.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    np.testing.assert_array_equal(load_image(tmp_path / "a.seg.nrrd")[0], layers[..., 0] + 2 * layers[..., 1])
    layers[2, ..., 1] = 1
    overlapping = itk_image(layers, vector=True)
    for key in image.GetMetaDataKeys():
        overlapping.SetMetaData(key, image.GetMetaData(key))
    SimpleITK.WriteImage(overlapping, str(tmp_path / "b.seg.nrrd"))
    with pytest.raises(ValueError, match="b.seg.nrrd' cannot be read: its segments overlap"):
        load_image(tmp_path / "b.seg.nrrd")
    save(values, tmp_path / "a.nrrd")
    assert [case["image"] for case in image_datalist(tmp_path)] == [str(tmp_path / "a.nrrd")]


def damaged(path, values):
    """Files with their ends cut off, and compressed ones with one changed byte."""
    save(values, path)
    content = path.read_bytes()
    yield content[:-60]
    if path.suffix in (".nrrd", ".mha", ".mgz"):
        yield content[:-30] + bytes([content[-30] ^ 255]) + content[-29:]


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("a.mha", b"TransformMatrix = 1 0 0 0 1 0", b"TransformMatrix = 1 0 0 1 0 0", "its axes lie in one plane"),
        ("a.mha", b"ElementSpacing = 1", b"ElementSpacing = 0", "a voxel has no size"),
        ("a.mha", b"DimSize", b"Dimsize", "its header has no DimSize"),
        ("a.nrrd", b"space directions: (1,0,0)", b"space directions: (0,0,0)", "a voxel has no size"),
    ],
)
def test_places_of_itk_that_are_none(name, old, new, said, tmp_path, capfd):
    """And ITK, which talks by itself, says nothing besides."""
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((4, 5, 6), dtype=np.float32)), str(tmp_path / name))
    content = (tmp_path / name).read_bytes()
    assert old in content
    (tmp_path / name).write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=f"{name}' cannot be read: .*{said}"):
        load_image(tmp_path / name)
    assert capfd.readouterr().err == ""


class Harm:
    """What a pickle runs when it is opened."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


@pytest.mark.parametrize("content", [b"no", b"\x80\x04\x95", pickle.dumps(Harm()), None])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_an_array_that_is_none(content, name, tmp_path, monkeypatch):
    """A pickle is not opened, and nobody is told how to open it."""
    monkeypatch.chdir(tmp_path)
    if content is None:
        (np.savez if name == "a.npz" else np.save)(name, np.array([Harm()], dtype=object))
    else:
        Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}' cannot be read: it holds something else than an array of numbers."):
        load_image(name)
    assert not Path("opened").exists()


def test_arrays(tmp_path):
    first, second = np.arange(24.0).reshape(2, 3, 4), np.zeros((2, 3, 4))
    np.save(tmp_path / "a.npy", first)
    np.savez(tmp_path / "a.npz", first)
    np.savez(tmp_path / "b.npz", first, second)
    for name, expected in (("a.npy", [first]), ("a.npz", [first]), ("b.npz", [first, second])):
        np.testing.assert_array_equal(load_image(tmp_path / name), expected)


@pytest.mark.parametrize("ending", ["nrrd", "mha", "mgz", "mgh", "nii.gz", "nii"])
def test_damaged_files_are_refused_in_one_sentence(ending, values, tmp_path, capfd):
    path = tmp_path / f"a.{ending}"
    for content in damaged(tmp_path / f"whole.{ending}", values):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a.{ending}' cannot be read: ") as raised:
            load_image(path)
        assert "\n" not in str(raised.value) and "Exception thrown" not in str(raised.value)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.mgz", "a.hdr", "a.img", "a.MHA"])
def test_files_of_something_else(name, tmp_path):
    (tmp_path / name).write_text("nothing")
    for ask in (image_datalist, load_image):
        with pytest.raises(ValueError, match=f"{name}' cannot be read: ") as raised:
            ask(tmp_path / name)
        assert "\n" not in str(raised.value) and "sitk" not in str(raised.value)


@pytest.mark.parametrize("name", ["a.heic", "a.txt", "a.vtk", "a"])
def test_formats_that_are_not_read_are_answered_with_those_that_are(name, tmp_path):
    (tmp_path / name).write_bytes(gzip.compress(b"nothing"))
    for ask in (image_datalist, load_image):
        with pytest.raises(ValueError, match=f"'{name}' is none of the files that are read: NIfTI .*NRRD.*MGH.*DICOM"):
            ask(tmp_path / name)


def test_complex_numbers_are_refused(values, tmp_path):
    SimpleITK.WriteImage(SimpleITK.Cast(itk_image(values), SimpleITK.sitkComplexFloat32), str(tmp_path / "a.nrrd"))
    with pytest.raises(ValueError, match="a.nrrd' cannot be read: it holds complex numbers"):
        load_image(tmp_path / "a.nrrd")


def test_several_images_of_several_channels_are_refused(tmp_path):
    """By the header, and by who reads the values."""
    SimpleITK.WriteImage(SimpleITK.Image([5, 4, 3, 2], SimpleITK.sitkVectorFloat32, 3), str(tmp_path / "a.mha"))
    for ask in (image_datalist, load_image):
        with pytest.raises(ValueError, match="it holds 2 images of 3 channels: one image is read"):
            ask(tmp_path / "a.mha")


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mgz", ".hdr"])
@pytest.mark.parametrize("form", ["decathlon", "folders"])
def test_data_sets_of_such_files(form, ending, values, tmp_path):
    """As a training reads them."""
    label = (values > 0).astype(np.uint8)
    folders = ("imagesTr", "labelsTr") if form == "decathlon" else ("images", "masks")
    for folder, what in zip(folders, (values, label), strict=True):
        (tmp_path / folder).mkdir()
        for name in "abcdef":
            save(what, tmp_path / folder / f"{name}{ending}")
    if form == "decathlon":
        cases = [{"image": f"imagesTr/{name}{ending}", "label": f"labelsTr/{name}{ending}"} for name in "abcdef"]
        (tmp_path / "dataset.json").write_text(str({"training": cases}).replace("'", '"'))
        assert decathlon_datalist(tmp_path, "training", 1, 3)
    (first, *_), validation = (segmentation_datalist(tmp_path, part, 1, 3) for part in ("training", "validation"))
    assert [re.sub(r".*/|\..*", "", case["image"]) for case in validation] == ["a", "f"]
    case = LoadImaged(["image", "label"])(first)
    case = {key: case[key][None] for key in ("image", "label")}
    read = CheckLabelsd("label", 2)(CheckGridd("label")(case))
    assert torch.equal(read["label"] > 0, read["image"] > 0)


@pytest.mark.parametrize(
    ("space", "known"),
    [("space: LPS\n", True), ("space: right-anterior-superior\n", True), ("space: scanner-xyz\n", False), ("", False)],
)
def test_an_nrrd_file_of_no_body(space, known, values, tmp_path):
    """Where its axes point is a guess, which the reader must know."""
    directions = "space directions: (1,0,0) (0,1,0) (0,0,1)\n" if space else "spacings: 1 1 1\n"
    header = f"NRRD0004\ntype: short\ndimension: 3\n{space}sizes: 7 6 5\n{directions}endian: little\nencoding: raw\n\n"
    (tmp_path / "case.nrrd").write_bytes(header.encode() + values.tobytes(order="F"))
    found = remarks(load_image(tmp_path / "case.nrrd").meta)["warnings"]
    assert [sentence.startswith("The header gives the axes of the volume no directions") for sentence in found] == (
        [] if known else [True]
    )


def test_an_mgh_file_without_directions(values, tmp_path):
    assert remarks(load_image(save(values, tmp_path / "a.mgz")).meta)["warnings"] == []
    content = bytearray(save(values, tmp_path / "case.mgh").read_bytes())
    assert content[28:30] == b"\0\1"  # goodRASFlag
    content[29] = 0
    (tmp_path / "case.mgh").write_bytes(content)
    (said,) = remarks(load_image(tmp_path / "case.mgh").meta)["warnings"]
    assert said == "The header gives the axes of the volume no directions: here they are taken as in nibabel."


@pytest.mark.parametrize("told", [True, False])
def test_a_compressed_metaimage_that_does_not_tell_its_compressed_size(told, values, tmp_path):
    """The field is optional; SimpleITK 2.5.7 hands on what is in memory."""
    packed = zlib.compress(values.transpose(2, 1, 0).tobytes())
    sizes = " ".join(map(str, values.shape))
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\n"
        + f"CompressedDataSize = {len(packed)}\n" * told
        + "TransformMatrix = -1 0 0 0 -1 0 0 0 1\nOffset = -4 -5 6\nElementSpacing = 1 2 3\n"
        f"DimSize = {sizes}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "a.mha").write_bytes(header.encode() + packed)
    read = load_image(tmp_path / "a.mha")
    np.testing.assert_array_equal(read[0], values)
    np.testing.assert_allclose(read.affine, [[1, 0, 0, 4], [0, 2, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]])


def segments(path, values, names, affine=AFFINE, cut=((0, None),) * 3):
    """A segmentation as 3D Slicer saves it, of one layer, perhaps cropped."""
    box = tuple(slice(*each) for each in cut)
    part = affine.copy()
    part[:3, 3] = (affine @ [*(each.start for each in box), 1])[:3]
    image = itk_image(np.ascontiguousarray(values[box]), part)
    for index, (number, name) in enumerate(names):
        image.SetMetaData(f"Segment{index}_ID", f"Segment_{index + 1}")
        image.SetMetaData(f"Segment{index}_Name", name)
        image.SetMetaData(f"Segment{index}_LabelValue", str(number))
        image.SetMetaData(f"Segment{index}_Layer", "0")
    SimpleITK.WriteImage(image, str(path))


@pytest.mark.parametrize("cropped", [False, True])
@pytest.mark.parametrize("numbers", [(1, 2), (2, 1), (3, 7)])
def test_segments_are_the_classes_of_their_names(numbers, cropped, tmp_path):
    """3D Slicer numbers them as they are drawn, and crops the file to them."""
    mask = np.zeros((7, 6, 5), np.uint8)
    mask[2:4, 1:5, 1:3], mask[4:6, 1:5, 1:3] = 1, 2
    drawn = np.select([mask == 1, mask == 2], numbers, 0).astype(np.uint8)
    cut = ((2, 6), (1, 5), (1, 3)) if cropped else ((0, None),) * 3
    path = tmp_path / "a.seg.nrrd"
    segments(path, drawn, sorted(zip(numbers, ("Liver", "spleen"), strict=True)), cut=cut)
    SimpleITK.WriteImage(itk_image(np.ones((7, 6, 5), np.float32)), str(tmp_path / "a.nrrd"))
    case = {"image": load_image(tmp_path / "a.nrrd"), "label": load_image(path)}
    case = CheckGridd("label")(case)
    assert case["label"].shape == case["image"].shape
    label = CheckLabelsd("label", 3, class_names=["liver", "spleen"])(case)["label"]
    np.testing.assert_array_equal(label[0], mask)


def test_segments_of_other_names(tmp_path):
    mask = np.zeros((7, 6, 5), np.uint8)
    mask[2:4], mask[4:6] = 1, 2
    path = tmp_path / "a.seg.nrrd"
    check = CheckLabelsd("label", 3, class_names=["liver", "spleen"])
    for names in ((1, "Segment_1"), (2, "Segment_2")), ((2, "spleen"), (1, "liver"), (5, "empty")):
        segments(path, mask, names)
        np.testing.assert_array_equal(check({"label": load_image(path)})["label"][0], mask)
    segments(path, mask, ((1, "spleen"), (2, "kidney")))
    with pytest.raises(ValueError, match="a.seg.nrrd' names a segment 'kidney', which is none of the classes"):
        check({"label": load_image(path)})


def test_what_nobody_annotated_is_no_segment_of_another_name(tmp_path):
    mask = np.zeros((7, 6, 5), np.uint8)
    mask[1:3], mask[3:5], mask[5:] = 2, 1, 3
    path = tmp_path / "a.seg.nrrd"
    segments(path, mask, ((1, "spleen"), (2, "liver"), (3, "ignore")))
    check = CheckLabelsd("label", 3, ignore_label=3, class_names=["liver", "spleen"])
    label = check({"label": load_image(path)})["label"][0]
    assert [int(label[place, 0, 0]) for place in (0, 1, 3, 5)] == [0, 1, 2, 3]
