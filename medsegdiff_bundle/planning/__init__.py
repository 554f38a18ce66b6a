"""From a data set to the settings of its training: what it holds, what is wrong with it, and what follows from that."""

from .check import Fault, check_data_set
from .inspection import CaseFacts, inspect_case

__all__ = ["CaseFacts", "Fault", "check_data_set", "inspect_case"]
