#!/usr/bin/env bash
# SimpleITK 2.5.7: ImageSeriesReader gives all slices of a DICOM series the type of the slice that comes first, without a word. Where
# RescaleSlope or RescaleIntercept differ from slice to slice, as in PET, values of the others are cut to whole numbers, or wrap around:
# -1000 HU become 64536. Expected: a type that holds them all, or an error. Slice by slice, ReadImage and pydicom 3.0.2 give them right.
# The documentation says nothing of it; SetOutputPixelType(SimpleITK.sitkFloat32) avoids it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q simpleitk==2.5.7 pydicom==3.0.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid


def write(folder, kind, modality, signed, slices):
    """A series; a slice is its stored number, slope and intercept."""
    Path(folder).mkdir()
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for index, (stored, slope, intercept) in enumerate(slices):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kind
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.Modality, data.SeriesNumber, data.InstanceNumber = modality, 1, index + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2 * index], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [1, 1], 2
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 4, 4, 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, int(signed)
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.PixelData = np.full((4, 4), stored, dtype=np.uint16).tobytes()
        data.save_as(f"{folder}/{index}.dcm", enforce_file_format=True)


write("pet", PositronEmissionTomographyImageStorage, "PT", True, [(0, 1, 0), (2, 0.25, 0), (5, 0.25, 0), (11, 0.25, 0)])
write("ct", CTImageStorage, "CT", False, [(10, 1, 0), (24, 1, -1024), (1029, 1, -1024)])
found = {}
for folder in ("pet", "ct"):
    reader = SimpleITK.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(folder)
    reader.SetFileNames(names)
    by_pydicom = [pydicom.dcmread(name) for name in names]
    found[folder] = {
        "pydicom": [float(apply_rescale(each.pixel_array, each)[0, 0]) for each in by_pydicom],
        "ReadImage, each": [float(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(name))[0, 0, 0]) for name in names],
        "ImageSeriesReader": SimpleITK.GetArrayFromImage(reader.Execute())[:, 0, 0].tolist(),
    }
print("SimpleITK", SimpleITK.Version.VersionString(), "pydicom", pydicom.__version__)
for folder, ways in found.items():
    for way, values in ways.items():
        print(f"{folder:3} {way:17} {values}")
for folder, right in (("pet", [0.0, 0.5, 1.25, 2.75]), ("ct", [10.0, -1000.0, 5.0])):
    assert found[folder]["pydicom"] == found[folder]["ReadImage, each"] == right, found
assert found["pet"]["ImageSeriesReader"] == [0, 0, 1, 2], found
assert found["ct"]["ImageSeriesReader"] == [10, 64536, 5], found
PYTHON
echo "still so"
