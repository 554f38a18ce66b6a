"""Segment from Python what `configs/inference.json` segments from the command line of `monai.bundle`.

Nothing is decided here: the image goes through the evaluator of that file, changed by `configs/tasks/<task>.json` and
by the caller's settings. An array takes the same way. Whatever can be known without torch, which takes seconds to
import, is checked before it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medsegdiff_bundle import configuration
from medsegdiff_bundle.model_file import MUST_FIT, no_weights, over_files, read_model
from medsegdiff_bundle.provenance import as_reported
from medsegdiff_bundle.settings import bundle_root, check_fit, check_names, read_files, typed

if TYPE_CHECKING:
    import numpy as np
    import torch


class Segmentation(NamedTuple):
    """What was found in one image.

    S is the shape of the image as its file or array has it: (X, Y, Z) of a volume, (H, W) of a picture. E members,
    K classes with the background.
    """

    name: str  # of the image file or series folder without its ending, or "image" for an array
    mask: np.ndarray  # S, uint8: 0 background, then 1 to K - 1 in the order of class_names; of regions one over another
    uncertainty: np.ndarray  # S, float32 from 0 to 1: entropy of the members' mean
    affine: np.ndarray | None  # (4, 4), voxel to RAS in mm; None for a picture
    class_names: tuple[str, ...]  # K - 1, without the background
    members: np.ndarray | None  # if asked for: (E, K, *S), float32 probabilities; of output="labels" (E, *S), uint8.
    # Of regions (E, K - 1, *S) either way
    report: dict[str, Any]  # volumes with their spread, and more: see `statistics.ensemble_statistics`
    mask_file: Path | None  # where the mask was written, if output_dir was given
    regions: np.ndarray | None = None  # of regions, which may overlap: (K - 1, *S), uint8, 0 or 1; else None


def segment(
    image: str | os.PathLike | np.ndarray | torch.Tensor | Sequence[str | os.PathLike],
    task: str | None = None,
    *,
    affine: np.ndarray | None = None,
    output_dir: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | list[str] | None = None,
    num_inference_steps: int | None = None,
    ensemble_size: int | None = None,
    fusion: str | None = None,
    anchor_only: bool | None = None,
    seed: int | None = None,
    device: str | torch.device | None = None,
    return_members: bool = False,
    like: str | os.PathLike | None = None,
    overwrite: bool = True,
    on_result: Callable[[Segmentation], None] | None = None,
    on_failure: Callable[[str, str], None] | None = None,
    **settings: Any,
) -> Segmentation | list[Segmentation]:
    """Segment one image, or the images of a folder. Whoever segments often in one process keeps a `Segmenter`.

    What is left at None is as `inference.json` and the task say. There is no progress bar unless `progress=True`.

    Args:
        image: a file (NIfTI or picture), a list of files, one for each channel, a folder of a DICOM series, a folder of
            files or series, or an array or tensor with the axes of a file: (X, Y, Z) or (X, Y, Z, C) for a volume,
            (H, W) or (H, W, 3) with values from 0 to 255 for a picture. A `MetaTensor` is as MONAI's `LoadImage` gives
            it, (C, X, Y, Z), (X, Y, Z), (C, W, H) or (W, H), and brings its affine.
        task: what to segment, such as "hippocampus": the task of `inference.json`, which is taken for None, or the name
            of a file of `configs/tasks`; or a file that `medsegdiff configure` wrote, by its path.
        affine: of an array of a volume, (4, 4), voxel to RAS in mm; `np.diag([1, 1, 2, 1])` says 2 mm from slice to
            slice. None stands for 1 mm along each axis.
        output_dir: folder for mask, uncertainty, picture, report, and the DICOM SEG of a series; None writes none.
        checkpoint: file of weights; or a list of those of the folds of a training: each draws its own members, and all
            are fused together.
        num_inference_steps: denoising steps per member.
        ensemble_size: members E.
        fusion: "mean", "vote", "staple" or "dice".
        anchor_only: the Condition Model's own segmentation, without diffusion.
        seed: of the members.
        device: such as "cpu" or "cuda:0".
        return_members: keep the members: their probabilities; or their labels, with `output="labels"` or where the
            probabilities would not fit in `memory`.
        like: a `<case>_report.json`, whose task and settings are taken, to make its mask again: bit for bit the same on
            the same kind of device, with the same versions. Other weights than those that made it are refused.
        overwrite: in a folder of images also make results anew that are there already, of the same settings, weights
            and image.
        on_result: called with each result once it is there, which is then not kept: for folders of many images.
        on_failure: called with the file of each image that fails, and a sentence. Without it an error is raised, once
            the other images are done.
        settings: any other setting of `inference.json` by its name, such as `roi_size=(96, 96, 96)`. All settings are
            values: a text is never evaluated as the programs of configuration files are.

    Returns:
        A result; for a folder of images a list of them, in the order of their names.

    Raises:
        ValueError: the task, a setting or its value is unknown, or there is no such image or weights.
        medsegdiff_bundle.errors.UnsegmentedError: a `ValueError` about images that cannot be segmented.

    Examples:
        >>> result = segment("scan.nii.gz", output_dir="results", ensemble_size=10)
        >>> print(result.mask.shape, result.report["structures"])
        >>> result = segment(np.asarray(picture), task="isic")  # (H, W, 3), 0 to 255
    """
    named = {
        "checkpoint": checkpoint,
        "num_inference_steps": num_inference_steps,
        "ensemble_size": ensemble_size,
        "fusion": fusion,
        "anchor_only": anchor_only,
        "seed": seed,
        "device": None if device is None else str(device),
    }
    given = {**settings, **{name: value for name, value in named.items() if value is not None}}
    files, given = check_request(image, task, given, affine=affine, output_dir=output_dir, like=like)
    from medsegdiff_bundle.segmenter import Segmenter

    return Segmenter.of_files(files, given, output_dir)(
        image,
        affine=affine,
        return_members=return_members,
        overwrite=overwrite,
        on_result=on_result,
        on_failure=on_failure,
    )


def check_request(
    image: str | os.PathLike | np.ndarray | torch.Tensor | Sequence[str | os.PathLike] | None,
    task: str | None,
    given: dict[str, Any],
    *,
    affine: np.ndarray | None = None,
    output_dir: str | os.PathLike | None = None,
    like: str | os.PathLike | None = None,
) -> tuple[list[Path], dict[str, Any]]:
    """Check what `segment` was given as far as that needs neither torch nor the content of the image.

    Args:
        image: see `segment`; None is to come.
        task: likewise.
        given: all settings by their names in `inference.json`, as values: none of them is a program.
        affine: see `segment`.
        output_dir: likewise.
        like: likewise.

    Returns:
        The files of the task's configuration, and the settings in place of theirs, as what they mean.

    Raises:
        ValueError: something is unknown, not there, or of a wrong type.
    """
    if like is not None:
        task, given = as_reported(like, task, given)
    configs = bundle_root() / "configs"
    files = [configs / "inference.json"]
    model = read_model(given.get("checkpoint"))
    if task is not None and task.lower().endswith(".json"):
        if not os.path.isfile(task):
            raise ValueError(f"There is no file of settings {task!r}.")
        files.append(Path(task))
    elif task is not None and not (like is not None and model and model["task"] == task):
        known = configuration.tasks(configs) or [read_files(files)["task"]]  # a package of the model zoo has one task
        if task not in known:
            raise ValueError(f"There is no task {task!r}: choose from {', '.join(known)}.")
        files += [file for file in [configs / "tasks" / f"{task}.json"] if file.is_file()]
    config = configuration.read(files, given)
    if model:
        own = {**read_files(files), **{name: given[name] for name in MUST_FIT if name in given}}
        config = configuration.complete(over_files(own, model, given["checkpoint"], configs, given), configs)
    check_names(given, config, [config, given], "inference.json")
    given = {name: typed(name, value, programs=False, config=config) for name, value in given.items()}
    check_fit({**config, **given}, given)
    for file in files_named(image):
        check_image(file, affine)
    if output_dir is not None and not str(output_dir):
        raise ValueError("output_dir is empty.")
    if output_dir is not None and os.path.isfile(output_dir):
        raise ValueError(f"The results cannot be written to {str(output_dir)!r}: it is a file, not a folder.")
    if "checkpoint" in given and (missing := no_weights(config["task"], given["checkpoint"])):
        raise ValueError(missing)
    return files, given


def files_named(image: Any) -> list[str | os.PathLike]:
    """The file or folder that an image is, or its files of a channel each; none of an array."""
    files = list(image) if isinstance(image, (list, tuple)) else [image]
    return files if all(isinstance(file, (str, os.PathLike)) for file in files) else []


def check_image(image: str | os.PathLike, affine: np.ndarray | None = None) -> None:
    """Refuse a file or folder that is not there, or one with an affine besides its own.

    Raises:
        ValueError: naming it.
    """
    if affine is not None:
        raise ValueError("affine is for arrays: a file has its own.")
    if not os.path.exists(image):
        raise ValueError(f"There is no image file or folder {str(image)!r}.")
