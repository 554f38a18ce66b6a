"""Which values are black and white: one window for all slices of a case."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medsegdiff_bundle.measured import is_magnitude, unmeasured

MOST = 100  # voxels along an axis that a window is taken from
# Hounsfield units: width and centre as radiologists set them, by the mean of what is marked.
CT_WINDOWS = {"lung": (-1350.0, 150.0), "soft tissue": (-160.0, 240.0), "bone": (-500.0, 1300.0)}
LUNG_BELOW, BONE_ABOVE = -300.0, 300.0


class GreyWindow(NamedTuple):
    """Values that are drawn black and white, and what they are called: "CT, soft tissue", or "" of percentiles."""

    low: float
    high: float
    name: str = ""

    def shades(self, picture: Tensor) -> Tensor:
        """Values (C, H, W) as (3, H, W) in [0, 1]."""
        grey = picture if picture.shape[0] == 3 else picture[:1].expand(3, -1, -1)
        return ((grey.float() - self.low) / max(self.high - self.low, 1e-6)).clamp(0, 1)


def grey_window(image: Tensor, marked: Tensor | None = None, modality: str | None = None) -> GreyWindow:
    """Window of an image: 8 bits of a picture, Hounsfield units of CT, or percentiles 1 to 99 of what was measured.

    Args:
        image: (C, S).
        marked: voxels of the structures, (S), by which CT is shown as lung, soft tissue or bone.
        modality: of DICOM, such as "CT" or "MR". None takes for CT a volume with a share of air: values around -1000.
    """
    every = [slice(None, None, -(-size // MOST)) for size in image.shape[1:]]
    values = _plain(image[(slice(None), *every)]).float()
    lowest, highest = values.aminmax()
    if image.ndim == 3 and lowest >= 0 and 1 < highest <= 255:
        return GreyWindow(0.0, 255.0)
    measured = values
    if image.ndim == 4 and modality != "CT":
        measured = values[:, torch.as_tensor(~unmeasured(values[0].numpy()))]
    if image.ndim == 4 and (modality == "CT" or (modality is None and _has_air(values[0], measured[0]))):
        within = values[0] if marked is None else values[0][_plain(marked[tuple(every)])]
        mean = float(within.mean()) if marked is not None and within.numel() else 0.0
        name = "lung" if mean < LUNG_BELOW else "bone" if mean > BONE_ABOVE else "soft tissue"
        return GreyWindow(*CT_WINDOWS[name], f"CT, {name}")
    low, high = torch.quantile(measured, values.new_tensor([0.01, 0.99])).tolist()
    if high <= low:  # nearly everything has one value
        low, high = float(lowest), float(highest)
    return GreyWindow(low, high)


def _has_air(values: Tensor, measured: Tensor) -> bool:
    """Whether 2 % of the values are air in Hounsfield units, few lie right below, and tissue is negative, as fat is.

    The last tells CT from magnitudes in MR that a program has padded with such a value.
    """
    air, below = (
        ((values > low) & (values < high)).float().mean() for low, high in ((-1100.0, -900.0), (-1900.0, -1100.0))
    )
    has_air = air > 0.02 and air > below and values.max() > -200
    return bool(has_air and not is_magnitude(measured.numpy()))


def _plain(values: Tensor) -> Tensor:
    return values.detach().cpu().as_subclass(Tensor)
