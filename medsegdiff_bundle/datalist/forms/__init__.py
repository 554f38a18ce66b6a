"""The forms in which data sets lie on a disk, each read into one description."""

from __future__ import annotations

import os
from pathlib import Path

from .bids import is_bids, read_bids
from .case_folders import is_case_folders, read_case_folders
from .decathlon import is_decathlon, read_decathlon
from .description import Case, DataSet, read_json
from .nnunet import is_nnunet, read_nnunet
from .pictures import files_of, is_folders_of_pictures, is_pictures, read_pictures
from .refuge import is_refuge, read_refuge
from .sections import cases_of, cases_to_segment, folds_of
from .table import is_table, read_table

__all__ = [
    "Case",
    "DataSet",
    "cases_of",
    "cases_to_segment",
    "files_of",
    "folds_of",
    "has_form",
    "has_table",
    "is_bids",
    "read_data_set",
    "read_decathlon",
    "read_nnunet",
    "read_pictures",
]

TABLES = ("cases.csv", "cases.tsv", "cases.json")  # of a folder that has no other form


def read_data_set(source: str | os.PathLike) -> DataSet:
    """Describe a data set in any form.

    A `dataset.json` decides (of nnU-Net 2, or of the Decathlon), then a `dataset_description.json` (BIDS), then a
    folder `Disc_Cup_Masks` somewhere below (REFUGE), then folders of images and masks, then a table: the source itself,
    or `cases.csv` or `cases.json` in the folder; last, folders of one case each. Only headers and lists are looked at:
    whether files are there and right is for `medsegdiff_bundle.planning.check`.

    Args:
        source: a folder, or the file of a table or of a list as MONAI's.

    Raises:
        ValueError: it has none of the forms, or something in its lists is wrong.
    """
    root = Path(source)
    if is_table(root):
        return read_decathlon(root) if root.suffix.lower() == ".json" and is_decathlon(root) else read_table(root)
    if not root.is_dir():
        raise ValueError(f"dataset_dir {str(root)!r} is not a folder.")
    if (root / "dataset.json").is_file():
        return read_nnunet(root) if is_nnunet(read_json(root / "dataset.json")) else read_decathlon(root)
    if is_bids(root):
        return read_bids(root)
    if is_refuge(root):
        return read_refuge(root)
    tables = [root / name for name in TABLES if (root / name).is_file()]
    if is_pictures(root):
        return read_pictures(root)
    if tables:
        return read_table(tables[0])
    if is_folders_of_pictures(root):
        return read_pictures(root)
    if is_case_folders(root):
        return read_case_folders(root)
    below = [path.name for path in sorted(root.iterdir()) if path.is_dir() and _lies_in_a_form(path)]
    hint = f"its folder {below[0]!r} does" if below else "list its files in such a table"
    raise ValueError(
        f"dataset_dir {str(root)!r} holds no dataset.json (Decathlon, nnU-Net), no dataset_description.json (BIDS), no "
        f"folder images and none of {', '.join(TABLES)}: {hint}."
    )


def _lies_in_a_form(root: Path) -> bool:
    return (root / "dataset.json").is_file() or is_bids(root) or has_form(root)


def has_form(root: Path) -> bool:
    """Whether a folder without a `dataset.json` lies in a form that `read_data_set` knows by its folders or a table."""
    return has_table(root) or any(
        knows(root) for knows in (is_refuge, is_pictures, is_folders_of_pictures, is_case_folders)
    )


def has_table(root: Path) -> bool:
    """Whether a folder holds one of `TABLES`."""
    return any((root / name).is_file() for name in TABLES)
