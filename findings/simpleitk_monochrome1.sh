#!/usr/bin/env bash
# SimpleITK 2.5.7 (GDCM): of a DICOM file with the photometric interpretation MONOCHROME1, in which the lowest value is shown white, the
# stored values are turned around before RescaleSlope and RescaleIntercept are applied: a CT comes without its Hounsfield units.
# pydicom 3.0.2 hands them on as they are stored. Signed values of 12 stored bits, which PS3.5 allows, end with a logic error.
# PS3.3, C.7.6.3.1.2: the photometric interpretation says how values are shown; C.11.1: rescaling gives the units.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q simpleitk==2.5.7 pydicom==3.0.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pydicom
import SimpleITK
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

STORED = np.array([[0, 1000], [1064, 2000]])  # -1024, -24, 40 and 976 HU


def read(bits, signed):
    """Values of a CT by both libraries."""
    item = pydicom.Dataset()
    item.file_meta = pydicom.dataset.FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.SOPClassUID, item.SOPInstanceUID = CTImageStorage, generate_uid()
    item.StudyInstanceUID, item.SeriesInstanceUID, item.Modality = generate_uid(), generate_uid(), "CT"
    item.Rows = item.Columns = 2
    item.ImagePositionPatient, item.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    item.PixelSpacing = [1, 1]
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME1"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, bits, bits - 1, int(signed)
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1, -1024, "HU"
    item.PixelData = STORED.astype("<i2").tobytes()
    item.save_as("a.dcm", enforce_file_format=True)
    by_pydicom = pydicom.dcmread("a.dcm").pixel_array.astype(int) - 1024
    try:
        return by_pydicom.ravel().tolist(), SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("a.dcm")).ravel().tolist()
    except RuntimeError as error:
        return by_pydicom.ravel().tolist(), str(error).splitlines()[-1]


print("SimpleITK", SimpleITK.Version.VersionString(), "pydicom", pydicom.__version__)
units = (STORED - 1024).ravel().tolist()
for bits, signed in ((12, False), (16, False), (12, True)):
    by_pydicom, by_itk = read(bits, signed)
    print(f"{bits} bits, signed {signed}: in HU {units}, pydicom {by_pydicom}, SimpleITK {by_itk}")
    assert by_pydicom == units
    if signed:
        assert isinstance(by_itk, str) and "invalid logic" in by_itk, by_itk
    else:
        assert by_itk == (2**bits - 1 - STORED - 1024).ravel().tolist(), by_itk
PYTHON
echo "still so"
