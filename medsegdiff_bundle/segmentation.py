"""Segment from Python what `configs/inference.json` segments from the command line of `monai.bundle`.

Nothing is decided here: the image goes through the evaluator of that file, changed by `configs/tasks/<task>.json` and
by the caller's settings. An array takes the same way, as a file in a folder that is removed afterwards.
"""

from __future__ import annotations

import os
import re
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import Evaluator, IterationEvents
from monai.transforms import Invertd
from monai.utils import ensure_tuple
from PIL import Image

from medsegdiff_bundle.datalist import case_name, image_datalist, result_ending
from medsegdiff_bundle.datalist.naming import PICTURES
from medsegdiff_bundle.provenance import as_reported
from medsegdiff_bundle.readers.nifti import fill_outside


class Segmentation(NamedTuple):
    """What was found in one image.

    S is the shape of the image as its file or array has it: (X, Y, Z) of a volume, (H, W) of a picture. E members,
    K classes with the background.
    """

    name: str  # of the image file or series folder without its ending, or "image" for an array
    mask: np.ndarray  # S, uint8: 0 background, then 1 to K - 1 in the order of class_names
    uncertainty: np.ndarray  # S, float32 from 0 to 1: entropy of the members' mean
    affine: np.ndarray | None  # (4, 4), voxel to RAS in mm; None for a picture
    class_names: tuple[str, ...]  # K - 1, without the background
    members: np.ndarray | None  # if asked for: (E, K, *S), float32 probabilities; of output="labels" (E, *S), uint8
    report: dict[str, Any]  # volumes with their spread, and more: see `medsegdiff_bundle.report.ensemble_statistics`
    mask_file: Path | None  # where the mask was written, if output_dir was given


def segment(
    image: str | os.PathLike | np.ndarray | torch.Tensor,
    task: str | None = None,
    *,
    affine: np.ndarray | None = None,
    output_dir: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    num_inference_steps: int | None = None,
    ensemble_size: int | None = None,
    fusion: str | None = None,
    anchor_only: bool | None = None,
    seed: int | None = None,
    device: str | torch.device | None = None,
    return_members: bool = False,
    like: str | os.PathLike | None = None,
    on_result: Callable[[Segmentation], None] | None = None,
    **settings: Any,
) -> Segmentation | list[Segmentation]:
    """Segment one image, or the images of a folder.

    What is left at None is as `inference.json` and the task say. There is no progress bar unless `progress=True`.

    Args:
        image: a file (NIfTI or picture), a folder of a DICOM series, a folder of files or series, or an array or tensor
            with the axes of a file: (X, Y, Z) or (X, Y, Z, C) for a volume, (H, W) or (H, W, 3) with values from 0 to
            255 for a picture. A `MetaTensor` is as MONAI's `LoadImage` gives it, (C, X, Y, Z), (X, Y, Z), (C, W, H) or
            (W, H), and brings its affine.
        task: what to segment, such as "hippocampus": the task of `inference.json`, which is taken for None, or the name
            of a file of `configs/tasks`.
        affine: of an array of a volume, (4, 4), voxel to RAS in mm; `np.diag([1, 1, 2, 1])` says 2 mm from slice to
            slice. None stands for 1 mm along each axis.
        output_dir: folder for mask, uncertainty, picture, report, and the DICOM SEG of a series; None writes none.
        checkpoint: file of weights.
        num_inference_steps: denoising steps per member.
        ensemble_size: members E.
        fusion: "mean", "vote", "staple" or "dice".
        anchor_only: the Condition Model's own segmentation, without diffusion.
        seed: of the members.
        device: such as "cpu" or "cuda:0".
        return_members: keep the members: their probabilities, or with `output="labels"` their labels.
        like: a `<case>_report.json`, whose task and settings are taken, to make its mask again: bit for bit the same on
            the same kind of device, with the same versions. Other weights than those that made it are refused.
        on_result: called with each result once it is there, which is then not kept: for folders of many images.
        settings: any other setting of `inference.json` by its name, such as `roi_size=(96, 96, 96)`.

    Returns:
        A result; for a folder of images a list of them, in the order of their names.

    Raises:
        ValueError: the task, a setting or its value is unknown, there is no such image or weights, or an image cannot
            be read.
    """
    given = {
        "checkpoint": None if checkpoint is None else _plain(checkpoint),
        "num_inference_steps": num_inference_steps,
        "ensemble_size": ensemble_size,
        "fusion": fusion,
        "anchor_only": anchor_only,
        "seed": seed,
        "device": None if device is None else str(device),
    }
    given = {**settings, **{key: value for key, value in given.items() if value is not None}}
    if like is not None:
        task, given = as_reported(like, task, given)
    parser = _parser(task, {"progress": False, **given})
    results: list[Segmentation] = []
    with tempfile.TemporaryDirectory() as scratch:
        if isinstance(image, (str, os.PathLike)):
            if affine is not None:
                raise ValueError("affine is for arrays: a file has its own.")
            source = Path(image)
            alone = [case["image"] for case in image_datalist(source)] in ([str(source)], [os.path.abspath(source)])
        else:
            source, alone = _written(image, affine, parser, Path(scratch)), True
        kept = output_dir is not None
        parser["dataset_dir"] = _plain(source)
        parser["output_dir"] = _plain(output_dir if output_dir is not None else Path(scratch) / "output")
        if not kept:
            parser["dicom_seg"] = False  # which may lack a package, or something in the series
        _run(parser, return_members, kept, on_result or results.append, str(source))
    return results[0] if alone and results else results


