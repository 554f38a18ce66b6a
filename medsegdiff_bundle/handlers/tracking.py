"""What an evaluation hands to MONAI's own handlers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import monai.handlers


def image_metadata(batch: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Metadata of the images of a batch, by which `MetricsSaver` names their cases."""
    return [case["image"].meta for case in batch]


def close_tracking(handlers: Iterable[Any]) -> None:
    """End the MLflow run of an evaluation, which its handler leaves open for a training after it."""
    for handler in handlers:
        if isinstance(handler, monai.handlers.MLFlowHandler):
            handler.close()
