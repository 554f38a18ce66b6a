"""Results in the files of their images."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import monai.transforms
import nibabel
import numpy as np
from monai.config import DtypeLike, KeysCollection
from monai.data import MetaTensor, PILWriter
from monai.utils import ensure_tuple

from medsegdiff_bundle.datalist import case_name, result_ending
from medsegdiff_bundle.files import whole_files
from medsegdiff_bundle.labels import colour
from medsegdiff_bundle.readers.nifti import CODES, load_nifti, signed_sizes

from .save import ITKWriter, MGHWriter, VolumeWriter

WRITERS = {
    ".nii": VolumeWriter,
    ".nii.gz": VolumeWriter,
    ".img": VolumeWriter,
    ".hdr": VolumeWriter,
    ".nrrd": ITKWriter,
    ".nhdr": ITKWriter,
    ".mha": ITKWriter,
    ".mhd": ITKWriter,
    ".mgz": MGHWriter,
    ".mgh": MGHWriter,
    ".png": PILWriter,
}


class SaveImaged(monai.transforms.SaveImaged):
    """MONAI's `SaveImaged`, of the same name because others look for it by that, which writes what was read.

    The file is `<case>_<postfix><ending>`, with the ending of the image's file: an .nrrd gets an .nrrd, see
    `medsegdiff_bundle.datalist.result_ending`. It has its name once it is whole.

    Args:
        keys: what is written, in the space of its image.
        output_dir: folder of the files; made if need be.
        output_postfix: for each key; None takes the key.
        output_ext: ending of all files, such as ".nii.gz"; None and "same" take that of the image.
        output_dtype: of volumes. Pictures have 8 bits.
        picture_scale: what pictures are multiplied by after a cut to the range from 0 to 1; None leaves them as they
            are. A picture holds one channel: more of them are written as NIfTI.
        class_names: of the numbers from 1 on, which NIfTI's header then names as TotalSegmentator does.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: there is no writer for that ending, or a file cannot be written.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike,
        output_postfix: Sequence[str] | str | None = None,
        output_ext: str | None = None,
        output_dtype: DtypeLike = np.float32,
        picture_scale: int | None = 255,
        class_names: Sequence[str] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_dir=str(output_dir), allow_missing_keys=allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.postfixes = ensure_tuple(self.keys if output_postfix is None else output_postfix)
        self.output_ext = output_ext
        self.output_dtype = output_dtype
        self.picture_scale = picture_scale
        self.class_names = class_names
        ending = result_ending("", output_ext)
        if ending not in WRITERS:
            raise ValueError(f"output_ext must be one of {', '.join(WRITERS)}, got {output_ext!r}.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write each key."""
        d = dict(data)
        for key, postfix in self.key_iterator(d, self.postfixes):
            image = str(d[key].meta["filename_or_obj"])
            ending = result_ending(image, self.output_ext)
            if ending == ".png" and len(d[key]) > 1:
                ending = ".nii.gz"
            self._write(d[key], f"{case_name(image)}_{postfix}", ending)
        return d

    def _write(self, values: MetaTensor, name: str, ending: str) -> None:
        picture = ending == ".png"
        writer = WRITERS[ending](
            output_dtype=np.uint8 if picture else self.output_dtype, scale=self.picture_scale if picture else None
        )
        options = {} if picture else {"spatial_ndim": 2 if values.ndim == 3 and len(values) == 1 else 3}
        writer.set_data_array(values, channel_dim=0, **options)
        writer.set_metadata(values.meta, resample=False)
        with whole_files(self.output_dir, self.output_dir / f"{name}{ending}") as folder:
            writer.write(folder / f"{name}{ending}")
            if self.class_names and WRITERS[ending] is VolumeWriter:
                name_labels(folder / f"{name}{ending}", self.class_names)


def name_labels(file: Path, class_names: Sequence[str]) -> None:
    """Put the names of labels into the header of a NIfTI file, in the form of Connectome Workbench's label tables.

    So does TotalSegmentator (`nifti_ext_header.py`), whose `load_multilabel_nifti` reads them.

    Args:
        file: of the mask.
        class_names: of the numbers from 1 on.
    """
    extension = ElementTree.Element("CaretExtension")
    information = ElementTree.SubElement(extension, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(information, "LabelTable")
    for number, name in enumerate(class_names, start=1):
        red, green, blue = (f"{value:.3f}" for value in colour(number))
        label = ElementTree.SubElement(table, "Label", Key=str(number), Red=red, Green=green, Blue=blue, Alpha="1")
        label.text = name
    ElementTree.SubElement(information, "StudyMetaDataLinkSet")
    ElementTree.SubElement(information, "VolumeType").text = "Label"
    text = ElementTree.tostring(extension, encoding="unicode")
    image = load_nifti(file)
    content = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
    image.header.extensions.insert(0, nibabel.nifti1.Nifti1Extension(0, content))
    # Without an affine both matrices of the header stay. Values are copied, as their file is about to be replaced.
    named = image.__class__(np.asanyarray(image.dataobj).copy(), None, image.header)
    named.header["pixdim"][:4] = signed_sizes(image)
    for code in CODES:
        named.header[code] = image.header[code]
    nibabel.save(named, file)  # type: ignore[attr-defined]
