"""Imports of a process that does nothing but segment."""

from __future__ import annotations

import importlib
import sys
import types

# What MONAI and ignite import if it is there, for parts of theirs that `segment` has no use for: experiment tracking,
# figures, ultrasound, clustering, downloads of models, video. That takes more time than the rest of MONAI.
UNUSED = (
    *("mlflow", "matplotlib", "matplotlib.pyplot", "scipy.signal", "tensorboard"),
    *("sklearn", "huggingface_hub", "cv2", "transformers", "pandas"),
)
SHARDED_OPTIMIZERS = "torch.distributed.optim"  # ignite asks whether an optimizer is one of these


def import_segmenter() -> None:
    """Import `medsegdiff_bundle.segmenter`, and with it torch and MONAI, without what it has no use for.

    MONAI then takes these packages as not installed, in this process, so this is for a process of the package's own.
    Whoever else imports one of them afterwards gets it.
    """
    absent = [name for name in (*UNUSED, SHARDED_OPTIMIZERS) if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # which Python takes as "there is no such module"
    if SHARDED_OPTIMIZERS in absent:
        stand_in = types.ModuleType(SHARDED_OPTIMIZERS)
        stand_in.ZeroRedundancyOptimizer = type("ZeroRedundancyOptimizer", (), {})  # type: ignore[attr-defined]
        sys.modules[SHARDED_OPTIMIZERS] = stand_in
    try:
        importlib.import_module("medsegdiff_bundle.segmenter")
    finally:
        for name in absent:
            del sys.modules[name]