def bundle_root() -> Path:
    """Folder with `configs/` and `models/`: within an installed package, or around it in a checkout or bundle."""
    package = Path(__file__).parent
    for root in (package / "bundle", package.parent):
        if (root / "configs" / "inference.json").is_file():
            return root
    raise ValueError(f"There is no configs/inference.json in {str(package / 'bundle')!r} or {str(package.parent)!r}.")


def _parser(task: str | None, settings: dict[str, Any]) -> ConfigParser:
    """The configuration of a task, with the caller's settings checked and put in."""
    root = bundle_root()
    files = [root / "configs" / "inference.json"]
    own = ConfigParser.load_config_file(str(files[0]))["task"]
    overlays = {path.stem: path for path in sorted((root / "configs" / "tasks").glob("*.json"))}
    if task not in (None, own, *overlays):
        raise ValueError(f"There is no task {task!r}: choose from {', '.join(sorted({own, *overlays}))}.")
    if task not in (None, own):
        files.append(overlays[task])
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser["bundle_root"] = str(root)
    parser["bundle_path"] = None  # the package is imported already
    for name, value in settings.items():
        if name.split("#")[0] not in parser:
            raise ValueError(f"inference.json has no setting {name!r}.")
        parser[name] = value
    try:
        torch.empty(0, device=parser.get_parsed_content("device"))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"There is no device {settings.get('device')!r} here.") from error
    checkpoint = parser.get_parsed_content("checkpoint")
    if not Path(checkpoint).is_file():
        name = parser.get_parsed_content("task")
        raise ValueError(f"There are no weights of the task {name!r}: the file {checkpoint!r} does not exist.")
    return parser


def _run(
    parser: ConfigParser, return_members: bool, kept: bool, on_result: Callable[[Segmentation], None], source: str
) -> None:
    """Run the evaluator of a configuration and hand on each case; errors but the caller's own become one sentence."""
    of_caller: list[Exception] = []
    in_work: list[str] = []  # the image at hand, while there is one

    def hand_on(result: Segmentation) -> None:
        in_work.clear()
        try:
            on_result(result)
        except Exception as error:
            of_caller.append(error)
            raise

    try:
        evaluator = _evaluator(parser, return_members, kept, hand_on)

        @evaluator.on(Events.GET_BATCH_COMPLETED)
        def begin(engine: Engine) -> None:
            batch: Any = engine.state.batch
            in_work[:] = ensure_tuple(batch["image"].meta["filename_or_obj"])

        evaluator.run()
    except (RuntimeError, OSError, ValueError) as error:
        if error in of_caller:
            raise
        raise _sentence(error, source, in_work) from error


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


def _plain(path: str | os.PathLike) -> str:
    """A path as an expression for MONAI's parser, which would run what begins with a dollar, and look up @, % and #."""
    return "$" + re.sub("[@%#]", lambda found: f"\\x{ord(found[0]):x}", repr(str(path)))


def _sentence(error: BaseException, source: str, in_work: list[str]) -> ValueError:
    """What the `ValueError`, or the first error, behind those of MONAI's parser and transforms says, in one line.

    It names the image that was in work. Where none was, errors of this package name what they are about, and others get
    the name of the source.
    """
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, ValueError):
        cause = cause.__cause__
    line = str(cause).strip().split("\n")[0]
    frames = [frame for frame, _ in traceback.walk_tb(cause.__traceback__)]
    own = bool(frames) and Path(frames[-1].f_code.co_filename).is_relative_to(Path(__file__).parent)
    if in_work:
        source = in_work[0]
    elif own and isinstance(cause, ValueError):
        return ValueError(line)
    return ValueError(line if source in line else f"{source!r} cannot be segmented: {line}")
