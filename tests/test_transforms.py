"""Transforms on decollated cases: values, metadata, inversion, and construction from JSON."""

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Invertd,
    MeanEnsemble,
    MeanEnsembled,
    Orientationd,
    SaveImaged,
    Spacingd,
    VoteEnsemble,
)
from PIL import Image

from medsegdiff_bundle.fusion import staple
from medsegdiff_bundle.readers import NiftiReader
from medsegdiff_bundle.transforms import (
    CheckGridd,
    CheckLabelsd,
    EnsembleStatisticsd,
    EnsembleUncertaintyd,
    FuseEnsembled,
    LoadImaged,
    MapLabelsd,
    MemberLabelsd,
    PictureLabelsd,
    RandRaterd,
    SplitAnchord,
    UnpackRatersd,
    load_image,
)
from medsegdiff_bundle.uncertainty import disagreement, mutual_information, predictive_entropy, variance

METHODS = {"entropy": predictive_entropy, "mutual_information": mutual_information, "variance": variance}


def probabilities(*shape: int) -> torch.Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).softmax(1)


def preprocessing() -> Compose:
    return Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd("image", pixdim=(1.0, 1.0, 1.0)),
            CropForegroundd("image", source_key="image"),
        ]
    )


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "case.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((20, 20, 20)), np.eye(4)), path)
    assert LoadImaged("image")({"image": path})["image"].shape == (20, 20, 20)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="case.nii.gz' cannot be read: "):
        LoadImaged(["image", "label"], allow_missing_keys=True)({"image": path})


def test_a_damaged_file_is_named(tmp_path):
    """Also where nibabel finds as many voxels as it wants: the checksum at the end tells."""
    path = tmp_path / "case.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.arange(8000, dtype=np.int16).reshape(20, 20, 20), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert nibabel.load(path).get_fdata().shape == (20, 20, 20)
    with pytest.raises(ValueError, match="case.nii.gz' cannot be read: CRC check failed"):
        LoadImaged("image")({"image": path})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_with_a_value_that_is_not_finite_is_named(value, tmp_path):
    image = np.zeros((4, 5, 6), dtype=np.float32)
    image[1, 2, 3] = value
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "case.nii.gz")
    Image.fromarray(image[1]).save(tmp_path / "case.tif")
    for name in ("case.nii.gz", "case.tif"):
        for channels in (None, 3):
            with pytest.raises(ValueError, match=f"{name}' holds NaN or infinite values."):
                LoadImaged("image", channels)({"image": str(tmp_path / name)})


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("dtype", "ending"), [("<u2", ".png"), (">u2", ".tif"), ("<i4", ".tiff"), ("<f4", ".TIF")])
def test_more_than_eight_bits_are_seen_as_eight(dtype, ending, channels, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (7, 5), dtype=np.uint8)
    grey[0, :2] = 0, 255
    Image.fromarray(grey).save(tmp_path / "eight.png")
    Image.fromarray((17 * grey.astype(dtype) + 300).astype(dtype)).save(tmp_path / f"deep{ending}")
    eight, deep = (load_image(tmp_path / name, channels) for name in ("eight.png", f"deep{ending}"))
    assert eight.shape == (channels, 5, 7)
    torch.testing.assert_close(deep.as_tensor(), eight.as_tensor(), rtol=0, atol=1e-4)


def test_a_constant_picture_of_sixteen_bits(tmp_path):
    Image.fromarray(np.full((4, 4), 900, dtype=np.uint16)).save(tmp_path / "flat.png")
    assert load_image(tmp_path / "flat.png", 1).max() == 0


def test_masks_keep_their_values(tmp_path):
    values = np.arange(20).reshape(4, 5)
    palette = Image.fromarray(values.astype(np.uint8), mode="P")
    palette.putpalette([255 - value for value in range(60)])
    palette.save(tmp_path / "palette.png")
    Image.fromarray((100 * values).astype(">u2")).save(tmp_path / "deep.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "palette.png")[0], values.T)
    np.testing.assert_array_equal(load_image(tmp_path / "deep.tif")[0], 100 * values.T)


def test_pictures_that_are_none(tmp_path):
    pages = [Image.fromarray(np.full((4, 4), page, dtype=np.uint8)) for page in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="stack.tif' cannot be read: it holds 3 pictures, not one."):
        load_image(tmp_path / "stack.tif", 1)
    pages[0].save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="one.png' cannot be read: a picture has 1, 3 or 4 channels, not 2."):
        load_image(tmp_path / "one.png", 2)


