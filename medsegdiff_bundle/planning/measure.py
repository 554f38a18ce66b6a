"""What the parts of a training take: run, not guessed."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.handlers.record import draw_history
from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.inferers.memory import PeakMemory
from medsegdiff_bundle.losses import MedSegDiffLoss
from medsegdiff_bundle.networks import MedSegDiff, TrainingNetwork
from medsegdiff_bundle.prepare_batch import SegmentationPrepareBatch
from medsegdiff_bundle.schedulers import DDIMScheduler


class Cost(NamedTuple):
    """Of one training step.

    Attributes:
        seconds: that it takes; on a CPU with its threads on cores of their own. Infinite if it did not run, as the
            memory was not enough.
        memory: bytes of weights, gradients, optimizer and all tensors that live at a time.
        parameters: of the network.
    """

    seconds: float
    memory: int
    parameters: int


KEPT = 4  # numbers of a checkpoint for each weight: the network, its mean, and two of the optimizer
ROWS = 200  # of a history whose picture is timed


def training_cost(
    network: dict[str, Any],
    batch_size: int,
    patch: Sequence[int],
    device: torch.device,
    amp: bool,
    limit: int,
    recycling: float = 0.5,
) -> Cost:
    """Run training steps of a network on noise: forward, loss, backward, optimizer.

    The first one counts the memory: on a GPU what its allocator gave out, elsewhere the tensors that PyTorch's
    operators made (see `PeakMemory`). Of two more the faster is timed. Each is measured once in a process, as the folds
    of a set ask for the same.

    Args:
        network: arguments of `MedSegDiff`.
        batch_size: N.
        patch: S.
        device: where.
        amp: in bfloat16.
        limit: bytes that a GPU gives out at most meanwhile, so that nobody else's are taken.
        recycling: see `TrainingNetwork`.
    """
    return _training_cost(json.dumps(network), batch_size, tuple(patch), device, amp, limit, recycling)


@functools.lru_cache(maxsize=256)
def _training_cost(
    network: str, batch_size: int, patch: tuple[int, ...], device: torch.device, amp: bool, limit: int, recycling: float
) -> Cost:
    try:
        with _within(limit, device):
            return _run_steps(json.loads(network), batch_size, patch, device, amp, recycling)
    except RuntimeError as error:  # torch.OutOfMemoryError is one, and what the allocator of a CPU raises
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Cost(math.inf, sys.maxsize, 0)


@contextlib.contextmanager
def _within(limit: int, device: torch.device) -> Iterator[None]:
    """Let a GPU give out no more than some bytes."""
    if device.type != "cuda":
        yield
        return
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / whole), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _run_steps(
    network: dict[str, Any],
    batch_size: int,
    patch: Sequence[int],
    device: torch.device,
    amp: bool,
    recycling: float,
) -> Cost:
    model = MedSegDiff(**network).to(device).train()
    scheduler = DDIMScheduler(schedule="cosine", prediction_type=model.prediction_type, signal_scale=0.1).to(device)
    of_training = TrainingNetwork(model, amp, recycling, scheduler)
    # Regions of one class each cost what others do.
    regions = [[number] for number in range(1, model.out_channels + 1)] if model.multi_label else None
    loss = MedSegDiffLoss(model.prediction_type, alpha=1, beta=1.0, regions=regions)
    prepare = SegmentationPrepareBatch(scheduler, model.out_channels, regions=regions)
    optimizer = torch.optim.AdamW(model.parameters())
    batch = {
        "image": torch.randn(batch_size, model.in_channels, *patch),
        "label": torch.randint(0, model.out_channels, (batch_size, 1, *patch)).float(),
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        image, target, arguments, _ = prepare(batch, device)
        loss(of_training(image, *arguments), target).backward()
        optimizer.step()

    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.nullcontext() if gpu else PeakMemory() as peak:
        step()
    measured = torch.cuda.max_memory_allocated(device) if gpu else peak.peak + 4 * parameters  # type: ignore[union-attr]
    seconds = []
    for _ in range(2):
        started = _clock(gpu)
        step()
        if gpu:
            torch.cuda.synchronize(device)
        seconds.append(_clock(gpu) - started)
    return Cost(min(seconds), measured, parameters)


def window_seconds(
    network: dict[str, Any], patch: Sequence[int], device: torch.device, amp: bool, members: int
) -> float:
    """Seconds of the segmentation of noise of the size of a patch, by members of one step from the anchor.

    Args:
        network: arguments of `MedSegDiff`.
        patch: S.
        device: where.
        amp: in bfloat16.
        members: E.
    """
    model = MedSegDiff(**network).to(device).eval()
    scheduler = DDIMScheduler(schedule="cosine", prediction_type=model.prediction_type, signal_scale=0.1)
    inferer = EnsembleInferer(
        scheduler, 1, members, start_from_anchor=200, amp=amp, channels_last=True, multi_label=model.multi_label
    )
    image = torch.randn(1, model.in_channels, *patch, device=device)
    gpu = device.type == "cuda"
    seconds = []
    for _ in range(2):
        started = _clock(gpu)
        inferer(image, model)
        if gpu:
            torch.cuda.synchronize(device)
        seconds.append(_clock(gpu) - started)
    return min(seconds)


def epoch_seconds(parameters: int, folder: Path) -> float:
    """Seconds of what ends an epoch: a checkpoint on the disk, and the picture of the course.

    Args:
        parameters: of the network.
        folder: on whose disk the training writes; made if need be.
    """
    state = torch.zeros(KEPT * parameters)
    rows = [
        {"epoch": float(epoch), "loss anchor": 1.0, "loss diffusion": 1.0, "val_fused": 0.5} for epoch in range(ROWS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as place:
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            with whole_file(Path(place) / "last.ckpt") as file:
                torch.save(state, file)
            draw_history(rows, Path(place) / "curves.png")
            seconds.append(time.perf_counter() - started)
    return min(seconds)


def _clock(gpu: bool) -> float:
    """Seconds; of a CPU those of its threads by their number, as what else the machine does is no cost of the step."""
    return time.perf_counter() if gpu else time.process_time() / torch.get_num_threads()
