"""Folders of images and masks, pictures above all: one folder of each, or each mask beside its image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..headers import is_part, kind_of
from ..naming import OF_MASKS, WORDS_OF_IMAGE, WORDS_OF_MASK, bare_name, case_name, without_word
from .description import Case, DataSet, read_any_json, read_json
from .sections import FEWEST_GROUPS

IMAGES = ("images", "image", "imgs", "img", "original")
# Of the vessels of the retina, whose folder `mask` holds the field of view.
MANUAL = ("1stmanual", "manual1", "manual")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "gt", "groundtruth")
PARTS = {
    "training": ("training", "train"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
SECTION_OF = {name: section for section, names in PARTS.items() for name in names}
SERIES_OVER_TIME = "_4d"  # behind the name of a patient, some of whose times are annotated
DEEPEST = 3  # folders in folders in which masks lie beside images

WORDS_OF_IMAGES = {*IMAGES, "input", "inputs", "data"}
WORDS_OF_MASKS = {*MASKS, "truth", "groundtruths"}
SHORT = {"tr": "training", "va": "val", "ts": "test"}  # of sections, in names such as `imagesTr`


def is_pictures(root: Path) -> bool:
    """Whether a folder is one for `read_pictures`, by its own files and folders."""
    return _pair(root) is not None or any(_parts(root)) or any(_siblings(root)) or any(_beside(root, DEEPEST))


def is_folders_of_pictures(root: Path) -> bool:
    """Whether a folder is one for `read_pictures`, whose folders hold masks beside their images."""
    return any(_beside(root))


def read_pictures(root: Path) -> DataSet:
    """Describe a folder of `images/<case>.png` and `masks/<case>.png`.

    The folders may have other names (`img`, `labels`, ...), and a mask `_mask`, `_segmentation` and the like behind
    the name of its image, or another word before its number (`img0001`, `label0001`). Both may lie in folders of the
    sections (`train`, `val`, `test`), above or below, or in folders whose names say both (`test-image`, `test-mask`;
    `ISIC2018_Task1-2_Training_Input`, `ISIC2018_Task1_Training_GroundTruth`), also within folders of the sections. A
    folder without such folders holds each mask beside its image, or folders of these, such as one for each patient. Of
    the retina, a folder `1st_manual` counts before `mask`, which is the field of view. A section of images without
    masks, as of a challenge, has no cases. Files such as `tn3k-trainval-fold0.json` have the folds, as
    {"train": [0, 2], "val": [1]}, by names or by numbers. The first fold is that of the lowest number, whether files
    are numbered from 0 or from 1.

    Args:
        root: the folder.

    Raises:
        ValueError: a folder is missing, an image has no mask or several, a case has several files, a fold names no
            case, or two files have the fold of one number.
    """
    if parts := _parts(root) or _siblings(root):
        cases = [case for section, images, masks in parts for case in _paired(images, masks, section)]
    elif (pair := _pair(root)) is not None:
        cases = _paired(*pair, None)
    elif folders := list(_beside(root)):
        cases = _of_folders(root, folders)
    else:
        cases = _paired(root / "images", root / "masks", None)  # which says what is missing
    kind = "picture" if _all_pictures(cases) else None
    folds = _folds(root, cases)
    return DataSet(root, "pictures", tuple(cases), modality=kind, listing="its folder images", folds=folds)


def _folds(root: Path, cases: list[Case]) -> tuple[tuple[str, ...], ...]:
    """Names of the validation cases of each fold, of files that each have one, in the order of their numbers."""
    files: dict[int, Path] = {}
    for file in sorted(root.glob("*.json")):
        if (found := re.search(r"fold_?(\d+)$", file.stem)) and _is_fold(read_any_json(file)):
            first = files.setdefault(int(found[1]), file)
            if first != file:
                raise ValueError(f"{str(first)!r} and {str(file)!r} have both the fold {int(found[1])}.")
    names = {case.name for case in cases if case.section != "test"}
    of_numbers = {int(name): name for name in names if name.isdecimal()}
    folds = []
    for number in sorted(files):
        chosen = read_json(files[number])["val"]
        named = [of_numbers.get(each, str(each)) if isinstance(each, int) else str(each) for each in chosen]
        if unknown := [name for name in named if name not in names]:
            raise ValueError(f"{str(files[number])!r} names the case {unknown[0]!r}, which is none.")
        folds.append(tuple(named))
    return tuple(folds)


def _is_fold(content: Any) -> bool:
    """Whether a file of such a name lists cases, and not the scores of a fold, say."""
    return isinstance(content, dict) and all(isinstance(content.get(part), list) for part in ("train", "val"))


def files_of(folder: Path) -> dict[str, Path]:
    """Pictures and volumes of a folder by the names of their cases.

    Raises:
        ValueError: there is no such folder, or a case has several files.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}.")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or not kind_of(file) or is_part(file):
            continue
        first = files.setdefault(case_name(file), file)
        if first != file:
            raise ValueError(f"{str(folder)!r} holds both {first.name!r} and {file.name!r} of one case.")
    return files


def _all_pictures(cases: list[Case]) -> bool:
    return bool(cases) and all(kind_of(image) == "picture" for case in cases for image in case.images)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _named(root: Path, names: tuple[str, ...]) -> Path | None:
    """Folder of one of some names, in capitals, with spaces or not; the first of the names that is there."""
    folders = {re.sub("[ _-]", "", path.name.lower()): path for path in _folders(root)}
    return next((folders[name] for name in names if name in folders), None)


