"""From a plan to the file that `medsegdiff train` and the bundle's workflows take, and the page that explains it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medsegdiff_bundle.datalist import DataSet
from medsegdiff_bundle.files import whole_file, whole_files

from .duration import Plan
from .fingerprint import Fingerprint

IMAGE_AND_LABEL = ["image", "label"]


def overlay(plan: Plan, data_set: DataSet, fingerprint: Fingerprint, target: Path) -> dict[str, Any]:
    """The entries of a configuration file that goes over `train.json`, `evaluate.json` or `inference.json`.

    Args:
        plan: the settings.
        data_set: described.
        fingerprint: of its cases.
        target: the file, whose name is that of the task; the weights are expected beside it.
    """
    name = target.stem
    settings = dict(plan.settings)
    modality = settings.pop("modality", None)
    sampler = {each: settings.pop(each) for each in ("num_inference_steps", "ensemble_size")}
    pictures = fingerprint.spatial_dims == 2
    words = {"num_inference_steps": sampler["num_inference_steps"], "ensemble_size": sampler["ensemble_size"]}
    return {
        "_desc_": f"Written by medsegdiff configure; {name}.md says why.",
        "task": name,
        "dataset_dir": str(data_set.root.resolve()),
        "shipped_weights": None,
        "checkpoint": str(target.absolute().parent / f"{name}_training" / "model.pt"),
        "modality": modality,
        "uncertainty_limit": None,
        "volume_ranges": {},
        "dicom_codes": {},
        "fold": None,
        "num_folds": 5,
        **settings,
        "displayable_configs": {**words, "fusion": "mean", **({"result_extension": ".png"} if pictures else {})},
        **(_window(fingerprint) if modality == "CT" and not pictures else {}),
        "augmentation": _augmentation(pictures, settings.get("network_def#strides", [])),
    }


def _window(fingerprint: Fingerprint) -> dict[str, list[float]]:
    """Hounsfield units between two percentiles of the foreground, with zero mean and unit deviation of it."""
    stats = fingerprint.foreground[0]
    low, high = (round(stats[name], 1) for name in ("percentile_00_5", "percentile_99_5"))
    ends = [low, max(high, low + 1)]
    deviation = max(stats["stdev"], 1e-3)
    return {"window": ends, "window_values": [round((end - stats["mean"]) / deviation, 4) for end in ends]}


def _augmentation(pictures: bool, strides: list[list[int]]) -> list[Any]:
    """Random changes after the normalisation, of what the fields of MONAI's own recipes have."""
    if pictures:
        affine = {"prob": 0.7, "rotate_range": 0.35, "scale_range": [0.25, 0.25]}
        affine["translate_range"] = "$[size // 10 for size in @patch_size]"  # type: ignore[assignment]
    else:
        long = [axis for axis, stride in enumerate(strides[0] if strides else []) if stride == 1]
        turn = [0.26 if not long or axis in long else 0.0 for axis in range(3)]
        grow = [0.0 if axis in long else 0.15 for axis in range(3)]
        affine = {"prob": 0.3, "rotate_range": turn, "scale_range": grow, "translate_range": [3, 3, 3]}
    return [
        "@flips",
        {
            "_target_": "RandAffined",
            "keys": IMAGE_AND_LABEL,
            **affine,
            "mode": ["bilinear", "nearest"],
            "padding_mode": "reflection" if pictures else "border",
        },
        {"_target_": "RandAdjustContrastd", "keys": "image", "prob": 0.3, "gamma": [0.7, 1.5]},
        {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.15, "std": 0.1},
        {"_target_": "RandGaussianSmoothd", "keys": "image", "prob": 0.15},
        {"_target_": "RandScaleIntensityd", "keys": "image", "prob": 0.3, "factors": 0.2},
        {"_target_": "RandShiftIntensityd", "keys": "image", "prob": 0.3, "offsets": 0.2},
    ]


def write_overlay(entries: dict[str, Any], page: str, path: Path) -> None:
    """Write the file and its page, both or none.

    Args:
        entries: of the file.
        page: its text.
        path: of the file; the page has its name and the ending .md.
    """
    with whole_files(path.parent, path) as folder:
        (folder / path.name).write_text(_lines(entries), encoding="utf-8")
        (folder / path.with_suffix(".md").name).write_text(page, encoding="utf-8")


def write_entries(entries: dict[str, Any], path: Path) -> None:
    """Write the file anew, beside its page.

    Args:
        entries: of the file.
        path: of the file.
    """
    with whole_file(path) as file:
        file.write_text(_lines(entries), encoding="utf-8")


def _lines(entries: dict[str, Any]) -> str:
    """JSON with an entry on each line, and each transform of a list."""
    lines = []
    for name, value in entries.items():
        if isinstance(value, list) and any(isinstance(each, dict) for each in value):
            inner = ",\n".join(f"        {json.dumps(each)}" for each in value)
            lines.append(f"    {json.dumps(name)}: [\n{inner}\n    ]")
        else:
            lines.append(f"    {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
