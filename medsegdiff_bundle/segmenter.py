"""Networks of tasks, loaded once: an image or a folder in, a `Segmentation` of each case out.

The way of an image: `held_image` of an array, or the name of a file -> the case of a data list -> `preprocessing` ->
`inferer` with `network` -> `postprocessing` (all of `inference.json`, in one evaluator) -> `Segmentation`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import Evaluator, IterationEvents
from monai.transforms import Invertd

from medsegdiff_bundle import errors, model_file
from medsegdiff_bundle.cases import CallersError, run_cases
from medsegdiff_bundle.datalist import case_name, channels_entry, result_ending
from medsegdiff_bundle.datalist.naming import PICTURES
from medsegdiff_bundle.given import as_said, put_in
from medsegdiff_bundle.handlers import WeightsLoader
from medsegdiff_bundle.readers import held_image
from medsegdiff_bundle.segmentation import Segmentation, check_image, check_request, files_named
from medsegdiff_bundle.transforms.load import AS_READ, load_image
from medsegdiff_bundle.workflow import check_device


class Segmenter:
    """Network, inferer and transforms of a task, loaded once.

    Args:
        task: what to segment, see `medsegdiff_bundle.segment`.
        output_dir: folder of the results; None writes none.
        like: a report whose settings are taken, see `medsegdiff_bundle.segment`.
        settings: any setting of `inference.json` by its name, such as `checkpoint="mine.pt"`, `ensemble_size=10` or
            `device="cuda:0"`. They are values: none of them is evaluated. There is no progress bar unless
            `progress=True`.

    Attributes:
        network: with its weights, on its device, ready for inference.
        inferer: `EnsembleInferer`, called as `inferer(x, network)` for an image x (N, C, S).
        preprocessing: from {"image": file} to the network's space.
        postprocessing: from the members of a case to mask, uncertainty and statistics in the space of its file.
        class_names: without the background.
        spatial_dims: 3 for volumes, 2 for pictures.

    Raises:
        ValueError: the task, a setting or its value is unknown, or the weights are missing or do not fit.

    Examples:
        >>> segmenter = Segmenter("hippocampus", device="cpu")
        >>> for file in sorted(Path("scans").glob("*.nii.gz")):
        ...     print(segmenter(file).report["structures"])
    """

    def __init__(
        self,
        task: str | None = None,
        *,
        output_dir: str | os.PathLike | None = None,
        like: str | os.PathLike | None = None,
        **settings: Any,
    ) -> None:
        files, given = check_request(None, task, settings, output_dir=output_dir, like=like)
        self._load(files, given, output_dir)

    @classmethod
    def of_files(
        cls, files: list[Path], settings: dict[str, Any], output_dir: str | os.PathLike | None = None
    ) -> Segmenter:
        """One of a configuration, of files and settings as `check_request` returns them."""
        made = cls.__new__(cls)
        made._load(files, settings, output_dir)
        return made

    def __call__(
        self,
        image: str | os.PathLike | np.ndarray | torch.Tensor | Sequence[str | os.PathLike],
        *,
        affine: np.ndarray | None = None,
        return_members: bool = False,
        overwrite: bool = True,
        on_result: Callable[[Segmentation], None] | None = None,
        on_failure: Callable[[str, str], None] | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Segment an image, or the images of a folder.

        Args:
            image: see `medsegdiff_bundle.segment`, as the others.
            affine: of an array.
            return_members: keep the members.
            overwrite: in a folder also make results anew that are there already.
            on_result: called with each result, which is then not kept.
            on_failure: called with the file of each image that fails, and a sentence.

        Returns:
            A result; for a folder of images a list of them, in the order of their names.

        Raises:
            ValueError: there is no such image.
            medsegdiff_bundle.errors.UnsegmentedError: a `ValueError` about images that cannot be segmented.
        """
        for file in files_named(image):
            check_image(file, affine)
        results: list[Segmentation] = []
        self._hand_on, self._return_members = on_result or results.append, return_members
        self._error_of_caller: Exception | None = None
        try:
            cases, alone = self._cases(image, affine)
            self.evaluator._internal_run_generator = None  # of a run that an error ended, with which the next would end
            self.evaluator.data_loader = self._loader
            self._loader.dataset.data = cases
            self.evaluator.state.epoch_length = len(self._loader)
            run_cases(
                self.evaluator, self._output_dir, self._settings, self._checkpoint, overwrite or alone, on_failure
            )
        except CallersError:
            assert self._error_of_caller is not None
            raise self._error_of_caller from None
        except errors.UnsegmentedError:
            raise
        except Exception as error:  # a reader, a transform or the network may raise anything
            named = str(next(iter(files_named(image)), "the array"))
            raise ValueError(errors.about(error, named)) from error
        finally:
            self._loader.dataset.data = []  # nor their arrays
        return results[0] if alone and results else results

    def _load(self, files: list[Path], given: dict[str, Any], output_dir: str | os.PathLike | None) -> None:
        self._files = files
        self._given = {"progress": False, **given, "output_dir": None if output_dir is None else str(output_dir)}
        if output_dir is None:
            self._given["dicom_seg"] = False  # which may lack a package, or something in the series
        self._output_dir = output_dir
        try:
            parser = self._parser({})
            self._settings = {**as_said(parser), **self._given}
            self._take_parts(parser)
        except Exception as error:  # as may any component of a configuration
            raise ValueError(errors.sentence(error)) from error

    def _parser(self, others: dict[str, Any]) -> ConfigParser:
        """The configuration, with the settings."""
        parser = ConfigParser()
        parser.read_config([str(file) for file in self._files])
        parser["bundle_path"] = None  # the package is imported already
        put_in(parser, {"bundle_root": str(self._files[0].parent.parent), **self._given, **others})
        model_file.complete_with_weights(parser, self._files[0].parent, self._given)
        return parser

    def _take_parts(self, parser: ConfigParser) -> None:
        content = parser.get_parsed_content
        check_device(content("device"))
        # As results, not as settings, which the report would tell. Each call has its own cases.
        parser.ref_resolver.resolved_content["dataset::data"] = []
        if self._output_dir is None:
            parser.ref_resolver.resolved_content["save"] = []  # handlers do without a folder by themselves
        self._checkpoint = content("checkpoint")
        if self._checkpoint is None:
            raise ValueError(
                f"There are no weights of the task {content('task')!r}: name a file of them as checkpoint."
            )
        if missing := model_file.no_weights(content("task"), self._checkpoint):
            raise ValueError(missing)
        self.evaluator: Evaluator = content("evaluator")
        for handler in content("handlers"):
            if isinstance(handler, WeightsLoader):
                handler.load()
        self.network, self.inferer = content("network").eval(), content("inferer")
        self.preprocessing, self.postprocessing = content("preprocessing"), content("postprocessing")
        self.class_names, self.spatial_dims = tuple(content("class_names")), content("spatial_dims")
        self._image_channels, self._output_ext = content("image_channels"), content("output_ext")
        self._loader: Any = content("dataloader")
        self._invert = Invertd("members", self.preprocessing, orig_keys="image", nearest_interp=False)
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._finish)
        self.evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._keep_members)

    def _cases(self, image: Any, affine: np.ndarray | None) -> tuple[list[dict[str, Any]], bool]:
        """The cases of an image or a folder, and whether it is one image."""
        if isinstance(image, (list, tuple)) and (files := files_named(image)):
            return [channels_entry(files, self._image_channels, self.spatial_dims)], True
        if not isinstance(image, (str, os.PathLike)):
            held = held_image(image, self.spatial_dims, affine)
            as_read = load_image(held, self._image_channels)
            if len(as_read) != self._image_channels:
                raise ValueError(f"The array has {len(as_read)} channel(s), the network takes {self._image_channels}.")
            return [{"image": held, AS_READ: as_read}], True
        source = str(Path(image))
        cases = self._parser({"dataset_dir": source}).get_parsed_content("dataset#data")
        return cases, [case["image"] for case in cases] in ([source], [os.path.abspath(source)])

    def _keep_members(self, engine: Engine) -> None:
        output: Any = engine.state.output
        if self._return_members and output["pred"].is_floating_point():  # `member_labels` stay by themselves
            output["members"] = output["pred"]  # which fusion is about to replace

    def _finish(self, engine: Engine) -> None:
        """Hand on the cases of a batch."""
        cases: Any = engine.state.output
        for case in cases:
            result = self._segmentation(case)
            try:
                self._hand_on(result)
            except Exception as error:
                self._error_of_caller = error
                raise CallersError from error

    def _segmentation(self, case: dict[str, Any]) -> Segmentation:
        mask, file = case["pred"], case["image"].meta["filename_or_obj"]
        name = case_name(file)
        written = None
        if self._output_dir is not None:
            written = Path(self._output_dir) / f"{name}_seg{result_ending(file, self._output_ext)}"
        return Segmentation(
            name=name,
            mask=_as_read(mask[0], case).astype(np.uint8),
            uncertainty=_as_read(case["uncertainty"][0], case),
            affine=mask.affine.cpu().numpy() if self.spatial_dims == 3 else None,
            class_names=self.class_names,
            members=self._members(case) if self._return_members else None,
            report=case["result"],
            mask_file=written,
            regions=_as_read(case["regions"], case).astype(np.uint8) if "regions" in case else None,
        )

    def _members(self, case: dict[str, Any]) -> np.ndarray:
        regions = len(case["regions"]) if "regions" in case else None
        if "members" not in case:
            labels = _as_read(case["member_labels"], case).astype(np.uint8)
            return labels if regions is None else rearrange(labels, "(e r) ... -> e r ...", r=regions)
        members = case["members"]  # (E, K, ...)
        flat = rearrange(members, "e k ... -> (e k) ...")
        flat = self._invert({"image": case["image"], "members": flat})["members"].as_tensor()
        whole = rearrange(flat, "(e k) ... -> e k ...", e=len(members))
        if regions is None:
            whole[:, 0] += 1 - whole.sum(dim=1)  # what the preprocessing cut off is background
        return _as_read(whole, case)


def _as_read(values: torch.Tensor, case: dict[str, Any]) -> np.ndarray:
    """Values with the axes of their file: MONAI reads the first axis of a picture as its width, of no other file."""
    plain: np.ndarray = values.detach().cpu().numpy()
    turned = str(case["image"].meta["filename_or_obj"]).lower().endswith(PICTURES)
    return plain.swapaxes(-1, -2) if turned else plain
