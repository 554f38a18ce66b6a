"""What every scheduler shares: tables, timesteps, noising, training targets and the frame of one sampling step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from monai.networks.schedulers import NoiseSchedules, Scheduler
from monai.utils import unsqueeze_right

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")

# Closer to 0 and 1 than a float32 table can come, so no real entry moves, but ratios of two vanished terms exist.
ALPHA_BAR_RANGE = (1e-38, 1 - 1e-12)

# The noise says nothing of x_0 where alpha_bar_t = 0. Dividing by at least sqrt(2^-24) multiplies an error of the
# network by at most 4096, which stays inside float16. The sample and v_prediction types need no such floor.
EPSILON_ALPHA_BAR_FLOOR = 2.0**-24


class DiffusionScheduler(Scheduler, ABC):
    """Variance-preserving diffusion, x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon, on any timestep list.

    MONAI's base with three differences: the next timestep is looked up in `timesteps` instead of computed, the tables
    are buffers that using them never changes, and coefficients are computed in float32 or better.

    The buffers are not persistent: the arguments below define them, and a state dict with `timesteps` in it could only
    be loaded after the same `set_timesteps`. Moving the module moves them; casting it keeps their precision.

    Args:
        num_train_timesteps: T, the number of noise levels, at least 1; timesteps run from 0 to T - 1.
        schedule: name of an entry of MONAI's `NoiseSchedules`.
        prediction_type: what the network returns: "epsilon" (the noise), "sample" (x_0) or "v_prediction"
            (Salimans and Ho 2022, appendix D). None takes that of the network that `EnsembleInferer` samples, and is
            "epsilon" elsewhere, as in MONAI.
        clip_sample: clip the predicted x_0 to [-1, 1] in every step.
        signal_scale: s in (0, 1], the input scaling of Chen 2023 (arXiv 2301.10972). Scaling x_0 by s and bringing x_t
            back to unit variance multiplies the signal-to-noise ratio by s^2, so it is done in the tables,
            alpha_bar' = s^2 alpha_bar / (s^2 alpha_bar + 1 - alpha_bar), and x_0 stays in [-1, 1] everywhere.
        schedule_args: keywords of the schedule function.

    Raises:
        ValueError: an argument is out of range, or the schedule does not return T values.
    """

    betas: torch.Tensor  # (T,)
    alphas: torch.Tensor  # (T,)
    alphas_cumprod: torch.Tensor  # (T,), alpha_bar
    timesteps: torch.Tensor  # (n,), decreasing

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        schedule: str = "linear_beta",
        prediction_type: str | None = None,
        clip_sample: bool = True,
        signal_scale: float = 1.0,
        **schedule_args: Any,
    ) -> None:
        if num_train_timesteps < 1:
            raise ValueError(f"num_train_timesteps must be at least 1, got {num_train_timesteps}.")
        if schedule not in NoiseSchedules:
            raise ValueError(f"schedule must be one of {', '.join(NoiseSchedules.names)}, got {schedule!r}.")
        if prediction_type not in (None, *PREDICTION_TYPES):
            raise ValueError(f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {prediction_type!r}.")
        if not 0 < signal_scale <= 1:
            raise ValueError(f"signal_scale must be in (0, 1], got {signal_scale}.")
        super().__init__(num_train_timesteps, schedule, **schedule_args)
        if self.alphas_cumprod.shape != (num_train_timesteps,):
            shape = tuple(self.alphas_cumprod.shape)
            raise ValueError(f"schedule {schedule!r} must return {num_train_timesteps} values, got shape {shape}.")
        if signal_scale != 1:
            self._scale_signal(signal_scale)
        for name in ("betas", "alphas", "alphas_cumprod", "timesteps"):
            table = getattr(self, name)
            delattr(self, name)  # MONAI's plain attribute would hide the buffer
            self.register_buffer(name, table, persistent=False)
        self.prediction_type = prediction_type or "epsilon"
        self.follows_network = prediction_type is None
        self.clip_sample = clip_sample
        self.signal_scale = signal_scale
        self.set_timesteps(num_train_timesteps)

    def _scale_signal(self, signal_scale: float) -> None:
        """Multiply the signal-to-noise ratio of the tables by signal_scale^2."""
        alpha_bar, dtype = self.alphas_cumprod.double(), self.alphas_cumprod.dtype
        signal = signal_scale**2 * alpha_bar
        alpha_bar = signal / (signal + 1 - alpha_bar)
        previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        alphas = alpha_bar / previous.clamp_min(ALPHA_BAR_RANGE[0])
        self.betas, self.alphas, self.alphas_cumprod = (1 - alphas).to(dtype), alphas.to(dtype), alpha_bar.to(dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> DiffusionScheduler:
        """Follow the module to another device, but not to half precision: alpha_bar near 1 would round to 1."""
        tables = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, table in tables.items():
            setattr(self, name, table.to(getattr(self, name).device))
        return self

    @property
    def stochastic(self) -> bool:
        """Whether `step` adds noise, so whether a caller has to provide a generator or noise to be reproducible."""
        return False

    def set_timesteps(
        self, num_inference_steps: int, device: str | torch.device | None = None, start: int | None = None
    ) -> None:
        """Choose the timesteps to sample with: "trailing" spacing (Lin et al. 2023, arXiv 2305.08891, table 2).

        timesteps[i] = round((start + 1) (1 - i / n)) - 1. The first one is T - 1, where training saw almost pure
        noise, unless sampling is to start from something better than noise, at a lower level.

        Args:
            num_inference_steps: n, from 1 to start + 1.
            device: where `timesteps` lives; by default, with the other tables.
            start: the first timestep, from 0 to T - 1; None for T - 1.

        Raises:
            ValueError: start or n is not a whole number in its range.
        """
        if start is not None and not 0 <= start < self.num_train_timesteps:
            raise ValueError(f"start must be in [0, {self.num_train_timesteps - 1}], got {start}.")
        total = self.num_train_timesteps if start is None else start + 1
        if not (1 <= num_inference_steps <= total and num_inference_steps == int(num_inference_steps)):
            raise ValueError(f"num_inference_steps must be a whole number in [1, {total}], got {num_inference_steps}.")
        steps = int(num_inference_steps)
        self.num_inference_steps = steps
        timesteps = [round(total - i * total / steps) - 1 for i in range(steps)]
        self.timesteps = torch.tensor(timesteps, device=device if device is not None else self.alphas_cumprod.device)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: int | torch.Tensor
    ) -> torch.Tensor:
        """Diffuse x_0 to x_t (Ho et al. 2020, eq. 4).

        Args:
            original_samples: x_0, (N, ...), in [-1, 1], any float dtype.
            noise: epsilon ~ N(0, I), like `original_samples`.
            timesteps: t in [0, T - 1], (N,) or one for all.

        Returns:
            x_t, in shape and dtype of the inputs.

        Raises:
            ValueError: timesteps are not integers, on a CPU out of range, or neither one nor N.
        """
        signal, spread = self._signal_and_spread(timesteps, original_samples)
        noisy = signal * _at_least_float32(original_samples) + spread * _at_least_float32(noise)
        return noisy.to(torch.result_type(original_samples, noise))

    def get_velocity(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: int | torch.Tensor) -> torch.Tensor:
        """Velocity v = sqrt(alpha_bar_t) epsilon - sqrt(1 - alpha_bar_t) x_0 (Salimans and Ho 2022, appendix D).

        Arguments, result and errors are those of `add_noise`; `sample` is x_0.
        """
        signal, spread = self._signal_and_spread(timesteps, sample)
        velocity = signal * _at_least_float32(noise) - spread * _at_least_float32(sample)
        return velocity.to(torch.result_type(sample, noise))

    def get_target(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: int | torch.Tensor) -> torch.Tensor:
        """What the network should return for x_t: the noise, x_0 or the velocity, by `prediction_type`.

        Arguments, result and errors are those of `add_noise`; `sample` is x_0.
        """
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return sample
        return self.get_velocity(sample, noise, timesteps)

    def predict_original(
        self, model_output: torch.Tensor, timestep: int | torch.Tensor, sample: torch.Tensor
    ) -> torch.Tensor:
        """The x_0 that a network output stands for; not clipped, so that a loss on it has a gradient everywhere.

        With "epsilon", alpha_bar_t is taken as at least 2^-24 in the division, so the result is finite for schedules
        that end on pure noise; "sample" and "v_prediction" are exact there.

        Args:
            model_output: what the network returned, (N, ...).
            timestep: t in [0, T - 1], (N,) or one for all.
            sample: x_t, shaped like `model_output`.

        Returns:
            x_0, in the shape of `sample`, at least float32.

        Raises:
            ValueError: as in `add_noise`.
        """
        x_t, output = _at_least_float32(sample), _at_least_float32(model_output)
        if self.prediction_type == "sample":
            return output
        signal, spread = self._signal_and_spread(timestep, sample)
        if self.prediction_type == "v_prediction":
            return signal * x_t - spread * output
        return (x_t - spread * output) / signal.clamp_min(EPSILON_ALPHA_BAR_FLOOR**0.5)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Go from x_t to x at the next entry of `timesteps`, or to clean data (alpha_bar = 1) after the last.

        Args:
            model_output: what the network returned for x_t, (N, ...).
            timestep: t, an entry of `timesteps`.
            sample: x_t, shaped like `model_output`.
            generator: source of the noise of a stochastic scheduler, on any device.
            noise: N(0, I) to add instead of drawing it, shaped like `sample`; deterministic steps ignore it.

        Returns:
            The next sample and the predicted x_0 (in [-1, 1] with `clip_sample`), in shape and dtype of `sample`.

        Raises:
            ValueError: the timestep is not in `timesteps`, or the shapes differ.
        """
        for name, tensor in (("model_output", model_output), ("noise", noise)):
            if tensor is not None and tensor.shape != sample.shape:
                raise ValueError(f"{name} must have the sample's shape {(*sample.shape,)}, got {(*tensor.shape,)}.")
        timesteps = self.timesteps.tolist()
        t = timestep.item() if isinstance(timestep, torch.Tensor) else timestep
        if t not in timesteps:
            raise ValueError(f"timestep must be one of the {len(timesteps)} that set_timesteps chose, got {t}.")

        x_0 = self.predict_original(model_output, int(t), sample)
        if self.clip_sample:
            x_0 = x_0.clamp(-1, 1)
        x_prev, std = self._transition(timesteps.index(t), _at_least_float32(sample), x_0)
        if std > 0:
            if noise is None:
                device = generator.device if generator is not None else sample.device
                noise = torch.randn(sample.shape, generator=generator, device=device, dtype=x_prev.dtype)
            x_prev = x_prev + std * noise.to(x_prev)
        return x_prev.to(sample.dtype), x_0.to(sample.dtype)

    @abstractmethod
    def _transition(self, index: int, x_t: torch.Tensor, x_0: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Mean and standard deviation of the next sample, from x_t at timesteps[index] and the predicted x_0."""

    def _alpha_bar(self, index: int) -> float:
        """Look up alpha_bar at timesteps[index]; past the end it is 1, clean data."""
        if index == len(self.timesteps):
            return 1.0
        low, high = ALPHA_BAR_RANGE
        return min(max(self.alphas_cumprod[self.timesteps[index]].item(), low), high)

    def _signal_and_spread(
        self, timesteps: int | torch.Tensor, sample: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), at least float32, shaped to multiply `sample`."""
        t = torch.as_tensor(timesteps, device=sample.device)
        if t.is_floating_point():
            raise ValueError(f"timesteps must be integers, got {t.dtype}.")
        if t.numel() != 1 and t.shape != sample.shape[:1]:
            raise ValueError(f"timesteps must be one or {sample.shape[0]}, got shape {(*t.shape,)}.")
        # A look at a GPU would wait for it in every training step, and while a CUDA graph is captured nobody can look.
        if t.device.type == "cpu" and (t.min() < 0 or t.max() >= self.num_train_timesteps):
            raise ValueError(f"timesteps must be in [0, {self.num_train_timesteps - 1}], got {t.tolist()}.")
        alpha_bar = self.alphas_cumprod.to(sample.device)[t.long()]
        alpha_bar = unsqueeze_right(alpha_bar.to(torch.promote_types(alpha_bar.dtype, sample.dtype)), sample.ndim)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