@pytest.fixture
def case(tmp_path):
    """A file on disk, its preprocessing, and one decollated case with anchor and members, (1 + 4, 2, ...)."""
    volume = np.zeros((20, 18, 10), dtype=np.float32)
    volume[3:15, 4:14, 2:8] = 1
    volume[6:12, 7:12, 3:7] = 2
    path = tmp_path / "case.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([2.0, 1.5, 2.0, 1.0])), path)
    transform = preprocessing()
    batch = next(iter(DataLoader(Dataset([{"image": str(path)}], transform), batch_size=1)))
    foreground = (batch["image"] > 1.5).float()  # (1, 1, ...)
    levels = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.1]).view(1, 5, 1, 1, 1, 1)  # the last member sees nothing
    inside = foreground.unsqueeze(1) * levels
    batch["pred"] = torch.cat([1 - inside, inside], 2)  # (1, 5, 2, ...)
    return {"volume": volume, "transform": transform, "data": decollate_batch(batch)[0], "folder": tmp_path}


def test_fused_members_invert_and_save(case):
    data = case["data"]
    assert isinstance(data["pred"], MetaTensor) and data["pred"].shape[:2] == (5, 2)
    post = Compose(
        [
            SplitAnchord("pred", "anchor"),
            EnsembleUncertaintyd("pred", "uncertainty"),
            FuseEnsembled("pred", "staple"),
            Invertd(
                ["pred", "uncertainty", "anchor"],
                transform=case["transform"],
                orig_keys="image",
                nearest_interp=[True, False, False],
            ),
            SaveImaged("pred", output_dir=case["folder"], separate_folder=False, print_log=False),
        ]
    )
    before = [operation["class"] for operation in data["pred"].applied_operations]
    out = post(data)
    assert [operation["class"] for operation in data["pred"].applied_operations] == before and before
    assert out["pred"].shape == out["uncertainty"].shape == (1, 20, 18, 10)
    assert out["anchor"].shape == (2, 20, 18, 10)
    np.testing.assert_array_equal(out["pred"].affine.numpy(), np.diag([2.0, 1.5, 2.0, 1.0]))
    overlap = np.logical_and(out["pred"].numpy()[0] > 0.5, case["volume"] > 1.5).sum()
    total = (out["pred"].numpy()[0] > 0.5).sum() + (case["volume"] > 1.5).sum()
    assert 2 * overlap / total > 0.9
    assert out["uncertainty"][0, 8, 9, 5] > 0.5 and out["uncertainty"][0, 0, 0, 0] == 0
    saved = LoadImaged("pred")({"pred": str(case["folder"] / "case_trans.nii.gz")})["pred"]
    assert saved.shape == (20, 18, 10)
    np.testing.assert_allclose(saved.affine.numpy(), np.diag([2.0, 1.5, 2.0, 1.0]))


def test_metadata_is_kept_like_monai_keeps_it(case):
    data = case["data"]
    reference = MeanEnsembled("pred", output_key="mean")(data)["mean"]
    out = FuseEnsembled("pred", "staple", output_key="fused")(EnsembleUncertaintyd("pred", "map")(data))
    out = SplitAnchord("pred", "anchor")(out)
    for key in ("fused", "map", "pred", "anchor"):
        assert isinstance(out[key], MetaTensor)
        assert out[key].meta["filename_or_obj"] == reference.meta["filename_or_obj"]
        assert torch.equal(out[key].affine, reference.affine)
        assert [operation["class"] for operation in out[key].applied_operations] == [
            operation["class"] for operation in reference.applied_operations
        ]
    assert out["fused"].dtype == out["map"].dtype == torch.float32


def test_anchor_is_entry_zero():
    stacked = probabilities(4, 3, 5, 6)
    out = SplitAnchord("pred", "anchor")({"pred": stacked})
    assert torch.equal(out["anchor"], stacked[0]) and torch.equal(out["pred"], stacked[1:])


