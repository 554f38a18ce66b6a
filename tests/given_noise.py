"""Noise and timesteps of a training step that belong to the case, whatever batch or process it is in."""

import torch

from medsegdiff_bundle.prepare_batch import DiffusionTarget, SegmentationPrepareBatch


class GivenNoise(SegmentationPrepareBatch):
    """Each sample of a batch is prepared alone, from a seed that is the size of its structures."""

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):
        rows = []
        for i, label in enumerate(batchdata["label"]):
            torch.manual_seed(int(label.sum()))
            one = {key: batchdata[key][i : i + 1] for key in ("image", "label")}
            rows.append(super().__call__(one, device, non_blocking, **kwargs))
        images, targets, arguments, _ = zip(*rows, strict=True)
        return (
            torch.cat(images),
            DiffusionTarget(*(torch.cat(parts) for parts in zip(*targets, strict=True))),
            tuple(torch.cat(parts) for parts in zip(*arguments, strict=True)),
            {},
        )
