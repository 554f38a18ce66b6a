"""What a training step of a network takes: run, not guessed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from medsegdiff_bundle.inferers.memory import PeakMemory
from medsegdiff_bundle.losses import MedSegDiffLoss
from medsegdiff_bundle.networks import MedSegDiff, TrainingNetwork
from medsegdiff_bundle.prepare_batch import SegmentationPrepareBatch
from medsegdiff_bundle.schedulers import DDIMScheduler


class Cost(NamedTuple):
    """Of one training step.

    Attributes:
        seconds: that it takes; on a CPU with its threads on cores of their own.
        memory: bytes of weights, gradients, optimizer and all tensors that live at a time.
        parameters: of the network.
    """

    seconds: float
    memory: int
    parameters: int


def training_cost(
    network: dict[str, Any],
    batch_size: int,
    patch: Sequence[int],
    device: torch.device,
    amp: bool,
    recycling: float = 0.5,
) -> Cost:
    """Run training steps of a network on noise: forward, loss, backward, optimizer.

    The first one counts the memory: on a GPU what its allocator gave out, elsewhere the tensors that PyTorch's
    operators made (see `PeakMemory`). Of two more the faster is timed.

    Args:
        network: arguments of `MedSegDiff`.
        batch_size: N.
        patch: S.
        device: where.
        amp: in bfloat16.
        recycling: see `TrainingNetwork`.
    """
    model = MedSegDiff(**network).to(device).train()
    scheduler = DDIMScheduler(schedule="cosine", prediction_type=model.prediction_type, signal_scale=0.1).to(device)
    of_training = TrainingNetwork(model, amp, recycling, scheduler)
    # Regions of one class each cost what others do.
    regions = [[number] for number in range(1, model.out_channels + 1)] if model.multi_label else None
    loss = MedSegDiffLoss(model.prediction_type, alpha=1, beta=1.0, regions=regions)
    prepare = SegmentationPrepareBatch(scheduler, model.out_channels, regions=regions)
    optimizer = torch.optim.AdamW(model.parameters())
    memory_format = torch.channels_last if len(patch) == 2 else torch.channels_last_3d
    model.to(memory_format=memory_format)  # type: ignore[call-overload]
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


def _clock(gpu: bool) -> float:
    """Seconds; of a CPU those of its threads by their number, as what else the machine does is no cost of the step."""
    return time.perf_counter() if gpu else time.process_time() / torch.get_num_threads()
