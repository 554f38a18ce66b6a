"""What a data set holds, in numbers, as MONAI's `DataAnalyzer` counts them."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.apps.auto3dseg import DataAnalyzer
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, MapLabelValued, Orientationd
from monai.utils.enums import DataStatsKeys, ImageStatsKeys, LabelStatsKeys

from medsegdiff_bundle.datalist import Case, DataSet
from medsegdiff_bundle.transforms import CheckGridd, LoadImaged, NamedSegmentsd, PictureLabelsd

from .check import found_values, numbered_names
from .inspection import CaseFacts

PERCENTILES = ("percentile_00_5", "percentile_99_5")  # DataAnalyzer's names


@dataclass(frozen=True)
class Fingerprint:
    """Numbers of a data set; axes of volumes are turned to RAS.

    Attributes:
        spatial_dims: 2 or 3.
        num_cases: that were read.
        shapes: voxels of each case along each axis, (cases, axes).
        spacings: of the voxels in mm, likewise; ones of pictures.
        channels: of the images.
        class_values: what the files hold for each class, background first, (K,).
        class_shares: mean share of each class in the voxels, 0 to 1, (K,): a fraction, whatever DataAnalyzer's name
            "percentage" says.
        class_cases: cases that hold each class, (K,).
        foreground: of each channel, mean, stdev, percentile_00_5, percentile_99_5 of the voxels that belong to any
            class but the background. Mean and percentiles are means over the cases, as DataAnalyzer has them; stdev is
            that of all such voxels together, each case counting alike.
    """

    spatial_dims: int
    num_cases: int
    shapes: np.ndarray
    spacings: np.ndarray
    channels: int
    class_values: tuple[int, ...]
    class_shares: tuple[float, ...]
    class_cases: tuple[int, ...]
    foreground: tuple[dict[str, float], ...]

    @property
    def median_shape(self) -> tuple[int, ...]:
        """Of the cases, as their files have it."""
        return tuple(int(size) for size in np.median(self.shapes, axis=0))

    @property
    def median_spacing(self) -> tuple[float, ...]:
        """Of the cases."""
        return tuple(float(size) for size in np.median(self.spacings, axis=0))


def take_fingerprint(data_set: DataSet, facts: Sequence[CaseFacts], cases: Sequence[Case]) -> Fingerprint:
    """Let MONAI's `DataAnalyzer` read some cases of a data set.

    Args:
        data_set: whose cases.
        facts: of all its cases, from `check_data_set`.
        cases: those to count: training and validation, not the test.

    Raises:
        ValueError: a case could not be read.
    """
    values = found_values(data_set, facts)
    by_name = {(case.name, case.images): fact for case, fact in zip(data_set.cases, facts, strict=True)}
    chosen = [by_name[case.name, case.images] for case in cases]
    pictures = not any(fact.spacing for fact in chosen)
    axes = len(chosen[0].shape)
    channels = chosen[0].channels
    if pictures:
        channels = 3 if any(fact.coloured for fact in chosen) else 1
    transforms = _transforms(values, numbered_names(data_set), data_set.ignore, pictures, channels, axes)
    report = _analyse([case.entry() for case in cases], transforms)
    check_counted(report, len(cases))
    return fingerprint_of(report, values, range(len(values)), pictures)


def check_counted(report: Mapping[str, Any], number: int) -> None:
    """Refuse a report of `DataAnalyzer`, which passes over cases that it cannot read, if it lacks some.

    Args:
        report: of each case.
        number: of the cases.

    Raises:
        ValueError: with both numbers.
    """
    counted = len(report[DataStatsKeys.BY_CASE])
    if counted != number:
        raise ValueError(f"MONAI's DataAnalyzer read {counted} of {number} cases: see `medsegdiff check`.")


def fingerprint_of(
    report: Mapping[str, Any], values: Sequence[int], counted: Sequence[int], pictures: bool = False
) -> Fingerprint:
    """The numbers of a report of `DataAnalyzer` that has each case, its axes turned to RAS.

    Args:
        report: with all cases, as `get_all_case_stats` returns it, or as the file with "_by_case" in its name has it.
        values: what the files hold for each class, background first, (K,).
        counted: what the labels that were counted had for each class, (K,).
        pictures: whether the images are pictures, which have no size of voxels.
    """
    by_case = report[DataStatsKeys.BY_CASE]
    stats = [case[DataStatsKeys.IMAGE_STATS] for case in by_case]
    axes, channels = len(stats[0][ImageStatsKeys.SHAPE][0]), int(stats[0][ImageStatsKeys.CHANNELS])
    shares, holders = _classes(by_case, counted)
    spacings = [np.ones(axes) if pictures else np.ravel(case[ImageStatsKeys.SPACING])[:axes] for case in stats]
    return Fingerprint(
        axes,
        len(by_case),
        np.asarray([case[ImageStatsKeys.SHAPE][0] for case in stats]),
        np.asarray(spacings, dtype=float),
        channels,
        tuple(values),
        shares,
        holders,
        tuple(_foreground(by_case, channel) for channel in range(channels)),
    )


def _transforms(
    values: tuple[int, ...], names: Sequence[str], ignore: int | None, pictures: bool, channels: int, axes: int
) -> Compose:
    """From files to an image and a label of classes, what is ignored as background."""
    keys = ["image", "label"]
    marked = pictures and len(values) == 2 and values[0] == 0 and ignore is None  # 0 and any other value, or colour
    orig = [0, 1] if marked else [*values, *([] if ignore is None else [ignore])]
    of_file = [PictureLabelsd("label", 2 if marked else 3)] if pictures else [NamedSegmentsd("label", names, ignore)]
    return Compose(
        [
            LoadImaged("image", channels if pictures else None),
            LoadImaged("label"),
            EnsureChannelFirstd(keys),
            CheckGridd("label", "image"),
            *of_file,
            *([] if pictures else [Orientationd(keys, axcodes="RAS"[:axes], labels=None)]),
            MapLabelValued("label", orig, [*range(len(values)), *([] if ignore is None else [0])]),
            EnsureTyped(keys, data_type="tensor", dtype=torch.float),
        ]
    )


def _analyse(entries: list[dict[str, Any]], transform: Compose) -> dict[str, Any]:
    """The report of DataAnalyzer, of each case."""
    logging.getLogger("monai.apps.auto3dseg.data_analyzer").setLevel(logging.ERROR)
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()  # its bar
    with warnings.catch_warnings(), contextlib.redirect_stderr(shown):
        warnings.simplefilter("ignore")
        analyser = DataAnalyzer({"training": entries}, output_path="", average=False, device="cpu", worker=0)
        report: dict[str, Any] = analyser.get_all_case_stats(transform_list=list(transform.transforms))
    return report


def _classes(by_case: Sequence[Mapping[str, Any]], counted: Sequence[int]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Mean share of each class, and how many cases hold it."""
    shares, holders = np.zeros(len(counted)), np.zeros(len(counted), dtype=int)
    of_value = {value: index for index, value in enumerate(counted)}
    for case in by_case:
        stats = case[DataStatsKeys.LABEL_STATS]
        for label, each in zip(stats[LabelStatsKeys.LABEL_UID], stats[LabelStatsKeys.LABEL], strict=True):
            shares[of_value[int(label)]] += each[LabelStatsKeys.PIXEL_PCT]
            holders[of_value[int(label)]] += 1
    return tuple((shares / len(by_case)).tolist()), tuple(holders.tolist())


def _foreground(by_case: Sequence[Mapping[str, Any]], channel: int) -> dict[str, float]:
    """Intensity of what belongs to a class, in one channel; cases without a class do not count."""
    held = [case for case in by_case if len(case[DataStatsKeys.LABEL_STATS][LabelStatsKeys.LABEL_UID]) > 1]
    each = [case[DataStatsKeys.FG_IMAGE_STATS][ImageStatsKeys.INTENSITY][channel] for case in held or by_case]
    means = np.asarray([stats["mean"] for stats in each], dtype=float)
    deviations = np.asarray([stats["stdev"] for stats in each], dtype=float)
    found = {name: float(np.mean([stats[name] for stats in each])) for name in PERCENTILES}
    return {
        "mean": float(means.mean()),
        "stdev": math.sqrt(float((deviations**2).mean() + means.var())),
        **found,
    }
