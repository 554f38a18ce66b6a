"""DPM-Solver++: a deterministic multistep solver for few steps."""

from __future__ import annotations

import math
from typing import Any

import torch

from .base import DiffusionScheduler


class DPMSolverMultistepScheduler(DiffusionScheduler):
    """DPM-Solver++ in its data-prediction multistep form, 2M (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    A plain loop `for t in scheduler.timesteps: x, _ = scheduler.step(model(x, t), t, x)` is second order; the first
    and last steps are first order. The predicted x_0 of one step is kept for the next one and is used only if it is of
    the index just before and of the same shape; `set_timesteps` forgets it. So one scheduler follows one batch at a
    time: put the members of an ensemble into the batch rather than taking turns.

    Args:
        num_train_timesteps: T, the number of noise levels.
        schedule: name of an entry of MONAI's `NoiseSchedules`.
        prediction_type: "epsilon", "sample" or "v_prediction", or None; see `DiffusionScheduler`.
        clip_sample: clip the predicted x_0 to [-1, 1] in every step.
        signal_scale: input scaling in (0, 1], see `DiffusionScheduler`.
        solver_order: 1 (the same as DDIM with eta 0) or 2 (midpoint).
        schedule_args: keywords of the schedule function.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        schedule: str = "linear_beta",
        prediction_type: str | None = None,
        clip_sample: bool = True,
        signal_scale: float = 1.0,
        solver_order: int = 2,
        **schedule_args: Any,
    ) -> None:
        if solver_order not in (1, 2):
            raise ValueError(f"solver_order must be 1 or 2, got {solver_order}.")
        super().__init__(num_train_timesteps, schedule, prediction_type, clip_sample, signal_scale, **schedule_args)
        self.solver_order = solver_order

    def set_timesteps(
        self, num_inference_steps: int, device: str | torch.device | None = None, start: int | None = None
    ) -> None:
        """Choose the timesteps as in `DiffusionScheduler.set_timesteps` and forget the previous prediction."""
        super().set_timesteps(num_inference_steps, device, start)
        self._previous: tuple[int, torch.Tensor] | None = None

    def _transition(self, index: int, x_t: torch.Tensor, x_0: torch.Tensor) -> tuple[torch.Tensor, float]:
        alpha_bar_t, alpha_bar_prev = self._alpha_bar(index), self._alpha_bar(index + 1)
        last = index == len(self.timesteps) - 1
        data = self._extrapolate(index, x_0) if self.solver_order == 2 and not last else x_0
        # After the last step nothing follows, so the prediction, and a graph that may hang on it, can go.
        self._previous = None if last else (index, x_0)

        sigma_ratio = ((1 - alpha_bar_prev) / (1 - alpha_bar_t)) ** 0.5
        # alpha_prev (1 - e^-h) without the logarithms in h, which are infinite at both ends.
        data_weight = alpha_bar_prev**0.5 - alpha_bar_t**0.5 * sigma_ratio
        return sigma_ratio * x_t + data_weight * data, 0.0

    def _extrapolate(self, index: int, x_0: torch.Tensor) -> torch.Tensor:
        """Extrapolate the data prediction to the middle of the step in lambda: D_i of algorithm 2."""
        if self._previous is None or self._previous[0] != index - 1 or self._previous[1].shape != x_0.shape:
            return x_0
        last_step = self._log_snr(index) - self._log_snr(index - 1)
        this_step = self._log_snr(index + 1) - self._log_snr(index)
        if last_step <= 0:  # two equal noise levels have no slope between them
            return x_0
        return x_0 + this_step / (2 * last_step) * (x_0 - self._previous[1])

    def _log_snr(self, index: int) -> float:
        """Compute lambda = log(alpha / sigma) at timesteps[index]."""
        alpha_bar = self._alpha_bar(index)
        return 0.5 * math.log(alpha_bar / (1 - alpha_bar))
