#!/usr/bin/env bash
# highdicom 0.28.2: `Image.get_frame` and `get_stored_frame` count the bits above BitsStored: a signed CT of 12 stored bits in words of 16,
# whose unused bits are 0, has 3096 HU where it has -1000, and a picture with an overlay in bit 12, as older scanners wrote it, 4106
# for 10. PS3.5, 8.1.1: a sample has BitsStored bits, the highest of them is its sign, and others may hold overlays. pydicom 3.0.2 (pixel_array),
# SimpleITK 2.5.7 and highdicom's own get_volume_from_series read the numbers that are meant. The cause: image.py hands BitsAllocated
# to decode_frame where it asks for BitsStored.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q highdicom==0.28.2 simpleitk==2.5.7 pydicom==3.0.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import highdicom
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write(name, words, signed):
    """A CT slice of 12 stored bits, all of whose pixels are the word of 16 bits."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = generate_uid(), generate_uid(), generate_uid()
    data.PatientName = data.PatientID = data.PatientBirthDate = data.PatientSex = data.StudyID = ""
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", 1, 1
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness = [1, 1], 1
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 4, 4, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, int(signed)
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, 0, "HU"
    data.PixelData = np.full((4, 4), words, dtype=np.uint16).tobytes()
    data.save_as(name, enforce_file_format=True)


write("signed.dcm", -1000 & 0x0FFF, True)
write("overlay.dcm", 10 | 0x1000, False)
found = {}
for name in ("signed.dcm", "overlay.dcm"):
    image = highdicom.imread(name)
    found[name] = {
        "pydicom": int(pydicom.dcmread(name).pixel_array[0, 0]),
        "SimpleITK": int(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(name))[0, 0, 0]),
        "highdicom, get_frame": int(image.get_frame(1)[0, 0]),
        "highdicom, get_stored_frame": int(image.get_stored_frame(1)[0, 0]),
    }
print("highdicom", highdicom.__version__, "pydicom", pydicom.__version__, "SimpleITK", SimpleITK.Version.VersionString())
for name, values in found.items():
    print(name, values)
assert list(found["signed.dcm"].values()) == [-1000, -1000, 3096, 3096], found
assert list(found["overlay.dcm"].values()) == [10, 10, 4106, 4106], found
PYTHON
echo "still so"
