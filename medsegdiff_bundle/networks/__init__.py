"""Networks of MedSegDiff-V2."""

from .baseline import BaselineNetwork
from .condition_unet import ConditionUNet
from .denoising_unet import DenoisingUNet
from .medsegdiff import ConditionFeatures, MedSegDiff
from .neural_band_pass_filter import NeuralBandPassFilter
from .spectrum_space_transformer import SpectralCrossAttention, SpectrumSpaceTransformer
from .training_graph import graph_training
from .training_network import TrainingNetwork
from .uncertain_spatial_attention import UncertainSpatialAttention

__all__ = [
    "BaselineNetwork",
    "ConditionFeatures",
    "ConditionUNet",
    "DenoisingUNet",
    "MedSegDiff",
    "NeuralBandPassFilter",
    "SpectralCrossAttention",
    "SpectrumSpaceTransformer",
    "TrainingNetwork",
    "UncertainSpatialAttention",
    "graph_training",
]