def test_anchor_and_members_do_not_share_metadata():
    data = {"pred": MetaTensor(probabilities(3, 2, 4, 4), meta={"name": "case"})}
    out = SplitAnchord("pred", "anchor")(data)
    out["anchor"].meta["name"] = "changed"
    assert out["pred"].meta["name"] == data["pred"].meta["name"] == "case"


@pytest.mark.parametrize("shape", [(5, 2, 7, 6), (4, 3, 6, 5), (3, 4, 4, 5, 6)])
def test_fusion_is_staple_of_the_argmax(shape):
    members = probabilities(*shape)
    fused = FuseEnsembled("pred", "staple")({"pred": members})["pred"]
    posterior = staple(members.argmax(1), shape[1]).posterior
    expected = (posterior > 0.5) if shape[1] == 2 else posterior.argmax(0)
    assert type(fused) is torch.Tensor and fused.shape == (1, *shape[2:])
    assert torch.equal(fused[0], expected.float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.bool])
def test_labels_equal_their_probabilities(dtype):
    num_classes = 2 if dtype == torch.bool else 3
    members = probabilities(4, num_classes, 6, 6)
    labels = members.argmax(1, keepdim=True).to(dtype)
    fuse = FuseEnsembled("pred", "staple", num_classes=num_classes)
    assert torch.equal(fuse({"pred": labels})["pred"], fuse({"pred": members})["pred"])
    measure = EnsembleUncertaintyd("pred", "map", method="variance", num_classes=num_classes)
    one_hot = torch.nn.functional.one_hot(members.argmax(1), num_classes).movedim(-1, 1).float()
    torch.testing.assert_close(measure({"pred": labels})["map"][0], variance(one_hot))


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_fusion_refuses_nan(method):
    members = torch.rand(3, 3, 4, 4)
    members[0, :, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="The probabilities hold NaN"):
        FuseEnsembled("pred", method)({"pred": members})


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_fusion_equals_monai(method):
    members = probabilities(5, 3, 6, 6)
    fused = FuseEnsembled("pred", method, "fused", num_classes=3)
    if method == "mean":
        expected = MeanEnsemble()(members).argmax(0, keepdim=True).float()
    else:
        expected = VoteEnsemble(num_classes=3)(members.argmax(1, keepdim=True))
    assert torch.equal(fused({"pred": members})["fused"], expected)
    votes = VoteEnsemble(num_classes=3)(members.argmax(1, keepdim=True))
    for dtype in (torch.uint8, torch.float32):  # of labels, the mean is a vote
        assert torch.equal(fused({"pred": members.argmax(1, keepdim=True).to(dtype)})["fused"], votes)


def test_label_that_is_no_class():
    check = CheckLabelsd("label", num_classes=3)
    label = MetaTensor(torch.tensor([[0.0, 1.0, 2.0]]), meta={"filename_or_obj": "labelsTr/a.nii.gz"})
    assert torch.equal(check({"label": label})["label"], label)
    for value in (3, -1, 0.5):
        label[0, 1] = value
        with pytest.raises(ValueError, match=f"'labelsTr/a.nii.gz' holds {value}, which is none of the 3 classes"):
            check({"label": label})


