"""Images of a folder, of which some are bad or of another kind."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .forms.case_folders import channels_of_case
from .naming import DICOM_RESULTS, RESULTS, case_name

logger = logging.getLogger(__name__)

LISTED = 10  # names in a sentence


Image: TypeAlias = Path | tuple[Path, ...]  # of one file, or of a file for each channel


class OtherKindError(ValueError):
    """An image has other axes than the network takes: a picture among volumes, say."""


def usable_cases(images: Sequence[Image], check: Callable[[Any], None]) -> list[dict[str, Any]]:
    """Cases of some images, once each was checked.

    Args:
        images: files, or folders of a series each, or files of the channels of one image.
        check: raises a `ValueError` about a bad image, an `OtherKindError` about one of another kind.

    Returns:
        [{"image": path or list of paths}] in the order given, a bad one with `refused`, the sentence, and none of
        another kind.

    Raises:
        ValueError: that of the first image, if none is good.
    """
    cases: list[dict[str, Any]] = []
    first: ValueError | None = None
    for image in images:
        case: dict[str, Any] = {"image": [*map(str, image)] if isinstance(image, tuple) else str(image)}
        try:
            check(image)
        except ValueError as error:
            first = first or error
            if isinstance(error, OtherKindError):
                continue
            case["refused"] = str(error)
        cases.append(case)
    if first is not None and all("refused" in case for case in cases):
        raise first
    return cases


def say_what_is_left_out(folder: Path, cases: Iterable[str], parts: Iterable[Path] = ()) -> None:
    """Log which files and folders in a folder of images are none of the cases, nor results or parts of one."""
    taken = {Path(case) for case in cases}
    results = tuple(f"{case_name(case)}_{kind}." for case in taken for kind in (*RESULTS, "report"))
    results += tuple(f"{case_name(case)}{ending}" for case in taken for ending in (*DICOM_RESULTS, ".seg.nrrd"))
    surfaces = tuple(f"{case_name(case)}_" for case in taken)
    own = taken | set(parts)
    left_out = sorted(
        entry.name + "/" * entry.is_dir()
        for entry in folder.iterdir()
        if not entry.name.startswith(".")
        and entry not in own
        and not entry.name.startswith(results)
        and not (entry.name.startswith(surfaces) and entry.name.endswith(".stl"))
        and entry.name not in ("index.html", "index.csv", "journal.jsonl")
        and not any(case.is_relative_to(entry) for case in taken)
    )
    if left_out:
        logger.warning("Left out of %r: %s.", str(folder), _listed(left_out))


def joined_channels(folder: Path, images: Sequence[Path], in_channels: int | None) -> list[Image]:
    """Images of a folder, files of the channels of one image together where the network takes several channels.

    They are told by nnU-Net's names: `case_0000`, `case_0001`. An image that lacks one stays as it is, and is refused
    for its channels. Where no names are such, the folder may be that of one case.

    Args:
        folder: of the images.
        images: files in the order of their names.
        in_channels: of the network.
    """
    if in_channels is None or in_channels < 2:
        return list(images)
    names = {case_name(image): image for image in images}
    found: list[Image] = []
    taken: set[Path] = set()
    for image in images:
        stem = re.fullmatch(r"(.+)_0000", case_name(image))
        files = tuple(names.get(f"{stem[1]}_{channel:04d}") for channel in range(in_channels)) if stem else (None,)
        whole = tuple(file for file in files if file is not None)
        if len(whole) == in_channels and f"{stem[1] if stem else ''}_{in_channels:04d}" not in names:
            found.append(whole)
            taken.update(whole)
        elif image not in taken:
            found.append(image)
    if not taken and len(channels := channels_of_case(folder, images)) == in_channels:
        return [channels]
    return found


def say_channels(folder: Path, images: Iterable[Path]) -> None:
    """Log which images of a folder are, by nnU-Net's names, channels of one: `case_0000`, `case_0001`."""
    channels: dict[str, list[str]] = {}
    for image in images:
        if found := re.fullmatch(r"(.+)_\d{4}", case_name(image)):
            channels.setdefault(found[1], []).append(image.name)
    several = [name for name, files in channels.items() if len(files) > 1 and f"{name}_0000" in map(case_name, files)]
    if several:
        logger.warning(
            "In %r files are named as channels of one image, as nnU-Net does, and each is taken for an image: %s.",
            str(folder),
            _listed(several),
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
