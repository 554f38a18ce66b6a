"""The training of a fold: `medsegdiff train`, and the score for Auto3DSeg."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medsegdiff_bundle import cli, settings
from medsegdiff_bundle.cli.options import content
from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.handlers.record import TABLE, VALIDATION, read_history

from . import MODEL, MONAIS_NAMES, PROGRESS, SETTINGS

logger = logging.getLogger(__name__)


def settings_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of Auto3DSeg as settings of `train.json`; what is none of them is named in the log and left out.

    AutoRunner hands the same parameters to all algorithms, each of which has names of its own.
    """
    known = content(("train.json",))
    found = {MONAIS_NAMES.get(name, name): value for name, value in params.items()}
    others = [name for name in found if settings.parts(name)[0] not in known]
    if others:
        logger.warning("%s: no setting of this algorithm, so it is left out.", ", ".join(others))
    return {name: value for name, value in found.items() if name not in others}


def train(folder: Path, **params: Any) -> None:
    """Train in a folder that `MedsegdiffAlgo` has filled, or go on with what was begun there.

    Args:
        folder: of a fold.
        params: settings, by their names or those of MONAI's templates; `config_file`, which MONAI's commands have, says
            no more than the folder.

    Raises:
        SystemExit: the training ended with an error, which is said.
    """
    params.pop("config_file", None)
    given = settings_of(params)
    several = ["--config", "multi_gpu_train"] if int(os.environ.get("WORLD_SIZE", "1")) > 1 else []
    anew = {} if given.get("overwrite") else {"resume": "auto"}
    words = [f"--set={name}={value}" for name, value in {**anew, **given}.items()]
    status = cli.main(["train", str(folder / SETTINGS), "-o", str(folder / MODEL), *several, *words])
    if status:
        raise SystemExit(status)
    if int(os.environ.get("RANK", "0")) == 0:
        write_progress(folder / MODEL)


def write_progress(where: Path) -> None:
    """Write `progress.yaml`: each validation that beat all before, the best last.

    It is there once the training has come to its end, as Auto3DSeg takes a fold that has it for trained. A Dice that is
    undefined, as no validation case holds a class, counts as 0.

    Args:
        where: folder of a training.
    """
    rows: list[dict[str, Any]] = []
    for row in read_history(where / TABLE):
        dice = row.get(f"{VALIDATION}fused", math.nan)
        if not math.isnan(dice) and (not rows or dice > rows[-1]["best_avg_dice_score"]):
            rows.append({"best_avg_dice_score": dice, "best_avg_dice_score_epoch": int(row["epoch"])})
    rows = rows or [{"best_avg_dice_score": 0.0, "best_avg_dice_score_epoch": 0}]
    with whole_file(where / PROGRESS) as file:
        ConfigParser.export_config_file(rows, str(file), fmt="yaml", sort_keys=False)  # type: ignore[arg-type]
