"""Files that `torch.save` wrote, read with care: nothing in them is run, and what is damaged is refused."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

NO_WEIGHTS = "it is no file of torch.save"


def read_state(path: str | os.PathLike) -> Any:
    """Content of a file of `torch.save`, on the CPU.

    `torch.load` takes the numbers as they are, whatever became of them on the disk. The file has a checksum of each of
    its parts, as it is a zip archive; files of PyTorch before 1.6 have none.

    Raises:
        ValueError: naming the file: it is not there, it is damaged, or of another kind.
    """
    if not os.path.isfile(path):
        raise ValueError(f"The weights {str(path)!r} do not exist.")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"its checksum of {damaged} is not that of what it holds; it is damaged")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if isinstance(error, pickle.UnpicklingError):
            reason = f"{NO_WEIGHTS}, or holds more than tensors and plain values, which may be a program"
        elif not isinstance(error, (OSError, RuntimeError, MemoryError)) and type(error) is not ValueError:
            reason = NO_WEIGHTS  # pickle takes the text of any file for commands
        raise ValueError(f"The weights {str(path)!r} cannot be read: {reason}.") from error


def read_folds(path: str | os.PathLike | Sequence[str] | None) -> list[dict[str, Tensor]]:
    """Weights of several networks of one kind, of a list of files; none of a single file.

    Raises:
        ValueError: see `read_weights`.
    """
    return [read_weights(file) for file in path] if isinstance(path, (list, tuple)) else []


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Weights of a network, a flat state dict, from its file.

    Raises:
        ValueError: see `read_state`; or it holds something else, or a number that is not finite, with which every mask
            and every further training would be worthless.
    """
    weights = read_state(path)
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError(f"The file {str(path)!r} holds something else than weights, a flat state dict.")
    for name, weight in weights.items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise ValueError(f"The weights {str(path)!r} are of no use: {name} holds NaN or infinite values.")
    return weights
