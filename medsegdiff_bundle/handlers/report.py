"""Numbers and a page about each case, beside its mask."""

from __future__ import annotations

import datetime
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import IterationEvents, Workflow

from medsegdiff_bundle.case_page import html_report
from medsegdiff_bundle.datalist import case_name
from medsegdiff_bundle.grid import image_grid
from medsegdiff_bundle.pages import REPORT, write_index, write_whole
from medsegdiff_bundle.provenance import describe_run
from medsegdiff_bundle.remarks import without_folders
from medsegdiff_bundle.transforms.load import load_again

from .overlay import drawn_masks

logger = logging.getLogger(__name__)

LABELS_INSTEAD = "The members' labels stand for their probabilities, which would not fit in the memory"
VOTE = ": the fusion by their mean became a vote"


class ReportHandler:
    """Write `<case>_report.json`, what was found and from what, and `<case>_report.html`, see `html_report`.

    Of folders only names are written. `<case>_report.json` holds `case`, `date`, `input` (name of the `file`, and
    `medsegdiff_bundle.grid.Grid.summary`), `medsegdiff_bundle.provenance.describe_run`, and what `EnsembleStatisticsd`
    counted. A run of several cases ends with `index.html` and `index.csv`, see `medsegdiff_bundle.pages.write_index`.

    Args:
        output_dir: folder of the files; made if need be. None writes none: the numbers are in `result` all the same.
        html: whether the pages are written, too.
        settings: of the run; see `medsegdiff_bundle.provenance.used_settings`.
        checkpoint: file of the weights; None leaves them out of the report.
        device: that the network runs on.
    """

    def __init__(
        self,
        output_dir: str | None,
        html: bool = True,
        settings: Mapping[str, Any] | None = None,
        checkpoint: str | os.PathLike | None = None,
        device: Any = None,
    ) -> None:
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.html = html and output_dir is not None
        self.settings = settings or {}
        self.checkpoint = checkpoint
        self.device = device
        self.run: dict[str, Any] = {}
        self.labels_instead = False  # of the members of this iteration's cases, of which probabilities were asked for

    def attach(self, engine: Engine) -> None:
        """Register at an evaluator whose output has pred, member_labels and uncertainty in the space of the image file.

        And result, from `EnsembleStatisticsd`, which becomes the report; original, the image as in its file, is read
        if it is not there.
        """
        engine.add_event_handler(Events.STARTED, self.begin)
        if isinstance(engine, Workflow):  # of MONAI, as other engines have no such event
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.note_members)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def begin(self) -> None:
        """Note what the cases of the run have in common."""
        self.run = describe_run(self.settings, self.checkpoint, self.device)

    def note_members(self, engine: Engine) -> None:
        """Note whether the members are labels where the settings say probabilities."""
        output: Any = engine.state.output
        asked = self.settings.get("output") == "probabilities"
        self.labels_instead = asked and not output["pred"].is_floating_point()

    def __call__(self, engine: Engine) -> None:
        """Report this iteration's cases."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch  # whose cases `run_cases` gave a fingerprint
        for index, case in enumerate(output):
            path = Path(case["image"].meta["filename_or_obj"])
            name = case_name(path)
            # From the file: the image at hand may have been turned, resampled and normalised.
            image = case.get("original")
            image = load_again(case["image"]) if image is None else image
            date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            described = {"date": date, "input": {"file": path.name, **image_grid(image).summary()}, **self.run}
            case["result"] = result = {"case": name, **described, **case["result"]}
            if self.labels_instead:
                result["settings"] = {**self.run["settings"], "output": "labels"}
                sentence = LABELS_INSTEAD + (VOTE if self.settings.get("fusion") == "mean" else "") + "."
                result["processing"] = [*result.get("processing", []), sentence]
                logger.warning("%s: %s", name, sentence)
            for kind in ("warnings", "processing"):
                result[kind] = [without_folders(each, path, self.output_dir or path) for each in result.get(kind, [])]
            for sentence in result["warnings"]:
                logger.warning("%s: %s", name, sentence)
            if self.output_dir is None:
                continue
            if self.html:
                mask, members = drawn_masks(case)
                assert members is not None  # as `attach` says
                page = html_report(name, image, mask[0], members, case["uncertainty"][0], result)
                write_whole(self.output_dir / f"{name}_report.html", page)
            if isinstance(batch, list) and "fingerprint" in batch[index]:
                result["fingerprint"] = batch[index]["fingerprint"]
            # Last of all files: for `run_cases` a case with a report is done.
            numbers = json.dumps(result, indent=2, allow_nan=False)
            write_whole(self.output_dir / f"{name}{REPORT}", numbers + "\n")

    def finish(self, engine: Engine) -> None:
        """Write the index of several cases."""
        if self.html and self.output_dir is not None:
            write_index(self.output_dir)
