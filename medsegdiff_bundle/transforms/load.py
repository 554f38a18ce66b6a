"""Reading of files, with errors that name them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import monai.transforms


class LoadImaged(monai.transforms.LoadImaged):
    """MONAI's `LoadImaged`, of the same name because others look for it by that, whose error names the case's files.

    Raises:
        ValueError: a file cannot be read. A truncated one shows only here, after its header was found to be right.
    """

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Read the file of each key."""
        try:
            result: dict[Hashable, Any] = super().__call__(data, reader)
        except Exception as error:  # each reader has its own kinds
            files = " or ".join(repr(str(data[key])) for key in self.key_iterator(dict(data)))
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise ValueError(f"{files} cannot be read: {reason.rstrip('.')}.") from error
        return result
