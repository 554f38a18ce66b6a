"""One sentence for what went wrong, in the place of a traceback."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

PACKAGE = Path(__file__).parent


def root_cause(error: BaseException) -> BaseException:
    """The `ValueError`, or the first error, behind those that MONAI's parser and transforms raise from it."""
    while error.__cause__ is not None and not isinstance(error, ValueError):
        error = error.__cause__
    return error


def reason(error: BaseException) -> str:
    """First line of an error's text, without what PyTorch puts around it in a process that loads data."""
    lines = str(error).strip().split("\n")
    if lines[0].startswith("Caught ") and "Original Traceback" in str(error):
        own = [line for line in lines if line and not line[0].isspace()]
        return own[-1].partition(": ")[2] or own[-1]
    return lines[0]


def is_own(error: BaseException) -> bool:
    """Whether this package raised an error, whose text then is a sentence for people."""
    if str(error).startswith("Caught ValueError in DataLoader worker"):
        return f'File "{PACKAGE}' in str(error)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and Path(frames[-1].f_code.co_filename).is_relative_to(PACKAGE)


def sentence(error: BaseException) -> str:
    """What the error behind an error says, in one line.

    Before that of an error that is not of this package stand its kind and the entry of a configuration whose component
    or expression raised it, which MONAI's parser keeps to itself.
    """
    cause = root_cause(error)
    if isinstance(cause, ValueError) and is_own(cause):
        return reason(cause)
    named = [entry(error), type(cause).__name__, reason(cause)]
    return ": ".join(word for word in named if word)


def entry(error: BaseException) -> str:
    """Name of the entry of a configuration, such as `train#loss`, that MONAI's parser was making.

    "" if it was not, or if the entry was a run of an engine, which is what fails then.
    """
    found = ""
    each: BaseException | None = error
    while each is not None:
        for frame, _ in traceback.walk_tb(each.__traceback__):
            item: Any = frame.f_locals.get("self")
            if frame.f_globals.get("__name__", "").startswith("ignite."):
                return ""
            if frame.f_globals.get("__name__") == "monai.bundle.config_item" and hasattr(item, "get_id"):
                found = str(item.get_id()).replace("::", "#")
        each = each.__cause__
    return found


def about(error: BaseException, what: str) -> str:
    """What an error says, in one line that names what it is about: errors of this package do so by themselves."""
    cause = root_cause(error)
    line = reason(cause)
    named = what in line or isinstance(cause, ValueError) and is_own(cause)
    return line if named else f"{what!r} cannot be segmented: {line}"


class UnsegmentedError(ValueError):
    """Images could not be segmented; others may be.

    Attributes:
        failures: a sentence for each by the image's file.
    """

    def __init__(self, failures: Mapping[str, str], number: int) -> None:
        self.failures = dict(failures)
        listed = "".join(f"\n  {sentence}" for sentence in failures.values())
        several = f"{len(failures)} of {number} images could not be segmented:{listed}"
        super().__init__(several if number > 1 else next(iter(failures.values())))


class WithoutTraceback(logging.Filter):
    """Pass over what ignite's engines log of an error that ends them, with its traceback: it is said once, and last."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is no such one."""
        return "run is terminating due to exception" not in record.getMessage() and record.exc_info is None


def quiet_readers() -> None:
    """Silence what libraries say of files besides.

    MONAI's regret that it has no decoder of a GPU, nibabel's remarks on headers, highdicom's on a patient's name, which
    nobody wants in a log, and scikit-image's on how MONAI calls it.

    What is wrong with a header is said in the sentence of an error, or in the report.
    """
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    warnings.filterwarnings("ignore", message="Parameter `min_size` is deprecated")
    warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended person name")


def end_when_told() -> None:
    """Let SIGTERM, which job schedulers send before they kill, end this process like an error: nothing half-written."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    print("terminated", file=sys.stderr)
    raise SystemExit(128 + number)


def say_errors_in_a_sentence() -> None:
    """Let this process end with one sentence on standard error, instead of a traceback."""
    sys.excepthook = _say
    # Such as TensorBoard's, which writes curves.
    threading.excepthook = lambda thread: _say(thread.exc_type, thread.exc_value or thread.exc_type(), None)
    for handler in logging.getLogger().handlers:
        handler.addFilter(WithoutTraceback())


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        hint = "" if is_own(root_cause(error)) else " (--debug True shows where)"
        print(f"error: {sentence(error)}{hint}", file=sys.stderr)