def picture_label(path, num_classes):
    label = load_image(path)
    return PictureLabelsd("label", num_classes)({"label": label})["label"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_masks_of_pictures(mode, tmp_path):
    marked = np.zeros((4, 5), dtype=bool)
    marked[1:3, 2:] = True
    picture = Image.fromarray((marked * (1 if mode == "P" else 255)).astype(np.uint8))
    if mode == "P":
        picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.convert(mode).save(tmp_path / "mask.png")
    label = picture_label(tmp_path / "mask.png", 2)
    assert label.shape == (1, 5, 4) and label.meta["filename_or_obj"].endswith("mask.png")
    np.testing.assert_array_equal(label[0].T, marked)
    if mode == "RGB":  # of more classes the values count, which here are 0 and 255
        assert picture_label(tmp_path / "mask.png", 3).unique().tolist() == [0, 255]


@pytest.mark.parametrize("class_values", [[255, 0], [0, 255]])
@pytest.mark.parametrize("kind", ["grey.png", "red.png", "grey.jpg"])
def test_two_classes_by_their_values(kind, class_values, tmp_path):
    """Also where the background is not 0; 255 is where a mask is painted, in whatever colour."""
    marked = np.zeros((16, 24), dtype=bool)
    marked[8:, 8:16] = True
    values = (255 * marked).astype(np.uint8)
    if kind.startswith("red"):
        values = np.stack([values, *[np.zeros_like(values)] * 2], axis=2)
    Image.fromarray(values).save(tmp_path / kind)
    read = PictureLabelsd("label", 2, class_values=class_values)({"label": load_image(tmp_path / kind)})
    label = MapLabelsd("label", class_values)(read)["label"]
    np.testing.assert_array_equal(label[0].T, marked if class_values[1] == 255 else ~marked)


def test_masks_that_are_no_classes(tmp_path):
    values = np.zeros((4, 5, 4), dtype=np.uint8)
    values[..., 3] = 255
    values[0, 0, :3], values[1, 1, :3] = 254, 255
    Image.fromarray(values[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match="grey.png' holds 254 and 255: of two classes it may hold 0 and one other"):
        picture_label(tmp_path / "grey.png", 2)
    for name, place in (("colour", (2, 2, 0)), ("transparent", (2, 2, 3))):
        changed = values.copy()
        changed[place] = 7
        Image.fromarray(changed).save(tmp_path / f"{name}.png")
        with pytest.raises(ValueError, match=f"{name}.png' is in colour or partly transparent: save it in grey"):
            picture_label(tmp_path / f"{name}.png", 3)


def test_labels_on_another_grid_than_their_images(tmp_path):
    """Shapes must agree; places may differ by what rounding does to a header."""
    affine = np.array([[0.9, -0.3, 0.1, -20], [0.2, 1.1, 0.0, 13], [-0.1, 0.1, 1.5, 7], [0, 0, 0, 1]])
    shifted, turned = affine.copy(), affine @ np.diag([1, -1, 1, 1])
    shifted[0, 3] += 0.5
    for name, shape, place in (
        ("image", (6, 7, 8), affine),
        ("rounded", (6, 7, 8), affine.round(1) + 0.002),
        ("larger", (6, 7, 9), affine),
        ("shifted", (6, 7, 8), shifted),
        ("turned", (6, 7, 8), turned),
    ):
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, dtype=np.uint8), place), tmp_path / f"{name}.nii")
    image = load_image(tmp_path / "image.nii")

    def check(name):
        return CheckGridd("label")({"image": image, "label": load_image(tmp_path / f"{name}.nii")})

    assert set(check("rounded")) == {"image", "label"}
    with pytest.raises(
        ValueError, match=r"larger.nii' has the shape \(6, 7, 9\), its image '.*image.nii' \(6, 7, 8\)."
    ):
        check("larger")
    for name, distance in (("shifted", "0.539"), ("turned", "")):
        sentence = rf"{name}.nii' lies elsewhere than its image '.*image.nii': up to {distance}"
        with pytest.raises(ValueError, match=sentence):
            check(name)
    with pytest.raises(ValueError, match=r"The label 'label' has the shape \(4, 5\), its image 'image' \(5, 4\)."):
        CheckGridd("label")({"image": torch.zeros(3, 5, 4), "label": torch.zeros(1, 4, 5)})


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flipped", [(), (0,), (0, 2), (0, 1, 2)])
def test_labels_with_axes_in_another_order_or_direction(axes, flipped, tmp_path):
    affine = np.array([[0.9, -0.3, 0.1, -20], [0.2, 1.1, 0.0, 13], [-0.1, 0.1, 1.5, 7], [0, 0, 0, 1]])
    values = np.random.default_rng(0).integers(0, 3, (6, 7, 8)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), tmp_path / "image.nii")
    stored, place = values.transpose(axes), affine[:, [*axes, 3]]
    for axis in flipped:
        stored = np.flip(stored, axis)
        place = place @ nibabel.orientations.inv_ornt_aff([[a, -1 if a == axis else 1] for a in range(3)], stored.shape)
    nibabel.save(nibabel.Nifti1Image(stored, place), tmp_path / "label.nii")
    image, label = load_image(tmp_path / "image.nii"), load_image(tmp_path / "label.nii")
    found = CheckGridd("label")({"image": image, "label": label})["label"]
    np.testing.assert_array_equal(found[0], values)
    assert torch.equal(found.affine, image.affine) and found.meta["filename_or_obj"].endswith("label.nii")
    moved = place.copy()
    moved[1, 3] += 2
    nibabel.save(nibabel.Nifti1Image(stored, moved), tmp_path / "moved.nii")
    with pytest.raises(ValueError, match="moved.nii' (lies elsewhere|has the shape)"):
        CheckGridd("label")({"image": image, "label": load_image(tmp_path / "moved.nii")})


