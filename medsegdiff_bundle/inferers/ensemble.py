"""The sampler of MedSegDiff-V2: several masks of one image."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from numbers import Integral
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.networks.schedulers import Scheduler
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .noise import member_noise
from .windows import blend_windows


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


class EnsembleInferer(Inferer):
    """Draw an ensemble of segmentations of each image from a `MedSegDiff` network.

    The condition is encoded once per image or window and serves every step of every member. A member's noise is a
    function of seed, member, position and step (see `member_noise`), the same for each image of a batch, so a member
    depends neither on the batch nor on the other members. Windows come from MONAI's `sliding_window_inference`, see
    `blend_windows`.

    Args:
        scheduler: one of `medsegdiff_bundle.schedulers`; copied at each call, so its state is never shared.
        num_inference_steps: denoising steps per member, 1 to `scheduler.num_train_timesteps`.
        ensemble_size: members E.
        members_per_batch: members that run through the network at once; None takes all. It changes memory and speed,
            not the result.
        seed: of the ensemble.
        roi_size: window in voxels, one number or one per axis; cut to the image where it is larger. None takes the
            image whole.
        overlap: of neighbouring windows, 0 to below 1.
        start_from_anchor: timestep at which to start, from the anchor noised to its level (truncated diffusion, Zheng
            et al. 2022, arXiv 2202.09671); None starts from pure noise at T - 1.
        anchor_only: the Condition Model's segmentation is the only member: one pass, no diffusion.
        return_anchor: put the Condition Model's segmentation before the members; `SplitAnchord` takes it off.
        output: "probabilities", (N, E, K, S) float32 that sum to one over the K classes; or "labels", (N, E, 1, S)
            uint8, K times fewer numbers of a quarter of the size. Without windows, the probabilities of no more than
            `members_per_batch` members exist at a time; windows are blended before the classes are chosen.
        amp: run the network in bfloat16 autocast; without it, autocast of the caller stays in force.
        progress: show a bar over the windows.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        num_inference_steps: int = 10,
        ensemble_size: int = 10,
        members_per_batch: int | None = None,
        seed: int = 0,
        roi_size: Sequence[int] | int | None = None,
        overlap: float = 0.25,
        start_from_anchor: int | None = None,
        anchor_only: bool = False,
        return_anchor: bool = False,
        output: str = "probabilities",
        amp: bool = False,
        progress: bool = False,
    ) -> None:
        super().__init__()
        if start_from_anchor is not None and not 0 <= start_from_anchor < scheduler.num_train_timesteps:
            raise ValueError(
                f"start_from_anchor must be a timestep from 0 to {scheduler.num_train_timesteps - 1}, "
                f"got {start_from_anchor}."
            )
        levels = scheduler.num_train_timesteps if start_from_anchor is None else start_from_anchor + 1
        if not (_is_whole(num_inference_steps) and 1 <= num_inference_steps <= levels):
            raise ValueError(
                f"num_inference_steps must be a whole number from 1 to the {levels} training timesteps, "
                f"got {num_inference_steps!r}."
            )
        for name, value in (("ensemble_size", ensemble_size), ("members_per_batch", members_per_batch)):
            if value is not None and not (_is_whole(value) and value >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must be at least 0 and below 1, got {overlap}.")
        if roi_size is not None and min([roi_size] if isinstance(roi_size, int) else roi_size) < 1:
            raise ValueError(f"roi_size must be positive, got {roi_size}.")
        if output not in ("probabilities", "labels"):
            raise ValueError(f"output must be 'probabilities' or 'labels', got {output!r}.")
        self.scheduler = scheduler
        self.num_inference_steps = num_inference_steps
        self.ensemble_size = ensemble_size
        self.members_per_batch = members_per_batch or ensemble_size
        self.seed = seed
        self.roi_size = roi_size
        self.overlap = overlap
        self.start_from_anchor = start_from_anchor
        self.anchor_only = anchor_only
        self.return_anchor = return_anchor
        self.output = output
        self.amp = amp
        self.progress = progress

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Sample.

        Args:
            inputs: images (N, C, S), metadata kept if there is any.
            network: a `MedSegDiff`, scripted or not: anything with its `encode` and `denoise`. With `anchor_only`,
                anything that turns images into logits.
            args: handed on to `network.encode`, or to the network itself with `anchor_only`.
            kwargs: likewise.

        Returns:
            (N, M, K, S) float32 or (N, M, 1, S) uint8, see `output`. M is E, or 1 with `anchor_only`; and one more with
            `return_anchor`, the anchor first.

        Raises:
            ValueError: `roi_size` does not fit the image's number of axes, or the network predicts something else than
                the scheduler expects.
        """
        expected = getattr(self.scheduler, "prediction_type", None)
        predicted = getattr(network, "prediction_type", expected)
        if not self.anchor_only and predicted != expected:
            raise ValueError(f"The network's prediction_type is {predicted!r}, the scheduler's {expected!r}.")
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        scheduler: Any = copy.deepcopy(self.scheduler).to(image.device)
        scheduler.set_timesteps(self.num_inference_steps, image.device, self.start_from_anchor)

        def segment(window: Tensor, start: Sequence[int]) -> Tensor:
            with torch.autocast(image.device.type, dtype=torch.bfloat16) if self.amp else nullcontext():
                return self._segment(window, start, scheduler, network, *args, **kwargs)

        if self.roi_size is None:
            members = segment(image, [0] * (image.ndim - 2))
        else:
            members = self._blend(image, self.roi_size, segment)
        return MetaTensor(members).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else members

    def _finish(self, members: Tensor) -> Tensor:
        """What `output` asks for, from probabilities (N, M, K, S)."""
        if self.output == "labels":
            return members.max(dim=2, keepdim=True).indices.to(torch.uint8)  # many times faster than argmax
        return members

    def _blend(
        self, image: Tensor, roi_size: Sequence[int] | int, segment: Callable[[Tensor, Sequence[int]], Tensor]
    ) -> Tensor:
        """`segment` over the windows of each image."""
        size = image.shape[2:]
        roi = [roi_size] * len(size) if isinstance(roi_size, int) else list(roi_size)
        if len(roi) != len(size):
            raise ValueError(f"roi_size must have {len(size)} numbers, one per axis of the image, got {roi_size}.")
        # MONAI would pad a smaller image with zeros up to the window; the network takes it as it is.
        roi = [min(edge, whole) for edge, whole in zip(roi, size, strict=True)]
        return blend_windows(image, roi, self.overlap, segment, self._finish, self.progress)

    def _segment(
        self, image: Tensor, start: Sequence[int], scheduler: Any, network: Any, *args: Any, **kwargs: Any
    ) -> Tensor:
        """All members of one whole image, finished, or of one window whose first voxel is `start`: (N, M, K, S)."""
        finish = self._finish if self.roi_size is None else lambda members: members
        if self.anchor_only:
            anchor = finish(torch.softmax(network(image, *args, **kwargs).float(), dim=1).unsqueeze(1))
            return torch.cat([anchor, anchor], dim=1) if self.return_anchor else anchor
        features = network.encode(image, *args, **kwargs)
        batches = []
        if self.return_anchor:
            batches.append(finish(torch.softmax(features.logits.float(), dim=1).unsqueeze(1)))
        for first in range(0, self.ensemble_size, self.members_per_batch):
            members = range(first, min(first + self.members_per_batch, self.ensemble_size))
            batches.append(finish(self._sample(members, start, scheduler, network, features)))
        return torch.cat(batches, dim=1)

    def _sample(self, members: range, start: Sequence[int], scheduler: Any, network: Any, features: Any) -> Tensor:
        """Denoise some members of one encoded batch of images: (N, len(members), K, S)."""
        batch, *shape = features.logits.shape
        device = features.logits.device

        def noise(step: int) -> Tensor:
            each = [member_noise(self.seed, member, step, start, shape) for member in members]
            return torch.stack(each).to(device).repeat(batch, *[1] * len(shape))  # (N * E, K, S), image by image

        if batch > 1:  # one image's features serve all of its members as they are
            features = tree_map_only(Tensor, lambda feature: feature.repeat_interleave(len(members), dim=0), features)
        x = noise(0)
        if self.start_from_anchor is not None:
            anchor = 2 * torch.softmax(features.logits.float(), dim=1) - 1
            x = scheduler.add_noise(anchor.expand_as(x), x, scheduler.timesteps[0])
        for step, timestep in enumerate(scheduler.timesteps):
            prediction = network.denoise(x, timestep, features)
            x, _ = scheduler.step(
                prediction.float(), timestep, x, noise=noise(step + 1) if scheduler.stochastic else None
            )
        # One-hot in [-1, 1] back to a distribution; the floor keeps it defined where every class was clipped to -1.
        probabilities = ((x + 1) / 2).clamp(1e-6, 1)
        return (probabilities / probabilities.sum(dim=1, keepdim=True)).unflatten(0, (batch, -1))
