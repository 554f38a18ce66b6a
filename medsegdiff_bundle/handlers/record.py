"""What a training leaves beside its weights: a log, a table and a picture of its course, and all of its settings."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.given import as_said
from medsegdiff_bundle.workflow import calling_parser

LOG, TABLE, PICTURE, SETTINGS = "training.log", "history.csv", "curves.png", "settings.json"
DONE = "done"  # an empty file, of a training that has come to its end
VALIDATION = "val_"  # before the names of columns of validations


class TrainingRecord:
    """Write `training.log`, `history.csv`, `curves.png` and `settings.json` into the folder of a training.

    The log holds what is logged while it runs. The table has a row for each epoch: losses and, where there was a
    validation, Dice of the fused mask and of the anchor for each class by its name. The picture draws the table. The
    settings are all entries of the configuration, a file that the bundle's workflows take as it is. A resumed training
    continues log and table. An empty file `done` says that a training has come to its end. Of several processes only
    the first writes.

    Args:
        output_dir: the folder; made if need be.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)
        parser = calling_parser()  # of the configuration that this object stands in
        self.settings: Any = None if parser is None else as_said(parser)
        self.log: logging.Handler | None = None
        self.level = logging.NOTSET

    def attach(self, engine: Engine) -> None:
        """Register at a trainer, after the handler that resumes it."""
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.COMPLETED, self.complete)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def begin(self, engine: Engine) -> None:
        """Open the log and write the settings."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        if self.settings is not None:
            with whole_file(self.output_dir / SETTINGS) as file:
                file.write_text(json.dumps(self.settings, indent=4, default=str) + "\n", encoding="utf-8")
        self.log = logging.FileHandler(self.output_dir / LOG, mode="a" if engine.state.epoch > 0 else "w")
        self.log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(self.log)
        ours = logging.getLogger("medsegdiff_bundle")
        self.level = ours.level
        ours.setLevel(logging.INFO)  # also where the screen shows errors alone
        (self.output_dir / DONE).unlink(missing_ok=True)
        if engine.state.epoch == 0:
            (self.output_dir / TABLE).unlink(missing_ok=True)

    def complete(self) -> None:
        """Close the log of a training that has come to its end."""
        (self.output_dir / DONE).touch()
        self.end()

    def end(self) -> None:
        """Close the log."""
        if self.log is not None:
            logging.getLogger().removeHandler(self.log)
            logging.getLogger("medsegdiff_bundle").setLevel(self.level)
            self.log.close()
            self.log = None

    def fail(self, engine: Engine, error: BaseException) -> None:
        """Close the log with the error, which goes on."""
        if not isinstance(error, SystemExit):  # by a signal, which is said already
            logging.getLogger(__name__).error("The training ended: %s", str(error) or type(error).__name__)
        self.end()
        raise error

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add a row to the table, and draw it.

        Args:
            epoch: from 1.
            values: by column; those of validations begin with "val_". NaN stands for undefined.
        """
        if idist.get_rank() > 0:
            return
        rows = [row for row in read_history(self.output_dir / TABLE) if row["epoch"] < epoch]
        rows.append({"epoch": epoch, **values})
        names = list(dict.fromkeys(name for row in rows for name in row))
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with whole_file(self.output_dir / TABLE) as file, file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
        with whole_file(self.output_dir / PICTURE) as file:
            draw_history(rows, file)


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a table of a training; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]


def draw_history(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw losses and validations over the epochs, side by side.

    Args:
        rows: of the table.
        path: of a PNG file.
    """
    from matplotlib.figure import Figure

    names = dict.fromkeys(name for row in rows for name in row if name != "epoch")
    height = max(4.0, 1 + 0.2 * len(names))  # inches, of which a line of the legend takes a fifth
    figure = Figure(figsize=(11, height))
    losses, scores = figure.subplots(1, 2)
    # A layout that is found by drawing twice takes twice as long, in each epoch.
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.5 / height, top=1 - 0.3 / height, wspace=0.14)
    for name in names:
        points = [(row["epoch"], row[name]) for row in rows if name in row and not math.isnan(row[name])]
        axes = scores if name.startswith(VALIDATION) else losses
        style = "--" if name.startswith(f"{VALIDATION}anchor") else "-"
        axes.plot(
            *zip(*points, strict=True) if points else ([], []), style, label=name, marker="." * (len(points) < 30)
        )
    for axes, title in ((losses, "loss"), (scores, "validation")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=100)
