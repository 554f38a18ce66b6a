"""SIGTERM, which job schedulers send before they kill: a training stops after its step, and goes on later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from ignite.engine import Engine, Events


class StopSignal:
    """Note SIGTERM while a training runs, instead of ending at once; the second one ends.

    Attributes:
        asked: whether there was one.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def attach(self, engine: Engine) -> None:
        """Register at a trainer."""
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.COMPLETED, self.end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def begin(self, engine: Engine) -> None:
        """Take the signal, which only the main thread of a process can."""
        # All others are registered by now: ignite calls none after the one that raises, and passes over an error that
        # none of them raises.
        if not engine.has_event_handler(self._raise, Events.EXCEPTION_RAISED):
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._raise)
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)

    def end(self) -> None:
        """Leave the signal to whoever had it."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise SystemExit(128 + number)
        self.asked = True

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self.end()
        if not engine.has_event_handler(self._raise, Events.EXCEPTION_RAISED):  # an error of what comes before `begin`
            raise error

    def _raise(self, engine: Engine, error: BaseException) -> None:
        raise error


class RestOfEpoch:
    """Batches of an epoch that was begun by another process: those that it did are drawn, but not handed on.

    So all that the data loader draws by chance comes as it would have come.

    Args:
        loader: of the whole epoch.
        done: batches that are left out; all of them leave none.
        random: state of all that is random after these, from `random_state`.
    """

    def __init__(self, loader: Iterable[Any], done: int, random: dict[str, Any]) -> None:
        self.loader = loader
        self.done = done
        self.random = random

    def __iter__(self) -> Iterator[Any]:
        """The batches that are left."""
        batches = iter(self.loader)
        for _ in range(self.done):
            next(batches)
        set_random_state(self.random)
        yield from batches


def random_state() -> dict[str, Any]:
    """State of PyTorch's random numbers, of this process and its GPUs."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": gpus}


def set_random_state(state: dict[str, Any]) -> None:
    """Go on with a `random_state`, as far as there are the same GPUs."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
