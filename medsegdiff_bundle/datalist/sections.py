"""Cases of the sections of a data set, and images to segment."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path
from typing import Any

from .headers import check_format, file_axes_and_channels, is_part, kind_of
from .naming import RESULTS, case_name, check_names, without_results
from .series import check_series, dicom_files, series_datalist
from .several import OtherKindError, say_channels, say_what_is_left_out, usable_cases
from .slices import is_series, is_zip

SECTIONS = {"training": "train", "validation": "val", "test": "test"}  # and what splits.json calls them


def segmentation_datalist(
    dataset_dir: str | os.PathLike,
    section: str,
    in_channels: int | None = None,
    spatial_dims: int | None = None,
    stride: int = 1,
) -> list[dict[str, str]]:
    """Image and label files of one section of a folder in either form.

    Args:
        dataset_dir: a folder for `decathlon_datalist` if it holds `dataset.json`, otherwise for `picture_datalist`.
        section: "training", "validation" or "test".
        in_channels: channels that every NIfTI image must have; pictures are converted to them, but only to 1, 3 or 4.
            None skips the check.
        spatial_dims: axes that every image must have: pictures have 2; None skips the check.
        stride: keep the first case and every stride-th after it.

    Returns:
        [{"image": path, "label": path}], in the order of the file names.

    Raises:
        ValueError: see the two; or `stride` is not positive.
    """
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}.")
    root = Path(dataset_dir)
    pictures = not (root / "dataset.json").is_file() and (root / "images").is_dir()
    datalist = picture_datalist if pictures else decathlon_datalist
    return datalist(root, section, in_channels, spatial_dims)[::stride]


def decathlon_datalist(
    dataset_dir: str | os.PathLike, section: str, in_channels: int | None = None, spatial_dims: int | None = None
) -> list[dict[str, str]]:
    """Image and label files of one section of a folder in the form of the Medical Segmentation Decathlon.

    The validation cases are those named `val` in the folder's `splits.json`; without that file, those that
    `dataset.json` lists as `validation`; without those, every fifth training case. Only `splits.json` names test cases.
    A `dataset.json` of nnU-Net 2, which lists no case, stands for those of `labelsTr` with their images of one channel.

    Args:
        dataset_dir: folder with `dataset.json`, whose entries are {"image": path, "label": path}.
        section: "training", "validation" or "test".
        in_channels: see `segmentation_datalist`.
        spatial_dims: likewise.

    Returns:
        [{"image": path, "label": path}], in the order of the file names.

    Raises:
        ValueError: `section` is unknown, the folder or a file is missing or unreadable, an image has no label, or its
            channels or axes differ.
    """
    root = _checked_folder(dataset_dir, section)
    cases = _decathlon_section(root, section)
    for case in cases:
        _check_image(Path(case["image"]), in_channels, spatial_dims)
        if not case.get("label"):
            raise ValueError(f"The image {case['image']!r} has no label in dataset.json.")
        if not Path(case["label"]).is_file():
            raise ValueError(f"The image {case['image']!r} has no label: {case['label']!r} does not exist.")
    return [{"image": case["image"], "label": case["label"]} for case in cases]


def picture_datalist(
    dataset_dir: str | os.PathLike, section: str, in_channels: int | None = None, spatial_dims: int | None = None
) -> list[dict[str, str]]:
    """Image and label files of one section of a folder of pictures, or of volumes that lie as pictures do.

    The cases of a section are those that the folder's `splits.json` names (`train`, `val`, `test`); without that file,
    every fifth one validates, the others train, and there is no test.

    Args:
        dataset_dir: folder with `images/<case>.png` (or .jpg, .nrrd, ...) and `masks/<case>.png`.
        section: "training", "validation" or "test".
        in_channels: see `segmentation_datalist`.
        spatial_dims: likewise.

    Returns:
        [{"image": path, "label": path}], in the order of the file names.

    Raises:
        ValueError: `section` is unknown, a folder is missing, an image has no mask, a case has several files, or the
            network takes no pictures.
    """
    root = _checked_folder(dataset_dir, section)
    images, masks = (_files(root / name) for name in ("images", "masks"))
    for name, image in images.items():
        if name not in masks:
            raise ValueError(f"The image {str(image)!r} has no mask: {str(root / 'masks')!r} holds no {name!r}.")
        _check_image(image, in_channels, spatial_dims)
    cases = [{"image": str(image), "label": str(masks[name])} for name, image in images.items()]
    return _section(root, section, sorted(cases, key=_order), [], "its folder images")


def image_datalist(
    source: str | os.PathLike, in_channels: int | None = None, spatial_dims: int | None = None
) -> list[dict[str, str]]:
    """Images to segment; whether they have labels makes no difference.

    Args:
        source: an image file (a volume, a picture, the zip of a DICOM series), a folder of such files, a folder for
            `series_datalist`, or a folder in a form that `segmentation_datalist` reads, of which the validation cases
            are taken (all of a folder `images` that has neither `masks` nor `splits.json` beside it).
        in_channels: see `segmentation_datalist`.
        spatial_dims: likewise.

    Returns:
        [{"image": path}], in the order of the file names. Of several images, one that is unreadable or has other
        channels has the entry `refused` too, a sentence. In a folder of files, results of earlier runs, other files and
        images of other axes do not count; a log names the last two.

    Raises:
        ValueError: there is no such file or folder, it holds no image, each image is unreadable or has other channels
            or axes, or the results of two would be written to files of one name.
    """
    path = Path(source)
    if path.is_file():
        files = [path]
    elif (path / "dataset.json").is_file():
        files = [Path(case["image"]) for case in _decathlon_section(path, "validation")]
    elif (path / "images").is_dir():
        files = sorted(_files(path / "images").values())
        if (path / "masks").is_dir() or (path / "splits.json").is_file():
            entries = [{"image": str(file)} for file in files]
            files = [Path(case["image"]) for case in _section(path, "validation", entries, [], "its folder images")]
    elif path.is_dir():
        # A segmentation of 3D Slicer is no image.
        visible = (file for file in path.iterdir() if not file.name.startswith(".") and ".seg." not in file.name)
        images = sorted(file for file in visible if (kind_of(file) or is_zip(file)) and not is_part(file))
        files = without_results(images, _series_written(path, images))
    else:
        raise ValueError(f"There is no image file or folder {str(path)!r}.")
    if not files:
        return series_datalist(path, in_channels, spatial_dims)
    cases = usable_cases(files, lambda file: _check_image(file, in_channels, spatial_dims))
    check_names(Path(case["image"]) for case in cases)
    if files != [path] and not (path / "dataset.json").is_file() and not (path / "images").is_dir():
        parts = (file for file in path.iterdir() if is_part(file))
        say_what_is_left_out(path, [case["image"] for case in cases], parts)
        say_channels(path, files)
    return cases


def _series_written(folder: Path, images: list[Path]) -> list[str]:
    """Names of the DICOM series in or below a folder of which images in it may be results."""
    names = [case_name(image) for image in images]
    cases = {name.removesuffix(f"_{kind}") for name in names for kind in RESULTS if name.endswith(f"_{kind}")}
    if not cases:
        return []  # without a walk through all that lies below
    folders = [Path(os.path.abspath(folder)), *(Path(at, name) for at, below, _ in os.walk(folder) for name in below)]
    return [path.name for path in folders if path.name in cases and dicom_files(path)]


def _order(entry: dict[str, str]) -> tuple[str, str]:
    return case_name(entry["image"]), entry["image"]


def _checked_folder(dataset_dir: str | os.PathLike, section: str) -> Path:
    if section not in SECTIONS:
        raise ValueError(f"section must be 'training', 'validation' or 'test', got {section!r}.")
    root = Path(dataset_dir)
    if not root.is_dir():
        raise ValueError(f"dataset_dir {str(root)!r} is not a folder.")
    return root


def _files(folder: Path) -> dict[str, Path]:
    """Pictures and volumes of a folder by the names of their cases."""
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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a JSON file: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object, got a {type(content).__name__}.")
    return content


def _entries(root: Path, entries: list[dict[str, str]]) -> list[dict[str, str]]:
    """A list of dataset.json in order."""
    if not isinstance(entries, list):
        raise ValueError(f"dataset.json in {str(root)!r} has {entries!r} in the place of a list of cases.")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise ValueError(f"dataset.json in {str(root)!r} has the entry {entry!r}, which names no image.")
    return sorted(entries, key=_order)


def _decathlon_section(root: Path, section: str) -> list[dict[str, str]]:
    """The entries of one section of dataset.json, with full paths; labels where there are any."""
    if not (root / "dataset.json").is_file():
        raise ValueError(f"dataset_dir {str(root)!r} holds no dataset.json and no folder images.")
    dataset = _read_json(root / "dataset.json")
    if "training" not in dataset and "channel_names" in dataset:
        dataset = {"training": _nnunet_entries(root, str(dataset.get("file_ending", ".nii.gz")))}
    training, validation = (_entries(root, dataset.get(key, [])) for key in ("training", "validation"))
    chosen = _section(root, section, training, validation, "dataset.json")
    return [{key: str(root / entry[key]) for key in ("image", "label") if entry.get(key)} for entry in chosen]


def _nnunet_entries(root: Path, ending: str) -> list[dict[str, str]]:
    """Cases of a folder in the form of nnU-Net 2, whose dataset.json does not list them."""
    entries = []
    for label in sorted((root / "labelsTr").glob(f"*{ending}")):
        name = label.name[: -len(ending)]
        channels = sorted((root / "imagesTr").glob(f"{glob.escape(name)}_[0-9][0-9][0-9][0-9]{ending}"))
        if len(channels) > 1:
            raise ValueError(
                f"The case {name!r} in {str(root)!r} has {len(channels)} channels in files of their own, "
                f"{channels[0].name!r} to {channels[-1].name!r}: put them into one file of {len(channels)} channels."
            )
        image = channels[0].name if channels else f"{name}_0000{ending}"  # whose absence is said by its name
        entries.append({"image": f"imagesTr/{image}", "label": f"labelsTr/{label.name}"})
    return entries


def _section(
    root: Path, section: str, training: list[dict[str, str]], validation: list[dict[str, str]], listing: str
) -> list[dict[str, str]]:
    """The entries of one section, ordered; `listing` is where the entries come from."""
    if (root / "splits.json").is_file():
        chosen = _named(root, training + validation, SECTIONS[section], listing)
    elif section == "test":
        chosen = []
    elif validation:
        chosen = validation if section == "validation" else training
    else:
        chosen = [entry for i, entry in enumerate(training) if (i % 5 == 0) == (section == "validation")]
    if not chosen:
        raise ValueError(f"dataset_dir {str(root)!r} holds no {section} case.")
    return sorted(chosen, key=_order)


def _named(root: Path, entries: list[dict[str, str]], subset: str, listing: str) -> list[dict[str, str]]:
    """The entries that one list of splits.json names."""
    splits = _read_json(root / "splits.json")
    if subset not in splits:
        raise ValueError(f"splits.json in {str(root)!r} has no list {subset!r}.")
    if not isinstance(splits[subset], list) or not all(isinstance(name, str) for name in splits[subset]):
        raise ValueError(f"splits.json in {str(root)!r} has {splits[subset]!r} in the place of a list of names.")
    cases: dict[str, dict[str, str]] = {}
    for entry in entries:
        name = case_name(entry["image"])
        if cases.setdefault(name, entry)["image"] != entry["image"]:
            raise ValueError(
                f"splits.json in {str(root)!r} cannot tell {cases[name]['image']!r} from {entry['image']!r}: "
                f"both are the case {name!r}."
            )
    missing = [name for name in splits[subset] if name not in cases]
    if missing:
        raise ValueError(f"splits.json in {str(root)!r} names the case {missing[0]!r}, which {listing} lacks.")
    return [cases[name] for name in splits[subset]]


def _check_image(image: Path, in_channels: int | None, spatial_dims: int | None) -> None:
    """One sentence for what the network could not take; reads no more than the header of a volume."""
    if not image.exists():
        raise ValueError(f"The image {str(image)!r} does not exist.")
    if not kind_of(image) and is_series(image):
        check_series(image, in_channels, spatial_dims)
        return
    try:
        check_format(image)
    except ValueError as error:
        raise ValueError(f"The image {str(image)!r} cannot be read: {error}.") from error
    if kind_of(image) != "volume":
        if spatial_dims == 3 and kind_of(image) == "picture":
            raise OtherKindError(f"The image {str(image)!r} is a picture, the network takes volumes.")
        if in_channels not in (None, 1, 3, 4):
            raise ValueError(f"The image {str(image)!r} is a picture, of 1, 3 or 4 channels, not {in_channels}.")
        return
    try:
        axes, channels = file_axes_and_channels(image)
    except ValueError as error:
        raise ValueError(f"The image {str(image)!r} cannot be read: {str(error).rstrip('.')}.") from error
    axes = max(axes, 2)
    if spatial_dims is not None and axes != spatial_dims:
        raise OtherKindError(f"The image {str(image)!r} has {axes} axes, the network takes {spatial_dims}.")
    if in_channels is not None and channels != in_channels:
        raise ValueError(f"The image {str(image)!r} has {channels} channel(s), the network takes {in_channels}.")
