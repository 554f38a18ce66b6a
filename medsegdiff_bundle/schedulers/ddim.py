"""DDIM: deterministic sampling, or anything between it and DDPM."""

from __future__ import annotations

from typing import Any

import torch

from .base import DiffusionScheduler


class DDIMScheduler(DiffusionScheduler):
    """Denoising diffusion implicit models (Song et al. 2021, arXiv 2010.02502).

    The noise in eq. 12 is the one that belongs to the clipped x_0, as in guided-diffusion; MONAI's scheduler keeps the
    network's. So eta = 1 equals `DDPMScheduler`, and eta = 0 the first-order DPM-Solver++, with clipping too.

    Args:
        num_train_timesteps: T, the number of noise levels.
        schedule: name of an entry of MONAI's `NoiseSchedules`.
        prediction_type: "epsilon", "sample" or "v_prediction", or None; see `DiffusionScheduler`.
        clip_sample: clip the predicted x_0 to [-1, 1] in every step.
        signal_scale: input scaling in (0, 1], see `DiffusionScheduler`.
        eta: from 0, deterministic, to 1, the noise of DDPM (eq. 16).
        schedule_args: keywords of the schedule function.

    Raises:
        ValueError: an argument is out of range.

    Examples:
        >>> scheduler = DDIMScheduler(num_train_timesteps=1000, prediction_type="sample")
        >>> scheduler.set_timesteps(3)
        >>> scheduler.timesteps.tolist()
        [999, 666, 332]
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        schedule: str = "linear_beta",
        prediction_type: str | None = None,
        clip_sample: bool = True,
        signal_scale: float = 1.0,
        eta: float = 0.0,
        **schedule_args: Any,
    ) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be in [0, 1], got {eta}.")
        super().__init__(num_train_timesteps, schedule, prediction_type, clip_sample, signal_scale, **schedule_args)
        self.eta = eta

    @property
    def stochastic(self) -> bool:
        """Whether eta is positive."""
        return self.eta > 0

    def _transition(self, index: int, x_t: torch.Tensor, x_0: torch.Tensor) -> tuple[torch.Tensor, float]:
        alpha_bar_t, alpha_bar_prev = self._alpha_bar(index), self._alpha_bar(index + 1)
        posterior_variance = (1 - alpha_bar_prev) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_prev)
        sigma_t = self.eta * posterior_variance**0.5  # eq. 16
        spread = max(1 - alpha_bar_prev - sigma_t**2, 0.0) ** 0.5
        if spread == 0 and alpha_bar_prev == 1:  # the last step ends at x_0: no pass over the mask
            return x_0, sigma_t
        signal = alpha_bar_prev**0.5 * x_0
        epsilon = (x_t - alpha_bar_t**0.5 * x_0) / (1 - alpha_bar_t) ** 0.5
        return signal + spread * epsilon, sigma_t  # eq. 12