def test_a_label_that_agrees_with_one_form_of_its_image(tmp_path):
    """A program of ITK writes the place that it reads, nibabel its own."""
    sform, qform = np.diag([1.0, 1, 2, 1]), np.diag([1.0, 1, 2, 1])
    qform[:3, 3] = 8, -3, 5
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), dtype=np.float32), None)
    image.set_sform(sform, 2)
    image.header.set_qform(qform, 1)
    nibabel.save(image, tmp_path / "image.nii")
    image = load_image(tmp_path / "image.nii")
    for name, place in (("nibabel", sform), ("itk", qform)):
        label = nibabel.Nifti1Image(np.ones((4, 5, 6), dtype=np.uint8), place)
        nibabel.save(label, tmp_path / f"{name}.nii")
        found = CheckGridd("label")({"image": image, "label": load_image(tmp_path / f"{name}.nii")})["label"]
        assert torch.equal(found.affine, image.affine)
    elsewhere = sform.copy()
    elsewhere[0, 3] = 3
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), dtype=np.uint8), elsewhere), tmp_path / "no.nii")
    with pytest.raises(ValueError, match="no.nii' lies elsewhere"):
        CheckGridd("label")({"image": image, "label": load_image(tmp_path / "no.nii")})


def test_channels_in_files_that_hold_several(tmp_path):
    for name, shape in (("a_0000", (4, 5, 6)), ("a_0001", (4, 5, 6, 2))):
        nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), tmp_path / f"{name}.nii")
    files = [str(tmp_path / f"a_000{channel}.nii") for channel in range(2)]
    with pytest.raises(ValueError, match="a_0001.nii' holds 2 channels, where an image has a file for each."):
        LoadImaged("image")({"image": files})


def test_more_voxels_than_memory(tmp_path, monkeypatch):
    """As damaged headers tell: a sentence on the file, not of an allocator."""

    def allocate(*arguments):
        raise MemoryError

    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4)), tmp_path / "a.nii")
    monkeypatch.setattr(NiftiReader, "_get_array_data", allocate)
    with pytest.raises(ValueError, match="a.nii' cannot be read: there is no room in memory for as many voxels as its"):
        load_image(tmp_path / "a.nii")


def test_numbers_that_are_nearly_whole():
    label = MetaTensor(torch.tensor([[0.0, 0.9995, 2.0008, -0.0004]]), meta={"filename_or_obj": "a.nii"})
    found = CheckLabelsd("label", 3)({"label": label})["label"]
    assert found.tolist() == [[0, 1, 2, 0]] and found.meta["filename_or_obj"] == "a.nii"
    scaled = CheckLabelsd("label", 3)({"label": label.round() * torch.tensor(0.9995)})["label"]  # 2 becomes 1.999
    assert scaled.tolist() == [[0, 1, 2, 0]]
    label[0, 1] = 0.99
    with pytest.raises(ValueError, match="'a.nii' holds 0.99, which is none of the 3 classes"):
        CheckLabelsd("label", 3)({"label": label})


@pytest.mark.parametrize("background", [True, False])
def test_one_channel_for_each_class(background):
    numbers = torch.tensor([[[0, 1, 2], [2, 2, 0]]]).float()
    channels = torch.cat([(numbers == c).float() for c in range(0 if background else 1, 3)])
    label = MetaTensor(channels, meta={"filename_or_obj": "a.nii"})
    found = CheckLabelsd("label", 3)({"label": label})["label"]
    assert torch.equal(found.as_tensor(), numbers) and found.meta["filename_or_obj"] == "a.nii"
    with pytest.raises(
        ValueError, match="'a.nii' has [23] channels: of 5 classes it may have one of numbers, or one for"
    ):
        CheckLabelsd("label", 5)({"label": label})
    label[-1, 0, 0] = 2
    with pytest.raises(ValueError, match="'a.nii' holds 2, which is none of the 2 values of a channel for one class"):
        CheckLabelsd("label", 3)({"label": label})
    label[:, 0, 0] = 1
    with pytest.raises(ValueError, match="'a.nii' puts a voxel into several of its [23] channels of classes"):
        CheckLabelsd("label", 3)({"label": label})
    if background:
        label[:, 0, 0] = 0
        with pytest.raises(ValueError, match="'a.nii' puts a voxel into none of its 3 channels of classes"):
            CheckLabelsd("label", 3)({"label": label})


