"""Parts of the page of a case, and the pages of a folder of them: an index, and all numbers as CSV."""

from __future__ import annotations

import csv
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from medsegdiff_bundle.files import whole_file

REPORT = "_report.json"
# Numbers of a structure that the table of all cases has; lists and what is missing there stay empty.
COLUMNS = (
    *("volume", "volume_mean", "volume_std", "pairwise_dice", "expected_dice", "mean_uncertainty", "mean_intensity"),
    *("components", "border"),
)
ENDS = {
    "volume_interval": ("volume_low", "volume_high"),
    "members_interval": ("members_low", "members_high"),
}
SHORT = 12  # digits of a checksum on a page


def sentences(said: Sequence[str]) -> str:
    """Sentences as a list in HTML; "" if there is none."""
    return "<ul>" + "".join(f"<li>{html.escape(each)}</li>" for each in said) + "</ul>" if said else ""


def details(report: Mapping[str, Any]) -> str:
    """From what a case was made, as rows of a table in HTML."""
    given, weights = report.get("input") or {}, report.get("weights") or {}
    rows = {
        "image file": given.get("file"),
        "size": _times(given.get("shape")),
        "size of a voxel, mm": _times(given.get("spacing")),
        "directions of the axes": given.get("orientation"),
        "degrees off these directions": given.get("obliquity"),
        "done to the image": sentences(report.get("processing") or []),
        "task": report.get("task"),
        "version": report.get("version"),
        "weights": weights and f"{weights['file']}, SHA-256 {weights['sha256'][:SHORT]}…",
        "date": report.get("date"),
        "device": report.get("device"),
    }
    return _rows(rows) + _rows(report.get("settings") or {}, "setting ")


def _rows(rows: Mapping[str, Any], before: str = "") -> str:
    """Rows of a table in HTML; what is not known has none."""
    return "\n".join(
        f"<tr><th>{before}{html.escape(name)}</th><td>{_cell(value)}</td></tr>"
        for name, value in rows.items()
        if before or value not in (None, "", {})
    )


def write_index(folder: str | os.PathLike) -> None:
    """Write `index.html` and `index.csv` of the cases of a folder, by the reports that lie in it, if there are several.

    The page shows picture, volumes and warnings of each case and leads to its own page; the table has a row for each
    structure of each case. Two processes may write at once: each file is whole, and the last one counts.
    """
    folder = Path(folder)
    reports = [report for file in sorted(folder.glob(f"*{REPORT}")) if (report := _read(file)) is not None]
    if len(reports) < 2:
        return
    write_whole(folder / "index.csv", table(reports))
    rows = "\n".join(_index_row(report, folder) for report in reports)
    flagged = sum(bool(report.get("warnings")) for report in reports)
    write_whole(folder / "index.html", INDEX.substitute(number=len(reports), flagged=flagged, rows=rows))


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a row for each structure of each case; `border` and `warnings` are joined by semicolons."""
    text = io.StringIO()
    names = [*COLUMNS, "calibrated", *(end for ends in ENDS.values() for end in ends)]
    writer = csv.DictWriter(text, ["case", "file", "structure", "unit", *names, "warnings"], lineterminator="\n")
    writer.writeheader()
    for report in reports:
        for structure, values in report["structures"].items():
            row = {name: _joined(values.get(name)) for name in COLUMNS}
            for name, ends in ENDS.items():
                row |= dict(zip(ends, values.get(name) or (), strict=False))
            row["calibrated"] = (report.get("interval") or {}).get("calibrated")
            row |= {"case": report["case"], "file": (report.get("input") or {}).get("file"), "structure": structure}
            writer.writerow({**row, "unit": report["unit"], "warnings": _joined(report.get("warnings"))})
    return text.getvalue()


def write_whole(path: Path, text: str) -> None:
    """Write a file of text that is there as a whole or not at all."""
    with whole_file(path) as file:
        file.write_text(text, encoding="utf-8", errors="replace")


def _read(file: Path) -> dict[str, Any] | None:
    """A report; None of what is none, or begins with a dot as it is being written."""
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        known = not file.name.startswith(".") and {"case", "unit", "structures"} <= report.keys()
    except (OSError, ValueError, AttributeError):
        return None
    return report if known else None


def _index_row(report: Mapping[str, Any], folder: Path) -> str:
    name = report["case"]
    label, page, picture = html.escape(name), f"{name}_report.html", f"{name}_overlay.png"
    if (folder / page).is_file():
        label = f'<a href="{quote(page)}">{label}</a>'
    shown = f'<img src="{quote(picture)}" alt="">' if (folder / picture).is_file() else ""
    unit = report["unit"]
    sizes = "".join(
        f"<li>{html.escape(structure)} {_size(values['volume'], unit)} {unit}</li>"
        for structure, values in report["structures"].items()
    )
    said = sentences(report.get("warnings") or [])
    return f"<tr><td>{shown}</td><th>{label}</th><td><ul>{sizes}</ul></td><td>{said}</td></tr>"


def _size(value: float, unit: str) -> str:
    return f"{value:.0f}" if value >= 1000 or unit == "pixels" else f"{value:.3f}"


def _joined(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value


def _times(sizes: Any) -> str | None:
    return None if sizes is None else " × ".join(f"{size:g}" for size in sizes)


def _cell(value: Any) -> str:
    if isinstance(value, str) and value.startswith("<ul>"):
        return value
    return html.escape(value if isinstance(value, str) else json.dumps(value))


INDEX = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$number cases</title>
<style>
body { font: 16px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; color: #1a1a1a; }
.warning { border: 2px solid #b00020; padding: .6rem .9rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .4rem .7rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }
th { overflow-wrap: anywhere; min-width: 8rem; }
img { max-width: 20rem; max-height: 14rem; display: block; background: #000; }
ul { margin: 0; padding-left: 1.1rem; }
</style>
</head>
<body>
<h1>$number cases, $flagged of them with warnings</h1>
<p class="warning"><strong>Not a medical device.</strong> For research. Not for diagnosis, treatment or any decision
about a person.</p>
<p>All numbers: <a href="index.csv">index.csv</a></p>
<table>
<thead><tr><th>picture</th><th>case</th><th>fused mask</th><th>warnings</th></tr></thead>
<tbody>
$rows
</tbody>
</table>
</body>
</html>
""")
