"""Names of cases, from those of their files, and what of files is said in sentences."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

NIFTI = (".nii", ".nii.gz")
PAIRS = (".img", ".hdr", ".img.gz")  # NIfTI or Analyze 7.5 in two files
NRRD = (".nrrd", ".nhdr")
METAIMAGE = (".mha", ".mhd")
VOLUMES = (*NIFTI, *PAIRS, *NRRD, *METAIMAGE, ".mgz", ".mgh")
PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".gif", ".webp")
FORMATS = (
    "NIfTI (.nii, .nii.gz, .img with .hdr), Analyze, NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), MGH (.mgz, .mgh), "
    "DICOM (the folder or the zip of a series, or a file of many frames) and pictures (" + ", ".join(PICTURES) + ")"
)

# What the name of a mask has behind that of its image; the first of two readers counts.
OF_MASKS = (
    *("_mask", "-mask", "_segmentation", "_Segmentation", "_seg", "_label", "_gt", "_GT"),
    *("_manual1", "_1stHO", "_2ndHO"),
)
OF_IMAGES = ("_image", "_img", "_training", "_test", "_0000")  # what the name of an image may have there
WORDS_OF_IMAGE = "img|image|images|volume|orig"  # before the number of a case
WORDS_OF_MASK = "label|labels|mask|masks|segmentation|seg|gt"

# What the images that inference.json writes add to the name of a case.
RESULTS = ("seg", "uncertainty", "mutual_information", "variance", "disagreement", "overlay")

SEGMENTATION = "_seg.dcm"  # what SaveDICOMSegmentationd adds to the name of a series
CONTOURS = "_rtstruct.dcm"  # likewise of contours
DICOM_RESULTS = (SEGMENTATION, CONTOURS)


def printable(text: str, longest: int = 400) -> str:
    """What a file holds, or a library says of it, as a part of a sentence: in one line, without control characters.

    Args:
        text: of any characters.
        longest: characters after which it is cut, as what a damaged file takes for a word may be a whole image.
    """
    line = "".join(letter if letter.isprintable() else "?" for letter in text)
    return line if len(line) <= longest else f"{line[:longest]} ..."


def case_name(path: str | os.PathLike) -> str:
    """Name of a file without its folder and ending: "imagesTr/case.1.nii.gz" -> "case.1"."""
    name = Path(path).name
    endings = [ending for ending in (".seg.nrrd", *VOLUMES, *PICTURES, ".zip", ".dcm") if name.lower().endswith(ending)]
    return name[: -max(map(len, endings))] if endings else name


def bare_name(name: str) -> str:
    """Name of a case without words for what its file is: "img0001" and "label0001" are both 0001."""
    name = re.sub(f"^({WORDS_OF_IMAGE}|{WORDS_OF_MASK})[_-]?(?=[0-9])", "", name, flags=re.IGNORECASE)
    name = re.sub(f"({'|'.join((*OF_MASKS, *OF_IMAGES))})$", "", name)
    return without_word(name, f"{WORDS_OF_IMAGE}|{WORDS_OF_MASK}")


def without_word(name: str, words: str) -> str:
    """Name without one of some words, separated by "|", before the number at its end: "case_img_1" -> "case__1"."""
    return re.sub(rf"(?i)(?<![a-z])({words})(?=[_-]?\d+$)", "", name)


def without_results(files: Sequence[Path], series: Iterable[str] = ()) -> list[Path]:
    """Images of a folder without what an earlier run wrote beside them: `a_seg.png` where there is an `a.png`, say.

    Args:
        files: the images.
        series: names of DICOM series whose results may lie among them.
    """
    cases = {case_name(file) for file in files} | set(series)
    results = {f"{case}_{kind}" for case in cases for kind in RESULTS}
    return [file for file in files if case_name(file) not in results]


def check_names(paths: Iterable[Path]) -> None:
    """Refuse images that would be written to files of one name."""
    names: dict[str, Path] = {}
    for path in paths:
        first = names.setdefault(case_name(path), path)
        if first != path:
            raise ValueError(
                f"The results of {str(first)!r} and {str(path)!r} would both be written as {case_name(path)!r}: "
                "rename one."
            )


def result_ending(path: str | os.PathLike, output_ext: str | None = None) -> str:
    """Ending of the results of an image: that of its file, so that whatever read the image reads them.

    Args:
        path: of the image's file or folder.
        output_ext: another one, such as ".nii.gz"; None and "same" take the image's own.

    Returns:
        Such as ".nrrd"; ".png" for a picture, whose own format may blur what it holds; ".nii.gz" for a DICOM series.
    """
    if output_ext not in (None, "same"):
        return f".{str(output_ext).lower().lstrip('.')}"
    name = Path(path).name.lower()
    if name.endswith(PICTURES):
        return ".png"
    own = [ending for ending in VOLUMES if name.endswith(ending) and ending != ".img.gz"]
    return max(own, key=len) if own else ".nii.gz"
