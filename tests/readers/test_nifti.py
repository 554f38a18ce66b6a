"""NIfTI headers as scanners and workstations write them: where image and mask lie, in nibabel and in ITK."""

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, Orientationd, SaveImaged

from medsegdiff_bundle import transforms as bundle
from medsegdiff_bundle.datalist import image_datalist
from medsegdiff_bundle.readers.volumes import itk_affine
from medsegdiff_bundle.remarks import remarks
from medsegdiff_bundle.transforms import CheckGridd, LoadImaged, PlaceByITKd, load_image

AFFINE = np.array([[0.0, -1.5, 0.2, 20], [1.0, 0, 0.0, -30], [0.0, 0.2, 2.0, 40], [0, 0, 0, 1]])
AFFINE[:3, :3] = np.linalg.qr(AFFINE[:3, :3])[0] * [1.0, 1.5, 2.0]  # oblique, axes in another order
MOVED = AFFINE + np.array([[0, 0, 0, 8], [0, 0, 0, 0], [0, 0, 0, -3], [0, 0, 0, 0]])
SHEARED = AFFINE @ np.array([[1, 0, 0, 0], [0, 1, 0.4, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SCALED = MOVED @ np.diag([1.2, 1.1, 1.15, 1])
CODES = [(1, 1), (2, 1), (1, 2), (4, 1), (2, 0), (0, 2), (0, 0), (3, 4)]


def write(path, sform=AFFINE, qform=AFFINE, codes=(1, 1), units="mm", shape=(7, 8, 6), nifti2=False):
    values = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    image_class = nibabel.Nifti2Image if nifti2 else nibabel.Nifti1Image
    header = image_class.header_class()
    header.set_data_shape(shape)
    header.set_qform(qform)  # also sets the voxel sizes
    header["sform_code"], header["qform_code"] = codes
    for row, name in zip(np.asarray(sform, dtype=float), ("srow_x", "srow_y", "srow_z"), strict=False):
        header[name] = row
    header.set_xyzt_units(units, "sec")
    header["descrip"] = b"Name^Of^Somebody"
    nibabel.save(image_class(values, None, header), path)
    return path


def change(path, **fields):
    """Overwrite fields of the header of a file, which nibabel would not write."""
    header = nibabel.load(path).header
    for name, value in {**fields, "vox_offset": 352}.items():
        header[name] = value
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])


def test_complex_numbers_are_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4), np.complex64), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="a.nii' cannot be read: it holds complex numbers: save their magnitude."):
        load_image(tmp_path / "a.nii")


def masked(path, folder, ending=".nii.gz", writer="VolumeWriter"):
    """File of the mask of what is bright, by way of the transforms that the configurations have."""
    preprocessing = Compose(
        [LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", axcodes="RAS", labels=None)]
    )
    case = preprocessing({"image": str(path)})
    case["pred"] = (case["image"] > 100).float()
    save = SaveImaged(
        "pred",
        output_dir=folder,
        output_postfix="seg",
        output_dtype="uint8",
        output_ext=ending,
        separate_folder=False,
        print_log=False,
        writer=f"medsegdiff_bundle.transforms.save.{writer}",
    )
    Compose([Invertd("pred", transform=preprocessing, orig_keys="image"), save])(case)
    return folder / f"{path.name.split('.')[0]}_seg{ending}"


SITUATIONS = [
    *({"codes": codes} for codes in CODES),
    *({"codes": codes, "sform": MOVED} for codes in CODES),
    {"sform": SCALED, "codes": (4, 1)},
    {"sform": SCALED, "codes": (4, 0)},
    {"units": "micron"},
    {"units": "meter"},
    {"units": "unknown"},
    {"nifti2": True, "sform": MOVED},
    {"shape": (7, 8, 6, 1)},
    {"shape": (7, 8, 6, 1, 1)},
    {"shape": (7, 8, 1)},
    {"sform": np.zeros((3, 4)), "codes": (1, 1)},
]


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_the_mask_lies_on_its_image_in_every_program(situation, tmp_path):
    path = write(tmp_path / "case.nii.gz", **situation)
    file = masked(path, tmp_path)
    image, mask = nibabel.load(path), nibabel.load(file)
    np.testing.assert_array_equal(mask.affine, image.affine)
    for name in ("sform_code", "qform_code", "xyzt_units", "quatern_b", "qoffset_x", "srow_y"):
        assert mask.header[name] == pytest.approx(image.header[name]), name
    np.testing.assert_array_equal(mask.header["pixdim"][:4], image.header["pixdim"][:4])
    assert mask.shape == image.shape[:3] and mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(image.dataobj).reshape(mask.shape) > 100)
    assert bytes(mask.header["descrip"]).strip(b"\0") == b""  # which may hold a name
    if situation.get("nifti2"):
        return  # which ITK does not read
    by_itk = SimpleITK.ReadImage(str(path))
    if by_itk.GetDimension() == 3:
        cut = SimpleITK.GetArrayFromImage(SimpleITK.Mask(by_itk, SimpleITK.ReadImage(str(file))))
        np.testing.assert_array_equal(cut.T > 0, np.asarray(mask.dataobj) > 0)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".hdr", ".nrrd"])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (0, 0)])
