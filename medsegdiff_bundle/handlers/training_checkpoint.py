"""Weights and state of a training run, on disk."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from medsegdiff_bundle.files import check_writable, whole_file
from medsegdiff_bundle.model_file import model_file, write_model
from medsegdiff_bundle.weights import read_state

from .progress import metric_mean
from .stopping import RestOfEpoch, StopSignal, random_state

logger = logging.getLogger(__name__)

AUTO = "auto"  # of `resume`: go on if there is something to go on from


def checkpoints(output_dir: str | os.PathLike) -> list[Path]:
    """Checkpoints of a folder, the last first: `last.ckpt`, and before it `last.1.ckpt`, `last.2.ckpt` and so on."""
    folder = Path(output_dir)
    before = sorted(folder.glob("last.*.ckpt"), key=lambda file: (len(file.name), file.name))
    return [file for file in (folder / "last.ckpt", *before) if file.is_file()]


def check_training_folder(output_dir: str, resume: bool | str = False, overwrite: bool = False) -> bool:
    """Refuse a folder that a training cannot write to, or whose files are of another one that it would replace.

    Args:
        output_dir: of the training; need not exist.
        resume: go on with what is there; "auto" starts a training where there is none.
        overwrite: replace what is there.

    Returns:
        Whether the training goes on.

    Raises:
        ValueError: naming what is there, or what is not.
    """
    check_writable(output_dir)
    there = checkpoints(output_dir)
    if resume == AUTO or resume and there:
        return bool(there)
    folder = Path(output_dir)
    if resume:
        raise ValueError(f"There is nothing to resume from: {str(folder / 'last.ckpt')!r} does not exist.")
    there += [folder / "model.pt"] if (folder / "model.pt").is_file() else []
    if there and not overwrite:
        raise ValueError(
            f"The training would overwrite {str(there[0])!r} of another one: --resume True goes on with that, "
            "another --output_dir leaves it."
        )
    return False


class TrainingCheckpoint:
    """Write `last.ckpt` after each epoch, `model.pt` after each validation that beats all before.

    Where the metric is undefined, as no validation case holds a class, `model.pt` is that of the last validation.

    `model.pt` is the flat state dict of the averaged weights, as `monai.bundle.load` and MONAI Label read it.
    `last.ckpt` holds everything that a resume needs, and the processor time of all runs so far in seconds; were it a
    `.pt` file too, MONAI Label would take it for the model. What is random in an epoch follows from its number, see
    `EpochSeed`. A killed run leaves no torn file. SIGTERM, which job schedulers send before they kill, ends the process
    with status 143 after the step at work, whose state `last.ckpt` then has; of several processes that of the last
    epoch, since a state within an epoch is of one process. Of several processes only the first writes.

    Args:
        output_dir: folder of both files; made if need be.
        ema_network: the averaged network.
        objects: what else `last.ckpt` holds: everything with `state_dict` and `load_state_dict`.
        lr_scheduler: stepped once per iteration; a resume sets it to the iterations done, and its length stays that of
            the new run, which may have more epochs.
        evaluator: the validation engine, whose key metric decides (the larger, the better).
        resume: continue from `last.ckpt` instead of starting anew; "auto" continues if there is one.
        overwrite: start anew where another training wrote.
        keep: checkpoints that are kept, `last.ckpt` and those before it, from which a damaged one is replaced.
        model: of the weights, see `medsegdiff_bundle.model_file.describe_model`: goes into `model.model.json`, which
            tells inference what they segment and how images get to them; None writes none.

    Raises:
        ValueError: nothing to resume from, or nothing left to do, or another training would be overwritten.
    """

    def __init__(
        self,
        output_dir: str,
        ema_network: nn.Module,
        objects: dict[str, Any],
        lr_scheduler: LRScheduler,
        evaluator: Engine,
        resume: bool | str = False,
        overwrite: bool = False,
        keep: int = 2,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.ema_network = ema_network
        self.objects = objects
        self.lr_scheduler = lr_scheduler
        self.keep = keep
        self.model = model
        self.best_metric = -math.inf
        self.seconds_before = 0.0
        self.metric_name = "fused"
        self.undefined = False  # whether the last validation was
        self.resume = check_training_folder(output_dir, resume, overwrite)
        self.overwrite = overwrite
        self.may_be_done = resume == AUTO
        self.signal = StopSignal()
        self.evaluator = evaluator
        self.left: dict[str, Any] | None = None  # of an epoch that is begun: batches done, and the random state
        self.whole: Any = None  # the data loader of which the rest is taken
        evaluator.add_event_handler(Events.COMPLETED, self.save_best)

    def attach(self, engine: Engine) -> None:
        """Register at a trainer, after its EMA and validation handlers."""
        self.signal.attach(engine)
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
            engine.add_event_handler(Events.EPOCH_STARTED, self._leave_out)
            engine.add_event_handler(Events.GET_BATCH_STARTED, self._end_if_nothing_is_left)
        elif self.overwrite:
            engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop, engine)
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.stop, engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save_last)
        engine.add_event_handler(Events.COMPLETED, self.report_best)

    def clear(self) -> None:
        """Remove the checkpoints of another training, which a resume of this one would go on with."""
        if idist.get_rank() == 0:
            for path in checkpoints(self.output_dir):
                path.unlink()

    def load(self, engine: Engine) -> None:
        """Continue where `last.ckpt` ends, or the checkpoint before it if that is damaged."""
        path, state = self._read()
        if state["epoch"] >= (engine.state.max_epochs or 0):
            said = f"{str(path)!r} has {state['epoch']} epochs already, of {engine.state.max_epochs} asked for."
            if not self.may_be_done:
                raise ValueError(said)
            logger.info(said)
            engine.terminate()
        try:
            for name, thing in {"ema_network": self.ema_network, **self.objects}.items():
                thing.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(
                f"{str(path)!r} is of a training of another network or task: what it holds of the {name} does not fit."
            ) from error
        self.lr_scheduler.last_epoch = state["iteration"] - 1
        self.lr_scheduler.step()
        self.best_metric = state["best_metric"]
        self.seconds_before = state["cpu_seconds"]
        self.left = state.get("begun")
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        within = f" and {self.left['batches']} batches" if self.left else ""
        self.describe()  # the run may have ended between the two files
        logger.info(f"Resumed from {path} after epoch {state['epoch']}{within}.")

    def save_last(self, engine: Engine) -> None:
        """Write `last.ckpt` at the end of an epoch."""
        if self.whole is not None:
            engine.state.dataloader, self.whole = self.whole, None
        self._save(engine, engine.state.epoch)

    def stop(self, of_step: Engine, engine: Engine) -> None:
        """End the process after a step, of the training or of a validation, if SIGTERM asked for that."""
        if not self.signal.asked:
            return
        if idist.get_world_size() == 1:
            done = engine.state.iteration - (engine.state.epoch - 1) * (engine.state.epoch_length or 0)
            self._save(engine, engine.state.epoch - 1, {"batches": done, "random": random_state()})
        logger.warning(f"Told to stop in epoch {engine.state.epoch}: --resume True goes on.")
        raise SystemExit(143)

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
            weights = {name: weight.cpu() for name, weight in self.ema_network.state_dict().items()}
            if idist.get_rank() == 0:
                with whole_file(self.output_dir / "model.pt") as file:
                    torch.save(weights, file)
                self.describe()

    def describe(self) -> None:
        """Write what the weights are beside `model.pt`; without that, nothing of other weights stays there."""
        weights = self.output_dir / "model.pt"
        if idist.get_rank() > 0 or not weights.is_file():
            return
        if self.model is None:
            model_file(weights).unlink(missing_ok=True)
        else:
            write_model(weights, self.model)

    def report_best(self, engine: Engine) -> None:
        """Print the validation metric of `model.pt`; that of the fused mask is called Dice."""
        if idist.get_rank() > 0:
            return
        name = "Dice" if self.metric_name == "fused" else self.metric_name
        if self.best_metric > -math.inf:
            print(f"{name}: {self.best_metric:.4f}", flush=True)
        elif self.undefined:
            print(f"{name}: undefined, as no validation case holds a class; model.pt has the last weights", flush=True)

    def _read(self) -> tuple[Path, dict[str, Any]]:
        """The last checkpoint that can be read."""
        first: ValueError | None = None
        for path in checkpoints(self.output_dir):
            try:
                state = read_state(path)
                if not isinstance(state, dict) or "iteration" not in state:
                    raise ValueError(f"{str(path)!r} is no checkpoint of a training.")
                return path, state
            except ValueError as error:
                logger.warning(str(error))
                first = first or error
        assert first is not None  # as there was a checkpoint when the run began
        raise first

    def _save(self, engine: Engine, epochs: int, begun: dict[str, Any] | None = None) -> None:
        if idist.get_rank() > 0:
            return
        state = {name: thing.state_dict() for name, thing in self.objects.items()}
        state |= {
            "ema_network": self.ema_network.state_dict(),
            "epoch": epochs,
            "iteration": engine.state.iteration,
            "best_metric": self.best_metric,
            "cpu_seconds": self.seconds_before + time.process_time(),
        }
        state |= {} if begun is None else {"begun": begun}
        with whole_file(self.output_dir / "last.ckpt") as file:
            torch.save(state, file)
            self._pass_on()

    def _pass_on(self) -> None:
        """Give `last.ckpt` a second name, that of the checkpoint before it, which gets the name before that."""
        files = [self.output_dir / f"last{number}.ckpt" for number in ("", *(f".{i}" for i in range(1, self.keep)))]
        for file, before in reversed([*zip(files, files[1:], strict=False)]):
            if file != files[0] and file.is_file():
                os.replace(file, before)
            elif file.is_file():
                try:
                    before.unlink(missing_ok=True)
                    os.link(file, before)
                except OSError:  # of a file system without second names
                    os.replace(file, before)

    def _leave_out(self, engine: Engine) -> None:
        """Take the rest of an epoch that is begun."""
        if self.left is not None:
            self.whole = engine.state.dataloader
            nothing = self.left["batches"] >= (engine.state.epoch_length or 0)
            rest: Any = [] if nothing else RestOfEpoch(self.whole, self.left["batches"], self.left["random"])
            engine.state.dataloader = rest
            self.left = None

    def _end_if_nothing_is_left(self, engine: Engine) -> None:
        """Go to the validation in which the run was stopped."""
        if engine.state.dataloader == []:
            engine.terminate_epoch()
