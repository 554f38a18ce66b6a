"""DDTI, ultrasound pictures of the thyroid whose nodules are outlines in XML, as a folder of pictures and masks.

L. Pedraza et al. 2015, "An open access thyroid ultrasound image database", SIPAIM 2014, Proc. SPIE 9287,
doi:10.1117/12.2073532. A file `7.xml` describes one patient, with a `<mark>` for each picture `7_1.jpg`, `7_2.jpg`: its
number in `<image>`, its outlines in `<svg>`, a list in JSON of `points` with `x` and `y` in pixels. Of some files that
list is cut off, and some marks have none.
"""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from medsegdiff_bundle.files import whole_file

LICENCE = "The database was published for research; its terms stand where you got it, and nothing of it comes with us."

Points = list[tuple[float, float]]


def prepare_ddti(source: Path, target: Path, advance: Callable[[int], Any] = lambda count: None) -> dict[str, str]:
    """Write `images` and `masks` with a picture of each mark, by names that keep the pictures of a patient together.

    Args:
        source: folder of the XML files and pictures.
        target: folder that is made; if it is there, it is empty.
        advance: told the number of XML files that are done.

    Returns:
        what was left out, and why: by the name of the XML file or the picture.

    Raises:
        ValueError: there is no XML file, no picture could be taken, or the target is not empty.
    """
    files = sorted(source.glob("*.xml"))
    if not files:
        raise ValueError(f"{str(source)!r} holds no XML files, as the folder of DDTI does.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{str(target)!r} is there already and not empty.")
    left_out: dict[str, str] = {}
    taken = 0
    for file in files:
        try:
            marks = _marks(file)
        except ValueError as error:
            left_out[file.name] = str(error)
            marks = {}
        for number, outlines in marks.items():
            picture = next((each for each in _pictures(source, file.stem, number) if each.is_file()), None)
            name = f"{file.stem}_{number}"
            if picture is None:
                left_out[f"{name}.jpg"] = "it is missing"
            elif isinstance(outlines, str):
                left_out[picture.name] = outlines
            else:
                _write(picture, outlines, target, f"patient{file.stem.zfill(3)}_{number}")
                taken += 1
        advance(1)
    if not taken:
        raise ValueError(f"None of the {len(files)} XML files in {str(source)!r} has an outline of a picture.")
    return left_out


def _pictures(source: Path, case: str, number: str) -> list[Path]:
    return [source / f"{case}_{number}{ending}" for ending in (".jpg", ".JPG", ".jpeg", ".png")]


def _marks(file: Path) -> dict[str, list[Points] | str]:
    """Outlines of each picture of a file, by its number; or why there are none."""
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    found: dict[str, list[Points] | str] = {}
    for mark in root.iter("mark"):
        number = (mark.findtext("image") or "").strip()
        outlines = _outlines(mark.findtext("svg") or "")
        known = found.get(number)
        if isinstance(known, list) and isinstance(outlines, list):
            known.extend(outlines)
        elif not isinstance(known, list):
            found[number] = outlines
    if not found:
        raise ValueError("it marks no picture")
    return found


def _outlines(text: str) -> list[Points] | str:
    """Outlines, or why there are none."""
    if not text.strip():
        return "it has no outline"
    try:
        regions = json.loads(text)
        found = [[(float(each["x"]), float(each["y"])) for each in region["points"]] for region in regions]
    except (ValueError, TypeError, KeyError):
        return "its outline is damaged"
    found = [points for points in found if len(points) > 2]
    return found or "its outline has fewer than three points"


def _write(picture: Path, outlines: list[Points], target: Path, name: str) -> None:
    with Image.open(picture) as opened:
        mask = Image.new("L", opened.size)
    draw = ImageDraw.Draw(mask)
    for points in outlines:
        draw.polygon(points, fill=255)
    with whole_file(target / "masks" / f"{name}.png") as file:
        mask.save(file)
    with whole_file(target / "images" / f"{name}{picture.suffix.lower()}") as file:
        shutil.copyfile(picture, file)
