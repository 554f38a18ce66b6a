"""DICOM series in, segmentation objects out, on a real volume that is written as slices here."""

import shutil
import sys
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

import medsegdiff_bundle
from medsegdiff_bundle import configuration, errors
from medsegdiff_bundle.datalist import image_datalist
from medsegdiff_bundle.dicom import SaveDICOMSegmentationd, dicom_segmentation
from medsegdiff_bundle.grid import image_grid, image_modality
from medsegdiff_bundle.remarks import remarks
from medsegdiff_bundle.transforms import load_image
from medsegdiff_bundle.visualization import grey_window, overlay_picture

ROOT = Path(__file__).parent.parent
VOLUME = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"
SPACING = np.diag([0.9, 1.1, 1.5])
NAMES = ["anterior", "posterior"]
SMALL = {"network_def#channels": [4, 8, 8], "network_def#num_heads": 2, "network_def#token_size": 8}


def turned(*degrees):
    """Rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = [(1, 2), (2, 0), (0, 1)][axis]
        rotation = np.eye(3)
        rotation[[first, second], [first, second]] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        matrix = rotation @ matrix
    return matrix


# Directions of columns, rows and slices, in RAS.
ORIENTATIONS = {
    "axial, as scanners write it": np.diag([-1.0, -1, 1]),
    "axial, from head to feet": np.diag([-1.0, -1, -1]),
    "sagittal": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": turned(20, -35, 10) @ np.diag([-1.0, -1, 1]),
}


def matrix_of(orientation):
    affine = np.eye(4)
    affine[:3, :3] = ORIENTATIONS[orientation] @ SPACING
    affine[:3, 3] = 12.5, -40, 7
    return affine


def write_series(folder, array, affine, modality="MR", order=None, series=None):
    """A volume (X, Y, Z) in RAS as slices: columns, rows, slices. CT is stored with slope and intercept."""
    folder.mkdir(parents=True)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    storage = {"MR": MRImageStorage, "CT": CTImageStorage}[modality]
    study, frame_of_reference, series = generate_uid(), generate_uid(), series or generate_uid()
    names = np.random.default_rng(0).permutation(array.shape[2])  # file names tell nothing of the order
    for index in range(array.shape[2]):
        item = pydicom.Dataset()
        item.file_meta = pydicom.dataset.FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.SOPClassUID, item.SOPInstanceUID = storage, generate_uid()
        item.StudyInstanceUID, item.SeriesInstanceUID = study, series
        item.FrameOfReferenceUID, item.PositionReferenceIndicator = frame_of_reference, ""
        item.Modality, item.SeriesNumber, item.StudyID, item.AccessionNumber = modality, 3, "1", ""
        item.PatientName, item.PatientID, item.PatientBirthDate, item.PatientSex = "Test^Series", "case 1", "", ""
        item.StudyDate, item.StudyTime, item.ReferringPhysicianName = "20200102", "101500", ""
        item.Manufacturer = "test"
        item.InstanceNumber = (order or range(1, array.shape[2] + 1))[index]
        item.Rows, item.Columns = array.shape[1], array.shape[0]
        item.ImageOrientationPatient = [round(value, 9) for value in (lps[:3, :2] / spacing[:2]).T.ravel()]
        item.ImagePositionPatient = [round(value, 6) for value in (lps @ [0, 0, index, 1])[:3]]
        item.PixelSpacing, item.SliceThickness = [spacing[1], spacing[0]], spacing[2]  # from row to row comes first
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
        stored = array[:, :, index]
        if modality == "CT":
            item.RescaleSlope, item.RescaleIntercept = 2, -1024
            stored = (stored + 1024) / 2
        item.PixelData = np.ascontiguousarray(stored.T.astype("<i2")).tobytes()
        item.save_as(folder / f"IM{names[index]:04d}", enforce_file_format=True)
    return series


def placed(read, array, affine):
    """Slices may come in either direction, each voxel at its place."""
    to_array = np.linalg.inv(affine) @ np.asarray(read.affine)
    turned = to_array[2, 2] < 0
    expected = np.diag([1.0, 1, -1 if turned else 1, 1])
    expected[2, 3] = array.shape[2] - 1 if turned else 0
    np.testing.assert_allclose(to_array, expected, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(read), array[..., ::-1] if turned else array)


@pytest.fixture(scope="module")
def array():
    """A part of a real volume, other in length along each axis; even numbers, which the CT of the tests can store."""
    return np.asarray(nibabel.load(VOLUME).dataobj, dtype=np.float32)[8:28, 10:34, 5:21].round() // 2 * 2


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A network of a few thousand weights that marks some of each class."""
    parser = configuration.load([ROOT / "configs" / "inference.json"], {**SMALL, "bundle_root": str(ROOT)})
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), file)
    return {**SMALL, "checkpoint": str(file), "ensemble_size": 2, "device": "cpu"}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_a_series_is_read_as_the_volume_it_is(orientation, modality, array, tmp_path):
    affine = matrix_of(orientation)
    write_series(tmp_path / "series", array, affine, modality)
    (tmp_path / "series" / "notes.txt").write_text("not a slice")
    (case,) = image_datalist(tmp_path / "series", in_channels=1)
    read = load_image(case["image"])[0]
    placed(read, array, affine)


