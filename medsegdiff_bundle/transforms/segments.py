"""Masks in the files of other programs: segmentations of 3D Slicer, surfaces, contours of radiotherapy."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medsegdiff_bundle.datalist import CONTOURS, case_name
from medsegdiff_bundle.datalist.slices import is_series
from medsegdiff_bundle.dicom import contours
from medsegdiff_bundle.files import FullDiskError, whole_files
from medsegdiff_bundle.labels import colour, marked
from medsegdiff_bundle.remarks import add_warning

from .save import itk_image, shown_by_itk

NEEDED = {"stl": ("skimage", "surfaces"), "rtstruct": ("rt_utils", "rtstruct")}  # package, and our extra that has it
KINDS = ("seg.nrrd", *NEEDED)


class SaveSegmentsd(MapTransform):
    """Write the mask of a volume in further files, each of which says what its parts are called.

    - `seg.nrrd`: `<case>.seg.nrrd`, a segmentation of 3D Slicer, with the names and colours of the classes.
    - `stl`: `<case>_<class>.stl`, the surface of each class, in mm, in LPS, as 3D Slicer and printers take it.
    - `rtstruct`: `<case>_rtstruct.dcm`, contours on the slices of a DICOM series; other images get none.

    What cannot be written becomes a warning: it is an extra, for whose sake no case ends.

    Args:
        keys: of the masks, or regions, in the space of their images.
        output_dir: folder of the files; made if need be.
        class_names: of the classes 1 to K - 1.
        kinds: of the files.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: a kind is unknown, or what it needs is not installed.

    Shapes:
        (1, X, Y, Z) whole numbers from 0 to K - 1, or regions (R, X, Y, Z) of 0 and 1, returned as they are
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike,
        class_names: Sequence[str],
        kinds: Sequence[str],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        for kind in kinds:
            if kind not in KINDS:
                raise ValueError(f"also_write must name some of {', '.join(KINDS)}, got {kind!r}.")
            package, extra = NEEDED.get(kind, ("", ""))
            if package and find_spec(package) is None:
                raise ValueError(f"also_write {kind!r} needs: pip install 'medsegdiff-bundle[{extra}]'.")
        self.output_dir = Path(output_dir)
        self.class_names = class_names
        self.kinds = kinds

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            for kind in self.kinds:
                try:
                    self._write(d[key], kind)
                except FullDiskError:
                    raise
                except Exception as error:  # whatever a library raises
                    add_warning(d, f"No file of the kind {kind} is written: {str(error) or type(error).__name__}")
        return d

    def _write(self, mask: MetaTensor, kind: str) -> None:
        if mask.ndim != 4:
            raise ValueError("it is for volumes.")
        source = Path(str(mask.meta["filename_or_obj"]))
        given = mask.as_tensor().detach().cpu().to(torch.uint8)
        masks = ((name, marked(given, number).numpy()) for number, name in enumerate(self.class_names, start=1))
        affine = mask.affine.cpu().numpy()
        shown = shown_by_itk(str(source), tuple(given.shape[1:]), affine)
        with whole_files(self.output_dir) as folder:
            name = case_name(source)
            if kind == "seg.nrrd":
                if len(given) > 1:
                    raise ValueError("it holds one mask, and regions overlap.")
                write_segments(given[0].numpy(), shown, self.class_names, folder / f"{name}.seg.nrrd")
            elif kind == "stl":
                for class_name, each in masks:
                    if each.any():
                        called = class_name.replace(os.sep, "_").replace(" ", "_")
                        write_surface(each, shown, folder / f"{name}_{called}.stl")
            elif is_series(source):
                contours(masks, affine, source).save_as(folder / f"{name}{CONTOURS}")
            else:
                raise ValueError("contours lie on the slices of a DICOM series, and this image is none.")


def write_segments(labels: np.ndarray, affine: np.ndarray, class_names: Sequence[str], file: Path) -> None:
    """A segmentation as 3D Slicer saves it, see its `vtkMRMLSegmentationStorageNode`.

    Args:
        labels: (X, Y, Z), 0 to K - 1.
        affine: (4, 4), voxel to RAS in mm.
        class_names: of the classes 1 to K - 1.
        file: to write, `*.seg.nrrd`.
    """
    import SimpleITK

    image = itk_image(labels, affine)
    image.SetMetaData("Segmentation_ContainedRepresentationNames", "Binary labelmap|")
    image.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    image.SetMetaData("Segmentation_ReferenceImageExtentOffset", "0 0 0")
    for index, name in enumerate(class_names):
        found = np.argwhere(labels == index + 1)
        lowest, highest = (found.min(axis=0), found.max(axis=0)) if len(found) else (np.zeros(3, int), -np.ones(3, int))
        fields = {
            "ID": f"Segment_{index + 1}",
            "Name": name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{value:.6f}" for value in colour(index + 1)),
            "ColorAutoGenerated": "0",
            "LabelValue": str(index + 1),
            "Layer": "0",
            "Extent": " ".join(str(value) for pair in zip(lowest, highest, strict=True) for value in pair),
            "Tags": "Segmentation.Status:inprogress|",
        }
        for field, value in fields.items():
            image.SetMetaData(f"Segment{index}_{field}", value)
    SimpleITK.WriteImage(image, str(file), useCompression=True)


def write_surface(mask: np.ndarray, affine: np.ndarray, file: Path) -> None:
    """The surface of a mask as a binary STL, in mm, in LPS, its triangles facing outwards.

    Args:
        mask: (X, Y, Z) bool, with something in it.
        affine: (4, 4), voxel to RAS in mm.
        file: to write.
    """
    from skimage.measure import marching_cubes

    corners, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)
    places = (corners - 1) @ affine[:3, :3].T + affine[:3, 3]
    triangles = (places * [-1, -1, 1])[faces]  # (triangles, 3 corners, 3)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    if (normals * triangles.mean(axis=1)).sum() < 0:  # six times the volume, by Gauss
        triangles, normals = triangles[:, ::-1], -normals
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    record = np.zeros(len(faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    record["normal"], record["corners"] = normals / np.where(lengths > 0, lengths, 1), triangles
    header = b"SPACE=LPS UNIT=mm".ljust(80)
    file.write_bytes(header + np.uint32(len(faces)).astype("<u4").tobytes() + record.tobytes())
