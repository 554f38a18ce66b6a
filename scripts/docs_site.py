"""What mkdocs does differently from a folder of pages.

The project's README is the first page. `docs/README.md`, where MONAI's zoo looks for the card of the hippocampus, has a
name of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
CARD = "card_hippocampus.md"


def on_files(files: Files, config: Any) -> Files:
    """Put both pages in their places."""
    card = files.get_file_from_path("README.md")
    assert card is not None
    files.remove(card)
    first = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=first))
    files.append(File.generated(config, CARD, content=card.content_string))
    return files


def on_page_markdown(markdown: str, page: Any, **options: Any) -> str:
    """Lead links to the card to its name."""
    if page.file.src_uri.startswith(("runs/", "tasks/")):
        return re.sub(r"\]\(((?:\.\./)+)README\.md\)", rf"](\1{CARD})", markdown)
    return markdown.replace("](README.md)", f"]({CARD})")
