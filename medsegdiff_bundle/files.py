"""Files that are whole or not there, also after a kill, a full disk or a power cut.

What is written goes to a folder of its own beside its place, whose name begins with a dot, as no data list takes such
files. Once it is whole, and on the disk, it moves to its name, which is one step for the file system.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".unfinished-"  # what the names of files in the making begin with
OLD = 3600.0  # seconds after which what is unfinished has lost its process
FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk, and a full share of one
ROOM = 1 << 16  # bytes; a disk that has fewer left is full, whatever a library calls that
HEADERS = (".nhdr", ".mhd", ".hdr")  # of formats of two files, of which the header names the other


class WriteError(ValueError):
    """A result cannot be written."""


class FullDiskError(WriteError):
    """There is no room for a result, nor for any other."""


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """A name to write a file to, which gets its own name once it is whole; after an error neither is there.

    Args:
        path: of the file, whose folder is made if need be; what stands there already is replaced, but not by an error.

    Yields:
        The name for the time of writing, which ends as the file's own, as writers choose the format by that.

    Raises:
        WriteError: naming the file.
    """
    target = Path(path)
    with whole_files(target.parent, target) as folder:
        yield folder / target.name


@contextmanager
def whole_files(folder: str | os.PathLike, what: str | os.PathLike | None = None) -> Iterator[Path]:
    """A folder to write files to, which move to another once all of them are whole; after an error none is there.

    The header of a format of two files moves last.

    Args:
        folder: that gets the files; made if need be.
        what: is written, for the error; by default the folder.

    Yields:
        The folder for the time of writing.

    Raises:
        WriteError: naming the file or folder.
    """
    folder = Path(folder)
    with _in_a_sentence(folder, folder if what is None else what):
        _make(folder)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder, ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
            files = sorted(Path(temporary).iterdir(), key=lambda file: file.name.endswith(HEADERS))
            for file in files:
                _to_disk(file)
            for file in files:
                os.replace(file, folder / file.name)
            _names_to_disk(folder)


def check_writable(folder: str | os.PathLike) -> None:
    """Refuse a folder that results cannot be written to, before there are any; remove what old runs left unfinished.

    Args:
        folder: need not exist, and is not made.

    Raises:
        WriteError: naming it.
    """
    folder = Path(folder)
    there = next(place for place in (folder, *Path(os.path.abspath(folder)).parents) if os.path.lexists(place))
    if not there.is_dir():
        what = "it is" if there == folder else f"{str(there)!r} is"
        raise WriteError(f"The results cannot be written to {str(folder)!r}: {what} a file, not a folder.")
    with _in_a_sentence(there, folder), tempfile.NamedTemporaryFile(prefix=UNFINISHED, dir=there) as file:
        file.write(bytes(ROOM))
        file.flush()
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > OLD:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def _in_a_sentence(folder: Path, what: str | os.PathLike) -> Iterator[None]:
    """Errors of the file system as a sentence on a file or folder in, or that is, a folder."""
    try:
        yield
    except WriteError:
        raise
    except Exception as error:  # a library may have put its own around that of the file system
        found = _of_system(error)
        said = f"{str(what)!r} cannot be written: "
        if found is not None and found.errno in FULL or _is_full(folder):
            raise FullDiskError(f"{said}there is no room left on the disk.") from error
        if found is not None and _is_of(found, folder):
            raise WriteError(f"{said}{found.strerror or found}.") from error
        raise


def _of_system(error: BaseException | None) -> OSError | None:
    """The error of the file system behind an error."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _is_of(error: OSError, folder: Path) -> bool:
    """Whether an error is one of writing to a folder, and not of reading elsewhere."""
    return error.filename is None or Path(os.path.abspath(str(error.filename))).is_relative_to(os.path.abspath(folder))


def _is_full(folder: Path) -> bool:
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        return usage.total > 0 and usage.free < ROOM  # file systems of the kernel, such as /proc, have no size at all
    return False


def _make(folder: Path) -> None:
    """Make a folder, whose name is then on the disk."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _names_to_disk(folder.parent)


def _to_disk(file: Path) -> None:
    """Have the content of a file written, which may be the first to tell that there is no room."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _names_to_disk(folder: Path) -> None:
    """Have the names of a folder's files written, where the system has a way to ask for that."""
    with suppress(OSError):  # some file systems do not know it for folders, nor does Windows
        names = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(names)
        finally:
            os.close(names)
