"""Writing of files."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import NibabelWriter
from monai.data.utils import orientation_ras_lps, to_affine_nd
from monai.transforms import MapTransform
from monai.utils import convert_data_type

from medsegdiff_bundle.datalist.naming import METAIMAGE, NIFTI, NRRD, PAIRS
from medsegdiff_bundle.readers import header_unit, itk_place
from medsegdiff_bundle.readers.nifti import NiftiReader, load_nifti, place, signed_sizes

# What a NIfTI header says of the place of its voxels; nothing of the person or the values.
GEOMETRY = ["xyzt_units", "dim_info", "sform_code", "srow_x", "srow_y", "srow_z", "qform_code"]
GEOMETRY += ["quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]


class VolumeWriter(NibabelWriter):
    """MONAI's `NibabelWriter`, whose files lie where their image does, in every program.

    What lies on the grid of a NIfTI image gets the geometry of its header as it is: sform, qform, their codes, voxel
    sizes and units. MONAI's writes one matrix as both forms, which other programs show elsewhere than an image whose
    forms differ. It also keeps the last axis of a volume of one slice, and with it the slice's thickness.

    Shapes:
        (1, X, Y, Z) -> a file (X, Y, Z); (C, X, Y, Z) -> (X, Y, Z, C)
    """

    def set_data_array(
        self, data_array: Any, channel_dim: int | None = 0, squeeze_end_dims: bool = False, **kwargs: Any
    ) -> None:
        """Take the values; the arguments are those of MONAI's writer, and no axis but that of a lone channel goes."""
        super().set_data_array(data_array, channel_dim, squeeze_end_dims=False, **kwargs)
        if channel_dim is not None and self.data_obj.shape[-1] == 1:
            self.data_obj = self.data_obj[..., 0]

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        """Take the metadata of the values, and with them the name of the image's file."""
        if resample:
            super().set_metadata(meta_dict, resample, **options)
        else:
            self.affine = (meta_dict or {}).get("affine")
        self.source = str((meta_dict or {}).get("filename_or_obj", ""))

    @classmethod
    def create_backend_obj(cls, *arguments: Any, **options: Any) -> Any:
        """An image of nibabel that says that its lengths are in mm."""
        image = super().create_backend_obj(*arguments, **options)
        image.header.set_xyzt_units("mm")
        return image

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write the file."""
        values = np.asarray(self.data_obj, dtype=self.output_dtype)
        found = _header(self.source, values.shape, self.affine)
        if found is None:
            super().write(filename, verbose, **obj_kwargs)
            return
        pair = str(filename).lower().endswith(PAIRS)  # nibabel would turn one kind into the other, and refuses to
        kind = f"Nifti{2 if found['sizeof_hdr'] == 540 else 1}{'Pair' if pair else 'Image'}"
        image = getattr(nibabel, kind)(values, None)
        for name in GEOMETRY:
            image.header[name] = found[name]
        image.header["pixdim"][:4] = signed_sizes(load_nifti(self.source))
        nibabel.save(image, filename)  # type: ignore[attr-defined]


class ITKWriter(VolumeWriter):
    """NRRD and MetaImage, as ITK writes them, at the place where it shows the image; see `readers.itk_place`.

    Shapes:
        (1, X, Y, Z) -> a file (X, Y, Z); (C, X, Y, Z) -> one of vectors; also without Z
    """

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, *arguments: Any, **options: Any) -> None:
        """Take the values; see `VolumeWriter`."""
        super().set_data_array(data_array, channel_dim, *arguments, **options)
        self.vector = channel_dim is not None and data_array.shape[channel_dim] > 1

    def write(self, filename: str | os.PathLike, verbose: bool = False, **options: Any) -> None:
        """Write the file, compressed; of .nhdr and .mhd the values lie in a second one."""
        import SimpleITK

        values = np.asarray(convert_data_type(self.data_obj, np.ndarray)[0]).astype(self.output_dtype)
        affine = np.eye(4) if self.affine is None else convert_data_type(self.affine, np.ndarray)[0]
        affine = shown_by_itk(self.source, values.shape, affine)
        SimpleITK.WriteImage(itk_image(values, affine, self.vector), str(filename), useCompression=True)


def shown_by_itk(source: str, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Voxel to RAS of values on the grid of an image, where programs built on ITK show the image.

    They take other forms of a NIfTI header, and lengths in NRRD and MetaImage for mm.

    Args:
        source: file of the image.
        shape: of the values.
        affine: of the values, in mm, which is kept if they lie on another grid than a NIfTI image.
    """
    millimetres, _ = header_unit(Path(source))
    if millimetres != 1:
        return np.diag([*[1 / millimetres] * 3, 1.0]) @ to_affine_nd(3, affine)
    by_itk = itk_place(Path(source)) if _header(source, shape, affine) is not None else None
    return affine if by_itk is None else by_itk


def itk_image(values: np.ndarray, affine: np.ndarray, vector: bool = False) -> Any:
    """An image of SimpleITK.

    Args:
        values: (X, Y, Z) or (X, Y), with channels behind if `vector`.
        affine: voxel to RAS in mm.
        vector: whether the last axis is one of channels.
    """
    import SimpleITK

    axes = values.ndim - vector
    order = (*reversed(range(axes)), *range(axes, values.ndim))
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.transpose(order)), isVector=vector)
    lps = np.asarray(orientation_ras_lps(to_affine_nd(3, affine)))[:axes]
    spacing = np.linalg.norm(lps[:, :axes], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:, 3].tolist())
    image.SetDirection((lps[:, :axes] / spacing).ravel().tolist())
    return image


class MGHWriter(VolumeWriter):
    """FreeSurfer's MGH and MGZ."""

    def write(self, filename: str | os.PathLike, verbose: bool = False, **options: Any) -> None:
        """Write the file."""
        values = np.asarray(convert_data_type(self.data_obj, np.ndarray)[0]).astype(self.output_dtype)
        affine = np.eye(4) if self.affine is None else convert_data_type(self.affine, np.ndarray)[0]
        nibabel.save(nibabel.MGHImage(values, to_affine_nd(3, affine)), filename)  # type: ignore[attr-defined]


class PlaceByITKd(MapTransform):
    """Give results the place at which programs built on ITK show their image; see `readers.itk_place`.

    For MONAI Label, which writes a mask by ITK, with the one matrix that the mask has, for 3D Slicer or OHIF.

    Args:
        keys: of the results, in the grid of the image's file.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Place each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            file = Path(str(getattr(d[key], "meta", {}).get("filename_or_obj", "")))
            place = itk_place(file) if file.name.lower().endswith((*NIFTI, *NRRD, *METAIMAGE)) else None
            if place is not None:
                d[key] = d[key].clone()
                d[key].affine = torch.as_tensor(place)
        return d


def _header(source: str, shape: tuple[int, ...], affine: Any) -> Any:
    """Header of the NIfTI file on whose grid values of a shape and an affine lie, if there is one."""
    if not (os.path.isfile(source) and NiftiReader().verify_suffix(source)):
        return None
    header = load_nifti(source).header
    same = header.get_data_shape()[:3] == shape[:3] and np.allclose(place(header), affine, rtol=1e-5, atol=1e-4)
    return header if same else None
