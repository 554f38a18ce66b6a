"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """A name to write a file to, which gets its own name once it is whole; after an error neither is there.

    The other name lies in the same folder, which is made if need be, ends as the file's own, as writers choose the
    format by that, and begins with a dot, as no data list takes such a file.

    Args:
        path: of the file; what stands there already is replaced.

    Yields:
        The name for the time of writing.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
