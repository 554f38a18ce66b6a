"""The segmentation of an image by a fold, for MONAI's ensemble of folds and algorithms."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from medsegdiff_bundle.cli.options import content
from medsegdiff_bundle.segmentation import Segmentation
from medsegdiff_bundle.segmenter import Segmenter

from . import MODEL, SETTINGS


class Inference:
    """What the `InferClass` of a template is: made for each image, with the network kept in between.

    Args:
        folder: of a fold.
        override: what AutoRunner hands to all algorithms; of it, settings of `inference.json` are taken.
    """

    def __init__(self, folder: Path, **override: Any) -> None:
        known = content(("inference.json",))
        given = {name: value for name, value in override.items() if name in known}
        if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
            given.setdefault("device", f"cuda:{os.environ['LOCAL_RANK']}")
        weights = folder / MODEL / "model.pt"
        modified = weights.stat().st_mtime_ns if weights.is_file() else 0
        self.segmenter = _segmenter(str(folder / SETTINGS), str(weights), modified, json.dumps(given))

    def infer(self, image_file: str | Sequence[str] | Mapping[str, Any]) -> MetaTensor:
        """Segment an image.

        Args:
            image_file: a file, a list of one for each channel, or a case {"image": that}.

        Returns:
            Mean of the members' probabilities (K, S) on the grid of the file, the background first.
        """
        image = image_file["image"] if isinstance(image_file, Mapping) else image_file
        result = self.segmenter(image, return_members=True)
        assert isinstance(result, Segmentation)  # as it is no folder
        file = image if isinstance(image, str) else image[0]
        affine = None if result.affine is None else torch.from_numpy(result.affine)
        return MetaTensor(torch.from_numpy(_probabilities(result)), affine, {"filename_or_obj": str(file)})


@functools.lru_cache(maxsize=8)  # AutoRunner makes an InferClass of each fold for each image
def _segmenter(overlay: str, weights: str, modified: int, given: str) -> Segmenter:
    return Segmenter(overlay, checkpoint=weights, **json.loads(given))


def _probabilities(result: Segmentation) -> np.ndarray:
    """Mean of the members, (K, S) float32; of members that are labels, the share of each class."""
    assert result.members is not None
    if result.members.ndim > result.mask.ndim + 1:
        return np.asarray(result.members.mean(axis=0), dtype=np.float32)
    classes = range(len(result.class_names) + 1)
    return np.stack([(result.members == number).mean(axis=0, dtype=np.float32) for number in classes])
