"""Whether two files have the same voxels, whatever the order in which they are stored."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type
from torch import Tensor

from medsegdiff_bundle.datalist.naming import METAIMAGE, NIFTI, NRRD
from medsegdiff_bundle.readers import itk_place
from medsegdiff_bundle.readers.nifti import forms, in_millimetres, load_nifti
from medsegdiff_bundle.readers.volumes import SEGMENTS

MISPLACED = 0.25  # voxels


class CheckGridd(MapTransform):
    """Refuse a label whose voxels are not those of its image, with the names of both files.

    Of two files with metadata also the places of the voxels count: none may be off by a quarter of a voxel or more,
    which leaves room for the rounding of headers. A label whose axes are stored in another order or direction is turned
    to those of its image first, and a segmentation of 3D Slicer that was cropped to its segments gets their image's
    size. Where a NIfTI header places its voxels in several ways, by sform, qform or the rule of ITK, either may be the
    one that agrees.

    Args:
        keys: of the labels, channels first, as read.
        image_key: of their image, likewise.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: the shapes or the affines differ.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each key."""
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            label = d[key]
            names = f"The label {file_name(label, key)!r}", f"its image {file_name(image, self.image_key)!r}"
            placed = isinstance(image, MetaTensor) and isinstance(label, MetaTensor)
            if placed and SEGMENTS in label.meta:
                label = uncropped(label, image)
            of_image = turned(label, image) if placed else None
            if of_image is not None:
                d[key] = of_image
                continue
            if image.shape[1:] != label.shape[1:]:
                shapes = tuple(label.shape[1:]), tuple(image.shape[1:])
                raise ValueError(f"{names[0]} has the shape {shapes[0]}, {names[1]} {shapes[1]}.")
            if placed:
                distance = apart(image.affine, label.affine, image.shape[1:])
                raise ValueError(f"{names[0]} lies elsewhere than {names[1]}: up to {distance:.3g} voxels apart.")
        return d


def turned(label: MetaTensor, image: MetaTensor) -> MetaTensor | None:
    """The label with the axes of its image, if it then lies where that does."""
    shape = label.shape[1:]
    if shape == image.shape[1:] and torch.equal(image.affine, label.affine):
        return label
    for place in places(image):
        for own in places(label):
            # From the label's voxels to those of the image, nearly a matrix of 0, 1 and -1.
            steps = nibabel.orientations.io_orientation(np.linalg.solve(place.numpy(), own.numpy()))[: len(shape)]
            if np.isnan(steps).any() or sorted(steps[:, 0]) != list(range(len(shape))):
                continue
            turn = torch.eye(len(own), dtype=own.dtype)
            turn[: len(shape), : len(shape)] = 0
            for axis, (to, direction) in enumerate(steps):
                turn[axis, int(to)] = direction
                turn[axis, -1] = 0 if direction > 0 else shape[axis] - 1
            order = [int(axis) for axis in np.argsort(steps[:, 0])]
            if [shape[axis] for axis in order] != list(image.shape[1:]):
                continue
            if apart(place, own @ turn, image.shape[1:]) < MISPLACED:
                values = label.as_tensor().flip([axis + 1 for axis in range(len(shape)) if steps[axis, 1] < 0])
                result = convert_to_dst_type(values.permute(0, *(axis + 1 for axis in order)).contiguous(), label)[0]
                result.affine = image.affine  # rounded alike, so that all that follows cuts both alike
                return result
    return None


def uncropped(label: MetaTensor, image: MetaTensor) -> MetaTensor:
    """A label (1, S') of a part of the grid of its image, with zeros (1, S) around it; any other as it is."""
    axes = label.ndim - 1
    if axes != image.ndim - 1 or label.shape[1:] == image.shape[1:]:
        return label
    for place in places(image):
        steps = torch.linalg.solve(place, label.affine.cpu().double())
        first = steps[:axes, -1].round().long()
        last = first + torch.tensor(label.shape[1:])
        inside = bool((first >= 0).all()) and bool((last <= torch.tensor(image.shape[1:])).all())
        whole = (steps[:axes, -1] - first).abs().max() < MISPLACED
        if inside and whole and torch.allclose(steps[:axes, :axes], torch.eye(axes).double(), atol=1e-3):
            values = label.as_tensor().new_zeros(len(label), *image.shape[1:])
            values[(slice(None), *map(slice, first.tolist(), last.tolist()))] = label.as_tensor()
            result = convert_to_dst_type(values, label)[0]
            result.affine = image.affine
            return result
    return label


def places(image: MetaTensor) -> list[Tensor]:
    """Where the voxels of an image lie: as read, by each of the forms in the header of a NIfTI file, and by ITK."""
    places = [image.affine.cpu().double()]
    file = Path(str(image.meta.get("filename_or_obj", "")))
    if len(places[0]) == 4 and file.name.lower().endswith(NIFTI) and file.is_file():
        header = load_nifti(file).header
        of_header = [form if form is None else in_millimetres(form, header) for form in forms(header)]
        places += [torch.as_tensor(place) for place in (*of_header, itk_place(file)) if place is not None]
    elif (
        len(places[0]) == 4
        and file.name.lower().endswith((*NRRD, *METAIMAGE))
        and (shown := itk_place(file)) is not None
    ):
        places.append(torch.as_tensor(shown))
    return places


def apart(first: Tensor, second: Tensor, shape: Sequence[int]) -> float:
    """Largest distance of a voxel's two places, in edges of the first grid's voxels; the farthest is at a corner."""
    axes = len(first) - 1
    corners = torch.tensor([[*corner, 1] for corner in product(*((0, size - 1) for size in shape))]).double()
    corners = torch.cat([corners[:, :-1], corners.new_zeros(len(corners), axes - len(shape)), corners[:, -1:]], 1)
    distance = ((second - first).double() @ corners.T)[:axes].norm(dim=0).max()
    return float(distance / first[:axes, : len(shape)].double().norm(dim=0).min())


def file_name(value: Any, key: Hashable) -> str:
    """Name of the file that a value was read from; the key of a value without metadata."""
    return str(getattr(value, "meta", {}).get("filename_or_obj", key))
