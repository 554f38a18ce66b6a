"""`medsegdiff info`: what is installed, and which weights, for a report of a fault or of a result."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import medsegdiff_bundle
from medsegdiff_bundle import settings
from medsegdiff_bundle.auto3dseg import TEMPLATES
from medsegdiff_bundle.provenance import checksum

DESCRIPTION = "Print what a report of a fault, or of a result, should say: versions, weights with checksums, devices."
EXAMPLES = ("", "--json", "--templates")
PACKAGES = ("torch", "monai", "numpy", "nibabel", "SimpleITK", "pytorch-ignite", "pydicom", "highdicom", "onnxruntime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--templates", action="store_true", help="print the folder of the template for MONAI's Auto3DSeg alone"
    )


def run(options: argparse.Namespace) -> int:
    """Print."""
    if options.templates:
        print(TEMPLATES)
        return 0
    found = collected()
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, each in value.items():
                print(f"  {key}: {' '.join(map(str, each.values())) if isinstance(each, dict) else each}")
        else:
            print(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    return 0


def collected() -> dict[str, Any]:
    """What `medsegdiff info` prints."""
    root = settings.bundle_root()
    return {
        "medsegdiff": medsegdiff_bundle.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "bundle": str(root),
        "weights": {file.name: weights(file) for file in sorted((root / "models").glob("*.pt"))},
        "devices": devices(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def weights(file: Path) -> dict[str, str]:
    """Size and checksum of a file of weights."""
    return {"size": f"{file.stat().st_size / 1e6:.1f} MB", "sha256": checksum(file)}


def devices() -> list[str]:
    """Devices that the network can run on, with their names."""
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    found += [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    return [*found, *(["mps"] if torch.backends.mps.is_available() else [])]
