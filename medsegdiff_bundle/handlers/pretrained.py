"""Given weights."""

from __future__ import annotations

import logging
import os

from ignite.engine import Engine, Events
from torch import Tensor, nn

from medsegdiff_bundle.provenance import checksum
from medsegdiff_bundle.weights import read_weights

logger = logging.getLogger(__name__)


class WeightsLoader:
    """Load a flat state dict into the network at the start of a run.

    MONAI's `CheckpointLoader` finds out about a missing file or other shapes in the midst of the run, and with
    `strict_shape=False` copies nothing from a flat state dict, without a word.

    Args:
        path: of the state dict; an empty path loads nothing, and None, of a task that has none, is refused. Of a list,
            of the folds of a training, the first is loaded, and `EnsembleInferer` takes all.
        network: that gets the weights.
        strict: every weight must be there in the right shape; otherwise, for fine-tuning, those are copied whose name
            and shape agree, and their share is logged.
        sha256: checksum that the file must have, 64 hexadecimal digits; None takes any file.

    Raises:
        ValueError: there is no such file, it has another checksum, is damaged, or holds no flat state dict or a number
            that is not finite, or, if not strict, no weight that fits (when the handler is made); or its weights do not
            fit (when the run starts or by `load`).
    """

    def __init__(
        self, path: str | list[str] | None, network: nn.Module, strict: bool = True, sha256: str | None = None
    ) -> None:
        if path is None:
            raise ValueError("There are no weights for these classes: name a file of weights as checkpoint.")
        files = path if isinstance(path, list) else [path]
        for file in files:
            if file and not os.path.isfile(file):
                raise ValueError(f"The weights {file!r} do not exist.")
        if sha256 is not None and (found := checksum(path)) != sha256.lower():
            raise ValueError(f"The weights {path!r} are others than those asked for: SHA-256 {found}, not {sha256}.")
        self.path = files[0]
        self.weights = read_weights(self.path) if path else {}
        self.network = network
        self.strict = strict
        self.loaded = False
        if self.path and not strict:
            self._fitting(self.weights)  # before a training begins, and writes

    def attach(self, engine: Engine) -> None:
        """Register at an engine; at a trainer, before its EMA handler."""
        if self.path:
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load, in the first run alone."""
        if not self.loaded:
            self.load()

    def load(self) -> None:
        """Load."""
        fitting, own = self._fitting(self.weights), self.network.state_dict()
        if len(fitting) < len(own):
            numbers = [sum(weight.numel() for weight in weights.values()) for weights in (fitting, own)]
            logger.warning(
                "%s gives %.0f %% of the network's weights; the others start at random.",
                self.path,
                100 * numbers[0] / max(1, numbers[1]),
            )
        self.network.load_state_dict(fitting, strict=self.strict)
        self.loaded, self.weights = True, {}

    def _fitting(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights that agree with the network's in name and shape; if strict, all."""
        own = self.network.state_dict()
        fitting = {name: weight for name, weight in weights.items() if name in own and weight.shape == own[name].shape}
        if not (own.keys() & weights.keys() if self.strict else fitting):
            raise ValueError(f"The weights {self.path!r} have no weight in common with the network.")
        if self.strict and len(fitting) < max(len(own), len(weights)):
            name = next(name for name in [*own, *weights] if name not in fitting)
            have, want = (str(tuple(d[name].shape)) if name in d else "nothing" for d in (weights, own))
            raise ValueError(
                f"The weights {self.path!r} do not fit: {name} is {have} in the file, {want} in the network."
            )
        return fitting
