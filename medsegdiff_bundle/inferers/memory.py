"""Memory: how much a piece of work takes, how much there is, and how the C library hands it out."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PROC = Path("/proc")
CONTROL_GROUPS = Path("/sys/fs/cgroup")

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def tune_allocator() -> bool:
    """Let the C library keep the memory that it gets back, for the rest of the process.

    By default glibc maps every large tensor anew and returns it to the system when it is freed, so each operator on the
    CPU begins with a page fault per 4 kB. Here large blocks come from the heap, which only grows. The results are the
    same; `docs/speed.md` has the gain. It costs memory: the process stays as large as it ever was, until
    `return_freed_memory`. Call it before the work; from JSON as a component that the inferer names in `_requires_`.

    Returns:
        Whether the settings were accepted; False where the C library is not glibc.
    """
    mallopt = _c_library("mallopt")
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 * 2**20))  # -1: never trim
    return all([mallopt(parameter, value) == 1 for parameter, value in settings])


def return_freed_memory() -> None:
    """Let the C library give back to the system what it keeps of freed tensors; nothing where it is not glibc.

    After `tune_allocator` only this does. The next tensors begin with page faults again.
    """
    malloc_trim = _c_library("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _c_library(name: str) -> Any:
    """A function of the C library, or None where it is not there."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


def free_memory(device: torch.device) -> int | None:
    """Bytes that new tensors on a device can take, or None where that is not known.

    On a CPU it is what the system counts as available, or what the limit of a container or job leaves if less.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != "cpu" or not (PROC / "meminfo").exists():
        return None
    fields = dict(line.split(":") for line in (PROC / "meminfo").read_text().splitlines())
    return max(0, min([int(fields["MemAvailable"].split()[0]) * 1024, *_left_by_control_groups()]))


def _left_by_control_groups() -> Iterator[int]:
    """Bytes left below the limit of each control group that this process is in; a limit holds for all groups inside."""
    own = PROC / "self" / "cgroup"
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, limit, used, reclaimable = CONTROL_GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):  # version 1
            root, limit, used = CONTROL_GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            reclaimable = "total_inactive_file"
        else:
            continue
        # Within a container the path may be that of the host, of which only the root is to be seen.
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (folder / limit).exists() and (folder / used).exists():
                most = (folder / limit).read_text().strip()
                if most.isdigit():
                    statistics = folder / "memory.stat"
                    lines = statistics.read_text().splitlines() if statistics.exists() else []
                    cached = dict(each.split() for each in lines).get(reclaimable, "0")
                    yield int(most) - int((folder / used).read_text()) + int(cached)


class PeakMemory(TorchDispatchMode):
    """Count the bytes of the tensors that live at a time inside a `with` block, those from before it left out.

    It sees the tensors that operators return, on any device, and not what an operator takes for itself meanwhile.

    Attributes:
        peak: largest number of bytes so far.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether PyTorch keeps its compiler from this class: only by importing it, which takes as long as a case."""
        return False

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
