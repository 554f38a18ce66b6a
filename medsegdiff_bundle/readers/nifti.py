"""NIfTI files: the place of their voxels, in mm, from what scanners' and workstations' programs write into headers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import NibabelReader
from monai.utils import ensure_tuple

from medsegdiff_bundle.datalist.headers import axes_and_channels, is_nifti_pair, nibabel_reason
from medsegdiff_bundle.datalist.naming import NIFTI, PAIRS
from medsegdiff_bundle.remarks import add_processing, add_warning

MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # of the units 0 to 3 of nifti1.h: unknown, metre, mm, micrometre
UNITS = {1: "metres", 3: "micrometres"}
SHEARED = (
    "The axes of the volume are not at right angles, as after a gantry tilt; programs built on ITK, such as 3D Slicer, "
    "refuse the file or show it elsewhere."
)
CODES = ("sform_code", "qform_code")
KNOWN_CODES = range(6)  # of nifti1.h, and 5 of NIfTI-2
SHEAR = 1e-3  # cosine between two axes, from which on ITK refuses a matrix


class NiftiReader(NibabelReader):
    """MONAI's `NibabelReader` for NIfTI in one file or two, whose affine is the place of the voxels in mm; see `place`.

    Axes after the third that hold nothing are dropped; for NaN see `fill_outside`.

    Raises:
        ValueError: the header places the voxels nowhere, its unit is unknown, the values are complex or colours, or
            there are more axes than three and one of channels; the text does not name the file.
    """

    def verify_suffix(self, filename: Sequence[str | os.PathLike] | str | os.PathLike) -> bool:
        """Whether these are NIfTI files."""
        files = [Path(name) for name in ensure_tuple(filename)]
        return all(
            file.name.lower().endswith(NIFTI) or (file.name.lower().endswith(PAIRS) and is_nifti_pair(file))
            for file in files
        )

    def read(self, data: Sequence[str | os.PathLike] | str | os.PathLike, **kwargs: Any) -> Any:
        """One image of nibabel, or several, with their headers as they are."""
        self.filenames = ensure_tuple(data)
        try:
            images = [load_nifti(name, **{**self.kwargs, **kwargs}) for name in self.filenames]
        except (ValueError, nibabel.spatialimages.HeaderDataError) as error:
            raise ValueError(nibabel_reason(error)) from error
        for image in images:
            axes_and_channels(image.shape)  # before its values, of which there may be none
        return images if len(images) > 1 else images[0]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Values and metadata, with remarks on a header that can be read in two ways."""
        values, metadata = super().get_data(img)
        _remark(metadata, ensure_tuple(img)[0].header)
        return values, metadata

    def _get_affine(self, img: Any) -> np.ndarray:
        stored = img.file_map.get("header", img.file_map["image"]).filename
        without = img.header["sform_code"] <= 0 and img.header["qform_code"] <= 0
        if stored is not None and without and 0 in signed_sizes(img)[1 : img.header["dim"][0] + 1]:
            raise ValueError("its header places the voxels nowhere: a voxel has no size")  # of which nibabel makes 1 mm
        return place(img.header)

    def _get_array_data(self, img: Any, filename: Any) -> np.ndarray:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # of a scale, whose values `LoadImaged` refuses by name
                values = np.asanyarray(img.dataobj)
        except FileNotFoundError as error:  # of values in a file of their own
            raise ValueError(nibabel_reason(error)) from error
        if np.iscomplexobj(values):
            raise ValueError("it holds complex numbers: save their magnitude")
        if values.dtype.names:
            raise ValueError("it holds colours (RGB): save a volume of numbers, such as their brightness")
        axes, channels = axes_and_channels(values.shape)
        shape = values.shape[:axes] if channels == 1 else (*values.shape[:axes], channels)
        return fill_outside(values.reshape(shape))


def place(header: Any) -> np.ndarray:
    """Voxel to RAS, in mm, by a NIfTI header.

    The sform, if it is set, as in nibabel; but the qform, if that is set, where the sform cannot be inverted or speaks
    of other voxel sizes than the header does, as one does that leads into the space of a template. Without both, the
    voxel sizes alone.

    Args:
        header: of nibabel, for NIfTI-1 or 2.

    Returns:
        (4, 4) float64.

    Raises:
        ValueError: no matrix that is set can be inverted, or the unit is unknown.
    """
    sform, qform = forms(header)
    chosen = sform if sform is not None and (qform is None or _has_sizes(sform, header)) else qform
    if chosen is None:
        if header["sform_code"] > 0 or header["qform_code"] > 0:
            raise ValueError("its header places the voxels nowhere: neither sform nor qform can be inverted")
        chosen = header.get_base_affine()
        if not invertible(chosen, int(header["dim"][0])):
            raise ValueError("its header places the voxels nowhere: a voxel has no size")
    return in_millimetres(chosen, header)


def load_nifti(file: str | os.PathLike, **options: Any) -> Any:
    """What nibabel loads, with the codes of sform and qform as the file has them.

    nibabel makes 0 of a code that it does not know, so that the form is lost by which programs built on ITK, for which
    each code above 0 is one, show the image.

    Args:
        file: NIfTI, of one file or two.
        options: of `nibabel.load`.

    Raises:
        ValueError: it is CIFTI, whose header is that of NIfTI-2.
    """
    image: Any = nibabel.load(file, **options)  # type: ignore[attr-defined]
    if isinstance(image, nibabel.Cifti2Image):
        raise ValueError("it is CIFTI, with values of surfaces and parcels: an image has voxels")
    stored = _stored_header(image)
    for code in CODES:
        image.header[code] = stored[code]
    return image


