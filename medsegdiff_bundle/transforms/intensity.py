"""Intensities, without what was never measured: padding, the corners of a turned grid, a skull that was cut away."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import monai.transforms
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from medsegdiff_bundle.measured import unmeasured
from medsegdiff_bundle.remarks import add_processing

MARGIN = 4  # voxels: narrower padding costs nothing, and what lies at its rim is better seen with it than without


class NormalizeIntensityd(MapTransform):
    """Zero mean and unit deviation of each channel, of what was measured; see `unmeasured`, which becomes 0.

    Without such voxels it gives what MONAI's `NormalizeIntensityd(channel_wise=True)` does, to the last bit, and has
    that name, as others look for it by that; but it leaves the caller's array as it is.

    Args:
        keys: of the images, channels first.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, S) -> the same, float32
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalizer = monai.transforms.NormalizeIntensity(channel_wise=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            plain = convert_to_tensor(image, track_meta=False).to(torch.float32, copy=True)  # MONAI writes into it
            left_out = [torch.from_numpy(unmeasured(channel.cpu().numpy())).to(plain.device) for channel in plain]
            channels = []
            for channel, mask in zip(plain, left_out, strict=True):
                if mask.any():
                    measured = channel[~mask].clone()
                    channel = torch.zeros_like(channel)
                    channel[~mask] = self._normalized(measured)
                else:
                    channel = self._normalized(channel)
                channels.append(channel)
            d[key] = convert_to_dst_type(torch.stack(channels), image, dtype=torch.float32)[0]
            share = np.mean([mask.float().mean().item() for mask in left_out])
            if share > 0 and isinstance(image, MetaTensor):
                add_processing(
                    d, f"Of one value, as after padding: {share:.0%} of the image, left out of its normalisation.", key
                )
        return d

    def _normalized(self, values: torch.Tensor) -> torch.Tensor:
        plain: torch.Tensor = convert_to_tensor(self.normalizer(values[None])[0], track_meta=False)
        return plain


class CropMeasuredd(monai.transforms.CropForegroundd):
    """Crop to what was measured and `MARGIN` voxels around it, after `NormalizeIntensityd`; see `unmeasured`.

    A network that learned from images without wide padding finds structures in it. An image without wide padding stays
    as it is. `Invertd` fills what was cut off with 0.

    Args:
        keys: of what is cropped, channels first; all of one grid.
        source_key: of the image that says where.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, S) -> (C, S')
    """

    def __init__(self, keys: KeysCollection, source_key: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(
            keys,
            source_key,
            select_fn=_measured,
            margin=MARGIN,
            allow_smaller=True,
            start_coord_key=None,
            end_coord_key=None,
            allow_missing_keys=allow_missing_keys,
        )


def _measured(image: torch.Tensor) -> torch.Tensor:
    """Where a channel of an image (C, S) holds measurements, bool."""
    plain = convert_to_tensor(image, track_meta=False)
    return torch.stack([torch.from_numpy(~unmeasured(channel.cpu().numpy())) for channel in plain]).to(plain.device)
