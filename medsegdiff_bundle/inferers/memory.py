"""Memory: how much a piece of work takes, how much there is, and how the C library hands it out."""

from __future__ import annotations

import ctypes
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MEMORY_INFO = Path("/proc/meminfo")
# Limit and use of the container, for version 2 and 1 of control groups.
CONTROL_GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def tune_allocator() -> bool:
    """Let the C library keep the memory that it gets back, for the rest of the process.

    By default glibc maps every large tensor anew and returns it to the system when it is freed, so each operator on the
    CPU begins with a page fault per 4 kB. Here large blocks come from the heap, which only grows. The results are the
    same; `docs/speed.md` has the gain. It costs memory: the process stays as large as it ever was. Call it before the
    work; from JSON as a component that the inferer names in `_requires_`.

    Returns:
        Whether the settings were accepted; False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 * 2**20))  # -1: never trim
    return all([mallopt(parameter, value) == 1 for parameter, value in settings])


def free_memory(device: torch.device) -> int | None:
    """Bytes that new tensors on a device can take, or None where that is not known.

    On a CPU it is what the system counts as available, or what the limit of the container leaves if that is less.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != "cpu" or not MEMORY_INFO.exists():
        return None
    fields = dict(line.split(":") for line in MEMORY_INFO.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    for limit, used in CONTROL_GROUPS:
        if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
            free = min(free, int(text) - int(used.read_text()))
    return max(free, 0)


class PeakMemory(TorchDispatchMode):
    """Count the bytes of the tensors that live at a time inside a `with` block, those from before it left out.

    It sees the tensors that operators return, on any device, and not what an operator takes for itself meanwhile.

    Attributes:
        peak: largest number of bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and note the memory that is new."""
        out = func(*args, **(kwargs or {}))
        seen = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and (storage := x.untyped_storage())._cdata not in seen:
                seen.add(storage._cdata)
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
                weakref.finalize(storage, self._release, storage.nbytes())
        return out

    def _release(self, size: int) -> None:
        self._now -= size
