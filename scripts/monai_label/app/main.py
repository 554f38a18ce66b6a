"""MONAI Label's own app `monaibundle`, with active learning by the disagreement of the model's members.

To the app of the installed package it adds one scoring method and one strategy, both called `disagreement`. The method
gives each study without a final label a number; the strategy hands out the study with the highest.

Besides, what is wrong with a request is checked before any work, and answered in a sentence: MONAI Label alone answers
each error with the words "Internal Server Error".
"""

import logging
import os
import sys
from collections.abc import Callable

import torch
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.tasks.infer.basic_infer import BasicInferTask, CallBackTypes
from monailabel.utils.others.class_utils import module_from_file

logger = logging.getLogger(__name__)
monaibundle = module_from_file(
    "monaibundle", os.path.join(sys.prefix, "monailabel", "sample-apps", "monaibundle", "main.py")
)
NAME = "disagreement"


def disagreement(members: torch.Tensor) -> float:
    """How much the members of one study disagree about its structures.

    1 less the mean Dice of two members, over all pairs and structures: if the truth is as like a member as another
    member is, that is the Dice that a member lacks (`pairwise_dice` of the report). A structure that no member finds
    is agreed upon.

    Args:
        members: class probabilities, (E, K, S).

    Returns:
        0 (all members are the same mask) to 1.
    """
    from medsegdiff_bundle.metrics.overlap import dice, shared_voxels  # the copy in the bundle, which is loaded by now

    labels = members.argmax(1)
    if len(labels) == 1:
        return 0.0
    overlaps = dice(shared_voxels(labels[:-1], labels[-1:], members.shape[1], include_background=False))
    rows, columns = torch.triu_indices(len(labels), len(labels), 1)
    return 1 - overlaps[:, rows, columns].mean().item()


class DisagreementScoring(ScoringMethod):
    """Scores each study without a final label, unless the weights in use have scored it already.

    Args:
        infers: the app's models by name.
    """

    def __init__(self, infers: dict[str, BasicInferTask]) -> None:
        super().__init__("How much the members of the ensemble disagree about the structures of a study")
        self.infers = infers

    def __call__(self, request: dict, datastore: Datastore) -> dict:
        """Score.

        Args:
            request: `model`, by default the app's first; further entries, such as `device` or `ensemble_size`, are
                handed on to it.
            datastore: whose studies are scored: the score is put into the information about each.

        Returns:
            Number of studies without a final label (`total`) and of those that were scored (`executed`).
        """
        model = request.pop("model", None) or next(iter(self.infers))
        if model not in self.infers:
            raise ValueError(f"model must be one of {', '.join(self.infers)}, got {model!r}.")
        weights = f"{model} {os.stat(self.infers[model].get_path()).st_mtime_ns}"
        studies = datastore.get_unlabeled_images()
        executed = 0
        for study in studies:
            if datastore.get_image_info(study).get(f"{NAME}_of") == weights:
                continue
            score = self._score(self.infers[model], {**request, "image": datastore.get_image_uri(study)})
            datastore.update_image_info(study, {NAME: score, f"{NAME}_of": weights})
            logger.info(f"{NAME} of {study}: {score}")
            executed += 1
        return {"total": len(studies), "executed": executed}

    def _score(self, task: BasicInferTask, request: dict) -> float:
        scores = []

        def measure(data: dict) -> dict:
            scores.append(disagreement(torch.as_tensor(data[task.output_label_key])))  # not yet fused
            return data

        task({**request, "result_write_to_file": False}, callbacks={CallBackTypes.INFERER: measure})
        return scores[0]


def answered(call: Callable[[dict], dict], request: dict) -> dict:
    """What a call returns, or an answer of HTTP that says in a sentence why it does not."""
    try:
        return call(request)
    except HTTPException:
        raise
    except Exception as error:
        logger.exception("%s failed", call.__name__)
        from medsegdiff_bundle import errors  # the copy in the bundle, as elsewhere here

        asked_wrongly = isinstance(errors.root_cause(error), ValueError) or hasattr(
            error, "msg"
        )  # the latter is theirs
        raise HTTPException(400 if asked_wrongly else 500, getattr(error, "msg", errors.sentence(error))) from error


class DisagreementApp(monaibundle.MyApp, MONAILabelApp):  # the server looks for a direct subclass of MONAILabelApp
    """The app `monaibundle` with the scoring method and the strategy `disagreement`, and sentences for errors."""

    def infer(self, request: dict, datastore: Datastore | None = None) -> dict:
        """See `MONAILabelApp`."""
        return answered(lambda asked: self._infer(asked, datastore), request)

    def next_sample(self, request: dict) -> dict:
        """See `MONAILabelApp`."""
        return answered(super().next_sample, request)

    def _infer(self, request: dict, datastore: Datastore | None) -> dict:
        self._check(request, datastore or self.datastore())
        return super().infer(request, datastore)

    def _check(self, request: dict, datastore: Datastore) -> None:
        """Refuse settings without sense, which would show after the sampling or not at all, and unknown studies."""
        task, image = self._infers.get(request.get("model")), request.get("image")
        if isinstance(image, str) and not os.path.exists(image) and not datastore.get_image_uri(image):
            raise HTTPException(404, f"There is no study {image!r}.")
        if task is None:
            return  # of which MONAI Label says so
        sys.path.insert(0, task.bundle_path)  # as MONAI Label does
        try:
            from medsegdiff_bundle import settings, workflow

            for name in task.config().keys() & request.keys():
                settings.typed(name, request[name], programs=False)
            workflow.check_device(request.get("device") or "cpu")
        finally:
            sys.path.remove(task.bundle_path)

    def init_strategies(self) -> dict[str, Strategy]:
        """Add the strategy.

        It is MONAI Label's: the highest score first, and what was handed out within a day last, since someone may be
        at work on it.
        """
        strategy = Epistemic(key=NAME, desc="The study whose structures the members of the ensemble disagree on most")
        return {**super().init_strategies(), NAME: strategy}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Add the scoring method."""
        return {**super().init_scoring_methods(), NAME: DisagreementScoring(self._infers)}
