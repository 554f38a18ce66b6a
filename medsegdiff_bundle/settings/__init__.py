"""Names and values of settings, checked before any work starts and, as nothing here needs torch, before it is imported.

A setting is an entry of a configuration file of this bundle, by the name that `python -m monai.bundle run` takes:
`--epochs 2`, `--network_def#channels "[16,32]"`. MONAI puts any name into a configuration, known or not, and its
command line hands over words that are no Python literal as text: without these checks `--amp false` is a true value.
"""

from .kinds import FUSIONS, KINDS
from .names import check_components, check_names, check_spelling, nearest, parts, references
from .programs import is_program, texts
from .reading import bundle_files, bundle_root, read_files, read_object
from .values import check_fit, check_regions, kind, typed

__all__ = [
    "FUSIONS",
    "KINDS",
    "bundle_files",
    "bundle_root",
    "check_components",
    "check_fit",
    "check_names",
    "check_regions",
    "check_spelling",
    "is_program",
    "kind",
    "nearest",
    "parts",
    "read_files",
    "read_object",
    "references",
    "texts",
    "typed",
]
