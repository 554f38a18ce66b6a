"""A folder for each case, as BraTS has it: `BraTS2021_00000/BraTS2021_00000_flair.nii.gz`, ..., `..._seg.nii.gz`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..headers import file_axes_and_channels, is_part, kind_of
from ..naming import case_name
from .description import Case, DataSet, modality_of

LABELS = ("seg", "label", "mask", "segmentation", "gt")  # what the name of a label has behind that of its case
IMAGES = ("image", "imaging", "img", "volume")  # likewise of an image, where it tells no sequence
LOOKED_AT = 5  # folders that tell the form
# Parts of names of the gliomas of BraTS, of 2021 and before, and of 2023 and after.
BRATS = {"flair": "FLAIR", "t2f": "FLAIR", "t1": "T1", "t1n": "T1", "t1ce": "T1 contrast", "t1c": "T1 contrast"}
BRATS |= {"t2": "T2", "t2w": "T2"}
TUMOUR = ("necrotic core", "edema", "enhancing tumour")
# What BraTS scores, by the numbers of these classes; written in this order, what is left of a region is its own class.
REGIONS = (("whole tumour", (1, 2, 3)), ("tumour core", (1, 3)), ("enhancing tumour", (3,)))
REGION_ORDER = (2, 1, 3)


def is_case_folders(root: Path) -> bool:
    """Whether a folder holds folders of cases: files begin with its name, or one in each is called like a label."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    looked_at = [_files(folder) or _files_alike(folder) for folder in folders[:LOOKED_AT]]
    return bool(folders) and all(len(files) > 1 for files in looked_at)


def channels_of_case(folder: Path, images: Sequence[Path]) -> tuple[Path, ...]:
    """Files of the channels of a case in a folder of its own, in the order of their names; none if it is none.

    A channel is a volume of three axes, and its name has a word behind that of the folder: numbers tell cases apart.

    Args:
        folder: of the case.
        images: those in it that count, results of earlier runs left out.
    """
    named = {file: part for part, file in _files(Path(os.path.abspath(folder))).items()}
    files = {Path(os.path.abspath(image)): image for image in images}
    if not files or any(file not in named for file in files):
        return ()
    channels = sorted((file for file in files if named[file].lower() not in LABELS), key=named.__getitem__)
    return tuple(files[file] for file in channels) if all(_is_channel(file, named[file]) for file in channels) else ()


def _is_channel(file: Path, part: str) -> bool:
    """Whether a file of that part of a name is one channel of a volume, as far as its header can be read."""
    if re.fullmatch(r"[\d_.\- ]+", part) or kind_of(file) != "volume":
        return False
    try:
        return file_axes_and_channels(file) == (3, 1)
    except ValueError:
        return True  # so that what is wrong with the file is said


def read_case_folders(root: Path) -> DataSet:
    """Describe a folder of case folders.

    What the names of the files have behind the name of their folder is the channel, or the label (`seg`, `mask`, ...);
    where no name begins so, as of `case_00000/imaging.nii.gz` of KiTS, the whole names are.
    Channels are those that more than half of the cases have, in the order of their names. Folders of time points of a
    patient, which end in a number, are of one group. The gliomas of BraTS have its regions: whole
    tumour, tumour core and enhancing tumour.

    Args:
        root: the folder.

    Raises:
        ValueError: a case has two labels.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    of_case = {path.name: files for path in folders if (files := _files(path) or _files_alike(path))}
    counts = Counter(part for files in of_case.values() for part in files if part.lower() not in LABELS)
    channels = tuple(sorted(part for part, count in counts.items() if 2 * count > len(of_case)))
    cases = []
    for name, files in of_case.items():
        labels = [files[part] for part in files if part.lower() in LABELS]
        if len(labels) > 1:
            raise ValueError(
                f"The case {name!r} in {str(root)!r} has two labels: {labels[0].name} and {labels[1].name}."
            )
        missing = tuple(part for part in channels if part not in files)
        images = tuple(files.get(part, _expected(root / name, part, files)) for part in channels)
        cases.append(Case(name, images, labels[0] if labels else None, missing=missing))
    names = () if len(channels) == 1 and channels[0].lower() in IMAGES else channels
    names = tuple(BRATS.get(part.lower(), part) for part in names)
    classes, values = _tumour(list(of_case))
    return DataSet(
        root,
        "case folders",
        tuple(cases),
        classes,
        values,
        regions=REGIONS if classes else (),
        region_order=REGION_ORDER if classes else (),
        channel_names=names,
        modality=modality_of(names),
        listing="its folders",
    )


def _tumour(names: list[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Classes of the gliomas of BraTS, whose enhancing tumour is 4 up to 2021 and 3 from 2023 on; none of others."""
    if all(name.startswith("BraTS-GLI-") for name in names):
        return TUMOUR, (0, 1, 2, 3)
    if all(re.match(r"BraTS(20(19|20|21)|20)_", name) for name in names):
        return TUMOUR, (0, 1, 2, 4)
    return (), ()


def _files(folder: Path) -> dict[str, Path]:
    """Images of a case's folder by what their names have behind its own."""
    found = {}
    for file in sorted(folder.iterdir()):
        name = case_name(file)
        if _is_image(file) and name.startswith(folder.name):
            if part := name[len(folder.name) :].lstrip("_-. "):
                found[part] = file
    return found


def _files_alike(folder: Path) -> dict[str, Path]:
    """Images of a case's folder by their whole names, if one of them is called like a label."""
    files = {case_name(file): file for file in sorted(folder.iterdir()) if _is_image(file)}
    return files if any(name.lower() in LABELS for name in files) else {}


def _is_image(file: Path) -> bool:
    return file.is_file() and bool(kind_of(file)) and not is_part(file) and not file.name.startswith(".")


def _expected(folder: Path, part: str, files: dict[str, Path]) -> Path:
    """Where the file of a channel is missing, called as the others of its case."""
    prefix = f"{folder.name}_" if any(file.name.startswith(folder.name) for file in files.values()) else ""
    return folder / f"{prefix}{part}.nii.gz"
