"""Files with a fault."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from .doors import RAN, Make


class Foreign:
    """Of a class that no file of numbers may hold."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        """A program."""
        return open, (RAN, "w")


def values(shape: Sequence[int] = (24, 24, 24)) -> np.ndarray:
    """Of an image."""
    return np.random.default_rng(0).random(tuple(shape), dtype=np.float32)


def nifti(array: np.ndarray | None = None, affine: Any = None, name: str = "x.nii", **fields: Any) -> Make:
    """A file in NIfTI with fields of its header as they are given, whatever they are."""

    def make(folder: Path) -> None:
        image = nibabel.Nifti1Image(values() if array is None else array, np.eye(4) if affine is None else affine)
        nibabel.save(image, folder / "x.nii")
        data = bytearray((folder / "x.nii").read_bytes())
        for field, given in fields.items():
            kind, offset = nibabel.nifti1.header_dtype.fields[field][:2]
            data[offset : offset + kind.itemsize] = np.asarray(given).astype(kind.base).tobytes()[: kind.itemsize]
        (folder / "x.nii").unlink()
        (folder / name).write_bytes(gzip.compress(bytes(data)) if name.endswith(".gz") else bytes(data))

    return make


def content(data: bytes | str, name: str = "x.nii") -> Make:
    """A file of this content."""
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def cut(source: str, name: str, share: float = 0.5) -> Make:
    """The beginning of a file."""

    def make(folder: Path) -> None:
        data = (folder / source).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return make


def picture(array: np.ndarray, name: str = "x.png") -> Make:
    """A picture."""
    return lambda folder: Image.fromarray(array).save(folder / name)


def npy(array: np.ndarray) -> bytes:
    """A file of numpy."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A picture whose header tells this size, and that has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def nrrd(**fields: str) -> bytes:
    """A file in NRRD."""
    header = {
        "type": "float",
        "dimension": "3",
        "sizes": "24 24 24",
        "encoding": "raw",
        "endian": "little",
        "space": "left-posterior-superior",
        "space directions": "(1,0,0) (0,1,0) (0,0,1)",
        "space origin": "(0,0,0)",
        **{name.replace("_", " "): value for name, value in fields.items()},
    }
    lines = "".join(f"{name}: {value}\n" for name, value in header.items() if value)
    return f"NRRD0004\n{lines}\n".encode() + values().tobytes()


def metaimage(**fields: str) -> bytes:
    """A file in MetaImage."""
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "DimSize": "24 24 24",
        "ElementSpacing": "1 1 1",
        "ElementType": "MET_FLOAT",
        "ElementByteOrderMSB": "False",
        **fields,
        "ElementDataFile": fields.get("ElementDataFile", "LOCAL"),
    }
    return "".join(f"{name} = {value}\n" for name, value in header.items()).encode() + values().tobytes()


def series(change: Callable[[Any, int], None], number: int = 4) -> Make:
    """A DICOM series of four slices, of which each is changed."""

    def make(folder: Path) -> None:
        import pydicom
        from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

        (folder / "series").mkdir()
        for index in range(number):
            slice_ = pydicom.Dataset()
            slice_.file_meta = pydicom.dataset.FileMetaDataset()
            slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = MRImageStorage
            slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
            slice_.SeriesInstanceUID, slice_.StudyInstanceUID, slice_.Modality = "1.2.3", "1.2", "MR"
            slice_.Rows = slice_.Columns = 24
            slice_.PixelSpacing, slice_.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
            slice_.ImagePositionPatient = [0, 0, index]
            slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
            slice_.BitsAllocated = slice_.BitsStored = 16
            slice_.HighBit, slice_.PixelRepresentation = 15, 0
            slice_.PixelData = (values((24, 24)) * 100).astype(np.uint16).tobytes()
            slice_.file_meta.ImplementationClassUID = "1.2.3.4"
            change(slice_, index)
            slice_.save_as(folder / "series" / f"{index}.dcm", enforce_file_format=True)

    return make


def setting(tag: str, given: Any, where: int | None = None) -> Callable[[Any, int], None]:
    """A change of an attribute, in all slices or in one; None removes it."""

    def change(slice_: Any, index: int) -> None:
        if where is None or where == index:
            if given is None:
                delattr(slice_, tag)
            else:
                setattr(slice_, tag, given)

    return change
