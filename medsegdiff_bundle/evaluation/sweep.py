"""Scores of a network against sampling steps, members, fusion and start."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor

from medsegdiff_bundle.datalist import case_name
from medsegdiff_bundle.metrics import generalized_energy_distance, hungarian_matched_iou
from medsegdiff_bundle.transforms import FuseEnsembled, MaskIgnoredd

from .of_networks import batches, dice, labels_in_file, scores, segmented

NOISE = "noise"  # the start of a member that begins with pure noise


class CaseRow(NamedTuple):
    """Of one case, sampled and fused in one way."""

    start: str
    steps: int
    members: int
    fusion: str
    case: str
    ged: float
    matched_iou: float
    dice: float


class Row(NamedTuple):
    """Means over the cases, of one way to sample and fuse.

    With several raters Dice is against what at least half of them mark, without the cases in which nobody does. GED^2
    and matched IoU are those of the members against all raters. `with_reader` is the mean Dice with each rater, of all
    cases, two empty masks having 1.
    """

    start: str
    steps: int
    members: int
    fusion: str
    dice_per_class: tuple[float, ...]
    dice: float
    anchor: float
    ged: float
    matched_iou: float
    marked: float  # how much a member marks on average, as a multiple of what a rater does
    with_reader: float
    anchor_with_reader: float
    seconds: float  # median of the cases


class Sweep:
    """A network over the cases of a configuration, in many ways.

    Args:
        config: of `load_task`.
        network: with its weights.
        fusions: to compare, of the same members.
        cases: the first cases only, if their number is given.
    """

    def __init__(self, config: ConfigParser, network: Any, fusions: Sequence[str], cases: int | None = None) -> None:
        self.config, self.network, self.cases = config, network, cases
        self.num_classes = config.get_parsed_content("num_classes")
        self.multi_label = config.get_parsed_content("multi_label")
        self.inferer = config.get_parsed_content("validate#inferer")
        self.ignore_label = config.get_parsed_content("ignore_label")
        steps = config.get_parsed_content("validate#postprocessing").transforms
        self.postprocessing: Mapping[str, Compose] = {
            fusion: Compose([self._fuse(fusion) if isinstance(step, FuseEnsembled) else step for step in steps])
            for fusion in fusions
        }
        self.of_cases: list[CaseRow] = []  # of all rows so far
        self.without_label = 0  # cases that have no Dice, as their label is empty

    def _fuse(self, fusion: str) -> FuseEnsembled:
        return FuseEnsembled("pred", fusion, labels=False, multi_label=self.multi_label)

    def rows(self, starts: Sequence[int | None], steps: Sequence[int], members: Sequence[int]) -> Iterator[Row]:
        """Sample in all combinations; one row for each of them and each fusion.

        Args:
            starts: timesteps at which the anchor takes the place of noise; None for pure noise.
            steps: sampling steps.
            members: ensemble sizes.
        """
        for way in itertools.product(starts, steps, members):
            yield from self._way(*way)

    def _way(self, start: int | None, steps: int, members: int) -> Iterator[Row]:
        inferer = self.inferer
        inferer.start_from_anchor, inferer.num_inference_steps, inferer.ensemble_size = start, steps, members
        begun = NOISE if start is None else str(start)
        names = [*self.postprocessing, "anchor"]
        dices: dict[str, list[Tensor]] = {name: [] for name in names}
        with_reader: dict[str, list[Tensor]] = {name: [] for name in names}
        agreement: list[Tensor] = []
        seconds: list[float] = []
        for batch in batches(self.config, self.cases):
            case = segmented(self.config, batch, self.network, inferer)
            seconds.append(case["seconds"])
            masks, label = self._masks(case)
            agreement.append(self._agreement(case, label))
            for name, mask in masks.items():
                parts = list(self._parts(mask[None] if self.multi_label else mask, label))
                dices[name].append(torch.cat([dice(*part) for part in parts]))
                with_reader[name].append(torch.stack([scores(*part)[0, 0] for part in parts]).mean())
            of_case = agreement[-1][:2].tolist()
            case_id = case_name(case["image"].meta["filename_or_obj"])
            for fusion in self.postprocessing:
                mean = dices[fusion][-1].nanmean().item()
                self.of_cases.append(CaseRow(begun, steps, members, fusion, case_id, of_case[0], of_case[1], mean))
        self.without_label = int(torch.stack(dices["anchor"]).nanmean(dim=1).isnan().sum())
        # Tensors: where no rater marks anything, the ratio is nan or inf and no error.
        distance, matched, ours, raters = torch.stack(agreement).mean(dim=0)
        means = {name: torch.stack(each).nanmean(dim=0) for name, each in dices.items()}
        of_readers = {name: torch.stack(each).mean().item() for name, each in with_reader.items()}
        for fusion in self.postprocessing:
            yield Row(
                begun,
                steps,
                members,
                fusion,
                dice_per_class=tuple(means[fusion].tolist()),
                dice=means[fusion].mean().item(),
                anchor=means["anchor"].mean().item(),
                ged=distance.item(),
                matched_iou=matched.item(),
                marked=(ours / raters).item(),
                with_reader=of_readers[fusion],
                anchor_with_reader=of_readers["anchor"],
                seconds=statistics.median(seconds),
            )

    def _parts(self, masks: Tensor, label: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """What is compared, and in how many classes: all classes at once, or each region as one that is or is not.

        Args:
            masks: (M, S), or of regions (M, R, S).
            label: of the readers, or of the regions.
        """
        if not self.multi_label:
            yield masks, label, self.num_classes
            return
        for region in range(self.num_classes):
            yield masks[:, region], label[region : region + 1], 2

    def _agreement(self, case: dict[str, Any], label: Tensor) -> Tensor:
        """GED^2, matched IoU, and the shares of voxels that members and raters mark, (4,)."""
        members = labels_in_file(case, case["pred"].as_tensor()[1:], self.multi_label)
        if self.ignore_label is not None:
            masked: Any = MaskIgnoredd("members", self.ignore_label)({"members": members, "label": case["label"]})
            members = masked["members"]
        parts = list(self._parts(members, label))
        measured = [
            torch.cat([measure(*part) for part in parts])
            for measure in (generalized_energy_distance, hungarian_matched_iou)
        ]
        marked = [(masks > 0).double().mean() for masks in (members, label)]
        return torch.stack([*(values.nanmean() for values in measured), *marked])

    def _masks(self, case: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
        """The mask of each fusion and the anchor's, (1, S) or (R, S), and the label, without what nobody annotated."""
        found: dict[str, Tensor] = {}
        for fusion, postprocessing in self.postprocessing.items():
            done: Any = postprocessing(case)
            found[fusion], found["anchor"] = done["pred"], done["anchor"]
        return found, done["label"].as_tensor()
