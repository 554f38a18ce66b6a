"""The run of `inference.json` behind `segment`: an image or a folder in, a `Segmentation` of each case out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import Evaluator, IterationEvents
from monai.transforms import Invertd
from PIL import Image

from medsegdiff_bundle import errors
from medsegdiff_bundle.cases import CallersError, run_cases
from medsegdiff_bundle.datalist import case_name, result_ending
from medsegdiff_bundle.datalist.naming import PICTURES
from medsegdiff_bundle.readers.nifti import fill_outside
from medsegdiff_bundle.segmentation import Segmentation, plain
from medsegdiff_bundle.workflow import check_device


def run(
    image: str | os.PathLike | np.ndarray | torch.Tensor,
    files: list[Path],
    settings: dict[str, Any],
    *,
    affine: np.ndarray | None,
    output_dir: str | os.PathLike | None,
    return_members: bool,
    overwrite: bool,
    on_result: Callable[[Segmentation], None],
    on_failure: Callable[[str, str], None] | None,
) -> bool:
    """Segment what `segment` was given, see there.

    Args:
        image: file, folder, array or tensor.
        files: of the configuration.
        settings: in place of theirs.
        affine: of an array.
        output_dir: folder of the results.
        return_members: keep the members.
        overwrite: also make results anew that are of the same settings.
        on_result: called with each result.
        on_failure: called with the file of each image that fails, and a sentence.

    Returns:
        Whether the image is one, and no folder of images.
    """
    parser = _parser(files, settings)
    with tempfile.TemporaryDirectory() as scratch:
        if isinstance(image, (str, os.PathLike)):
            source = Path(image)
        else:
            source = _written(image, affine, parser, Path(scratch))
        kept = output_dir is not None
        parser["dataset_dir"] = plain(source)
        parser["output_dir"] = plain(output_dir if output_dir is not None else Path(scratch) / "output")
        if not kept:
            parser["dicom_seg"] = False  # which may lack a package, or something in the series
        of_caller: list[Exception] = []

        def hand_on(result: Segmentation) -> None:
            try:
                on_result(result)
            except Exception as error:
                of_caller.append(error)
                raise CallersError from error

        try:
            evaluator = _evaluator(parser, return_members, kept, hand_on)
            cases = parser.get_parsed_content("dataset").data
            alone = [case["image"] for case in cases] in ([str(source)], [os.path.abspath(source)])
            run_cases(
                evaluator,
                parser.get_parsed_content("output_dir") if kept else None,
                dict(parser.get()),
                parser.get_parsed_content("checkpoint"),
                overwrite or alone,
                on_failure,
            )
        except CallersError:
            raise of_caller[0] from None
        except errors.UnsegmentedError:
            raise
        except (RuntimeError, OSError, ValueError) as error:
            raise ValueError(errors.about(error, str(source))) from error
    return alone


def _parser(files: list[Path], settings: dict[str, Any]) -> ConfigParser:
    """The configuration of a task, with the caller's settings."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser["bundle_root"] = str(files[0].parent.parent)
    parser["bundle_path"] = None  # the package is imported already
    parser.update(settings)
    check_device(parser.get_parsed_content("device"))
    checkpoint = parser.get_parsed_content("checkpoint")
    if not Path(checkpoint).is_file():
        name = parser.get_parsed_content("task")
        raise ValueError(f"There are no weights of the task {name!r}: the file {checkpoint!r} does not exist.")
    return parser


