"""Ordinary segmentation networks, to compare with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import crop_like, pad_to_multiple
from .medsegdiff import ConditionFeatures


class BaselineNetwork(nn.Module):
    """Any network that turns images into logits, in the place of `MedSegDiff`: an anchor that nothing denoises.

    Its `encode` gives the network's logits as the anchor, and its `denoise` the anchor again, whatever the noisy mask.
    So the training, the sampler and the evaluation of `MedSegDiff` serve it as they are: the anchor's loss is Dice + CE
    of the network's logits, the denoiser's has no gradient, and every member is the network's softmax, or sigmoid.

    Args:
        network: images (N, C, P) -> logits (N, K, P).
        size_factor: what the network needs its spatial sizes P to be divisible by. Images of any size S are taken: the
            border is replicated up to a multiple, and cropped from the logits.
        multi_label: see `MedSegDiff`.

    Raises:
        ValueError: `size_factor` is not positive.
    """

    prediction_type = "sample"

    def __init__(self, network: nn.Module, size_factor: int, multi_label: bool = False) -> None:
        super().__init__()
        if size_factor < 1:
            raise ValueError(f"size_factor must be at least 1, got {size_factor}.")
        self.network = network
        self.size_factor = size_factor
        self.multi_label = multi_label

    def forward(self, image: Tensor) -> Tensor:
        """Logits of an image, (N, C, S) -> (N, K, S)."""
        # Two voxels or more at the deepest level: instance normalisation of one alone is undefined.
        alone = max(image.shape[2:]) <= self.size_factor
        axes = image.ndim - 2
        minimum = 2 * self.size_factor if alone else self.size_factor
        padded = pad_to_multiple(image, [self.size_factor] * axes, [minimum] * axes)
        return crop_like(self.network(padded), list(image.shape[2:]))

    def encode(self, image: Tensor) -> ConditionFeatures:
        """The logits as the anchor, and nothing else: (N, C, S)."""
        return ConditionFeatures(self(image), None, [], None, None, None)

    def denoise_logits(self, mask: Tensor, timesteps: Tensor, features: ConditionFeatures) -> Tensor:
        """The anchor's logits, (N, K, S), without a gradient, as in `MedSegDiff` with `anchor_residual`."""
        return features.logits.detach().expand(len(mask), -1, *[-1] * (mask.ndim - 2))

    def denoise(self, mask: Tensor, timesteps: Tensor, features: ConditionFeatures) -> Tensor:
        """The anchor as a mask, (N, K, S) in [-1, 1], float32."""
        logits = self.denoise_logits(mask, timesteps, features).float()
        return 2 * (torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=1)) - 1
