"""The network as a training step calls it."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from einops import rearrange
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .medsegdiff import ConditionFeatures, MedSegDiff


class TrainingNetwork(nn.Module):
    """One forward pass that yields both outputs that the loss needs.

    DDP synchronises gradients only through `forward`, so a training step has to reach prediction and anchor in one
    call. It shares the bare network, which is what checkpoints and inferers hold.

    Args:
        network: a `MedSegDiff`.
        amp: run in bfloat16 autocast, on any device; bfloat16 needs no loss scaling.
        recycling: probability that a sample's noisy mask is made from the network's own prediction at pure noise,
            instead of the true mask (Fu et al. 2023, arXiv 2308.16355). In sampling the network only ever meets its own
            masks; one that was trained on true ones believes them too readily. Only for `prediction_type="sample"`,
            whose target is the true mask either way. Drawn masks have no true one, and are left as they are.
        scheduler: one of `medsegdiff_bundle.schedulers`; needed for recycling.

    Raises:
        ValueError: recycling is out of range, or lacks what it needs.

    Shapes:
        image (N, C, S), mask (N, K, S), timesteps (N,)
        -> prediction before any softmax or sigmoid (N, K, S), anchor logits (N, K, S); float32
        Several masks of an image, (N, E, K, S), share its features; then the prediction is (N, E, K, S).
    """

    def __init__(
        self, network: MedSegDiff, amp: bool = False, recycling: float = 0.0, scheduler: Scheduler | None = None
    ) -> None:
        super().__init__()
        if not 0 <= recycling <= 1:
            raise ValueError(f"recycling is a probability, from 0 to 1, got {recycling}.")
        if recycling > 0 and scheduler is None:
            raise ValueError(f"recycling {recycling} needs a scheduler, to noise the network's own masks.")
        if recycling > 0 and network.prediction_type != "sample":
            raise ValueError(f"recycling needs prediction_type 'sample', got {network.prediction_type!r}.")
        self.network = network
        self.amp = amp
        self.recycling = recycling
        self.scheduler = scheduler

    def forward(self, image: Tensor, mask: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        # Without `amp`, autocast of the caller stays in force: `enabled=False` would switch it off.
        amp = torch.autocast(image.device.type, dtype=torch.bfloat16) if self.amp else nullcontext()
        with amp:
            features = self.network.encode(image)
            logits = features.logits  # (N, K, S)
            drawn = mask.shape[1] if mask.ndim > image.ndim else None
            if drawn is not None:
                mask = rearrange(mask, "n e ... -> (n e) ...")
                timesteps = timesteps.repeat_interleave(drawn)
                features = tree_map_only(Tensor, lambda feature: feature.repeat_interleave(drawn, dim=0), features)
            elif self.recycling > 0:
                mask = self._recycle(mask, timesteps, features)
            prediction = self.network.denoise_logits(mask, timesteps, features)  # (N or N E, K, S)
            if drawn is not None:
                prediction = rearrange(prediction, "(n e) ... -> n e ...", e=drawn)
        return prediction.float(), logits.float()

    @torch.no_grad()
    def _recycle(self, mask: Tensor, timesteps: Tensor, features: ConditionFeatures) -> Tensor:
        """The noisy masks, some replaced by ones of the same timestep made from the network's own prediction."""
        assert self.scheduler is not None
        start, noise = torch.randn_like(mask), torch.randn_like(mask)
        chosen = torch.rand(len(mask), device=mask.device) < self.recycling
        # A CUDA graph has one shape and looks at no value, so a GPU denoises all of them.
        rows = chosen.nonzero().squeeze(1) if mask.is_cpu else torch.arange(len(mask), device=mask.device)
        if len(rows) == 0:
            return mask
        last = timesteps.new_full((len(rows),), self.scheduler.num_train_timesteps - 1)
        of_rows = tree_map_only(Tensor, lambda feature: feature[rows], features)
        own = self.network.denoise(start[rows], last, of_rows)
        torch.clear_autocast_cache()  # older PyTorch keeps weights that were cast without gradients
        recycled = self.scheduler.add_noise(own, noise[rows], timesteps[rows]).to(mask.dtype)
        return torch.where(chosen.reshape(-1, *[1] * (mask.ndim - 1)), mask.index_copy(0, rows, recycled), mask)
