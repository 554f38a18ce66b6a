"""When a training run is validated."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.handlers import ValidationHandler


class FinalValidationHandler(ValidationHandler):
    """MONAI's `ValidationHandler`, which also validates the last epoch where `interval` does not divide their number.

    Arguments are those of MONAI's handler; `epoch_level` is True.
    """

    def attach(self, engine: Engine) -> None:
        """Register at a trainer."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._is_last_odd_one), self)

    def _is_last_odd_one(self, engine: Engine, epoch: int) -> bool:
        return epoch == engine.state.max_epochs and epoch % self.interval != 0
