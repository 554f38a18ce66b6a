"""Writing of files."""

from __future__ import annotations

from typing import Any

from monai.data import NibabelWriter


class VolumeWriter(NibabelWriter):
    """MONAI's `NibabelWriter`, which keeps the last axis of a volume of one slice, and with it the slice's thickness.

    Shapes:
        (1, X, Y, Z) -> a file (X, Y, Z); (C, X, Y, Z) -> (X, Y, Z, C)
    """

    def set_data_array(
        self, data_array: Any, channel_dim: int | None = 0, squeeze_end_dims: bool = False, **kwargs: Any
    ) -> None:
        """Take the values; the arguments are those of MONAI's writer, and no axis but that of a lone channel goes."""
        super().set_data_array(data_array, channel_dim, squeeze_end_dims=False, **kwargs)
        if channel_dim is not None and self.data_obj.shape[-1] == 1:
            self.data_obj = self.data_obj[..., 0]
