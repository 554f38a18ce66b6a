"""What the arguments of `EnsembleInferer` must be; each function raises a ValueError that names what is not."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def check_steps(num_inference_steps: int, start_from_anchor: int | None, num_train_timesteps: int) -> None:
    """Refuse a start that is no timestep of the training, and more steps than there are timesteps from it."""
    if start_from_anchor is not None and not 0 <= start_from_anchor < num_train_timesteps:
        raise ValueError(
            f"start_from_anchor must be a timestep from 0 to {num_train_timesteps - 1}, got {start_from_anchor}."
        )
    levels = num_train_timesteps if start_from_anchor is None else start_from_anchor + 1
    if not (_is_whole(num_inference_steps) and 1 <= num_inference_steps <= levels):
        raise ValueError(
            f"num_inference_steps must be a whole number from 1 to the {levels} training timesteps"
            f"{'' if start_from_anchor is None else ' up to start_from_anchor'}, got {num_inference_steps!r}."
        )


def check_counts(seed: int, ensemble_size: int, **counts: Any) -> None:
    """Refuse a seed of more than 64 bits, and counts that are not at least 1; those by name may be None."""
    for name, value in {"ensemble_size": ensemble_size, **counts}.items():
        if not (value is None and name in counts) and not (_is_whole(value) and value >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
    if not (_is_whole(seed) and -(2**63) <= seed < 2**63):
        raise ValueError(f"seed must be a whole number of 64 bits, got {seed!r}.")


def check_places(roi_size: Sequence[int] | int | None, overlap: float, mirror_axes: Sequence[int]) -> None:
    """Refuse windows and mirror images that no image has."""
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and below 1, got {overlap}.")
    if roi_size is not None and min([roi_size] if isinstance(roi_size, int) else roi_size) < 1:
        raise ValueError(f"roi_size must be positive, got {roi_size}.")
    if len(set(mirror_axes)) < len(mirror_axes) or any(axis < 0 for axis in mirror_axes):
        raise ValueError(f"mirror_axes must be different axes from 0, got {tuple(mirror_axes)}.")
