"""Be the child that a fork leaves: streams that are files, and the status with which Python would end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_to(out: Path, err: Path) -> None:
    """Write standard output and standard error into files from here on."""
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)


def status(call: Callable[[], object]) -> int:
    """Status of a process that does nothing but a call; what Python does with an error that nothing catches is done."""
    code: Any = 0
    try:
        call()
    except SystemExit as ended:
        code = ended.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return int(code)
