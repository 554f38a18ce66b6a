"""The training loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from .prepare_batch import DiffusionTarget


class MedSegDiffLoss(nn.Module):
    """Diffusion loss plus anchor loss (MedSegDiff-V2, training).

        L = diffusion loss + [t mod alpha = 0] (dice_weight Dice + beta CE)(anchor logits, label)

    The diffusion loss is the squared error of noise or velocity, and dice_weight Dice + CE of the predicted mask for
    "sample". Both are means over the batch; a sample whose t is no multiple of alpha counts as zero in the second.
    Dice leaves the background out. It prefers one sharp mask to a right share of each class: to learn how raters
    differ, leave it out: cross-entropy alone is least at the true distribution given x_t or, for the anchor, the image.

    Args:
        prediction_type: "epsilon", "sample" or "v_prediction".
        alpha: interval of the timesteps that train the anchor; 1 takes every sample, None takes none (an ablation).
        beta: weight of the anchor's cross-entropy.
        dice_weight: weight of Dice, wherever it stands.

    Raises:
        ValueError: an argument is out of range.

    Shapes:
        outputs: prediction before any softmax (N, K, S) and anchor logits (N, K, S), see `TrainingNetwork`
        -> scalar. `parts` then holds its terms, detached: "diffusion" and "anchor".
    """

    def __init__(
        self, prediction_type: str = "sample", alpha: int | None = 5, beta: float = 10.0, dice_weight: float = 1.0
    ) -> None:
        super().__init__()
        if prediction_type not in ("epsilon", "sample", "v_prediction"):
            raise ValueError(f"prediction_type must be epsilon, sample or v_prediction, got {prediction_type!r}.")
        if alpha is not None and alpha < 1:
            raise ValueError(f"alpha must be None or at least 1, got {alpha}.")
        if beta < 0 or dice_weight < 0:
            raise ValueError(f"beta and dice_weight cannot be negative, got {beta} and {dice_weight}.")
        self.prediction_type = prediction_type
        self.alpha = alpha
        self.beta = beta
        self.dice_weight = dice_weight
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, reduction="none")
        self.parts: dict[str, Tensor] = {}

    def segmentation_loss(self, logits: Tensor, label: Tensor, beta: float) -> Tensor:
        """dice_weight Dice + beta CE of each sample: (N, K, S), (N, 1, S) -> (N,)."""
        dice = self.dice(logits, label).flatten(1).mean(dim=1)
        cross_entropy = F.cross_entropy(logits, label.squeeze(1), reduction="none").flatten(1).mean(dim=1)
        return self.dice_weight * dice + beta * cross_entropy

    def forward(self, outputs: tuple[Tensor, Tensor], target: DiffusionTarget) -> Tensor:
        """See the class."""
        prediction, anchor_logits = outputs
        if self.prediction_type == "sample":
            diffusion = self.segmentation_loss(prediction, target.label, 1.0).mean()
        else:
            diffusion = F.mse_loss(prediction, target.target)
        chosen = torch.zeros_like(target.timesteps) if self.alpha is None else target.timesteps % self.alpha == 0
        anchor = torch.mean(
            chosen.to(anchor_logits.dtype) * self.segmentation_loss(anchor_logits, target.label, self.beta)
        )
        self.parts = {"diffusion": diffusion.detach(), "anchor": anchor.detach()}
        return diffusion + anchor