@pytest.mark.parametrize("method", METHODS)
def test_uncertainty_is_the_pure_function(method):
    members = probabilities(4, 3, 6, 6)
    out = EnsembleUncertaintyd("pred", "map", method=method)({"pred": members})
    torch.testing.assert_close(out["map"], METHODS[method](members).unsqueeze(0))
    assert torch.equal(out["pred"], members)


@pytest.mark.parametrize("chunk", [7, 2**16])
def test_several_maps_part_by_part(chunk, monkeypatch):
    monkeypatch.setattr("medsegdiff_bundle.transforms.maps.CHUNK", chunk)
    members = MetaTensor(probabilities(4, 3, 6, 5), meta={"name": "case"})
    measure = EnsembleUncertaintyd("pred", ["total", "votes", "var"], ["entropy", "disagreement", "variance"])
    out = measure({"pred": members})
    assert out["pred"] is members and out["votes"].meta["name"] == "case"
    torch.testing.assert_close(out["total"].as_tensor()[0], predictive_entropy(members))
    torch.testing.assert_close(out["votes"].as_tensor(), disagreement(members))
    torch.testing.assert_close(out["var"].as_tensor()[0], variance(members))
    labels = {"pred": members.argmax(1, keepdim=True)}
    of_labels = EnsembleUncertaintyd("pred", "votes", "disagreement", num_classes=3)(labels)
    torch.testing.assert_close(of_labels["votes"].as_tensor(), disagreement(members))


def test_labels_of_members_outlive_the_fusion():
    members = MetaTensor(probabilities(4, 3, 6, 5), meta={"name": "case"})
    out = FuseEnsembled("pred", "staple")(MemberLabelsd("pred", "labels")({"pred": members}))
    assert out["labels"].dtype == torch.uint8 and out["labels"].meta["name"] == "case"
    assert torch.equal(out["labels"].as_tensor(), members.as_tensor().argmax(1).to(torch.uint8))
    of_labels = MemberLabelsd("pred", "labels", num_classes=3)({"pred": members.argmax(1, keepdim=True)})
    assert torch.equal(of_labels["labels"], out["labels"])


def test_statistics_are_those_of_the_space_of_the_file(case):
    """Voxels of 2 x 1.5 x 2 mm, of which members of 1 mm are made and turned back."""
    post = Compose(
        [
            SplitAnchord("pred", "anchor"),
            MemberLabelsd("pred", "member_labels"),
            EnsembleUncertaintyd("pred", "uncertainty"),
            FuseEnsembled("pred", "staple"),
            Invertd(
                ["pred", "member_labels", "uncertainty"],
                transform=case["transform"],
                orig_keys="image",
                nearest_interp=[True, True, False],
            ),
            EnsembleStatisticsd("pred", ["tumour"]),
        ]
    )
    out = post({**case["data"], "result": {"before": 1}})
    result = json.loads(json.dumps(out["result"], allow_nan=False))
    assert (result["before"], result["unit"], result["ensemble_size"]) == (1, "ml", 4)
    tumour = result["structures"]["tumour"]
    count = int((out["pred"] > 0.5).sum())
    assert tumour["volume"] == pytest.approx(count * 0.006) and count == pytest.approx(6 * 5 * 4, rel=0.2)
    # The members of 0.8, 0.7 and 0.6 agree, that of 0.1 sees nothing.
    assert tumour["member_volumes"] == pytest.approx([tumour["volume"]] * 3 + [0.0])
    assert tumour["pairwise_dice"] == pytest.approx(1 / 2)  # three pairs of 1, three of 0