def test_the_series_of_these_tests_are_what_another_reader_takes_them_for(array, tmp_path):
    affine = matrix_of("oblique")
    write_series(tmp_path / "series", array, affine)
    files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "series"))
    image = SimpleITK.ReadImage(files)
    for index in ((0, 0, 0), (19, 23, 15), (3, 7, 5)):
        assert image[index] == array[index]
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose([-x, -y, z], (affine @ [*index, 1])[:3], atol=1e-4)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_segments_lie_on_the_slices_voxel_by_voxel(orientation, array, tmp_path):
    affine = matrix_of(orientation)
    series = write_series(tmp_path / "series", array, affine)
    mask = np.zeros(array.shape, dtype=np.uint8)
    mask[2:9, 3:12, 4:9], mask[6:15, 10:20, 7:14] = 1, 2
    dicom_segmentation(mask, affine, tmp_path / "series", NAMES, {}).save_as(tmp_path / "seg.dcm")

    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert found.PatientID == "case 1" and found.ReferencedSeriesSequence[0].SeriesInstanceUID == series
    volume = found.get_volume(combine_segments=True).to_patient_orientation("LPH")
    expected = highdicom.Volume(mask, np.diag([-1.0, -1, 1, 1]) @ affine, coordinate_system="PATIENT")
    # What was written are the slices that hold something.
    expected = expected.to_patient_orientation("LPH")
    start = np.round(np.linalg.inv(expected.affine) @ [*volume.position, 1])[:3].astype(int)
    window = tuple(slice(first, first + length) for first, length in zip(start, volume.spatial_shape, strict=True))
    np.testing.assert_array_equal(volume.array, expected.array[window])
    assert (expected.array > 0).sum() == (volume.array > 0).sum()
    np.testing.assert_allclose(volume.affine, expected[window].affine, atol=1e-4)

    # And by the source images, as a viewer asks.
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        index = item.InstanceNumber - 1
        frames = found.get_pixels_by_source_instance(
            [item.SOPInstanceUID],
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
            combine_segments=True,
        )
        np.testing.assert_array_equal(frames[0], mask[:, :, index].T)


@pytest.mark.parametrize("change", ["shuffled", "no number", "twice", "subfolder", "zip", "digits", "no preamble"])
def test_what_differs_between_archives_makes_no_difference(change, array, tmp_path):
    """Order and numbers of the slices, files that are there twice, other folders, the last digit of a direction."""
    affine, folder = matrix_of("oblique"), tmp_path / "series"
    write_series(folder, array, affine, order=[*range(2, 17), 1] if change == "shuffled" else None)
    files = sorted(folder.iterdir())
    for number, file in enumerate(files):
        item = pydicom.dcmread(file)
        if change == "no number":
            item.InstanceNumber = None
        if change == "digits":
            item.ImageOrientationPatient = [round(float(v), 5 + number % 2) for v in item.ImageOrientationPatient]
            item.ImageOrientationPatient[1] += 1e-4 * (number % 3 == 0)
        item.save_as(file)
        if change == "no preamble":
            content = file.read_bytes()
            start = content.index(b"\x08\x00\x16\x00UI")  # SOPClassUID, the first after the header of the file
            file.write_bytes(content[start:])
    if change == "twice":
        shutil.copy(files[3], folder / "copy")
    if change == "subfolder":
        (folder / "results").mkdir()
        (folder / "results" / "notes.txt").write_text("nothing")
    path = folder
    if change == "zip":
        shutil.make_archive(str(tmp_path / "series"), "zip", tmp_path, "series")
        path = tmp_path / "series.zip"
    (case,) = image_datalist(path, in_channels=1, spatial_dims=3)
    read = load_image(case["image"])
    if change == "digits":
        np.testing.assert_allclose(np.abs(np.linalg.det(read.affine[:3, :3])), 0.9 * 1.1 * 1.5, rtol=1e-3)
        affine = np.asarray(read.affine)
    placed(read[0], array, affine)
    assert read.meta["warnings"] == (
        "One slice of the series is there twice, and counts once." if change == "twice" else ""
    )
    mask = (array > np.median(array)).astype(np.uint8)
    if change != "no preamble":
        dicom_segmentation(mask, affine, path, ["all"], {}).save_as(tmp_path / "seg.dcm")
        volume = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
        assert (volume.array > 0).sum() == mask.sum()


