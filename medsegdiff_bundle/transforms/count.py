"""Numbers and sentences of a case: what its members say, and what its reader must know."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor, ensure_tuple
from torch import Tensor

from medsegdiff_bundle.findings import implausible, structure_findings
from medsegdiff_bundle.grid import image_grid
from medsegdiff_bundle.intervals import VolumeIntervals
from medsegdiff_bundle.remarks import operations, remarks
from medsegdiff_bundle.statistics import ensemble_statistics, region_statistics


class EnsembleStatisticsd(MapTransform):
    """Put what is found in a case, in numbers and sentences, into `data["result"]`.

    - numbers of the members: see `medsegdiff_bundle.statistics.ensemble_statistics`.
    - for each structure what `medsegdiff_bundle.findings.structure_findings` finds in the fused mask.
    - `warnings` and `processing`: see `medsegdiff_bundle.remarks`; what is not plausible is among the warnings.

    MONAI Label answers with that dictionary, and `ReportHandler` writes it beside the mask. The unit is ml for a
    volume, by its affine, and pixels for a picture.

    Args:
        keys: of the fused mask, (1, S); or of regions (R, S).
        class_names: of the classes from 1 on, or of the regions.
        members_key: of the members' labels in the space of the mask, (E, S), or (E R, S); see `MemberLabelsd`.
        uncertainty_key: of the map, (1, S).
        image_key: of the image in the space of the network, (C, ...), for the remarks on it.
        original_key: of the image in the space of the mask, (C, S), for intensities; without it they are None.
        volume_ranges: by class name, smallest and largest volume of the training cases, in ml or pixels; may lack some.
        result_key: of the dictionary; what it holds already stays.
        intervals: calibrated ones of the volumes; without them an interval is only the members' spread.
        views: the image and its mirror images, with which the members take turns. How many members each has goes into
            the dictionary as `views`.
        networks: that drew as many members each, those of the first before those of the others; goes into the
            dictionary as `networks`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        class_names: Sequence[str],
        members_key: str = "member_labels",
        uncertainty_key: str = "uncertainty",
        image_key: str = "image",
        original_key: str = "original",
        volume_ranges: Mapping[str, Sequence[float]] | None = None,
        result_key: str = "result",
        intervals: VolumeIntervals | None = None,
        views: int = 1,
        networks: int = 1,
    ) -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must be the one key of the fused mask, got {keys!r}.")
        self.class_names = ensure_tuple(class_names)
        self.members_key = members_key
        self.uncertainty_key = uncertainty_key
        self.image_key = image_key
        self.original_key = original_key
        self.volume_ranges = volume_ranges or {}
        self.result_key = result_key
        self.intervals = intervals
        self.views = views
        self.networks = networks

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Count."""
        d = dict(data)
        fused = d[self.keys[0]]
        voxel_volume = None
        if fused.ndim == 4:
            voxel_volume = abs(float(torch.linalg.det(torch.as_tensor(fused.affine)[:3, :3].double())))
        fused, members, uncertainty = (
            convert_to_tensor(d[key], track_meta=False) for key in (*self.keys, self.members_key, self.uncertainty_key)
        )
        members = rearrange(members, "(e r) ... -> e r ...", r=len(fused))
        if len(fused) > 1:
            given: Any = (members, fused, uncertainty[0], self.class_names, voxel_volume, self.intervals)
            statistics = region_statistics(*given)
        else:
            given = (members[:, 0], fused[0], uncertainty[0], self.class_names, voxel_volume, self.intervals)
            statistics = ensemble_statistics(*given)
        original = d.get(self.original_key)
        orientation = image_grid(original).orientation if isinstance(original, MetaTensor) else None
        each = len(members) // self.networks
        views = range(min(self.views, each))
        statistics["views"] = [self.networks * len(range(view, each, self.views)) for view in views]
        statistics["networks"] = self.networks
        found = self._findings(fused, original, orientation)
        for name, values in statistics["structures"].items():
            values |= found[name]
        d[self.result_key] = result = {**d.get(self.result_key, {}), **statistics}
        image = d.get(self.image_key)
        said = remarks(getattr(image, "meta", {}))
        if isinstance(image, MetaTensor):
            said["processing"] += [each for each in operations(image) if each not in said["processing"]]
        said["warnings"] += implausible(result["structures"], result["unit"], self.volume_ranges)
        for kind, sentences in said.items():
            result[kind] = [*result.get(kind, []), *sentences]
        return d

    def _findings(self, fused: Tensor, original: Any, orientation: str | None) -> dict[str, dict[str, Any]]:
        """`structure_findings` of classes (1, S), or of each region (R, S) by itself."""
        if len(fused) == 1:
            return structure_findings(fused[0], self.class_names, original, orientation)
        found: dict[str, dict[str, Any]] = {}
        for mask, name in zip(fused, self.class_names, strict=True):
            found |= structure_findings(mask, [name], original, orientation)
        return found
