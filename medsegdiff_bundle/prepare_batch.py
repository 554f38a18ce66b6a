"""From a batch of images and labels to a training step of the diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.engines import PrepareBatch
from monai.networks import one_hot
from monai.networks.schedulers import Scheduler
from torch import Tensor

from .labels import region_channels, without_ignored


class DiffusionTarget(NamedTuple):
    """What a training step is compared with."""

    label: Tensor  # (N, 1, S) classes, int64; (N, R, S) of several raters where masks are drawn; also the ignored value
    target: Tensor  # (N, K, S) noise, mask in [-1, 1] (of the first rater) or velocity, see the scheduler
    timesteps: Tensor  # (N,) int64


class SegmentationPrepareBatch(PrepareBatch):
    """Draw a timestep for each sample and add noise to its one-hot mask in [-1, 1] (Ho et al. 2020, algorithm 1).

    With `drawn_members` the network draws masks as in sampling, instead of denoising true ones: it gets pure noise, so
    many times for each image, at the last timestep, for the energy score of `MedSegDiffLoss`.

    Args:
        scheduler: one of `medsegdiff_bundle.schedulers`.
        num_classes: K, background included; with regions their number.
        drawn_members: E, masks that are drawn for each image, at least 2; None denoises true masks.
        image_key: of the batch.
        label_key: of the batch.
        regions: classes that make each region, where regions are learned in the place of classes: K channels, 1 inside
            and -1 outside.
        ignore_label: value of what was not annotated. There the mask is 0 in all channels, which tells nothing.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        num_classes: int,
        drawn_members: int | None = None,
        image_key: str = "image",
        label_key: str = "label",
        regions: Sequence[Sequence[int]] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        if drawn_members is not None and drawn_members < 2:
            raise ValueError(f"drawn_members must be None or at least 2, got {drawn_members}.")
        self.scheduler: Any = scheduler
        self.num_classes = num_classes
        self.drawn_members = drawn_members
        self.image_key = image_key
        self.label_key = label_key
        self.regions = regions
        self.ignore_label = ignore_label

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, DiffusionTarget, tuple[Tensor, Tensor], dict]:
        """See MONAI's `PrepareBatch`.

        Args:
            batchdata: image (N, C, S) and label (N, 1, S) of classes, or (N, R, S) of raters with `drawn_members`.
            device: where the step runs.
            non_blocking: see `Tensor.to`.
            kwargs: see `Tensor.to`.

        Returns:
            image, target, the further arguments of `TrainingNetwork`: noisy mask, (N, K, S) or with `drawn_members`
            (N, E, K, S), and timesteps (N,); and {}.

        Raises:
            ValueError: the label holds something that is not one of the K classes, or several raters of whom one true
                mask is to be denoised.
        """
        image, values = (MetaTensor(batchdata[key]).as_tensor() for key in (self.image_key, self.label_key))
        # Checked where the batch comes from: on a GPU each look at a value would wait for the step before.
        label = values.long()
        if (fractions := label != values).any():
            raise ValueError(f"The label holds {values[fractions][0].item()}, which is no class.")
        low, high = (int(value) for value in torch.aminmax(without_ignored(label, self.ignore_label)))
        classes = num_labels(self.num_classes, self.regions)
        if low < 0 or high >= classes:
            raise ValueError(
                f"The label holds class {high if high >= classes else low}, but num_classes is "
                f"{classes} (0 to {classes - 1})."
            )
        image, label = (x.to(device=device, non_blocking=non_blocking, **kwargs) for x in (image, label))
        label = label.long()
        if self.drawn_members is not None:
            last = self.scheduler.num_train_timesteps - 1
            timesteps = torch.full((len(image),), last, device=image.device)
            original = self._mask(label[:, :1])
            noise = torch.randn(len(image), self.drawn_members, *original.shape[1:], device=image.device)
            return image, DiffusionTarget(label, original, timesteps), (noise, timesteps), {}
        if label.shape[1] > 1:
            raise ValueError(
                f"One true mask is denoised, the label holds {label.shape[1]}: choose one, or drawn_members."
            )
        original = self._mask(label)
        timesteps = torch.randint(0, self.scheduler.num_train_timesteps, (len(image),), device=image.device)
        noise = torch.randn_like(original)
        target = self.scheduler.get_target(original, noise, timesteps)
        noisy = self.scheduler.add_noise(original, noise, timesteps)
        return image, DiffusionTarget(label, target, timesteps), (noisy, timesteps), {}

    def _mask(self, label: Tensor) -> Tensor:
        """x_0 of classes (N, 1, S): (N, K, S) in [-1, 1]."""
        if self.regions is not None:
            mask = 2 * region_channels(label, self.regions, dim=1).float() - 1
        else:
            mask = 2 * one_hot(without_ignored(label, self.ignore_label), self.num_classes) - 1
        return mask if self.ignore_label is None else mask.masked_fill(label == self.ignore_label, 0)


def num_labels(num_classes: int, regions: Sequence[Sequence[int]] | None) -> int:
    """How many classes a label tells apart, the background included: num_classes, or those that make the regions."""
    return num_classes if regions is None else 1 + max(max(region) for region in regions)
