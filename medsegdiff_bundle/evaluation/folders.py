"""Which prediction belongs to which label, and what the numbers in them are called. Nothing here needs torch."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from medsegdiff_bundle.datalist.headers import is_part, kind_of
from medsegdiff_bundle.datalist.naming import NIFTI, RESULTS, bare_name, case_name

MASK_ENDINGS = ("_seg", "_segmentation", "_mask", "_label", "_labels", "_gt")  # of a mask's name, in small letters
IGNORE = "ignore"  # nnU-Net's name of the value of what nobody annotated
OTHERS = tuple(f"_{kind}" for kind in RESULTS if kind != "seg")  # what this package writes beside a mask


class Pair(NamedTuple):
    """A case of two files."""

    name: str
    prediction: Path
    label: Path


def find_pairs(predictions: str | os.PathLike, labels: str | os.PathLike) -> tuple[list[Pair], list[Path], list[Path]]:
    """Match the masks of two folders, or two files, by their names.

    `case.nii.gz` belongs to `case.nii.gz` first, then to what is called the same but for a word for masks at the end
    (`MASK_ENDINGS`) and the kind of file. A prediction that nothing belongs to belongs to the label whose name differs
    in words for image and mask alone, as `img0001_seg` and `label0001`, or `case_0000_seg` and `case` of nnU-Net. Maps
    and pictures that this package writes beside its masks are no masks, nor is an image `case` beside `case_gt`.

    Args:
        predictions: folder, or one file.
        labels: likewise.

    Returns:
        The pairs, by name; predictions without a label; labels without a prediction.

    Raises:
        ValueError: there is no such folder or file, one holds no masks, several belong to one case, or none match.
    """
    if os.path.isfile(predictions) and os.path.isfile(labels):
        return [Pair(case_name(labels), Path(predictions), Path(labels))], [], []
    given = {name: _masks(Path(folder)) for name, folder in (("predictions", predictions), ("labels", labels))}
    exact = {case_name(file): file for file in given["labels"]}
    alike = _by_stem(given["labels"])
    stems = _by_stem(given["predictions"])
    pairs = []
    for stem, file in stems.items():
        label = exact.get(case_name(file)) or alike.get(stem)
        if label is not None:
            pairs.append(Pair(stem, file, label))
    pairs += _of_bare_names(stems, alike, pairs)
    if not pairs:
        raise ValueError(
            f"No mask in {str(predictions)!r}, such as {given['predictions'][0].name!r}, is called like a label in "
            f"{str(labels)!r}, such as {given['labels'][0].name!r}."
        )
    taken = {pair.prediction for pair in pairs}, {pair.label for pair in pairs}
    left = [[file for file in files if file not in used] for files, used in zip(given.values(), taken, strict=True)]
    return sorted(pairs), left[0], left[1]


def _of_bare_names(predictions: Mapping[str, Path], labels: Mapping[str, Path], pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs of what is left, by what only one name of each folder has without words for image and mask."""
    taken = {file for pair in pairs for file in (pair.prediction, pair.label)}
    stems = []
    for files in (predictions, labels):
        names = {stem: bare_name(stem) for stem, file in files.items() if file not in taken}
        counts = Counter(names.values())
        stems.append({bare: stem for stem, bare in names.items() if counts[bare] == 1})
    both = [(stem, stems[1][bare]) for bare, stem in stems[0].items() if bare in stems[1]]
    return [Pair(label, predictions[prediction], labels[label]) for prediction, label in both]


def _masks(folder: Path) -> list[Path]:
    """The files of a folder that may hold masks, by name."""
    if not folder.is_dir():
        if folder.exists():
            raise ValueError(f"{str(folder)!r} is a file and the other is none: give two files, or two folders.")
        raise ValueError(f"There is no file or folder {str(folder)!r}.")
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and kind_of(file) and not is_part(file)]
    files = [file for file in files if not file.name.startswith(".")]
    written = {case_name(file).removesuffix("_seg") for file in files if case_name(file).endswith("_seg")}
    images = {_stem(name) for name in map(case_name, files) if _stem(name) != name}  # beside their masks, as in ACDC
    masks = [file for file in files if case_name(file) not in images and not _is_beside(case_name(file), written)]
    if not masks:
        raise ValueError(f"There are no masks in {str(folder)!r}.")
    return masks