def test_a_voxel_size_below_zero(codes, ending, tmp_path):
    """As older programs say that the first axis points left; ITK takes its sign, nibabel does not."""
    path = write(tmp_path / "case.nii", codes=codes)
    change(path, pixdim=[-1, -1, 1.5, 2, 1, 1, 1, 1])
    pred = (load_image(path) > 100).float()
    bundle.SaveImaged("pred", tmp_path, "seg", ending, "uint8", class_names=["bright"])({"pred": pred})
    file = tmp_path / f"case_seg{ending}"
    image, mask = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(file))
    cut = SimpleITK.GetArrayFromImage(SimpleITK.Mask(image, mask)).T
    np.testing.assert_array_equal(cut > 0, np.asarray(nibabel.load(path).dataobj) > 100)
    if ending != ".nrrd":
        np.testing.assert_allclose(nibabel.load(file).affine, nibabel.load(path).affine)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".hdr", ".nrrd"])
@pytest.mark.parametrize("codes", [(7, 0), (7, 1), (0, 6), (1, 9), (100, 100), (-1, 1)])
def test_a_code_that_nifti_does_not_have(codes, ending, tmp_path):
    """nibabel makes 0 of it, by which the form is lost that ITK takes."""
    path = write(tmp_path / "case.nii", MOVED, AFFINE)
    change(path, sform_code=codes[0], qform_code=codes[1])
    image = load_image(path)
    np.testing.assert_allclose(image.affine, MOVED if codes[0] > 0 else AFFINE, rtol=1e-5, atol=1e-5)
    unknown = [name for name, code in zip(("sform", "qform"), codes, strict=True) if code > 5]
    warnings = remarks(image.meta)["warnings"]
    assert [w.split(" the code")[0] for w in warnings] == [f"The header gives its {name}" for name in unknown]
    pred = (image > 100).float()
    bundle.SaveImaged("pred", tmp_path, "seg", ending, "uint8", class_names=["bright"])({"pred": pred})
    shown, mask = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(tmp_path / f"case_seg{ending}"))
    cut = SimpleITK.GetArrayFromImage(SimpleITK.Mask(shown, mask)).T
    np.testing.assert_array_equal(cut > 0, np.asarray(nibabel.load(path).dataobj) > 100)


@pytest.mark.parametrize("codes", CODES)
def test_a_mask_in_the_format_of_itk_lies_where_itk_shows_its_image(codes, tmp_path):
    path = write(tmp_path / "case.nii", MOVED, AFFINE, codes)
    image = SimpleITK.ReadImage(str(path))
    mask = SimpleITK.ReadImage(str(masked(path, tmp_path, ".nrrd", "ITKWriter")))
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-5)


def test_itk_reads_the_mask_of_an_image_in_nifti2_in_its_own_format(tmp_path):
    path = write(tmp_path / "case.nii", nifti2=True)
    mask = SimpleITK.ReadImage(str(masked(path, tmp_path, ".nrrd", "ITKWriter")))
    np.testing.assert_allclose(itk_affine(mask), AFFINE, atol=1e-5)


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1), ("unknown", 1)])
def test_lengths_are_in_mm(unit, factor, tmp_path):
    image = load_image(write(tmp_path / "case.nii", units=unit))
    np.testing.assert_allclose(image.affine, np.diag([*[factor] * 3, 1]) @ AFFINE, rtol=1e-5, atol=1e-5)
    said = " ".join(remarks(image.meta)["processing"])
    assert ("metres" in said) == (factor != 1)


@pytest.mark.parametrize(
    ("sform", "qform", "codes", "expected"),
    [
        (MOVED, AFFINE, (1, 1), MOVED),
        (MOVED, AFFINE, (2, 1), MOVED),
        (MOVED, AFFINE, (0, 1), AFFINE),
        (MOVED, AFFINE, (2, 0), MOVED),
        (SCALED, AFFINE, (4, 1), AFFINE),  # into the space of a template, where a ml is none of the patient's
        (SCALED, AFFINE, (4, 0), SCALED),
        (SHEARED, AFFINE, (1, 1), SHEARED),
        (np.zeros((3, 4)), AFFINE, (1, 1), AFFINE),
        (np.full((3, 4), np.nan), AFFINE, (2, 1), AFFINE),
    ],
)
def test_the_form_that_counts(sform, qform, codes, expected, tmp_path):
    image = load_image(write(tmp_path / "case.nii", sform, qform, codes))
    np.testing.assert_allclose(image.affine, expected, rtol=1e-5, atol=1e-5)