@pytest.mark.parametrize("thickness", [None, ""])
def test_an_empty_slice_thickness_is_the_distance_of_the_slices(thickness, array, tmp_path):
    """PS3.3, C.7.6.16.2.1: a segmentation of one that is empty could not be read."""
    affine = matrix_of("oblique")
    write_series(tmp_path / "series", array, affine)
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        del item.SliceThickness
        if thickness is not None:
            item.SliceThickness = thickness
        item.save_as(file)
    mask = (array > np.median(array)).astype(np.uint8)
    dicom_segmentation(mask, affine, tmp_path / "series", ["all"], {}).save_as(tmp_path / "seg.dcm")
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == pytest.approx(1.5)
    assert (found.get_volume(combine_segments=True).array > 0).sum() == mask.sum()


@pytest.mark.parametrize("degrees", [17, -12])
def test_a_tilted_gantry(degrees, tmp_path):
    """A slanted rod in slices whose planes are not at right angles to the table: it lies where it lay."""
    shape, spacing = (24, 40, 10), np.array([1.0, 0.8, 3.0])
    straight = np.eye(4)
    straight[:3, :3] = np.diag([-1.0, -1, 1]) * spacing
    sheared = straight.copy()
    sheared[1, 2] = 3 * np.tan(np.deg2rad(degrees))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    places = grid @ sheared[:3, :3].T + sheared[:3, 3]
    rod = np.exp(-(((places[..., 0] + 12) / 3) ** 2 + ((places[..., 1] + 16) / 4) ** 2))  # along z
    array = (1000 * rod).round() // 2 * 2
    write_series(tmp_path / "series", array, sheared, "CT")
    read = load_image(tmp_path / "series")
    affine = np.asarray(read.affine)
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=1e-6)
    found = (
        np.stack(np.meshgrid(*map(np.arange, read.shape[1:]), indexing="ij"), axis=-1) @ affine[:3, :3].T
        + affine[:3, 3]
    )
    weights = np.asarray(read[0]) * (np.asarray(read[0]) > 100)
    for index in range(shape[2]):
        centre = (found[:, :, index] * weights[:, :, index, None]).sum((0, 1)) / weights[:, :, index].sum()
        np.testing.assert_allclose(centre, [-12, -16, 3 * index], atol=0.1)
    assert f"tilted by {abs(degrees):.1f} degrees" in read.meta["processing"]
    # The segmentation object lies on the slices as they are.
    mask = (np.asarray(read[0]) > 500).astype(np.uint8)
    segmentation = dicom_segmentation(mask, affine, tmp_path / "series", ["rod"], {})
    frames = segmentation.pixel_array
    assert frames.shape == (shape[2], shape[1], shape[0])
    expected = (array > 500).transpose(2, 1, 0)
    order = np.argsort(
        [
            float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
            for frame in segmentation.PerFrameFunctionalGroupsSequence
        ]
    )
    assert (frames[order] != expected).sum() < 0.1 * expected.sum()


