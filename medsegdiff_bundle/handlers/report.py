"""Numbers and a page about each case, beside its mask."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from medsegdiff_bundle.datalist import case_name
from medsegdiff_bundle.report import html_report
from medsegdiff_bundle.transforms import load_image

logger = logging.getLogger(__name__)


class ReportHandler:
    """Write `<case>_report.json`, what `EnsembleStatisticsd` counted, and `<case>_report.html`, see `html_report`.

    Args:
        output_dir: folder of the files; made if need be.
        html: whether the page is written, too.
    """

    def __init__(self, output_dir: str, html: bool = True) -> None:
        self.output_dir = Path(output_dir)
        self.html = html

    def attach(self, engine: Engine) -> None:
        """Register at an evaluator whose output has pred, member_labels and uncertainty in the space of the image file.

        And result, from `EnsembleStatisticsd`.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Report this iteration's cases."""
        output: Any = engine.state.output
        for case in output:
            path = case["image"].meta["filename_or_obj"]
            name = case_name(path)
            for sentence in case["result"].get("warnings", []):
                logger.warning("%s: %s", name, sentence)
            self.output_dir.mkdir(parents=True, exist_ok=True)
            numbers = json.dumps({"case": name, **case["result"]}, indent=2, allow_nan=False)
            (self.output_dir / f"{name}_report.json").write_text(numbers + "\n")
            if self.html:
                # From the file: the image at hand may have been turned, resampled and normalised.
                page = html_report(
                    name,
                    load_image(path, len(case["image"])),
                    case["pred"][0],
                    case["member_labels"],
                    case["uncertainty"][0],
                    case["result"],
                )
                (self.output_dir / f"{name}_report.html").write_text(page, encoding="utf-8", errors="replace")
