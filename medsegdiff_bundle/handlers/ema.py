"""Average of the weights over a training run."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMAHandler:
    """Exponential moving average of the weights, with warm-up: decay_n = min(decay, (1 + n) / (10 + n)) at iteration n.

    It starts from the network's weights at the start of the run, so a checkpoint loader must come before it, and
    `TrainingCheckpoint`, which may resume an average, after it.

    Args:
        network: that is trained.
        ema_network: of the same architecture, that holds the average.
        decay: limit of the decay per iteration, 0 to below 1.
    """

    def __init__(self, network: nn.Module, ema_network: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}.")
        self.network = network
        self.ema_network = ema_network.requires_grad_(False).eval()
        self.decay = decay
        self._floating: list[list[Tensor]] = []  # the averages, and the weights that they follow, of the run
        self._copied: list[tuple[Tensor, Tensor]] = []  # average and weight of whole numbers, such as counters

    def attach(self, engine: Engine) -> None:
        """Register at a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)

    def start(self, engine: Engine) -> None:
        """Take the network's weights as they are."""
        self.ema_network.load_state_dict(self.network.state_dict())
        averages, weights = ([*net.parameters(), *net.buffers()] for net in (self.ema_network, self.network))
        pairs = list(zip(averages, weights, strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._floating = [list(each) for each in zip(*floating, strict=True)]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, engine: Engine) -> None:
        """Move the average towards the network's weights."""
        iteration = engine.state.iteration
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        # All at once: one by one, a GPU would wait for each of some hundred small operators to be started.
        get_ema_multi_avg_fn(decay)(*self._floating, None)
        for average, weight in self._copied:
            average.copy_(weight)
