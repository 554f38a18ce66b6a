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
OURS = "medsegdiff_bundle.transforms"
MOST_PLACES = 10_000  # of each class and case that a patch may be centred on


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
    class_values = settings.pop("class_values", None)
    ratios = settings.pop("class_ratios", None)
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
        "load": _load(pictures, data_set.modality),
        "label_checks": _label_checks(pictures, class_values),
        "preparation": _preparation(pictures, modality, fingerprint),
        "normalization": [],
        "patches": _patches(pictures, ratios),
        "augmentation": _augmentation(pictures, settings.get("network_def#strides", [])),
    }


def _load(pictures: bool, modality: str | None) -> list[dict[str, Any]]:
    channels = {"channels": "@image_channels"} if pictures else {}
    return [
        {"_target_": f"{OURS}.LoadImaged", "_requires_": "@bundle_path", "keys": "image", **channels},
        {"_target_": f"{OURS}.LoadImaged", "_requires_": "@bundle_path", "keys": "label", "allow_missing_keys": True},
        {"_target_": "EnsureChannelFirstd", "keys": IMAGE_AND_LABEL, "allow_missing_keys": True},
    ]


def _label_checks(pictures: bool, class_values: list[int] | None) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = [{"_target_": f"{OURS}.CheckGridd", "keys": "label", "image_key": "image"}]
    if pictures:
        number = "$@num_labels + (0 if @ignore_label is None else 1)"
        checks.append({"_target_": f"{OURS}.PictureLabelsd", "keys": "label", "num_classes": number})
    if class_values is not None and not (pictures and len(class_values) == 2):  # one mark is any value but 0
        checks.append({"_target_": f"{OURS}.MapLabelsd", "keys": "label", "class_values": class_values})
    check = {"_target_": f"{OURS}.CheckLabelsd", "keys": "label", "num_classes": "@num_labels"}
    return [*checks, {**check, "ignore_label": "@ignore_label"}]


def _preparation(pictures: bool, modality: str | None, fingerprint: Fingerprint) -> list[dict[str, Any]]:
    """What is the same each time, for the image and the label on its grid, and is done once."""
    if pictures:
        resize = {
            "_target_": "Resized",
            "keys": IMAGE_AND_LABEL,
            "spatial_size": "@picture_size",
            "mode": ["bilinear", "nearest"],
            "anti_aliasing": [True, False],
        }
        return [resize, _normalize()]
    orient = {"_target_": "Orientationd", "keys": IMAGE_AND_LABEL, "axcodes": "RAS", "labels": None}
    crop = {"_target_": f"{OURS}.CropMeasuredd", "_requires_": "@bundle_path", "keys": IMAGE_AND_LABEL}
    spacing = {
        "_target_": f"{OURS}.Spacingd",
        "_requires_": "@bundle_path",
        "keys": IMAGE_AND_LABEL,
        "pixdim": "@spacing",
        "mode": ["bilinear", "nearest"],
    }
    if modality != "CT":
        return [orient, _normalize(), crop, spacing]
    return [orient, crop, _scale(fingerprint), spacing]


def _normalize() -> dict[str, Any]:
    return {"_target_": f"{OURS}.NormalizeIntensityd", "_requires_": "@bundle_path", "keys": "image"}


def _scale(fingerprint: Fingerprint) -> dict[str, Any]:
    """Hounsfield units between two percentiles of the foreground, with zero mean and unit deviation of it."""
    stats = fingerprint.foreground[0]
    low, high = (round(stats[name], 1) for name in ("percentile_00_5", "percentile_99_5"))
    deviation = max(stats["stdev"], 1e-3)
    return {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": low,
        "a_max": max(high, low + 1),
        "b_min": round((low - stats["mean"]) / deviation, 4),
        "b_max": round((max(high, low + 1) - stats["mean"]) / deviation, 4),
        "clip": True,
    }


def _patches(pictures: bool, ratios: list[float] | None) -> list[dict[str, Any]]:
    if pictures:
        return []
    pad = {"_target_": "SpatialPadd", "keys": IMAGE_AND_LABEL, "spatial_size": "@patch_size"}
    if ratios is None:
        crop = {
            "_target_": "RandSpatialCropd",
            "keys": IMAGE_AND_LABEL,
            "roi_size": "@patch_size",
            "random_size": False,
        }
        return [pad, crop]
    return [
        pad,
        {
            "_target_": "ClassesToIndicesd",
            "_desc_": "Counted once for each case, which RandCropByLabelClassesd would do for each patch.",
            "keys": "label",
            "num_classes": "@num_labels",
            "max_samples_per_class": MOST_PLACES,
        },
        {
            "_target_": "RandCropByLabelClassesd",
            "keys": IMAGE_AND_LABEL,
            "label_key": "label",
            "spatial_size": "@patch_size",
            "ratios": ratios,
            "num_classes": "@num_labels",
            "indices_key": "label_cls_indices",
            "allow_smaller": True,
            "warn": False,
        },
        {"_target_": "DeleteItemsd", "keys": "label_cls_indices"},
    ]


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
