"""MONAI Label's own app `monaibundle`, with active learning by the disagreement of the model's members.

To the app of the installed package it adds one scoring method and one strategy, both called `disagreement`. The method
gives each study without a final label a number; the strategy hands out the study with the highest.
"""

import logging
import os
import sys

import torch
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


class DisagreementApp(monaibundle.MyApp, MONAILabelApp):  # the server looks for a direct subclass of MONAILabelApp
    """The app `monaibundle` with the scoring method and the strategy `disagreement`."""

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