def signed_sizes(image: Any) -> np.ndarray:
    """The first numbers of the field pixdim of a file that nibabel loaded, as they are: it drops signs, and zeros."""
    sizes: np.ndarray = _stored_header(image)["pixdim"][:4]
    return sizes


def _stored_header(image: Any) -> Any:
    """The header of an image that nibabel loaded, without what nibabel mends in it."""
    with image.file_map.get("header", image.file_map["image"]).get_prepare_fileobj("rb") as file:
        return type(image.header).from_fileobj(file, check=False)


def forms(header: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The sform and the qform of a NIfTI header, (4, 4) in its own unit, of those that are set and can be inverted."""
    axes = int(header["dim"][0])
    sform = header.get_sform() if header["sform_code"] > 0 else None
    try:
        qform = header.get_qform() if header["qform_code"] > 0 else None
    except (nibabel.spatialimages.HeaderDataError, ValueError):  # of a quaternion that is none
        qform = None
    usable = [form if form is not None and invertible(form, axes) else None for form in (sform, qform)]
    return usable[0], usable[1]


def invertible(form: np.ndarray, axes: int) -> bool:
    """Whether a matrix gives the voxels of an image of so many axes a size."""
    columns = form[:3, : min(axes, 3)]
    sizes = np.linalg.norm(columns, axis=0)
    if not np.isfinite(form).all() or sizes.min() <= 0:
        return False
    return bool(np.linalg.svd(columns / sizes, compute_uv=False).min() > 1e-3)


def _has_sizes(form: np.ndarray, header: Any) -> bool:
    """Whether a matrix has the voxel sizes of its header or, as of a tilted gantry, their product."""
    axes = min(int(header["dim"][0]), 3)
    told = np.abs(np.asarray(header["pixdim"][1 : axes + 1], dtype=np.float64))
    sizes = np.linalg.norm(form[:3, :axes], axis=0)
    volume = np.sqrt(np.linalg.det(form[:3, :axes].T @ form[:3, :axes]))
    return np.allclose(sizes, told, rtol=0.01) or bool(np.isclose(volume, told.prod(), rtol=0.01))


def in_millimetres(form: np.ndarray, header: Any) -> np.ndarray:
    """A matrix of `forms` in mm.

    Raises:
        ValueError: the unit of the header is unknown.
    """
    unit = int(header["xyzt_units"]) % 8
    if unit not in MILLIMETRES:
        raise ValueError(f"its header gives lengths in the unit {unit}, which NIfTI does not have")
    affine: np.ndarray = np.diag([*[MILLIMETRES[unit]] * 3, 1.0]) @ form
    return affine


def _remark(metadata: dict, header: Any) -> None:
    """Say what a reader of the result must know of a header."""
    unit = int(header["xyzt_units"]) % 8
    if unit in UNITS:
        add_processing(metadata, f"Lengths in the header are in {UNITS[unit]}; here they are in mm.")
    sform, qform = (None if form is None else in_millimetres(form, header) for form in forms(header))
    taken = place(header)
    for code in CODES:
        if header[code] > 0 and header[code] not in KNOWN_CODES:
            form = code.removesuffix("_code")
            add_warning(
                metadata,
                f"The header gives its {form} the code {int(header[code])}, which NIfTI does not have: here the {form} "
                "is taken as in programs built on ITK, such as 3D Slicer; nibabel drops it.",
            )
    if is_sheared(taken):
        add_warning(metadata, SHEARED)
    if header["sform_code"] <= 0 and header["qform_code"] <= 0 and header["dim"][0] > 2:
        add_warning(
            metadata,
            "The header gives the axes of the volume no directions: here they are taken to point left, to the front "
            "and up, as in nibabel; programs built on ITK take others.",
        )
    stored = forms(header)[0]
    if stored is not None and qform is None and not _has_sizes(stored, header):
        sizes, told = (
            " x ".join(f"{size:.3g}" for size in each)
            for each in (np.linalg.norm(stored[:3, :3], axis=0), header["pixdim"][1:4])
        )
        add_warning(
            metadata,
            f"The header gives the voxels two sizes, {sizes} by its sform and {told} by its field pixdim: here the "
            "sform counts; programs built on ITK, such as 3D Slicer, take the other.",
        )
    if sform is None or qform is None:
        return
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.maximum(header["dim"][1:4], 1) - 1)
    apart = np.linalg.norm(corners @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3], axis=1).max()
    if apart > 0.25 * np.linalg.norm(taken[:3, :3], axis=0).min():
        which = "sform" if np.array_equal(taken, sform) else "qform"
        add_processing(
            metadata, f"The header places the volume in two ways, up to {apart:.3g} mm apart; here by its {which}."
        )


def is_sheared(affine: np.ndarray) -> bool:
    """Whether two axes of a voxel are not at right angles."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(columns.T @ columns - np.eye(3)).max() > SHEAR)


def fill_outside(values: np.ndarray) -> np.ndarray:
    """Values with the lowest of them in place of NaN that reaches the border, by which programs say: not measured.

    Args:
        values: (S) or (S, C).

    Returns:
        The same; NaN that does not reach the border stays, for `LoadImaged` to refuse.
    """
    if values.dtype.kind != "f" or not np.isnan(values).any():
        return values
    from scipy import ndimage  # takes a while, and few images need it

    outside = np.isnan(values)
    labels, _ = ndimage.label(outside)
    edges = [labels.take(place, axis).ravel() for axis in range(min(values.ndim, 3)) for place in (0, -1)]
    reached = np.isin(labels, np.setdiff1d(np.concatenate(edges), [0]))
    return values if outside.all() else np.where(reached, np.nanmin(values), values)
