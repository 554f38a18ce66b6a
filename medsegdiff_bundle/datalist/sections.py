"""Cases of the sections of a data set, and images to segment."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .forms import (
    Case,
    DataSet,
    cases_of,
    cases_to_segment,
    files_of,
    has_form,
    has_table,
    is_bids,
    read_data_set,
    read_pictures,
)
from .forms.description import SECTIONS
from .headers import check_format, file_axes_and_channels, is_part, kind_of
from .naming import RESULTS, case_name, check_names, without_results
from .series import check_series, dicom_files, say_left_out, series_below, series_datalist
from .several import Image, OtherKindError, joined_channels, say_channels, say_what_is_left_out, usable_cases
from .slices import is_series, is_zip


def segmentation_datalist(
    dataset_dir: str | os.PathLike,
    section: str,
    in_channels: int | None = None,
    spatial_dims: int | None = None,
    stride: int = 1,
    fold: int | None = None,
    num_folds: int = 5,
    case_pattern: str | None = None,
) -> list[dict[str, Any]]:
    """Image and label files of one section of a data set in any form, see `medsegdiff_bundle.datalist.forms`.

    Args:
        dataset_dir: a folder for `read_data_set`, or the file of a table.
        section: "training", "validation" or "test".
        in_channels: channels that every image must have, in one file or in a file for each; pictures are converted to
            them, but only to 1, 3 or 4. None skips the check.
        spatial_dims: axes that every image must have: pictures have 2; None skips the check.
        stride: keep the first case and every stride-th after it.
        fold: of a cross-validation, from 0, whose cases validate; None for the set's one split, see `cases_of`.
        num_folds: number of folds, unless the set has its own.
        case_pattern: see `matching`.

    Returns:
        [{"image": path, "label": path}], in the order of the file names; of an image of several files their list.

    Raises:
        ValueError: `section` is unknown, the folder or a file is missing or unreadable, an image has no label or lacks
            a channel, its channels or axes differ, or `stride` is not positive.
    """
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}.")
    data_set = matching(read_data_set(dataset_dir), case_pattern)
    return _datalist(data_set, section, in_channels, spatial_dims, fold, num_folds)[::stride]


def decathlon_datalist(
    dataset_dir: str | os.PathLike, section: str, in_channels: int | None = None, spatial_dims: int | None = None
) -> list[dict[str, Any]]:
    """`segmentation_datalist` of a folder that must have a `dataset.json`, of the Decathlon or of nnU-Net 2."""
    root = _checked_folder(dataset_dir, section)
    if not (root / "dataset.json").is_file():
        raise ValueError(f"dataset_dir {str(root)!r} holds no dataset.json and no folder images.")
    return _datalist(read_data_set(root), section, in_channels, spatial_dims)


def picture_datalist(
    dataset_dir: str | os.PathLike, section: str, in_channels: int | None = None, spatial_dims: int | None = None
) -> list[dict[str, Any]]:
    """`segmentation_datalist` of a folder of images and masks, whatever else lies in it."""
    root = _checked_folder(dataset_dir, section)
    return _datalist(read_pictures(root), section, in_channels, spatial_dims)


def matching(data_set: DataSet, case_pattern: str | None) -> DataSet:
    """A data set with some of its cases, as of one modality where it holds several.

    Args:
        data_set: described.
        case_pattern: regular expression that the whole name of a case must match; None for all cases.

    Raises:
        ValueError: no case matches.
    """
    if case_pattern is None:
        return data_set
    kept = tuple(case for case in data_set.cases if re.fullmatch(case_pattern, case.name))
    if not kept:
        raise ValueError(f"No case of {str(data_set.root)!r} has a name that matches {case_pattern!r}.")
    names = {case.name for case in kept}
    folds = tuple(tuple(name for name in fold if name in names) for fold in data_set.folds)
    left_out = frozenset(case.name for case in data_set.cases) - names
    return dataclasses.replace(data_set, cases=kept, folds=folds, left_out=left_out)


def _datalist(
    data_set: DataSet,
    section: str,
    in_channels: int | None,
    spatial_dims: int | None,
    fold: int | None = None,
    num_folds: int = 5,
) -> list[dict[str, Any]]:
    """The cases of a section, each checked as far as that needs no voxel."""
    cases = cases_of(data_set, section, fold, num_folds)
    for case in cases:
        check_case(case, data_set, in_channels, spatial_dims)
    return [case.entry() for case in cases]


def check_case(case: Case, data_set: DataSet, in_channels: int | None, spatial_dims: int | None) -> None:
    """One sentence for a case that cannot be learned from, as far as headers tell.

    Args:
        case: of a data set.
        data_set: it.
        in_channels: see `segmentation_datalist`.
        spatial_dims: likewise.

    Raises:
        ValueError: naming the file or the channel.
    """
    if case.missing:
        raise ValueError(
            f"The case {case.name!r} lacks the channel{'s' if len(case.missing) > 1 else ''} "
            f"{', '.join(case.missing)}: {str(_first_missing(case))!r} does not exist."
        )
    _check_images(_image(case), in_channels, spatial_dims)
    if case.label is None:
        raise ValueError(f"The image {str(case.images[0])!r} has no label in {data_set.listing}.")
    if not case.label.is_file():
        raise ValueError(f"The image {str(case.images[0])!r} has no label: {str(case.label)!r} does not exist.")


def _first_missing(case: Case) -> Path:
    return next(image for image in case.images if not image.exists())


def image_datalist(
    source: str | os.PathLike,
    in_channels: int | None = None,
    spatial_dims: int | None = None,
    case_pattern: str | None = None,
) -> list[dict[str, Any]]:
    """Images to segment; whether they have labels makes no difference.

    Args:
        source: an image file (a volume, a picture, the zip of a DICOM series), a folder of such files, a folder for
            `series_datalist` or the DICOMDIR in it, or a folder in a form that `segmentation_datalist` reads, of which
            the validation cases are taken (all if the set has neither labels nor sections, and all of a folder `images`
            without `masks` or `splits.json` beside it); or the folder of one case in such a form, with a file for each
            channel.
        in_channels: see `segmentation_datalist`.
        spatial_dims: likewise.
        case_pattern: see `matching`; of a folder in a form, as other files have names of their own.

    Returns:
        [{"image": path}], in the order of the file names. Of several images, one that is unreadable or has other
        channels has the entry `refused` too, a sentence. In a folder of files, results of earlier runs, other files and
        images of other axes do not count; a log names the last two.

    Raises:
        ValueError: there is no such file or folder, it holds no image, each image is unreadable or has other channels
            or axes, or the results of two would be written to files of one name.
    """
    path = Path(source)
    if path.name.upper() == "DICOMDIR" and path.is_file():  # an index of what lies beside and below it
        path = path.absolute().parent
    files: list[Image]
    if path.is_file():
        files = [path]
    elif (path / "dataset.json").is_file() or is_bids(path):
        files = _to_segment(path, case_pattern)
    elif (path / "images").is_dir():
        if (path / "masks").is_dir():
            files = _to_segment(path, case_pattern)
        else:
            of_files = tuple(Case(case_name(file), (file,)) for file in sorted(files_of(path / "images").values()))
            pictures = matching(DataSet(path, "pictures", of_files, listing="its folder images"), case_pattern)
            files = [_image(case) for case in cases_to_segment(pictures)]
    elif path.is_dir():
        # A segmentation of 3D Slicer is no image.
        visible = (file for file in path.iterdir() if not file.name.startswith(".") and ".seg." not in file.name)
        images = sorted(file for file in visible if (kind_of(file) or is_zip(file)) and not is_part(file))
        images = without_results(images, _series_written(path, images))
        files = joined_channels(path, images, in_channels)
        if spatial_dims == 3 and files and all(kind_of(_first(file)) == "picture" for file in files):
            if series_below(path):  # beside which they are logos and key images
                say_left_out(path, map(_first, files))
                files = []
        # The results of earlier runs in a folder of series look like cases of a folder each.
        if not files and has_form(path) and (has_table(path) or not series_below(path)):
            files = _to_segment(path, case_pattern)
    else:
        raise ValueError(f"There is no image file or folder {str(path)!r}.")
    if not files:
        return series_datalist(path, in_channels, spatial_dims)
    cases = usable_cases(files, lambda image: _check_images(image, in_channels, spatial_dims))
    check_names(_files(case["image"])[0] for case in cases)
    if files != [path] and not any((path / name).exists() for name in ("dataset.json", "images")) and not is_bids(path):
        parts = (file for file in path.iterdir() if is_part(file))
        say_what_is_left_out(path, [str(file) for case in cases for file in _files(case["image"])], parts)
        say_channels(path, [file for file in files if isinstance(file, Path)])
    return cases


def channels_entry(files: Sequence[str | os.PathLike], in_channels: int | None, spatial_dims: int | None) -> dict:
    """An image of a file for each channel, for a `Dataset`: {"image": [paths]}.

    Args:
        files: in the order of the channels.
        in_channels: see `segmentation_datalist`.
        spatial_dims: likewise.

    Raises:
        ValueError: the files are not as many as the channels, or one cannot be read.
    """
    if len(files) == 1:
        _check_images(Path(files[0]), in_channels, spatial_dims)
        return {"image": str(files[0])}
    _check_images(tuple(Path(file) for file in files), in_channels, spatial_dims)
    return {"image": [str(file) for file in files]}


def _to_segment(path: Path, case_pattern: str | None) -> list[Image]:
    """Images of a data set to segment."""
    return [_image(case) for case in cases_to_segment(matching(read_data_set(path), case_pattern))]


def _image(case: Case) -> Image:
    return case.images[0] if len(case.images) == 1 else case.images


def _first(image: Image) -> Path:
    return image if isinstance(image, Path) else image[0]


def _files(image: str | list[str]) -> list[Path]:
    return [Path(file) for file in ([image] if isinstance(image, str) else image)]


def _series_written(folder: Path, images: list[Path]) -> list[str]:
    """Names of the DICOM series in or below a folder of which images in it may be results."""
    names = [case_name(image) for image in images]
    cases = {name.removesuffix(f"_{kind}") for name in names for kind in RESULTS if name.endswith(f"_{kind}")}
    if not cases:
        return []  # without a walk through all that lies below
    folders = [Path(os.path.abspath(folder)), *(Path(at, name) for at, below, _ in os.walk(folder) for name in below)]
    return [path.name for path in folders if path.name in cases and dicom_files(path)]


def _checked_folder(dataset_dir: str | os.PathLike, section: str) -> Path:
    if section not in SECTIONS:
        raise ValueError(f"section must be 'training', 'validation' or 'test', got {section!r}.")
    root = Path(dataset_dir)
    if not root.is_dir():
        raise ValueError(f"dataset_dir {str(root)!r} is not a folder.")
    return root


def _check_images(image: Image, in_channels: int | None, spatial_dims: int | None) -> None:
    """`_check_image` of an image of one file, or of several, each of one channel."""
    if isinstance(image, Path):
        return _check_image(image, in_channels, spatial_dims)
    for file in image:
        _check_image(file, 1, spatial_dims)
    if in_channels not in (None, len(image)):
        raise ValueError(
            f"The image {str(image[0])!r} has {len(image)} channels in files of their own, "
            f"the network takes {in_channels}."
        )


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