def _is_beside(name: str, written: set[str]) -> bool:
    """Whether a file is a map or picture that lies beside a mask of this package."""
    return any(name.endswith(ending) and name.removesuffix(ending) in written for ending in OTHERS)


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by their names without a word for masks at the end."""
    found: dict[str, Path] = {}
    for file in files:
        stem = _stem(case_name(file))
        first = found.setdefault(stem, file)
        if first is not file:
            raise ValueError(f"{str(first)!r} and {str(file)!r} would both be masks of {stem!r}.")
    return found


def _stem(name: str) -> str:
    """Name of a mask without a word for masks at the end."""
    ending = next((each for each in MASK_ENDINGS if name.lower().endswith(each)), "")
    return name[: len(name) - len(ending)] or name


def find_names(pairs: Iterable[Pair]) -> dict[int, str]:
    """Names of the numbers in masks.

    Of the first that tells any: the header of a prediction or label (`name_labels`, as TotalSegmentator and Connectome
    Workbench write it), or `dataset.json` in or above the folder of the labels or predictions, as of the Decathlon or
    nnU-Net.

    Args:
        pairs: of which the first is looked at.

    Returns:
        {1: "anterior", ...} without the background; empty if nothing tells.
    """
    pair = next(iter(pairs))
    for file in (pair.prediction, pair.label):
        if found := header_names(file):
            return found
    for file in (pair.label, pair.prediction):
        for folder in (file.parent, file.parent.parent):
            if found := _names_of_data_set(folder / "dataset.json"):
                return found
    return {}


def header_names(file: Path) -> dict[int, str]:
    """Names in the label table of a NIfTI header; empty if there is none."""
    if not file.name.lower().endswith(NIFTI):
        return {}
    import nibabel

    header: Any = nibabel.load(file).header  # type: ignore[attr-defined]
    for extension in header.extensions:
        content = extension.get_content()
        content = content.decode(errors="replace") if isinstance(content, bytes) else str(content)
        if "LabelTable" not in content:
            continue
        try:
            table = ElementTree.fromstring(content.strip("\0 \n"))
        except ElementTree.ParseError:
            continue
        found = {int(label.get("Key", 0)): (label.text or "").strip() for label in table.iter("Label")}
        return {number: name for number, name in sorted(found.items()) if number > 0}
    return {}


def find_ignored(pairs: Iterable[Pair]) -> int | None:
    """The value of what nobody annotated: `ignore` in a `dataset.json` of nnU-Net, where `find_names` looks for one."""
    pair = next(iter(pairs))
    for file in (pair.label, pair.prediction):
        for folder in (file.parent, file.parent.parent):
            found = _labels_of_data_set(folder / "dataset.json").get(IGNORE)
            if isinstance(found, int):
                return found
    return None


def find_regions(pairs: Iterable[Pair]) -> dict[str, list[int]]:
    """Numbers that make each region: `labels` with lists in a `dataset.json` of nnU-Net, where `find_names` looks.

    Args:
        pairs: of which the first is looked at.

    Returns:
        {"whole tumour": [1, 2, 3], ...}; empty if there are none.
    """
    pair = next(iter(pairs))
    for file in (pair.label, pair.prediction):
        for folder in (file.parent, file.parent.parent):
            labels = _labels_of_data_set(folder / "dataset.json")
            if any(isinstance(value, list) for value in labels.values()):
                lists = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
                return {str(name): each for name, each in lists.items() if name != IGNORE and each not in ([0], [])}
    return {}


def _labels_of_data_set(file: Path) -> dict[str, Any]:
    """What a dataset.json calls its labels; empty if there is none."""
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return labels if isinstance(labels, dict) else {}


def _names_of_data_set(file: Path) -> dict[int, str]:
    """The labels of a dataset.json: {"0": "background", "1": "liver"}, or the other way round."""
    labels = {name: value for name, value in _labels_of_data_set(file).items() if name != IGNORE}.items()
    try:
        pairs = [(key, value) if str(key).isdigit() else (value, key) for key, value in labels]
        return {int(number): str(name) for number, name in sorted(pairs, key=lambda pair: int(pair[0])) if int(number)}
    except (ValueError, TypeError):
        return {}  # they are regions, which are no numbers