def enhanced(file, array, affine, slopes):
    """One file of many frames, in any order, each with a scale of its own."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    write_series(file.parent / "slices", array[..., :1], affine)
    item = pydicom.dcmread(next((file.parent / "slices").iterdir()))
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "PixelData"):
        delattr(item, tag)
    item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    item.NumberOfFrames = array.shape[2]
    shared, measures, orientation = (pydicom.Dataset() for _ in range(3))
    measures.PixelSpacing, measures.SliceThickness = [spacing[1], spacing[0]], spacing[2]
    orientation.ImageOrientationPatient = [round(value, 9) for value in (lps[:3, :2] / spacing[:2]).T.ravel()]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    item.SharedFunctionalGroupsSequence = [shared]
    order = np.random.default_rng(1).permutation(array.shape[2])
    groups, pixels = [], []
    for number, index in enumerate(order):
        group, position, scale, content = (pydicom.Dataset() for _ in range(4))
        position.ImagePositionPatient = [round(value, 6) for value in (lps @ [0, 0, index, 1])[:3]]
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slopes[index], 0, "US"
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number + 1, [1, number + 1]
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [scale]
        group.FrameContentSequence = [content]
        groups.append(group)
        pixels.append((array[:, :, index].T / slopes[index]).round().astype("<i2"))
    item.PerFrameFunctionalGroupsSequence = groups
    item.add_new("PixelData", "OW", np.stack(pixels).tobytes())
    item.save_as(file)
    shutil.rmtree(file.parent / "slices")


def test_a_file_of_many_frames(array, settings, tmp_path):
    """Enhanced MR: frames by their places, each with its own scale."""
    affine = matrix_of("oblique")
    enhanced(tmp_path / "scan.dcm", array, affine, slopes=[1 + index % 2 for index in range(16)])
    for source in (tmp_path / "scan.dcm", tmp_path):
        (case,) = image_datalist(source, in_channels=1, spatial_dims=3)
        placed(load_image(case["image"])[0], array, affine)
    found = medsegdiff_bundle.segment(tmp_path / "scan.dcm", output_dir=tmp_path / "out", **settings)
    assert found.name == "scan" and found.mask_file.name == "scan_seg.nii.gz" and len(np.unique(found.mask)) == 3
    assert not any("DICOM" in sentence for sentence in found.report["warnings"])
    volume = highdicom.seg.segread(tmp_path / "out" / "scan_seg.dcm").get_volume(combine_segments=True)
    assert (volume.array > 0).sum() == (found.mask > 0).sum()
    start = np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ found.affine) @ [*volume.position, 1]
    assert np.abs(start[:3] - start[:3].round()).max() < 1e-3


def test_a_file_of_several_times(array, tmp_path):
    enhanced(tmp_path / "scan.dcm", array, matrix_of("oblique"), slopes=[1] * 16)
    item = pydicom.dcmread(tmp_path / "scan.dcm")
    groups = item.PerFrameFunctionalGroupsSequence
    for first, second in zip(groups[:8], groups[8:], strict=True):
        second.PlanePositionSequence = first.PlanePositionSequence
        for number, group in enumerate((first, second), 1):
            group.FrameContentSequence[0].TemporalPositionIndex = number
    item.save_as(tmp_path / "scan.dcm")
    with pytest.raises(ValueError, match="TemporalPositionIndex 1 and 2.: save each as a file of its own."):
        image_datalist(tmp_path / "scan.dcm")


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_white_as_the_lowest_value(modality, bits, signed, array, tmp_path):
    """What viewers show counts, but the Hounsfield units of a CT are what they are, and no InstanceNumber is needed."""
    write_series(tmp_path / "series", array, matrix_of("oblique"), modality)
    highest = -1 if signed else 2**bits - 1
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        item.PhotometricInterpretation, item.PixelRepresentation = "MONOCHROME1", int(signed)
        item.BitsStored, item.HighBit = bits, bits - 1
        if modality == "MR":
            stored = highest - np.frombuffer(item.PixelData, "<i2").astype(int)
            item.PixelData = (stored % 2**16).astype("<u2").tobytes()
        item.save_as(file)
    read = load_image(tmp_path / "series")
    placed(read[0], array, matrix_of("oblique"))
    assert any("MONOCHROME1" in said for said in remarks(read.meta)["processing"]) == (modality == "MR")


def test_values_with_fractions(array, tmp_path):
    """FloatPixelData, as parametric maps have, which GDCM does not read."""
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        item.FloatPixelData = (np.frombuffer(item.PixelData, "<i2").astype("<f4") / 4).tobytes()
        item.BitsAllocated = 32
        for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(item, name)
        item.save_as(file)
    placed(load_image(tmp_path / "series")[0], array / 4, matrix_of("oblique"))


def test_a_slice_without_a_transfer_syntax(array, tmp_path):
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        del item.file_meta.TransferSyntaxUID
        item.save_as(file, enforce_file_format=False, implicit_vr=False, little_endian=True)
    with pytest.raises(ValueError, match=r"cannot be read: 'IM\d+' cannot be decoded: .*Transfer Syntax UID"):
        load_image(tmp_path / "series")


@pytest.mark.parametrize("white", [False, True])
def test_a_table_of_values(white, array, tmp_path):
    """ModalityLUTSequence, which GDCM passes over."""
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "US"
    table.LUTData = (4095 - np.arange(4096)).astype("<u2").tobytes()
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        item.ModalityLUTSequence, item.PixelRepresentation = [table], 0
        item.PhotometricInterpretation = "MONOCHROME1" if white else "MONOCHROME2"
        item.save_as(file)
    read = load_image(tmp_path / "series")
    placed(read[0], 61440 + array if white else 4095 - array, matrix_of("oblique"))


@pytest.mark.parametrize("name", ["logo.png", "key.jpg"])
def test_pictures_beside_series_are_no_images_to_segment(name, array, tmp_path, caplog):
    """Of a CD for patients, or key images of an archive."""
    write_series(tmp_path / "cd" / "series", array, matrix_of("oblique"))
    for folder in (tmp_path / "cd", tmp_path / "cd" / "series"):
        Image.new("L", (9, 9)).save(folder / name)
        caplog.clear()
        assert image_datalist(folder, 1, 3) == [{"image": str(tmp_path / "cd" / "series")}]
        assert f"Left out of {str(folder)!r}: {name!r}." in caplog.text
    assert [Path(case["image"]).name for case in image_datalist(tmp_path / "cd", 1, 2)] == [name]
    (tmp_path / "cd" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert image_datalist(tmp_path / "cd" / "DICOMDIR", 1, 3) == [{"image": str(tmp_path / "cd" / "series")}]


def test_a_missing_frame_of_one_file(array, tmp_path):
    file = tmp_path / "scan.dcm"
    enhanced(file, array, matrix_of("oblique"), [1] * array.shape[2])
    item = pydicom.dcmread(file)
    item.PerFrameFunctionalGroupsSequence[6] = item.PerFrameFunctionalGroupsSequence[5]
    with pytest.raises(ValueError, match="has two slices at one place, the frames 6 and 7 of 'scan.dcm': keep one"):
        item.save_as(file)
        image_datalist(file, 1, 3)
    del item.PerFrameFunctionalGroupsSequence[6]
    item.NumberOfFrames = array.shape[2] - 1
    item.save_as(file)
    with pytest.raises(ValueError, match=r"3 mm between the frames 6 and \d+ of 'scan.dcm', 1.5 mm elsewhere"):
        image_datalist(file, 1, 3)


def test_each_slice_has_its_own_scale(array, tmp_path):
    """PET has another slope on each slice; the first that is read decides nothing."""
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        item.RescaleSlope, item.RescaleIntercept = [1, 0.25, 0.5][item.InstanceNumber % 3], item.InstanceNumber
        item.save_as(file)
    factors = np.array([[1, 0.25, 0.5][number % 3] for number in range(1, 17)])
    placed(load_image(tmp_path / "series")[0], array * factors + np.arange(1, 17), matrix_of("oblique"))


def test_nothing_that_happens_in_a_segmentation_object_ends_a_case(array, settings, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("highdicom does not like it")

    write_series(tmp_path / "series", array, matrix_of("oblique"))
    monkeypatch.setattr(highdicom.seg, "Segmentation", fail)
    found = medsegdiff_bundle.segment(tmp_path / "series", output_dir=tmp_path / "out", **settings)
    assert found.mask_file.is_file() and not list((tmp_path / "out").glob("*.dcm"))
    assert "No DICOM segmentation is written: highdicom does not like it" in found.report["warnings"]


def test_segments_say_what_they_are(array, tmp_path):
    affine = matrix_of("oblique")
    write_series(tmp_path / "series", array, affine)
    codes = ConfigParser.load_config_file(str(ROOT / "configs" / "tasks" / "hippocampus.json"))["dicom_codes"]
    found = dicom_segmentation(
        np.ones(array.shape), affine, tmp_path / "series", [*NAMES, "a long name of a class"], codes
    )
    anterior, _, other = (found.get_segment_description(number) for number in (1, 2, 3))
    assert anterior.SegmentLabel == "anterior"
    assert anterior.segmented_property_type == pydicom.sr.codedict.codes.SCT.Hippocampus
    modifier = anterior.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (modifier.CodeValue, modifier.CodeMeaning) == ("255549009", "Anterior")
    assert other.segmented_property_category == pydicom.sr.codedict.codes.SCT.AnatomicalStructure
    assert other.segmented_property_type.meaning == "a long name of a class"
    assert found.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"


def test_an_empty_mask_is_written(array, tmp_path):
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    mask = np.zeros(array.shape)
    found = dicom_segmentation(mask, matrix_of("oblique"), tmp_path / "series", NAMES, {})
    assert found.pixel_array.max() == 0


def test_inference_on_a_series(settings, array, tmp_path):
    """The mask of the same volume as NIfTI, and a segmentation object that says it, from a folder named by a UID."""
    affine = matrix_of("oblique")
    write_series(tmp_path / "1.2.840.7", array, affine)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), affine), tmp_path / "1.2.840.7.nii.gz")
    settings = {**settings, "spacing": None}  # a header's rounding moves what is resampled by less than can be seen
    expected = medsegdiff_bundle.segment(tmp_path / "1.2.840.7.nii.gz", output_dir=tmp_path / "nifti", **settings)
    assert not list((tmp_path / "nifti").glob("*.dcm"))
    found = medsegdiff_bundle.segment(tmp_path / "1.2.840.7", output_dir=tmp_path / "out", **settings)
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files - {file.name for file in (tmp_path / "nifti").iterdir()} == {"1.2.840.7_seg.dcm"}
    assert len(np.unique(found.mask)) == 3
    placed(MetaTensor(torch.as_tensor(found.mask), affine=torch.as_tensor(found.affine)), expected.mask, affine)
    np.testing.assert_array_equal(nibabel.load(found.mask_file).dataobj, found.mask)
    volume = highdicom.seg.segread(tmp_path / "out" / "1.2.840.7_seg.dcm").get_volume(combine_segments=True)
    assert (volume.array > 0).sum() == (found.mask > 0).sum()


def warnings(caplog):
    """About segmentation objects."""
    return [record.getMessage() for record in caplog.records if "DICOM segmentation" in record.getMessage()]


@pytest.mark.parametrize("out", [".", "out", "series"])
def test_a_second_run_gives_the_same(out, settings, array, tmp_path, caplog):
    """Wherever the results are: beside the series, in a folder of their own, or among its slices."""
    root = tmp_path / "data"
    write_series(root / "series", array, matrix_of("oblique"))
    slices = {file.name: file.read_bytes() for file in (root / "series").iterdir()}
    found = [medsegdiff_bundle.segment(root, output_dir=root / out, **settings) for _ in range(2)]
    assert [[result.name for result in results] for results in found] == [["series"]] * 2
    np.testing.assert_array_equal(found[1][0].mask, found[0][0].mask)
    written = {file.name for file in (root / out).iterdir() if file.name not in {"series", "out", *slices}}
    assert len(written) == (5 if out == "series" else 6)
    assert ("series_seg.dcm" in written) == ("It would lie among the slices" not in caplog.text) == (out != "series")
    for name, content in slices.items():
        assert (root / "series" / name).read_bytes() == content


@pytest.mark.parametrize("out", ["a", "b"])
def test_results_among_the_slices_of_another_series(out, settings, array, tmp_path, caplog):
    for name in "ab":
        write_series(tmp_path / name, array, matrix_of("oblique"))
    for _ in range(2):
        found = medsegdiff_bundle.segment(tmp_path, output_dir=tmp_path / out, **settings)
        assert [result.name for result in found] == ["a", "b"]
    assert caplog.text.count("It would lie among the slices") == 4 and not list(tmp_path.glob("*/*.dcm"))


def test_what_is_no_image_is_passed_over_among_slices(array, tmp_path):
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    mask = dicom_segmentation(np.zeros(array.shape), matrix_of("oblique"), tmp_path / "series", NAMES, {})
    mask.save_as(tmp_path / "series" / "from_elsewhere.dcm")
    (case,) = image_datalist(tmp_path / "series", in_channels=1)
    placed(load_image(case["image"])[0], array, matrix_of("oblique"))


def test_a_series_that_cannot_have_a_segmentation_object(settings, array, tmp_path, caplog, monkeypatch):
    """Its mask is there nevertheless, with a word about what is missing."""
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    expected = medsegdiff_bundle.segment(tmp_path / "series", **settings)
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        del item.StudyInstanceUID
        item.save_as(file)
    assert not warnings(caplog)
    found = medsegdiff_bundle.segment(tmp_path / "series", output_dir=tmp_path / "out", **settings)
    np.testing.assert_array_equal(nibabel.load(found.mask_file).dataobj, expected.mask)
    assert "lacks what a segmentation repeats" in caplog.text and ": StudyInstanceUID." in caplog.text
    assert not list((tmp_path / "out").glob("*.dcm")) and list((tmp_path / "out").glob("*_report.html"))
    caplog.clear()
    monkeypatch.setitem(sys.modules, "highdicom", None)
    np.testing.assert_array_equal(medsegdiff_bundle.segment(tmp_path / "series", **settings).mask, expected.mask)
    assert not warnings(caplog)


def test_masks_of_other_images_are_passed_over(tmp_path):
    save = SaveDICOMSegmentationd("pred", output_dir=str(tmp_path / "out"), class_names=NAMES)
    for meta in ({}, {"filename_or_obj": str(VOLUME)}, {"filename_or_obj": ""}):
        mask = MetaTensor(torch.zeros(1, 4, 4, 4), meta=meta)
        assert save({"pred": mask})["pred"] is mask
    assert not (tmp_path / "out").exists()


def test_folders_of_series(array, tmp_path):
    for name in ("b", "study/a"):
        write_series(tmp_path / name, array, matrix_of("oblique"))
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert image_datalist(tmp_path) == [{"image": str(tmp_path / name)} for name in ("b", "study/a")]


def two_series(folder, array):
    write_series(folder, array, matrix_of("oblique"))
    write_series(folder / "x", array, matrix_of("oblique"))
    for file in (folder / "x").iterdir():
        shutil.move(file, folder / f"{file.name}x")
    (folder / "x").rmdir()


def edited(folder, array, **tags):
    """A series whose second slice has other tags; None removes one."""
    write_series(folder, array, matrix_of("oblique"))
    file = sorted(folder.iterdir())[1]
    item = pydicom.dcmread(file)
    for tag, value in tags.items():
        delattr(item, tag) if value is None else setattr(item, tag, value)
    item.save_as(file)


def all_edited(folder, array, **tags):
    """A series whose slices all have other tags; None removes one."""
    write_series(folder, array, matrix_of("oblique"))
    for file in folder.iterdir():
        item = pydicom.dcmread(file)
        for tag, value in tags.items():
            delattr(item, tag) if value is None else setattr(item, tag, value)
        item.save_as(file)


def with_a_slice_aside(folder, array):
    """One slice lies two pixels aside in its plane."""
    write_series(folder, array, matrix_of("oblique"))
    item = pydicom.dcmread(folder / "IM0003")
    along = 2 * item.PixelSpacing[1] * np.array(item.ImageOrientationPatient[:3])
    item.ImagePositionPatient = [f"{value:.6f}" for value in item.ImagePositionPatient + along]
    item.save_as(folder / "IM0003")


def two_of_one_name(folder, array):
    for name in ("one/scan", "two/scan"):
        write_series(folder / name, array, matrix_of("oblique"))


def without_a_slice(folder, array):
    write_series(folder, array, matrix_of("oblique"))
    next(file for file in folder.iterdir() if pydicom.dcmread(file).InstanceNumber == 5).unlink()


def with_two_at_one_place(folder, array, **tags):
    write_series(folder, array, matrix_of("oblique"))
    item = pydicom.dcmread(folder / "IM0003")
    item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    item.save_as(folder / "again")


def of_two_echoes(folder, array):
    for name, time in (("one", 4.6), ("two", 6.9)):
        write_series(folder / name, array, matrix_of("oblique"), series="1.2.3")
        for file in (folder / name).iterdir():
            item = pydicom.dcmread(file)
            item.EchoTime, item.FrameOfReferenceUID = time, "1.2.4"
            item.save_as(folder / f"{name}{file.name}")
        shutil.rmtree(folder / name)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (two_series, "holds 2 DICOM series, 'no description' of 16 slices, 'no description' of 16 slices: put each"),
        (two_of_one_name, "would both be written as 'scan': rename one."),
        (without_a_slice, "not at equal distances: 3 mm between 'IM"),
        (without_a_slice, ", 1.5 mm elsewhere, 1 missing there."),
        (with_two_at_one_place, "has two slices at one place, 'IM0003' and 'again': keep one of them."),
        (of_two_echoes, "holds several echoes (EchoTime 4.6 and 6.9): put each into a folder of its own."),
        (lambda folder, array: write_series(folder, array[..., :1], matrix_of("oblique")), "has one slice only"),
        (lambda folder, array: edited(folder, array, Rows=7), "has slices of different Rows: 24 in '"),
        (lambda folder, array: edited(folder, array, ImagePositionPatient=None), "has no ImagePositionPatient."),
        (lambda folder, array: edited(folder, array, ImagePositionPatient=[0, 1]), "has the ImagePositionPatient 0"),
        (lambda folder, array: edited(folder, array, PixelSpacing=[0, 1]), "has the PixelSpacing 0"),
        (
            lambda folder, array: edited(folder, array, ImageOrientationPatient=[0, 1, 0, 1, 0, 0]),
            "slices of different",
        ),
        (lambda folder, array: edited(folder, array, FrameOfReferenceUID="1.2.9"), "has slices of 2 spaces (FrameOf"),
        (with_a_slice_aside, "slices that are shifted against one another in their planes, not along a line."),
        (
            lambda folder, array: all_edited(folder, array, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
            "has an ImageOrientationPatient that is none: 1.0\\0.0\\0.0\\1.0\\0.0\\0.0.",
        ),
        (lambda folder, array: all_edited(folder, array, Rows=None), "holds DICOM files, but no image among them."),
        (
            lambda folder, array: all_edited(folder, array, Modality="SEG"),
            "but no image among them, only SEG: save masks and contours as NIfTI, as 3D Slicer does.",
        ),
        (lambda folder, array: (folder / "empty").mkdir(parents=True), "no image file and no DICOM series."),
    ],
)
def test_what_would_give_a_wrong_volume_is_refused(make, sentence, array, tmp_path):
    make(tmp_path / "series", array)
    with pytest.raises(ValueError) as raised:
        image_datalist(tmp_path / "series")
    assert sentence in str(raised.value)


def test_slices_that_share_a_number_in_the_world(array, tmp_path):
    """As of programs that remove names: they are other slices, as their places say."""
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        item.save_as(file)
    read = load_image(tmp_path / "series")
    placed(read[0], array, matrix_of("oblique"))
    assert remarks(read.meta)["warnings"] == []


def test_a_series_without_what_may_be_empty(array, tmp_path):
    """Where names were removed, with their attributes."""
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    for file in (tmp_path / "series").iterdir():
        item = pydicom.dcmread(file)
        del item.PatientID, item.PatientName, item.StudyDate
        item.save_as(file)
    read = load_image(tmp_path / "series")
    mask = (np.asarray(read[0]) > 50).astype(np.uint8)
    found = dicom_segmentation(mask, read.affine.numpy(), tmp_path / "series", NAMES, {})
    assert found.PatientID == "" and found.NumberOfFrames == (mask.max(axis=(0, 1)) > 0).sum()


def test_a_value_that_is_half_a_file_is_cut(array, tmp_path):
    """As of a length that is wrong; its control characters stay out of the sentence, too."""
    edited(tmp_path / "series", array)
    file = sorted((tmp_path / "series").iterdir())[1]
    item = pydicom.dcmread(file)
    item[0x00280030] = pydicom.DataElement(0x00280030, "LT", "1\x01\n" * 1000)  # PixelSpacing
    item.save_as(file)
    with pytest.raises(ValueError, match="has the PixelSpacing 1.*") as raised:
        image_datalist(tmp_path / "series")
    said = str(raised.value).replace(str(tmp_path), "")
    assert said.isprintable() and len(said) < 250


@pytest.mark.parametrize("tag", [b"\x08\0\x18\0", b"\x20\0\x0e\0", b"\x28\0\x10\0"])
def test_a_type_of_values_that_is_none(tag, array, tmp_path):
    """Of SOPInstanceUID, SeriesInstanceUID and Rows: pydicom finds out where the value is asked for."""
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    file = sorted((tmp_path / "series").iterdir())[1]
    data = file.read_bytes()
    place = data.index(tag, 132) + 4  # behind the preamble
    file.write_bytes(data[:place] + b"UM" + data[place + 2 :])
    with pytest.raises(ValueError, match=f"{file.name}' is a damaged DICOM file: .*'UM'"):
        image_datalist(tmp_path / "series")


@pytest.mark.parametrize("pixels", [None, b"\0" * 100])
def test_a_slice_that_lacks_pixels(pixels, array, tmp_path):
    """GDCM would hand on what follows in memory, or nothing."""
    edited(tmp_path / "series", array, PixelData=pixels)
    with pytest.raises(ValueError, match="cannot be read: '.*' is truncated or damaged: it lacks pixels."):
        load_image(tmp_path / "series")


def test_a_zip_that_is_none(tmp_path):
    (tmp_path / "series.zip").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match="series.zip' is no zip that can be opened: File is not a zip file."):
        image_datalist(tmp_path / "series.zip")


def test_one_slice_is_no_series(array, tmp_path):
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    with pytest.raises(ValueError, match="is a DICOM file of one slice: give the folder that holds its series."):
        image_datalist(tmp_path / "series" / "IM0000")


def test_the_network_takes_pictures(array, tmp_path):
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    with pytest.raises(
        ValueError, match="has 3 axes, the network takes 2: save what it is to see as a picture, such as .png."
    ):
        image_datalist(tmp_path / "series", spatial_dims=2)


def test_channels_of_a_series(array, tmp_path):
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    with pytest.raises(ValueError, match=r"has 1 channel\(s\), the network takes 3"):
        image_datalist(tmp_path / "series", in_channels=3)


@pytest.mark.parametrize("change", ["shifted", "cropped"])
def test_a_mask_that_does_not_lie_on_the_slices(change, array, tmp_path):
    affine = matrix_of("oblique")
    write_series(tmp_path / "series", array, affine)
    mask = np.zeros(array.shape)
    if change == "shifted":
        affine[:3, 3] += 1
    else:
        mask = mask[..., :-1]
    with pytest.raises(ValueError, match="The mask does not lie on the slices"):
        dicom_segmentation(mask, affine, tmp_path / "series", NAMES, {})


def test_without_the_extra(array, tmp_path, monkeypatch):
    write_series(tmp_path / "series", array, matrix_of("oblique"))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pip install 'medsegdiff-bundle\[dicom\]'"):
        image_datalist(tmp_path / "series")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match=r"pip install 'medsegdiff-bundle\[dicom\]'"):
        dicom_segmentation(np.zeros(array.shape), matrix_of("oblique"), tmp_path / "series", NAMES, {})


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_series_is_drawn_as_its_volume(orientation, array, tmp_path):
    """The right way up whatever the order of its slices, and CT with a window of Hounsfield units."""
    write_series(tmp_path / "series", 2 * array, matrix_of(orientation), modality="CT")
    image = load_image(tmp_path / "series")
    assert image_modality(image) == "CT"
    window = grey_window(image, modality="CT")
    assert window.name == "CT, soft tissue"
    pictures = []
    for values, affine in (
        (image.as_tensor(), image_grid(image).affine),
        (torch.from_numpy(2.0 * array)[None], matrix_of(orientation)),
    ):
        pictures.append(overlay_picture(values, values > values.quantile(0.9), affine=affine, window=window))
    torch.testing.assert_close(*pictures, atol=0.01, rtol=0)


def test_the_name_of_a_patient_is_not_printed(recwarn):
    """highdicom 0.28.2 quotes one of a single part in a warning."""
    errors.quiet_readers()
    from highdicom.base import check_person_name

    check_person_name("Somebody")
    assert not recwarn.list
