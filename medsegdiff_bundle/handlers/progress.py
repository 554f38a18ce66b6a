"""What a run tells on the screen and in TensorBoard."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from medsegdiff_bundle.losses import MedSegDiffLoss

from .record import VALIDATION, TrainingRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


def dice_per_class(evaluator: Engine, name: str, class_names: list[str]) -> dict[str, float]:
    """Mean over the cases of one of the evaluator's Dice metrics, for each class.

    Args:
        evaluator: whose metric `name` has `save_details`: (cases, classes), background left out, NaN where absent.
        name: of the metric.
        class_names: without the background.
    """
    state: Any = evaluator.state  # to which MONAI's metric handlers add the details
    dice = state.metric_details[name].nanmean(dim=0)
    return dict(zip(class_names, dice.tolist(), strict=True))


def metric_mean(evaluator: Engine, name: str) -> float:
    """The evaluator's metric of a name; NaN where MONAI has 0 because no case defines it, as none holds a class."""
    state: Any = evaluator.state
    details = getattr(state, "metric_details", {}).get(name)
    undefined = isinstance(details, Tensor) and details.numel() > 0 and bool(details.isnan().all())
    return math.nan if undefined else float(state.metrics[name])


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _sentence(evaluator: Engine, name: str, class_names: list[str]) -> str:
    """The metric of the name, a mean over cases and classes, and its mean for each class."""
    dice = dice_per_class(evaluator, name, class_names)
    each = ", ".join(f"{label} {_number(value)}" for label, value in dice.items())
    return f"{name} {_number(metric_mean(evaluator, name))} ({each})"


def other_metrics(evaluator: Engine) -> dict[str, float]:
    """The evaluator's metrics beside `fused` and `anchor`, means over the cases."""
    return {name: value for name, value in evaluator.state.metrics.items() if name not in ("fused", "anchor")}


class MissingClasses:
    """Say before a training which classes no validation case holds: their Dice is undefined, and counts for nothing.

    Args:
        dataset: of the validation, whose items have a label.
        class_names: without the background.
        regions: classes that make each of them, if they are regions.
    """

    def __init__(
        self,
        dataset: Sequence[Mapping[str, Any]],
        class_names: Sequence[str],
        regions: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.class_names = class_names
        self.regions = regions or [[number] for number in range(1, len(class_names) + 1)]

    def attach(self, engine: Engine) -> None:
        """Register at a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Look for each class, in no more cases than it takes to find all."""
        if idist.get_rank() > 0:
            return
        missing = dict(zip(self.class_names, self.regions, strict=True))
        for index in range(len(self.dataset)):
            held = {int(label) for label in torch.unique(torch.as_tensor(self.dataset[index]["label"]))}
            missing = {name: region for name, region in missing.items() if not held & set(region)}
            if not missing:
                return
        names = ", ".join(missing)
        logger.warning("No validation case holds %s: the Dice of it is undefined and counts for nothing.", names)


class DiceReport:
    """Print the Dice per class of the fused mask and of the anchor, and last `Dice: <mean>` of the fused mask.

    Other metrics of the evaluator come before that. Of several processes only the first prints, the values of all.

    Args:
        class_names: without the background.
    """

    def __init__(self, class_names: list[str]) -> None:
        self.class_names = class_names

    def attach(self, engine: Engine) -> None:
        """Register at an evaluator with the metrics `fused` and `anchor`."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Print."""
        if idist.get_rank() > 0:
            return
        for name in ("anchor", "fused"):
            print(_sentence(engine, name, self.class_names))
        for name, value in other_metrics(engine).items():
            print(f"{name} {_number(value)}")
        print(f"Dice: {_number(metric_mean(engine, 'fused'))}", flush=True)


class ProgressHandler:
    """One line per epoch: loss parts, validation Dice of the fused mask and of the anchor, other metrics, time left.

    The evaluator must have the metrics `fused` and `anchor`, see `dice_per_class`. The same numbers go to TensorBoard.

    Args:
        loss: of the trainer.
        evaluator: the validation engine.
        class_names: without the background.
        summary_writer: of TensorBoard.
        record: of the training, which is registered with this handler, and gets a row for each epoch.
    """

    def __init__(
        self,
        loss: MedSegDiffLoss,
        evaluator: Engine,
        class_names: list[str],
        summary_writer: SummaryWriter,
        record: TrainingRecord | None = None,
    ) -> None:
        self.loss = loss
        self.evaluator = evaluator
        self.class_names = class_names
        self.summary_writer = summary_writer
        self.sums: dict[str, Tensor] = {}
        self.steps = 0  # of these, fewer than an epoch has where it was begun by another process
        self.record = record
        self.validation = ""
        self.scores: dict[str, float] = {}  # of the last validation, for the record
        self.started = 0.0
        self.epochs_done = 0

    def attach(self, engine: Engine) -> None:
        """Register at a trainer, after its checkpoint and validation handlers."""
        if self.record is not None:
            self.record.attach(engine)
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)
        self.evaluator.add_event_handler(Events.COMPLETED, self.validated, engine)

    def start(self, engine: Engine) -> None:
        """Start the clock."""
        self.started = time.monotonic()
        self.epochs_done = engine.state.epoch

    def reset(self, engine: Engine) -> None:
        """Start an epoch's sums."""
        self.sums, self.steps = {}, 0

    def add(self, engine: Engine) -> None:
        """Count one iteration's loss."""
        self.steps += 1
        for name, value in self.loss.parts.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value

    def validated(self, evaluator: Engine, trainer: Engine) -> None:
        """Keep the Dice per class of fused mask and anchor, and the other metrics."""
        texts = []
        for name in ("fused", "anchor"):
            self.scores[f"{VALIDATION}{name}"] = metric_mean(evaluator, name)
            for label, value in dice_per_class(evaluator, name, self.class_names).items():
                self.scores[f"{VALIDATION}{name} {label}"] = value
                if not math.isnan(value):
                    self.summary_writer.add_scalar(f"val_dice_{name}/{label}", value, trainer.state.epoch)
            texts.append(_sentence(evaluator, name, self.class_names))
        self.validation = " | val Dice " + ", ".join(texts)
        for name, value in other_metrics(evaluator).items():
            self.summary_writer.add_scalar(f"val/{name}", value, trainer.state.epoch)
            self.scores[f"{VALIDATION}{name}"] = value
            self.validation += f", {name} {_number(value)}"

    def report(self, trainer: Engine) -> None:
        """Print the epoch's line."""
        state: Any = trainer.state
        parts = {name: float(value) / self.steps for name, value in self.sums.items()}
        for name, value in parts.items():
            self.summary_writer.add_scalar(f"train_loss/{name}", value, state.epoch)
        spent = time.monotonic() - self.started
        left = int(spent / (state.epoch - self.epochs_done) * (state.max_epochs - state.epoch))
        losses = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
        logger.info(
            f"Epoch {state.epoch}/{state.max_epochs} | loss {losses}{self.validation} "
            f"| ETA {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        )
        if self.record is not None:
            self.record.add(state.epoch, {**{f"loss {name}": value for name, value in parts.items()}, **self.scores})
        self.validation, self.scores = "", {}
