"""Headers of NRRD and MetaImage: what ITK passes over in them."""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path

from medsegdiff_bundle.datalist.naming import METAIMAGE, NRRD, printable

# Units that programs write into NRRD, which leaves their spelling open: their length in mm and their name.
NRRD_UNITS = {
    **dict.fromkeys(("", "???", "none", "mm", "millimeter", "millimetre"), (1.0, "millimetres")),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), (10.0, "centimetres")),
    **dict.fromkeys(("m", "meter", "metre"), (1000.0, "metres")),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "micrometer", "micrometre"), (1e-3, "micrometres")),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), (1e-6, "nanometres")),
}

METAIMAGE_TYPES = {  # bytes of a number
    **dict.fromkeys((b"MET_CHAR", b"MET_UCHAR"), 1),
    **dict.fromkeys((b"MET_SHORT", b"MET_USHORT"), 2),
    **dict.fromkeys((b"MET_INT", b"MET_UINT", b"MET_FLOAT"), 4),
    **dict.fromkeys((b"MET_LONG_LONG", b"MET_ULONG_LONG", b"MET_DOUBLE"), 8),
}


def header_unit(path: Path) -> tuple[float, str]:
    """Length in mm and name of the unit of an NRRD file or a MetaImage, which ITK passes over; mm of another file.

    Raises:
        ValueError: the header has several units, or an unknown one; the text does not name the file.
    """
    name = path.name.lower()
    if name.endswith((*NRRD, *METAIMAGE)) and path.is_file():
        return _nrrd_unit(path) if name.endswith(NRRD) else _metaimage_unit(path)
    return 1.0, "millimetres"


def nrrd_fields(path: Path) -> dict[str, str]:
    """Fields of the header of NRRD, by their names in small letters."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in file:
            if not line.strip():  # behind which the values are
                break
            name, colon, content = line.decode(errors="replace").partition(":")
            if colon and not content.startswith("="):  # by which pairs of a user's own are told apart
                fields[name.strip().lower()] = content.strip()
    return fields


def _nrrd_unit(path: Path) -> tuple[float, str]:
    """`header_unit` of NRRD: the fields `space units`, or `units` of the axes in space."""
    fields = nrrd_fields(path)
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    if not units:  # those of the axes, some of which may be no lengths, such as one of time or of colours
        kinds = fields.get("kinds", "").lower().split()
        each = re.findall(r'"([^"]*)"', fields.get("units", ""))
        lengths = ("domain", "space", "???", "none")
        units = [unit for n, unit in enumerate(each) if n >= len(kinds) or kinds[n] in lengths]
    names = [re.sub(r"(?<=\w{4})s$", "", unit.strip().lower()) for unit in units]  # without the s of a plural
    found = {NRRD_UNITS.get(name, name) for name in names} if any(names) else set()
    if len(found) > 1 or ("" in names and found):
        listed = printable(", ".join(map(repr, units)))
        raise ValueError(f"its header gives lengths in the units {listed}: one unit for all axes is read")
    unit = found.pop() if found else NRRD_UNITS[""]
    if isinstance(unit, str):
        raise ValueError(
            f"its header gives lengths in the unit {printable(units[0], 80)!r}: mm, cm, m, um and nm are read"
        )
    return unit


def _metaimage_unit(path: Path) -> tuple[float, str]:
    """`header_unit` of a MetaImage: the field DistanceUnits."""
    header = _metaimage_header(path.read_bytes())
    found = re.search(rb"(?im)^DistanceUnits[ \t]*=[ \t]*(\S*)", header[0])
    said = found[1].decode(errors="replace") if found else ""
    name = re.sub(r"(?<=\w{4})s$", "", said.lower())  # without the s of a plural
    unit = NRRD_UNITS.get("" if name == "?" else name)
    if unit is None:
        raise ValueError(f"its header gives lengths in the unit {printable(said, 80)!r}: mm, cm, m, um and nm are read")
    return unit


def unpacked_metaimage(file: Path) -> bytes | None:
    """Refuse compressed values that are damaged, which ITK hands on as if they were right.

    Returns:
        The whole file with its values as they are, where the header does not tell the length of the compressed ones:
        SimpleITK 2.5.7 then hands on what happens to be in memory. None where ITK reads the file itself.
    """
    content = file.read_bytes()
    header = _metaimage_header(content)
    name = header[1].strip().decode(errors="replace")
    listed = name.upper() in ("LOCAL", "LIST") or "%" in name
    if not listed and not (file.parent / name).is_file():
        raise ValueError(f"its values {printable(name, 80)!r} are missing")
    if not re.search(rb"(?im)^CompressedData\s*=\s*True", header[0]):
        if not listed or name == "LOCAL":
            there = len(content) - header.end() if name == "LOCAL" else (file.parent / name).stat().st_size
            _check_size(header[0], there)
        return None
    packed = content[header.end() :] if name == "LOCAL" else None
    if packed is None and (file.parent / name).is_file():
        packed = (file.parent / name).read_bytes()
    if packed is None:
        return None  # a list of files, or none, of which the reader says so
    size = re.search(rb"(?m)^CompressedDataSize\s*=\s*(\d+)", header[0])
    try:
        unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        values = unpack.decompress(packed[: int(size[1])] if size else packed)
        whole = unpack.eof
    except zlib.error:
        whole = False
    if not whole:
        raise ValueError("its compressed values are damaged")
    if size or name != "LOCAL":
        return None
    return re.sub(rb"(?im)^CompressedData\s*=\s*True", b"CompressedData = False", header[0]) + values


def _check_size(header: bytes, there: int) -> None:
    """Refuse values of a MetaImage that take more bytes than there are: ITK's library talks of them by itself."""
    size, channels, kind = (
        re.findall(rb"(?m)^%s\s*=\s*([^\n]*)" % name, header)[-1:]
        for name in (b"DimSize", b"ElementNumberOfChannels", b"ElementType")
    )
    try:
        needed = math.prod(int(each) for each in [*size[0].split(), *channels])
    except (IndexError, ValueError):  # of what is no number, of which the reader says so
        return
    if needed * METAIMAGE_TYPES.get(kind[0].strip().removesuffix(b"_ARRAY") if kind else b"", 0) > there:
        raise ValueError("it is truncated or damaged")


def _metaimage_header(content: bytes) -> re.Match[bytes]:
    """The header of a MetaImage, whose last field names the file of the values."""
    header = re.match(rb"(?:[^\n=]*=[^\n]*\n)*?ElementDataFile\s*=\s*([^\n]*)\n?", content)
    if header is None:
        raise ValueError("it has no header of MetaImage")
    return header