def _evaluator(
    parser: ConfigParser, return_members: bool, kept: bool, on_result: Callable[[Segmentation], None]
) -> Evaluator:
    """The evaluator of a configuration, which hands on each case."""
    evaluator: Evaluator = parser.get_parsed_content("evaluator")
    class_names = tuple(parser.get_parsed_content("class_names"))
    output_dir, output_ext = (parser.get_parsed_content(name) for name in ("output_dir", "output_ext"))
    volume = parser.get_parsed_content("spatial_dims") == 3
    probabilities = parser.get_parsed_content("output") == "probabilities"
    invert = Invertd("members", parser.get_parsed_content("preprocessing"), orig_keys="image", nearest_interp=False)

    def as_read(values: torch.Tensor, case: dict[str, Any]) -> np.ndarray:
        # MONAI reads the first axis of a picture as its width, but a NIfTI file of two axes as it is.
        plain: np.ndarray = values.detach().cpu().numpy()
        turned = str(case["image"].meta["filename_or_obj"]).lower().endswith(PICTURES)
        return plain.swapaxes(-1, -2) if turned else plain

    def members_of(case: dict[str, Any]) -> np.ndarray:
        if not probabilities:
            return as_read(case["member_labels"], case).astype(np.uint8)
        members = case["members"]  # (E, K, ...)
        flat = invert({"image": case["image"], "members": members.flatten(0, 1)})["members"].as_tensor()
        whole = flat.unflatten(0, members.shape[:2])
        whole[:, 0] += 1 - whole.sum(dim=1)  # what the preprocessing cut off is background
        return as_read(whole, case)

    @evaluator.on(Events.ITERATION_COMPLETED)
    def finish(engine: Engine) -> None:
        cases: Any = engine.state.output
        for case in cases:
            mask, file = case["pred"], case["image"].meta["filename_or_obj"]
            name = case_name(file)
            on_result(
                Segmentation(
                    name=name,
                    mask=as_read(mask[0], case).astype(np.uint8),
                    uncertainty=as_read(case["uncertainty"][0], case),
                    affine=mask.affine.cpu().numpy() if volume else None,
                    class_names=class_names,
                    members=members_of(case) if return_members else None,
                    report=case["result"],
                    mask_file=Path(output_dir) / f"{name}_seg{result_ending(file, output_ext)}" if kept else None,
                )
            )

    if return_members and probabilities:

        @evaluator.on(IterationEvents.FORWARD_COMPLETED)
        def keep_members(engine: Engine) -> None:
            output: Any = engine.state.output
            output["members"] = output["pred"]  # which fusion is about to replace

    return evaluator


def _written(image: np.ndarray | torch.Tensor, affine: np.ndarray | None, parser: ConfigParser, folder: Path) -> Path:
    """An array as a file that the readers of the configuration know."""
    spatial_dims = parser.get_parsed_content("spatial_dims")
    if isinstance(image, MetaTensor) and image.ndim in (spatial_dims, spatial_dims + 1):
        if spatial_dims == 3 and affine is None:
            affine = image.affine.cpu().numpy()
        if image.ndim == spatial_dims + 1:
            image = image[0] if len(image) == 1 else image.movedim(0, -1)
        image = image.swapaxes(0, 1) if spatial_dims == 2 else image
    if isinstance(image, torch.Tensor) and image.dtype == torch.bfloat16:
        image = image.float()  # numpy has no such numbers
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.ndim not in (spatial_dims, spatial_dims + 1) or array.size == 0:
        raise ValueError(f"The task takes arrays of {spatial_dims} axes, and one of channels, got {array.shape}.")
    array = fill_outside(array)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(f"The array must hold finite real numbers, got {array.dtype}.")
    if spatial_dims == 2:
        if affine is not None:
            raise ValueError("A picture has no affine.")
        if array.ndim == 3 and array.shape[2] != 3:
            raise ValueError(f"A picture must be (H, W) or (H, W, 3), got {array.shape}.")
        whole = array.astype(np.uint8)
        if not np.array_equal(whole, array):
            raise ValueError("A picture must hold whole numbers from 0 to 255.")
        file = folder / "image.png"
        Image.fromarray(whole).save(file)
        return file
    matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise ValueError("affine must be an invertible matrix of shape (4, 4).")
    file = folder / "image.nii"
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), matrix), file)  # type: ignore[attr-defined]
    return file
