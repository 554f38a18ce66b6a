"""Weights and state of a training run, on disk."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from medsegdiff_bundle.files import whole_file

from .progress import metric_mean

logger = logging.getLogger(__name__)


class TrainingCheckpoint:
    """Write `last.ckpt` after each epoch, `model.pt` after each validation that beats all before.

    Where the metric is undefined, as no validation case holds a class, `model.pt` is that of the last validation.

    `model.pt` is the flat state dict of the averaged weights, as `monai.bundle.load` and MONAI Label read it.
    `last.ckpt` holds everything that a resume needs, and the processor time of all runs so far in seconds; were it a
    `.pt` file too, MONAI Label would take it for the model. What is random in an epoch follows from its number, see
    `EpochSeed`. A killed run leaves no torn file. Of several
    processes only the first writes.

    Args:
        output_dir: folder of both files; made if need be.
        ema_network: the averaged network.
        objects: what else `last.ckpt` holds: everything with `state_dict` and `load_state_dict`.
        lr_scheduler: stepped once per iteration; a resume sets it to the iterations done, and its length stays that of
            the new run, which may have more epochs.
        evaluator: the validation engine, whose key metric decides (the larger, the better).
        resume: continue from `last.ckpt` instead of starting anew.

    Raises:
        ValueError: nothing to resume from, or nothing left to do.
    """

    def __init__(
        self,
        output_dir: str,
        ema_network: nn.Module,
        objects: dict[str, Any],
        lr_scheduler: LRScheduler,
        evaluator: Engine,
        resume: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.ema_network = ema_network
        self.objects = objects
        self.lr_scheduler = lr_scheduler
        self.best_metric = -math.inf
        self.seconds_before = 0.0
        self.metric_name = "fused"
        self.undefined = False  # whether the last validation was
        if resume and not (self.output_dir / "last.ckpt").is_file():
            raise ValueError(f"There is nothing to resume from: {str(self.output_dir / 'last.ckpt')!r} does not exist.")
        self.resume = resume
        evaluator.add_event_handler(Events.COMPLETED, self.save_best)

    def attach(self, engine: Engine) -> None:
        """Register at a trainer, after its EMA and validation handlers."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save_last)
        engine.add_event_handler(Events.COMPLETED, self.report_best)

    def load(self, engine: Engine) -> None:
        """Continue where `last.ckpt` ends."""
        path = self.output_dir / "last.ckpt"
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["epoch"] >= (engine.state.max_epochs or 0):
            raise ValueError(
                f"{str(path)!r} has {state['epoch']} epochs already, of {engine.state.max_epochs} asked for."
            )
        self.ema_network.load_state_dict(state["ema_network"])
        for name, thing in self.objects.items():
            thing.load_state_dict(state[name])
        self.lr_scheduler.last_epoch = state["iteration"] - 1
        self.lr_scheduler.step()
        self.best_metric = state["best_metric"]
        self.seconds_before = state["cpu_seconds"]
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        logger.info(f"Resumed from {path} after epoch {state['epoch']}.")

    def save_last(self, engine: Engine) -> None:
        """Write `last.ckpt`."""
        state = {name: thing.state_dict() for name, thing in self.objects.items()}
        state |= {
            "ema_network": self.ema_network.state_dict(),
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "best_metric": self.best_metric,
            "cpu_seconds": self.seconds_before + time.process_time(),
        }
        self._write(state, "last.ckpt")

    def save_best(self, evaluator: Engine) -> None:
        """Write `model.pt` if the validation was the best so far, or if nothing can be said of it nor of any before."""
        state: Any = evaluator.state  # to which MONAI's evaluator adds the name
        self.metric_name = state.key_metric_name
        metric = metric_mean(evaluator, self.metric_name)
        self.undefined = math.isnan(metric)
        if metric > self.best_metric or self.undefined and self.best_metric == -math.inf:
            if not self.undefined:
                self.best_metric = metric
            # On the CPU, so that every reader can load them on any machine.
            self._write({name: weight.cpu() for name, weight in self.ema_network.state_dict().items()}, "model.pt")

    def report_best(self, engine: Engine) -> None:
        """Print the validation metric of `model.pt`; that of the fused mask is called Dice."""
        if idist.get_rank() > 0:
            return
        name = "Dice" if self.metric_name == "fused" else self.metric_name
        if self.best_metric > -math.inf:
            print(f"{name}: {self.best_metric:.4f}", flush=True)
        elif self.undefined:
            print(f"{name}: undefined, as no validation case holds a class; model.pt has the last weights", flush=True)

    def _write(self, state: Any, name: str) -> None:
        if idist.get_rank() > 0:
            return
        with whole_file(self.output_dir / name) as file:
            torch.save(state, file)
