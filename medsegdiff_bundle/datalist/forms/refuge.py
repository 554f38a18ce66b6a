"""REFUGE as its challenge hands it out: photographs of the retina, and masks in folders `Disc_Cup_Masks`.

J. I. Orlando et al., "REFUGE Challenge: A unified framework for evaluating automated methods for glaucoma assessment
from fundus photographs", Medical Image Analysis 59 (2020). Its archives (`REFUGE-Training400`,
`Annotation-Training400`, `REFUGE-Validation400-GT`, `REFUGE-Test-GT`, ...) have folders within folders, which differ
from archive to archive, so cases are known by their names: `V0001` validates, `T0001` tests, `g0001`, `n0001` and
others train. The archive of REFUGE-2 (H. Fang et al., arXiv 2202.08994) has all of them in `Train`, and others of the
same names in `Validation` and `Test`, with masks in `Disc_Masks` and `Disc_Mask`: there the folder says the section.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..headers import kind_of
from ..naming import case_name
from .description import Case, DataSet
from .pictures import SECTION_OF

MASKS = ("disc_cup_masks", "disc_masks", "disc_mask")
DEEPEST = 5  # folders between that of the data set and those of the masks
OTHERS = ("annotation", "illustration", "-gt", "__macosx")  # in names of folders whose pictures are no photographs
SECTIONS = {"V": "validation", "T": "test"}  # by the first letter of a case, where no folder says it


def is_refuge(root: Path) -> bool:
    """Whether a folder holds one `Disc_Cup_Masks`, in itself or in folders of it."""
    tops = [path for path in root.iterdir() if path.is_dir()]
    tops += [path for top in tops if top.name.lower() in SECTION_OF for path in top.iterdir() if path.is_dir()]
    names = [path.name.lower() for path in tops]
    if not any("refuge" in name or "annotation" in name or name in (MASKS[0], "training400") for name in names):
        return False  # without a walk through all that lies below
    return any(name.lower() == MASKS[0] for _, folders, _ in _walk(root) for name in folders)


def read_refuge(root: Path) -> DataSet:
    """Describe a folder with the unpacked archives of REFUGE; a photograph without a mask is no case.

    Args:
        root: the folder.

    Raises:
        ValueError: two masks or two photographs of a section have one name, or a mask has no photograph, as before its
            archive is unpacked.
    """
    masks: dict[tuple[str, str], Path] = {}
    photographs: dict[tuple[str, str], Path] = {}
    for folder, _, files in _walk(root):
        names = [name.lower() for name in Path(folder).relative_to(root).parts]
        section = next((SECTION_OF[name] for name in names if name in SECTION_OF), "")
        is_mask = any(name in MASKS for name in names)
        if not is_mask and any(word in name for name in names for word in OTHERS):
            continue
        found = masks if is_mask else photographs
        for file in sorted(Path(folder, name) for name in files if kind_of(Path(name)) == "picture"):
            first = found.setdefault((case_name(file), section), file)
            if first != file:
                raise ValueError(f"{str(root)!r} holds both {str(first)!r} and {str(file)!r} of one case.")
    if alone := sorted(masks.keys() - photographs.keys()):
        raise ValueError(
            f"{str(root)!r} has masks without a photograph, {len(alone)} in all, such as {str(masks[alone[0]])!r}: "
            "unpack the archives of both."
        )
    cases = [
        Case(name, (photographs[name, section],), mask, section or SECTIONS.get(name[:1], "training"))
        for (name, section), mask in sorted(masks.items())
    ]
    return DataSet(root, "REFUGE", tuple(cases), modality="picture", listing="its folders Disc_Cup_Masks")


def _walk(root: Path) -> list[tuple[str, list[str], list[str]]]:
    """Folders below one, to the depth at which masks lie, with their folders and files."""
    found = []
    for folder, folders, files in os.walk(root):
        if len(Path(folder).relative_to(root).parts) >= DEEPEST:
            folders.clear()
        found.append((folder, list(folders), [name for name in files if not name.startswith(".")]))
    return found
