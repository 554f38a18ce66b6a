"""Pages of docs/ that are made from other files: settings.md from the configurations, changelog.md from metadata.json.

    python scripts/make_docs.py

A test holds both pages to their sources.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from medsegdiff_bundle.cli.options import content, task_files
from medsegdiff_bundle.meanings import GROUPS
from medsegdiff_bundle.settings import parts

DOCS = Path(__file__).parent.parent / "docs"
MAKER = "`python scripts/make_docs.py` makes this page from the project's files."
SETTINGS = f"""\
# Settings

A setting is an entry of a configuration file. `medsegdiff` takes it as `--set name=value`, MONAI's runner as
`--name value`, and `segment` and `Segmenter` by its name. {MAKER}

An entry within another, such as the channels of the network, is named with a `#`: `network_def#channels`. Names that do
not exist and values of another kind are refused, with the nearest name. How words are read is said in
[running](running.md).

Where a task with weights has another default, it stands behind the first one. Tasks without weights are files of
`configs/tasks`, too. "inference" is `configs/inference.json`, "training" `configs/train.json`.
"""


def settings_page() -> str:
    """The table of settings, with meaning, unit and default."""
    read = {"inference": content(["inference.json"]), "training": content(["train.json"])}
    others = {file.stem: [f"tasks/{file.name}"] for file in task_files(with_weights=True)}
    lines = [SETTINGS]
    for title, group in GROUPS.items():
        lines += [f"## {title}\n", "| setting | meaning | unit | in | default |\n|---|---|---|---|---|"]
        for name, meaning in group.items():
            where = [part for part, config in read.items() if name in config]
            text = meaning.default or "; ".join(_defaults(name, where, read, others))
            kinds = "a file of its own" if not where else ", ".join(where)
            lines.append(f"| `{name}` | {meaning.text} | {meaning.unit} | {kinds} | {text} |")
        lines.append("")
    return "\n".join(lines)


def _defaults(name: str, where: list[str], read: dict[str, Any], tasks: dict[str, list[str]]) -> list[str]:
    """Default of each part and task, without those that are the same."""
    found: dict[str, str] = {}
    for part in where:
        default = _value(read[part], name)
        if default not in found.values():
            found["" if not found else part] = default
    base = next(iter(found.values()), None)
    part = {"inference": "inference.json", "training": "train.json"}[where[0]] if where else "inference.json"
    for task, files in tasks.items():
        config = content([part, *files])
        if name in config and (default := _value(config, name)) != base:
            found[task] = default
    return [f"{place} {default}".strip() for place, default in found.items()]


def _value(config: dict[str, Any], name: str) -> str:
    value = config[name]
    while isinstance(value, str) and value.startswith("@"):
        way, value = parts(value[1:]), config
        for step in way:
            value = value[step]
    if value is None or value == "":
        return "none"
    return f"`{json.dumps(value)}`"


def changelog_page() -> str:
    """The versions, the newest first."""
    changes = json.loads((DOCS.parent / "configs" / "metadata.json").read_text(encoding="utf-8"))["changelog"]
    lines = [f"# Changelog\n\n{MAKER}\n"]
    for version, text in changes.items():
        items = [f"- {item[:1].upper()}{item[1:]}." for item in text.split("; ")]
        wrapped = [textwrap.fill(item, 120, subsequent_indent="  ") for item in items]
        lines.append("\n".join([f"## {version}\n", *wrapped, ""]))
    return "\n".join(lines)


PAGES = {"settings.md": settings_page, "changelog.md": changelog_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
