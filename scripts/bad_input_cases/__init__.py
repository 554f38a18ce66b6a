"""The trials of `bad_inputs.py`: faults of settings, files, data sets, weights and configurations, by door."""

from .configurations import configurations
from .data_sets import data_sets
from .doors import DOORS, OUT, RAN, Trial, right, world
from .files import files
from .settings import programs, settings
from .weights import weights

__all__ = ["DOORS", "OUT", "RAN", "Trial", "right", "trials", "world"]


def trials() -> list[Trial]:
    """All of them."""
    return [*settings(), *programs(), *files(), *data_sets(), *weights(), *configurations()]
