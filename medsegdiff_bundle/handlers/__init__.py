"""Ignite handlers of training, evaluation and inference."""

from .ema import EMAHandler
from .epoch_seed import EpochSeed
from .finite_loss import FiniteLoss
from .overlay import OverlayHandler
from .pretrained import WeightsLoader
from .progress import DiceReport, MissingClasses, ProgressHandler
from .record import TrainingRecord
from .report import ReportHandler
from .tracking import close_tracking, image_metadata
from .training_checkpoint import TrainingCheckpoint, check_training_folder
from .training_data import CheckTrainingData
from .validation import FinalValidationHandler

__all__ = [
    "CheckTrainingData",
    "DiceReport",
    "EMAHandler",
    "EpochSeed",
    "FinalValidationHandler",
    "FiniteLoss",
    "MissingClasses",
    "OverlayHandler",
    "ProgressHandler",
    "ReportHandler",
    "TrainingCheckpoint",
    "TrainingRecord",
    "WeightsLoader",
    "check_training_folder",
    "close_tracking",
    "image_metadata",
]
