"""How long a training may take, and the epochs and validations that fit in that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from medsegdiff_bundle.inferers.windows import window_starts

from .measure import Cost

SHARE_OF_TIME = 0.8  # for what is measured; the rest is for reading, augmentation and the first steps
SHARE_OF_VALIDATIONS = 0.2  # of what is measured, at most, unless the fewest take more
MOST_VALIDATED, FEWEST_VALIDATED = 50, 4  # cases of a validation during the training
VALIDATIONS, FEWEST_VALIDATIONS = 20, 4  # during a training


@dataclass(frozen=True)
class Budget:
    """What a training may take.

    Attributes:
        memory: bytes.
        hours: of wall time, on a CPU with the threads on cores of their own.
        device: where it runs.
    """

    memory: int
    hours: float
    device: torch.device


@dataclass
class Plan:
    """Settings with their reasons.

    Attributes:
        settings: by their names in `train.json` and `inference.json`.
        reasons: why, by the same names; in the order of the page.
        cost: of a training step, measured.
        steps: of the training.
        remark: what was asked for and cannot be had; empty if there is nothing.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    cost: Cost | None = None
    steps: int = 0
    remark: str = ""

    def set(self, name: str, value: Any, reason: str) -> None:
        """Add a setting."""
        self.settings[name] = value
        self.reasons[name] = reason


def windows_of(shape: Sequence[int], window: Sequence[int] | None, overlap: float = 0.25) -> int:
    """Windows that an image is segmented in, of the overlap of `inference.json`; 1 without windows."""
    if window is None:
        return 1
    edges = zip(shape, window, strict=True)
    return math.prod(len(window_starts(size, min(edge, size), overlap)) for size, edge in edges)


def set_duration(
    plan: Plan, sections: tuple[int, int], batch: int, budget: Budget, of_case: float, of_epoch: float
) -> None:
    """Epochs, validations, learning rate, all within the hours.

    Args:
        plan: with the cost of a step; gets them.
        sections: cases that train and that validate.
        batch: patches of a step.
        budget: with the hours.
        of_case: seconds of the segmentation of a case.
        of_epoch: seconds of what ends an epoch.
    """
    assert plan.cost is not None
    training, validation = sections
    seconds = SHARE_OF_TIME * budget.hours * 3600
    cases = min(validation, MOST_VALIDATED)
    validations = _between(FEWEST_VALIDATIONS, int(SHARE_OF_VALIDATIONS * seconds / (cases * of_case)), VALIDATIONS)
    affordable = int(SHARE_OF_VALIDATIONS * seconds / (validations * of_case))
    cases = max(min(FEWEST_VALIDATED, validation), min(cases, affordable))
    stride = math.ceil(validation / cases)
    cases = math.ceil(validation / stride)
    per_epoch = math.ceil(training / batch)
    left = seconds - validations * cases * of_case
    epochs = max(1, int(left / (per_epoch * plan.cost.seconds + of_epoch)))
    validations = min(validations, epochs)
    plan.steps = epochs * per_epoch
    plan.set(
        "epochs",
        epochs,
        f"{plan.steps} steps of {plan.cost.seconds:.2f} s, {per_epoch} an epoch, which ends with a checkpoint and a "
        f"picture of {of_epoch:.2f} s; with the validations {SHARE_OF_TIME:.0%} of {budget.hours:g} h. The rest is for "
        "reading and augmentation.",
    )
    plan.set(
        "val_interval",
        math.ceil(epochs / validations),
        f"At most {validations} validations, of {cases} cases of {of_case:.2f} s each.",
    )
    plan.set("val_stride", stride, f"Of {validation} cases {cases} are validated meanwhile.")
    rate = 0.001 if plan.steps >= 1000 else 0.004
    plan.set(
        "learning_rate", rate, "As for the shipped weights." if rate == 0.001 else "So short a run wants a higher one."
    )
    decay = round(min(0.999, max(0.98, 1 - 10 / max(1, plan.steps))), 4)
    plan.set("ema_decay", decay, "The mean of the weights reaches back over a tenth of the steps.")


def _between(lowest: int, number: int, highest: int) -> int:
    return max(lowest, min(number, highest))
