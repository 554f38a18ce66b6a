#!/usr/bin/env bash
# antspyx 0.6.3: `ants.dicom_read` stacks the files of a DICOM folder as os.listdir lists them, whatever ImagePositionPatient or
# InstanceNumber say, puts the corner at the file that is listed first, and takes 1 mm for the distance of the slices of a CT.
# Expected: slices in the order of their places, and the distance between them (PS3.3, C.7.6.2.1.1), as SimpleITK 2.5.7 gives them.
# The docstring ("read a set of dicom files in a directory into a single ANTsImage") tells none of it; ANTsPy issue 183 is about the order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q antspyx==0.6.3 simpleitk==2.5.7 pydicom==3.0.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
from importlib.metadata import version
from pathlib import Path

import ants
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

Path("series").mkdir()
series, study, frame = generate_uid(), generate_uid(), generate_uid()
names = [f"{number:02d}.dcm" for number in (7, 2, 9, 4, 1, 8, 3, 10, 5, 6)]  # as of programs that name files by their UIDs
for index, name in enumerate(names):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
    data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", 1, index + 1
    data.ImagePositionPatient, data.ImageOrientationPatient = [-50, -60, 5 * index], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness = [0.8, 0.8], 5
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 8, 6, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.PixelData = np.full((8, 6), 10 * index, dtype=np.int16).tobytes()
    data.save_as(f"series/{name}", enforce_file_format=True)

by_ants = ants.dicom_read("series")
reader = SimpleITK.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames("series"))
by_itk = reader.Execute()
listed = os.listdir("series")
found = {
    "antspyx": ([int(value) for value in by_ants.numpy()[0, 0]], by_ants.spacing[2], by_ants.origin[2]),
    "SimpleITK": (SimpleITK.GetArrayFromImage(by_itk)[:, 0, 0].tolist(), by_itk.GetSpacing()[2], by_itk.GetOrigin()[2]),
}
print("antspyx", version("antspyx"), "SimpleITK", SimpleITK.Version.VersionString(), "pydicom", pydicom.__version__)
for program, (values, distance, lowest) in found.items():
    print(f"{program:9} slices {values}, distance {distance} mm, the first lies at {lowest} mm")
print("listed by os.listdir:", listed)
assert found["SimpleITK"] == ([10 * index for index in range(10)], 5.0, 0.0), found
first = names.index(listed[0])
assert found["antspyx"] == ([10 * names.index(name) for name in listed], 1.0, 5.0 * first), found
assert found["antspyx"][0] != found["SimpleITK"][0], found
PYTHON
echo "still so"
