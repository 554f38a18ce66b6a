"""Masks in the files of other programs, read back by other means than those that wrote them."""

import sys

import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor

from medsegdiff_bundle.datalist import image_datalist
from medsegdiff_bundle.transforms import SaveSegmentsd

NAMES = ["left part", "right"]
AFFINE = np.array([[0.0, 0, 1.5, -20], [-0.9, 0, 0, 13], [0, -1.1, 0, 7], [0, 0, 0, 1]])  # sagittal slices


@pytest.fixture
def mask():
    labels = np.zeros((1, 20, 24, 16), dtype=np.uint8)
    labels[0, 3:9, 4:12, 5:9], labels[0, 12:17, 10:20, 6:13] = 1, 2
    return labels


def case(mask, name, affine=AFFINE):
    return {"pred": MetaTensor(torch.as_tensor(mask), affine=affine, meta={"filename_or_obj": str(name)}), "result": {}}


def test_segments_of_3d_slicer(mask, tmp_path):
    save = SaveSegmentsd("pred", tmp_path, [*NAMES, "nowhere"], ["seg.nrrd"])
    assert save(case(mask, "a.nii.gz"))["result"] == {}
    read = SimpleITK.ReadImage(str(tmp_path / "a.seg.nrrd"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(read).T, mask[0])
    x, y, z = read.TransformIndexToPhysicalPoint((3, 4, 5))
    np.testing.assert_allclose([-x, -y, z], (AFFINE @ [3, 4, 5, 1])[:3], atol=1e-5)
    fields = {key: read.GetMetaData(key) for key in read.GetMetaDataKeys() if key.startswith("Segment")}
    assert [fields[f"Segment{n}_Name"] for n in range(3)] == [*NAMES, "nowhere"]
    assert [fields[f"Segment{n}_LabelValue"] for n in range(3)] == ["1", "2", "3"]
    assert [fields[f"Segment{n}_Extent"] for n in range(3)] == ["3 8 4 11 5 8", "12 16 10 19 6 12", "0 -1 0 -1 0 -1"]
    assert fields["Segment0_Layer"] == "0" and fields["Segment0_Color"] != fields["Segment1_Color"]
    assert all(0 <= float(value) <= 1 for value in fields["Segment1_Color"].split())
    SimpleITK.WriteImage(read, str(tmp_path / "a.nrrd"))
    assert image_datalist(tmp_path) == [{"image": str(tmp_path / "a.nrrd")}]  # a segmentation is no image


@pytest.mark.parametrize("mirrored", [False, True])
def test_surfaces_enclose_the_mask(mirrored, mask, tmp_path):
    affine = AFFINE @ np.diag([-1.0, 1, 1, 1]) if mirrored else AFFINE
    SaveSegmentsd("pred", tmp_path, NAMES, ["stl"])(case(mask, "a.mha", affine))
    for number, name in enumerate(("left_part", "right"), start=1):
        content = (tmp_path / f"a_{name}.stl").read_bytes()
        count = int(np.frombuffer(content, "<u4", 1, 80)[0])
        assert len(content) == 84 + 50 * count and content.startswith(b"SPACE=LPS")
        record = np.frombuffer(content, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("end", "<u2")], count, 84)
        corners = record["corners"].astype(float)
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        volume = (corners[:, 0] * cross).sum() / 6  # by Gauss: positive where the triangles face outwards
        expected = (mask == number).sum() * 0.9 * 1.1 * 1.5
        assert 0.8 * expected < volume < expected
        assert ((record["normal"] * cross).sum(axis=1) >= -1e-6).all()
        middle = (affine @ [*np.argwhere(mask[0] == number).mean(axis=0), 1])[:3] * [-1, -1, 1]
        np.testing.assert_allclose((corners.min((0, 1)) + corners.max((0, 1))) / 2, middle, atol=1e-3)


def test_contours_lie_on_their_slices(mask, tmp_path):
    sys.path.insert(0, str(__file__).rpartition("/")[0])
    from test_dicom import write_series

    affine = np.diag([-0.9, -1.1, 1.5, 1.0])
    affine[:3, 3] = 12.5, -40, 7
    write_series(tmp_path / "series", np.zeros(mask.shape[1:]), affine)
    found = SaveSegmentsd("pred", tmp_path / "out", NAMES, ["rtstruct"])(case(mask, tmp_path / "series", affine))
    assert found["result"] == {}
    read = pydicom.dcmread(tmp_path / "out" / "series_rtstruct.dcm")
    assert read.Modality == "RTSTRUCT" and read.PatientID == "case 1"
    assert [roi.ROIName for roi in read.StructureSetROISequence] == NAMES
    slices = {pydicom.dcmread(file).SOPInstanceUID for file in (tmp_path / "series").iterdir()}
    for number, roi in enumerate(read.ROIContourSequence, start=1):
        heights = set()
        for contour in roi.ContourSequence:
            assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID in slices
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            heights.add(round(float(points[0, 2]), 3))
            voxels = (np.linalg.inv(affine) @ np.c_[points * [-1, -1, 1], np.ones(len(points))].T)[:3].T
            for point in voxels.round().astype(int):
                assert mask[(0, *point)] == number
        expected = np.unique(np.argwhere(mask[0] == number)[:, 2]) * 1.5 + 7
        np.testing.assert_allclose(sorted(heights), expected, atol=1e-3)


def test_what_cannot_be_written_is_a_warning(mask, tmp_path):
    found = SaveSegmentsd("pred", tmp_path, NAMES, ["rtstruct", "seg.nrrd"])(case(mask, "a.nii.gz"))
    (sentence,) = found["result"]["warnings"]
    assert sentence.startswith("No file of the kind rtstruct is written: contours lie on the slices of a DICOM series")
    assert [file.name for file in tmp_path.iterdir()] == ["a.seg.nrrd"]


def test_kinds_are_checked_before_any_work(monkeypatch):
    with pytest.raises(ValueError, match="also_write must name some of seg.nrrd, stl, rtstruct, got 'obj'."):
        SaveSegmentsd("pred", "out", NAMES, ["obj"])
    monkeypatch.setattr("medsegdiff_bundle.transforms.segments.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"also_write 'stl' needs: pip install 'medsegdiff-bundle\[surfaces\]'."):
        SaveSegmentsd("pred", "out", NAMES, ["stl"])