def test_statistics_of_a_picture_are_pixels():
    members = probabilities(3, 2, 6, 5)
    data = EnsembleUncertaintyd("pred", "uncertainty")(MemberLabelsd("pred", "member_labels")({"pred": members}))
    result = EnsembleStatisticsd("pred", ["lesion"])(FuseEnsembled("pred", "staple")(data))["result"]
    assert result["unit"] == "pixels"
    assert result["structures"]["lesion"]["member_volumes"] == members.argmax(1).flatten(1).sum(1).tolist()


def test_several_keys_are_one_member_each():
    members = probabilities(3, 2, 6, 6)
    data = {f"pred{e}": MetaTensor(members[e]) for e in range(3)}
    together = {"pred": members}
    out = FuseEnsembled(list(data), "staple", output_key="fused")(EnsembleUncertaintyd(list(data), "map")(data))
    assert isinstance(out["fused"], MetaTensor) and isinstance(out["map"], MetaTensor)
    assert torch.equal(out["fused"].as_tensor(), FuseEnsembled("pred", "staple")(together)["pred"])
    assert torch.equal(out["map"].as_tensor(), EnsembleUncertaintyd("pred", "map")(together)["map"])


def test_numpy_stays_numpy():
    members = probabilities(3, 2, 6, 6)
    out = FuseEnsembled("pred", "staple", "fused")({"pred": members.numpy()})
    assert isinstance(out["fused"], np.ndarray)
    np.testing.assert_array_equal(out["fused"], FuseEnsembled("pred", "staple")({"pred": members})["pred"].numpy())
    out = SplitAnchord("pred", "anchor")({"pred": members.numpy()})
    assert isinstance(out["anchor"], np.ndarray) and out["pred"].shape == (2, 2, 6, 6)


def test_json_construction():
    parser = ConfigParser(
        {
            "post": {
                "_target_": "Compose",
                "transforms": [
                    {
                        "_target_": "medsegdiff_bundle.transforms.SplitAnchord",
                        "keys": "pred",
                        "anchor_key": "anchor",
                    },
                    {
                        "_target_": "medsegdiff_bundle.transforms.EnsembleUncertaintyd",
                        "keys": "pred",
                        "output_key": "uncertainty",
                        "method": "mutual_information",
                    },
                    {"_target_": "medsegdiff_bundle.transforms.FuseEnsembled", "keys": "pred", "method": "staple"},
                ],
            }
        }
    )
    out = parser.get_parsed_content("post")({"pred": probabilities(4, 3, 6, 5)})
    assert {key: tuple(value.shape) for key, value in out.items()} == {
        "pred": (1, 6, 5),
        "anchor": (3, 6, 5),
        "uncertainty": (1, 6, 5),
    }


