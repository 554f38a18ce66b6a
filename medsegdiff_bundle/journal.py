"""What became of each image of a folder, in a file beside the results."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

from medsegdiff_bundle.files import whole_file

NAME = "journal{}.jsonl"
DONE, FAILED, SKIPPED = STATES = ("done", "failed", "skipped")


class Journal:
    """A line of JSON for each image: `case`, `file`, `state`, `date`, and of a failure its `reason`.

    States are "done", "failed", and "skipped" for an image whose results were there already. A new run replaces the
    lines of the images that it takes, and keeps the others.

    Args:
        folder: of the results.
        process: number of this process of several, which have a file each, "journal-1.jsonl"; None of one alone.
    """

    def __init__(self, folder: str | os.PathLike, process: int | None = None) -> None:
        self.path = Path(folder) / NAME.format("" if process is None else f"-{process}")
        known = _read(self.path)
        with whole_file(self.path) as file:  # each image once, and no half line of a run that was killed
            file.write_text("".join(_line(entry) for entry in known.values()), encoding="utf-8")

    def note(self, case: str, file: str, state: str, reason: str | None = None) -> None:
        """Add what became of an image.

        Args:
            case: its name.
            file: of the image, without its folder.
            state: one of `STATES`.
            reason: of a failure, in a sentence.
        """
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        entry = {"case": case, "file": file, "state": state, "date": date}
        line = _line(entry if reason is None else {**entry, "reason": reason})
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())


def read_journal(folder: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """The last entry of each image, by its case, of all processes that wrote to a folder."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(folder).glob(NAME.format("*"))):
        for case, entry in _read(path).items():
            if case not in found or found[case]["date"] <= entry["date"]:
                found[case] = entry
    return found


def _read(path: Path) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                entries.pop(entry["case"], None)  # in the order of the last entries
                entries[entry["case"]] = {**entry, "date": str(entry["date"])}
            except (ValueError, KeyError, TypeError):
                continue  # the half line of a run that was killed
    return entries


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"