def test_what_a_reader_must_know(tmp_path):
    moved, plain, sheared = (
        remarks(load_image(write(tmp_path / "case.nii", sform)).meta) for sform in (MOVED, AFFINE, SHEARED)
    )
    assert moved["processing"] == ["The header places the volume in two ways, up to 8.54 mm apart; here by its sform."]
    assert plain == {"warnings": [], "processing": []}
    assert "not at right angles" in sheared["warnings"][0]


@pytest.mark.parametrize("codes", [(1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("value", [0, np.nan])
def test_a_place_that_is_none(codes, value, tmp_path):
    path = write(tmp_path / "case.nii", np.full((3, 4), value), codes=codes)
    change(path, quatern_b=np.nan)
    with pytest.raises(ValueError, match="case.nii' cannot be read: its header places the voxels nowhere"):
        LoadImaged("image")({"image": str(path)})


def test_a_quaternion_that_is_none(tmp_path):
    path = write(tmp_path / "case.nii", codes=(0, 1))
    change(path, quatern_b=2)
    said = "case.nii' cannot be read: its header places the voxels nowhere: the quaternion of its qform is no rotation."
    for read in (load_image, lambda path: image_datalist(path, 1, 3)):
        with pytest.raises(ValueError, match=said):
            read(path)


@pytest.mark.parametrize("codes", CODES)
def test_itk_and_nibabel(codes, tmp_path):
    """Where ITK sees a file, a mask for a program of ITK gets, and a label by one may lie."""
    path = write(tmp_path / "case.nii", MOVED, AFFINE, codes)
    image = load_image(path)
    case = {"image": image, "pred": image.clone()}
    placed = PlaceByITKd("pred")(case)["pred"]
    by_itk = SimpleITK.ReadImage(str(path))
    origin = placed.affine.numpy()[:3, 3] * [-1, -1, 1]
    np.testing.assert_allclose(origin, by_itk.GetOrigin(), atol=1e-4)
    SimpleITK.WriteImage(by_itk, str(tmp_path / "label.nii"))
    label = CheckGridd("label")({"image": image, "label": load_image(tmp_path / "label.nii")})["label"]
    assert torch.equal(label.as_tensor(), image.as_tensor()) and torch.equal(label.affine, image.affine)


def test_axes_without_directions(tmp_path):
    assert "no directions" in remarks(load_image(write(tmp_path / "case.nii", codes=(0, 0))).meta)["warnings"][0]


def test_a_quaternion_that_is_none_beside_an_sform(tmp_path):
    path = write(tmp_path / "case.nii")
    change(path, quatern_b=2)
    np.testing.assert_allclose(load_image(path).affine, AFFINE, atol=1e-4)


def test_a_unit_that_is_none(tmp_path):
    path = write(tmp_path / "case.nii")
    change(path, xyzt_units=6)
    with pytest.raises(ValueError, match="case.nii' cannot be read: its header gives lengths in the unit 6"):
        load_image(path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dim": [3, 4, 0, 6, 1, 1, 1, 1]}, "its header tells 4 x 0 x 6 voxels: there is nothing to read"),
        ({"dim": [3, 4, -5, 6, 1, 1, 1, 1]}, "its header tells 4 x -5 x 6 voxels"),
        ({"dim": [0, 4, 5, 6, 1, 1, 1, 1]}, "its header tells 0 voxels"),
        ({"dim": [1, 4, 5, 6, 1, 1, 1, 1]}, "its header tells one axis, of 4 voxels"),
        ({"dim": [9, 4, 5, 6, 1, 1, 1, 1]}, "its header is damaged, or of a kind that is not read"),
        ({"datatype": 77}, "its header is damaged, or of a kind that is not read"),
        ({"datatype": 128, "bitpix": 24}, "it holds colours"),
        ({"pixdim": [1, 0, 1, 1, 1, 1, 1, 1], "sform_code": 0, "qform_code": 0}, "nowhere: a voxel has no size"),
        ({"pixdim": [1, np.nan, 1, 1, 1, 1, 1, 1], "sform_code": 0, "qform_code": 0}, "nowhere: a voxel has no size"),
        ({"quatern_b": 2, "sform_code": 0}, "nowhere: the quaternion of its qform is no rotation"),
    ],
)
def test_a_header_that_is_none(fields, said, tmp_path):
    path = write(tmp_path / "case.nii")
    change(path, **fields)
    with pytest.raises(ValueError, match=f"case.nii' cannot be read: .*{said}"):
        load_image(path)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_voxels_of_no_size(size, tmp_path):
    path = write(tmp_path / "case.nii", np.diag([size, 1, 1, 1])[:3], codes=(1, 0))
    with pytest.raises(ValueError, match="case.nii' cannot be read: its header gives voxels of 1e.30 x 1 x 1 mm."):
        load_image(path)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_values_that_a_scale_makes_infinite(tmp_path):
    """Said once, in the sentence."""
    path = write(tmp_path / "case.nii")
    change(path, datatype=4, bitpix=16, scl_slope=3e38, scl_inter=0)
    with pytest.raises(ValueError, match="case.nii' holds NaN or infinite values."):
        load_image(path)


def test_a_name_that_is_empty(tmp_path, monkeypatch):
    """It is no name of the current folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="^'' cannot be read: the name is empty.$"):
        load_image("")


def test_axes_that_hold_nothing(tmp_path):
    for shape, expected in (
        ((4, 5, 6, 1, 1), (1, 4, 5, 6)),
        ((4, 5, 6, 1, 3), (3, 4, 5, 6)),
        ((4, 5, 1), (1, 4, 5, 1)),
    ):
        assert load_image(write(tmp_path / "case.nii", shape=shape)).shape == expected
    with pytest.raises(ValueError, match="it has 5 axes, 4 x 5 x 6 x 2 x 3: three and one of channels are read"):
        load_image(write(tmp_path / "case.nii", shape=(4, 5, 6, 2, 3)))


@pytest.mark.parametrize(("away", "read"), [(2.0**23, True), (-(2.0**25), False), (1e30, False)])
def test_a_volume_too_far_away_for_its_voxels(away, read, tmp_path):
    """float32, the type of the header, has whole numbers alone from 2^23 on, and then every second, and so on."""
    affine = np.diag([2.0, 3, 4, 1])
    affine[1, 3] = away
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), affine), tmp_path / "case.nii")
    if read:
        assert load_image(tmp_path / "case.nii").affine[1, 3].abs() == away
        return
    with pytest.raises(ValueError, match="case.nii' cannot be read: its header places the volume .* from the origin"):
        load_image(tmp_path / "case.nii")


@pytest.mark.parametrize("unit", ["mm", "micron"])
def test_two_sizes_of_a_voxel(unit, tmp_path):
    """One form alone, of other sizes than the header's field: programs differ, so the reader must know."""
    path = write(tmp_path / "case.nii", SCALED, codes=(4, 0))
    change(path, xyzt_units={"mm": 2, "micron": 3}[unit])
    (said,) = remarks(load_image(path).meta)["warnings"]
    assert said.startswith("The header gives the voxels two sizes, ") and " by its field pixdim: here the sform" in said
    path = write(tmp_path / "other.nii", codes=(4, 0))
    assert remarks(load_image(path).meta)["warnings"] == []


def test_colours_in_a_volume(tmp_path):
    values = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "case.nii")
    with pytest.raises(ValueError, match="case.nii' cannot be read: it holds colours"):
        load_image(tmp_path / "case.nii")


def test_nan_outside_of_what_was_measured(tmp_path):
    values = np.random.default_rng(0).normal(-50, 5, (6, 7, 8)).astype(np.float32)
    expected = values.copy()
    values[:2], values[3:, 0] = np.nan, np.nan
    expected[np.isnan(values)] = np.nanmin(values)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "case.nii")
    assert torch.equal(load_image(tmp_path / "case.nii").as_tensor()[0], torch.as_tensor(expected))
    values[3, 3, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "case.nii")
    with pytest.raises(ValueError, match="case.nii' holds NaN"):
        load_image(tmp_path / "case.nii")


def test_values_of_surfaces_are_no_image(tmp_path):
    """CIFTI has the ending and the header of NIfTI-2."""
    axes = nibabel.cifti2.ScalarAxis(["x"]), nibabel.cifti2.BrainModelAxis.from_surface(range(4), 9, "CortexLeft")
    nibabel.save(nibabel.Cifti2Image(np.zeros((1, 4), np.float32), axes), tmp_path / "a.dscalar.nii")
    with pytest.raises(ValueError, match="a.dscalar.nii' cannot be read: it is CIFTI, with values of surfaces"):
        load_image(tmp_path / "a.dscalar.nii")