def test_a_class_that_is_no_more_names_the_one_that_is():
    parser = ConfigParser({"post": {"_target_": "medsegdiff_bundle.transforms.STAPLEEnsembled", "keys": "pred"}})
    with pytest.raises(ValueError, match="FuseEnsembled with the method 'staple'"):
        parser.get_parsed_content("post")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FuseEnsembled("pred", "staple", num_classes=1), "num_classes must be at least 2, got 1"),
        (lambda: FuseEnsembled("pred", "median"), "fusion must be one of staple, mean, vote, dice, got 'median'"),
        (lambda: FuseEnsembled(["a", "b"], "staple"), "output_key"),
        (lambda: MapLabelsd("label", [0, 4, 4]), r"class_values must differ, got \[0, 4, 4\]"),
        (lambda: EnsembleUncertaintyd("pred", "map", method="median"), "entropy.*got 'median'"),
        (lambda: EnsembleUncertaintyd("pred", "map", num_classes=0), "got 0"),
        (lambda: EnsembleUncertaintyd("pred", "map", ["entropy", "variance"]), "output_key must name 2"),
        (lambda: MemberLabelsd("pred", ["a", "b"]), "output_key must name 1"),
        (lambda: MemberLabelsd("pred", "labels", num_classes=1), "num_classes must be at least 2, got 1"),
        (lambda: EnsembleStatisticsd(["a", "b"], ["tumour"]), "the one key of the fused mask"),
        (lambda: SplitAnchord(["a", "b"], "anchor"), "anchor_key must name 2"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("transform", "members", "message"),
    [
        (FuseEnsembled("pred", "staple"), torch.zeros(3, 1, 4, 4), "need num_classes"),
        (FuseEnsembled("pred", "staple", num_classes=2), torch.full((3, 1, 4, 4), 0.3), "fractions"),
        (FuseEnsembled("pred", "staple", num_classes=2), torch.full((3, 1, 4, 4), 2), r"0\.\.1, got 2\.\.2"),
        (FuseEnsembled("pred", "staple", num_classes=2), probabilities(3, 4, 4, 4), "num_classes is 2.*4 channels"),
        (FuseEnsembled("pred", "staple"), torch.zeros(4), r"\(4,\)"),
        (EnsembleUncertaintyd("pred", "map"), torch.zeros(3, 1, 4, 4), "need num_classes"),
        (MemberLabelsd("pred", "labels"), torch.zeros(3, 1, 4, 4), "need num_classes"),
        (EnsembleUncertaintyd("pred", "map", num_classes=2), torch.full((3, 1, 4), 5), r"got 5\.\.5"),
        (EnsembleUncertaintyd("pred", "map"), torch.full((3, 2, 4), 5.0), "probabilities in"),
        (EnsembleUncertaintyd("pred", "map", num_classes=3), probabilities(3, 2, 4), "num_classes is 3.*2 channels"),
        (SplitAnchord("pred", "anchor"), torch.zeros(1, 2, 4, 4), r"\(1, 2, 4, 4\)"),
    ],
)
def test_bad_members_are_named(transform, members, message):
    with pytest.raises(ValueError, match=message):
        transform({"pred": members})


# Raters


def packed(*masks):
    """Masks of some raters in one image, (1, H, W), with metadata."""
    value = sum(torch.tensor(mask) << rater for rater, mask in enumerate(masks))
    return MetaTensor(value[None].float(), meta={"filename_or_obj": "a.png"})


def test_unpacked_raters():
    first, second = [[1, 0], [1, 1]], [[0, 0], [0, 1]]
    label = UnpackRatersd("label", 4)({"label": packed(first, second)})["label"]
    assert label.dtype == torch.uint8 and label.meta["filename_or_obj"] == "a.png"
    nothing = [[0, 0], [0, 0]]
    assert label.tolist() == [first, second, nothing, nothing]


@pytest.mark.parametrize("value", [4.0, -1.0, 0.5])
def test_what_is_no_packed_mask(value):
    label = torch.zeros(1, 2, 2)
    label[0, 0, 1] = value
    with pytest.raises(
        ValueError, match="The label 'label' must hold whole numbers below 4 in one channel, the bits of"
    ):
        UnpackRatersd("label", 2)({"label": label})
    with pytest.raises(ValueError, match=r"got shape \(3, 2, 2\)"):
        UnpackRatersd("label", 2)({"label": torch.zeros(3, 2, 2)})
    with pytest.raises(ValueError, match="num_raters must be from 1 to 8, got 9"):
        UnpackRatersd("label", 9)


def test_every_rater_is_drawn_as_often():
    raters = MetaTensor(torch.arange(4)[:, None, None].expand(4, 2, 2), meta={"filename_or_obj": "a.png"})
    draw = RandRaterd(["label", "other"])
    draw.set_random_state(seed=0)
    drawn = [draw({"label": raters, "other": raters}) for _ in range(800)]
    assert all(torch.equal(case["label"], case["other"]) and case["label"].shape == (1, 2, 2) for case in drawn)
    counts = torch.stack([case["label"][0, 0, 0] for case in drawn]).as_tensor().bincount()
    assert len(counts) == 4 and (counts - 200).abs().max() < 5 * 13  # five standard deviations
    assert drawn[0]["label"].meta["filename_or_obj"] == "a.png"


def test_loading_with_metadata_apart_as_monai_label_asks_for(tmp_path):
    """It sets `image_only` of each `LoadImaged` that it finds in a bundle."""
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    load = LoadImaged("image")
    load._loader.image_only = False
    case = load({"image": str(tmp_path / "a.nii.gz")})
    assert case["image"].shape == (4, 5, 6) and case["image_meta_dict"]["filename_or_obj"].endswith("a.nii.gz")
