"""The class that Auto3DSeg segments with."""

from pathlib import Path
from typing import Any

from medsegdiff_bundle.auto3dseg.inference import Inference


class InferClass(Inference):
    """The fold of this folder."""

    def __init__(self, config_file: Any = None, **override: Any) -> None:
        """Load it."""
        super().__init__(Path(__file__).resolve().parents[1], **override)
