"""Randomness of a training run as a function of its seed, the epoch and the process."""

from __future__ import annotations

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import Randomizable


class EpochSeed:
    """Seed everything random of an epoch: order of the cases, augmentation, timesteps, noise, recycling.

    So a run that was resumed after an epoch goes on as if it had never stopped, with no random state in the checkpoint,
    and no two processes of a distributed run draw the same.

    Args:
        seed: of the run, not negative.
        transform: of the training data.
    """

    def __init__(self, seed: int, transform: Randomizable) -> None:
        self.seed = seed
        self.transform = transform

    def attach(self, engine: Engine) -> None:
        """Register at a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the epoch that begins."""
        sequence = np.random.SeedSequence([self.seed, idist.get_rank(), engine.state.epoch])
        for_torch, for_transform = (int(number) for number in sequence.generate_state(2))
        torch.manual_seed(for_torch)
        self.transform.set_random_state(seed=for_transform)
