"""Arrays in the files of numpy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data import NumpyReader
from monai.utils import ensure_tuple


class ArrayReader(NumpyReader):
    """MONAI's `NumpyReader`, which before MONAI 1.6 opens pickles and with that runs what a file holds."""

    def read(
        self, data: Sequence[str | os.PathLike] | str | os.PathLike, **kwargs: Any
    ) -> np.ndarray | list[np.ndarray]:
        """The array of a file, or the list of all of them if there are several files or names in one.

        Raises:
            ValueError: a file holds something else, which is not opened; the text does not name it.
        """
        arrays: list[np.ndarray] = []
        for name in ensure_tuple(data):
            try:
                found = np.load(name, allow_pickle=False)
                arrays += [found] if isinstance(found, np.ndarray) else found.values()
            except ValueError as error:
                raise ValueError("it holds something else than an array of numbers") from error
        return arrays if len(arrays) > 1 else arrays[0]
