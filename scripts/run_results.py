"""docs/runs/results.csv: the numbers of all tables of the diary, one a line, for programs.

    python scripts/run_results.py

A row of a table is named by its cells that hold no number. `value` is the first number of a cell, `error` what stands
behind a ± in it, and `cell` the whole.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

RUNS = Path(__file__).parent.parent / "docs" / "runs"
COLUMNS = ("page", "table", "row", "column", "value", "error", "cell")
NUMBER = re.compile(r"^[+-]?\d+(\.\d+)?")


def tables(text: str) -> Iterator[list[list[str]]]:
    """The tables of a page, each a list of rows of cells, the names of the columns first."""
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            yield [rows[0], *rows[2:]]
            rows = []


def lines(page: Path) -> Iterator[tuple[str, ...]]:
    """What results.csv has of a page."""
    for number, (names, *rows) in enumerate(tables(page.read_text(encoding="utf-8")), start=1):
        for row in rows:
            words = " ".join(cell for cell in row if cell and not NUMBER.match(cell))
            label = words or row[0]
            for name, cell in zip(names, row, strict=False):
                if found := NUMBER.match(cell):
                    error = re.search(r"± ?([\d.]+)", cell)
                    yield page.stem, str(number), label, name, found[0], error[1] if error else "", cell


def content() -> str:
    """The file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for page in sorted(RUNS.glob("*.md")):
        writer.writerows(lines(page))
    return stream.getvalue()


if __name__ == "__main__":
    (RUNS / "results.csv").write_text(content(), encoding="utf-8")
