"""A loss that is no number, before the weights learn it."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from monai.utils import ensure_tuple

from medsegdiff_bundle.losses import MedSegDiffLoss


class FiniteLoss:
    """End a training whose loss is not finite, before the step that would spread it over all weights.

    Args:
        loss: that the trainer calls.

    Raises:
        ValueError: naming the part of the loss, and the files of the batch as far as `LoadImaged` read them.
    """

    def __init__(self, loss: MedSegDiffLoss) -> None:
        self.loss = loss

    def attach(self, engine: Engine) -> None:
        """Register at one of MONAI's trainers."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Look at the loss of this iteration."""
        parts = {name: value.detach() for name, value in self.loss.parts.items()}
        if not parts or bool(torch.stack([value.float() for value in parts.values()]).isfinite().all()):
            return  # all at once, as a GPU is waited for each time
        name = next(name for name, value in parts.items() if not value.isfinite())
        batch: Any = engine.state.batch
        files = ensure_tuple(batch.get("file_of_image", ())) if isinstance(batch, dict) else ()
        of = f", of {', '.join(repr(file) for file in files)}" if files else ""
        raise ValueError(
            f"The loss of the {name} is {parts[name].item()} in iteration {engine.state.iteration}{of}: "
            "try a lower learning_rate, or amp false. The weights are those before this iteration."
        )
