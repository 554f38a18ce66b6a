"""Ignite handlers of training, evaluation and inference."""

from .ema import EMAHandler
from .epoch_seed import EpochSeed
from .overlay import OverlayHandler
from .pretrained import WeightsLoader
from .progress import DiceReport, MissingClasses, ProgressHandler
from .report import ReportHandler
from .training_checkpoint import TrainingCheckpoint
from .validation import FinalValidationHandler

__all__ = [
    "DiceReport",
    "EMAHandler",
    "EpochSeed",
    "FinalValidationHandler",
    "MissingClasses",
    "OverlayHandler",
    "ProgressHandler",
    "ReportHandler",
    "TrainingCheckpoint",
    "WeightsLoader",
]
