"""Pictures of an evaluator's cases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from medsegdiff_bundle.datalist import case_name
from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.grid import image_grid, image_modality
from medsegdiff_bundle.labels import one_mask
from medsegdiff_bundle.transforms.load import load_again
from medsegdiff_bundle.visualization import as_image, grey_window, overlay_picture

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class OverlayHandler:
    """Draw cases of an evaluator as PNG: image, fused mask over it, members, uncertainty; see `overlay_picture`.

    Args:
        output_dir: folder of the files; made if need be. None draws nothing.
        filename: of one picture, with the fields {case} (name of the image file) and {epoch}.
        max_cases: cases to draw in each run, first come; None draws all.
        summary_writer: of TensorBoard, which then gets the pictures too.
    """

    def __init__(
        self,
        output_dir: str | None,
        filename: str = "{case}_overlay.png",
        max_cases: int | None = None,
        summary_writer: SummaryWriter | None = None,
    ) -> None:
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.filename = filename
        self.max_cases = max_cases
        self.summary_writer = summary_writer

    def attach(self, engine: Engine) -> None:
        """Register at an evaluator whose output has pred and uncertainty in the space of the image file.

        The members are drawn if it has member_labels too.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw this iteration's case."""
        if self.output_dir is None or self.max_cases is not None and engine.state.iteration > self.max_cases:
            return
        output: Any = engine.state.output
        for case in output:
            path = case["image"].meta["filename_or_obj"]
            # From the file: the image at hand may have been turned, resampled and normalised.
            image = case.get("original")
            image = load_again(case["image"]) if image is None else image
            grid = image_grid(image)
            mask, members = drawn_masks(case)
            picture = overlay_picture(
                image,
                mask,
                case["uncertainty"],
                members,
                affine=grid.affine,
                letters=grid.orientation is not None,
                window=grey_window(image, mask[0] > 0, image_modality(image)),
            )
            name = self.filename.format(case=case_name(path), epoch=engine.state.epoch)
            with whole_file(self.output_dir / name) as file:
                as_image(picture).save(file)
            if self.summary_writer is not None:
                self.summary_writer.add_image("validation", picture, engine.state.epoch)


def drawn_masks(case: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """The fused mask (1, S) and the members' (E, S), if there are any, as pictures show them.

    Of regions, which may overlap, the number of the last one that a voxel belongs to.

    Args:
        case: `pred`, classes (1, S), or regions (R, S) as `pred` or `regions`; `member_labels` (E, S) or (E R, S).
    """
    pred, members = case.get("regions", case["pred"]), case.get("member_labels")
    if len(pred) == 1:
        return pred, members
    numbers = range(1, len(pred) + 1)
    if members is not None:
        members = torch.cat([one_mask(torch.as_tensor(each), numbers) for each in members.split(len(pred))])
    return one_mask(torch.as_tensor(pred), numbers), members
