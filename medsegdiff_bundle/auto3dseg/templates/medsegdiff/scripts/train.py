"""Train the fold of this folder: `python scripts/train.py run --num_epochs=100`."""

from pathlib import Path
from typing import Any

import fire

from medsegdiff_bundle.auto3dseg.training import train


def run(**params: Any) -> None:
    """Train, or go on."""
    train(Path(__file__).resolve().parents[1], **params)


if __name__ == "__main__":
    fire.Fire({"run": run})