def _pair(root: Path, names: tuple[str, ...] = (*MANUAL, *MASKS)) -> tuple[Path, Path] | None:
    """Folders of the images and of the masks of some names; that of the masks is named as usual if it is missing."""
    images, masks = _named(root, IMAGES), _named(root, names)
    if images is None or _named(images, PARTS["training"]) is not None:
        return None
    return images, masks or root / "masks"


def _parts(root: Path) -> list[tuple[str, Path, Path]]:
    """Sections with their folders of images and masks, for `train/images` or `images/train`."""
    found = []
    sections = {section: _named(root, names) for section, names in PARTS.items()}
    manual = any(above is not None and _named(above, MANUAL) is not None for above in sections.values())
    for section, names in PARTS.items():
        above = sections[section]
        pair = _pair(above, MANUAL if manual else MASKS) if above is not None else None
        if pair is not None and not pair[1].is_dir():
            continue  # images of a challenge, whose masks are not given out
        if pair is None and (images := _named(root, IMAGES)) is not None and (masks := _named(root, MASKS)) is not None:
            below = _named(images, names), _named(masks, names)
            pair = (below[0], below[1]) if below[0] is not None and below[1] is not None else None
        if pair is not None:
            found.append((section, *pair))
    return found


def _siblings(root: Path) -> list[tuple[str, Path, Path]]:
    """Sections with their folders of images and masks, of folders whose names say the section and which they are.

    Such folders lie in the root, or in folders of the sections.
    """
    of_section: dict[str, dict[str, Path]] = {}
    folders = _folders(root)
    folders += [below for folder in folders if folder.name.lower() in SECTION_OF for below in _folders(folder)]
    for folder in folders:
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", folder.name)}
        words |= {"training"} if "trainval" in words else {SHORT[word] for word in words & set(SHORT)}
        kind = "masks" if words & WORDS_OF_MASKS else "images" if words & WORDS_OF_IMAGES else None
        section = next((name for name, each in PARTS.items() if words & set(each)), None)
        if kind is not None and section is not None:
            of_section.setdefault(section, {}).setdefault(kind, folder)
    pairs = ((section, of_section.get(section, {})) for section in PARTS)
    return [(section, pair["images"], pair["masks"]) for section, pair in pairs if len(pair) == 2]


def _beside(root: Path, depth: int = 0) -> Iterator[Path]:
    """Folders that hold masks beside their images, `a.png` and `a_mask.png`: the root, or else folders in it."""
    if any(_images_of(case_name(file) for file in root.iterdir() if kind_of(file)) if root.is_dir() else ()):
        yield root
    elif depth < DEEPEST:
        for folder in _folders(root):
            yield from _beside(folder, depth + 1)


def _of_folders(root: Path, folders: list[Path]) -> list[Case]:
    """Cases of folders that hold masks beside their images; folders of patients, if there are as many as those."""
    found = [(folder, case) for folder in folders for case in _paired(folder, folder, _section_of(root, folder))]
    unique = len({case.name for _, case in found}) == len(found)
    patients = len(folders) >= FEWEST_GROUPS
    cases = [
        replace(
            case,
            name=case.name if unique else f"{folder.name}_{case.name}",
            group=folder.name if patients else None,
        )
        for folder, case in found
    ]
    return sorted(cases, key=lambda case: (case.name, case.images))


def _section_of(root: Path, folder: Path) -> str | None:
    """Section that a folder, or one that it lies in, is called by."""
    return next(
        (SECTION_OF[part.lower()] for part in folder.relative_to(root).parts if part.lower() in SECTION_OF), None
    )


def _paired(images: Path, masks: Path, section: str | None) -> list[Case]:
    """Cases of two folders, or of one that holds both."""
    of_images, of_masks = files_of(images), files_of(masks)
    if images == masks:
        image_of = _images_of(of_images)
        of_images = {
            name: file
            for name, file in of_images.items()
            if name not in image_of and not name.endswith(SERIES_OVER_TIME)
        }
        of_masks = {name: file for name, file in of_masks.items() if name in image_of}
        _check_one_mask(of_images, of_masks, image_of)
    bare_masks = {bare_name(name): file for name, file in of_masks.items()}
    cases = []
    for name, image in of_images.items():
        names = [name, *(name + ending for ending in OF_MASKS)]
        mask = next((of_masks[each] for each in names if each in of_masks), bare_masks.get(bare_name(name)))
        if mask is None:
            raise ValueError(f"The image {str(image)!r} has no mask: {str(masks)!r} holds no {name!r}.")
        cases.append(Case(name, (image,), mask, section))
    return sorted(cases, key=lambda case: (case.name, case.images))


def _check_one_mask(of_images: dict[str, Path], of_masks: dict[str, Path], image_of: dict[str, str]) -> None:
    """Refuse numbered masks of one image, as of a picture with several lesions."""
    several = [name for name in of_masks if re.search(r"mask_\d+$", name)]
    if several:
        image = of_images[image_of[several[0]]]
        raise ValueError(
            f"The image {str(image)!r} has several masks, {of_masks[several[0]].name!r} among them: join those of each "
            f"image into one ({len({image_of[name] for name in several})} in its folder)."
        )


def _images_of(names: Iterable[str]) -> dict[str, str]:
    """Names of masks in a folder with those of the images beside them: "a_mask" of "a", "label-1" of "volume-1"."""
    there = set(names)
    of_word = {without_word(name, WORDS_OF_IMAGE): name for name in sorted(there)}
    found = {}
    for name in there:
        stem = re.sub(rf"({'|'.join(OF_MASKS)}|[_-]mask_\d+)$", "", name)
        bare = without_word(name, WORDS_OF_MASK)
        image = stem if stem != name else of_word.get(bare) if bare != name else None
        if image in there:
            found[name] = image
    return found
