"""The algorithm as Auto3DSeg calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from monai.apps.auto3dseg import BundleAlgo
from monai.bundle import ConfigParser
from monai.utils import run_cmd

try:
    from monai.auto3dseg import algo_to_json as save_algo
except ImportError:  # before MONAI 1.6
    from monai.auto3dseg import algo_to_pickle as save_algo

from medsegdiff_bundle.datalist import cases_of, read_data_set
from medsegdiff_bundle.planning.configure import budget_of, write_plan
from medsegdiff_bundle.planning.fingerprint import check_counted, fingerprint_of
from medsegdiff_bundle.planning.task_file import write_entries

from . import CASES, MODEL, NAME, PROGRESS, SETTINGS
from .task import read_report, read_task, table, unfit
from .training import settings_of

OF_MONAI = ("fold", "bundle_root", "gpu_customization", "gpu_customization_specs")  # no settings of the training


class MedsegdiffAlgo(BundleAlgo):
    """MedSegDiff-V2, filled by the rules of `medsegdiff configure`, one object for each fold.

    The name is the one that `BundleGen` makes of the folder of the template. A folder that was filled holds
    `configs/medsegdiff.json` for `medsegdiff train`, a page beside it that says why each setting is what it is, and
    `cases.json`, a table of the cases with their folds. The training goes to `model/`.

    The file of the task may hold `medsegdiff`: `hours` and `memory` as for `medsegdiff configure`, and settings by
    their names or by those of MONAI's templates, such as `num_epochs`.
    """

    def pre_check_skip_algo(self, skip_bundlegen: bool = False, skip_info: str = "") -> tuple[bool, str]:
        """Whether the task is none for this algorithm, and why."""
        reason = unfit(read_task(self.data_list_file))
        return (True, f"{NAME} does not take the task: {reason}") if reason else (skip_bundlegen, skip_info)

    def fill_template_config(self, data_stats_filename: str, algo_path: str, **kwargs: Any) -> dict[str, Any]:
        """Choose all settings of a fold, and write them.

        Args:
            data_stats_filename: what DataAnalyzer wrote; the file with the single cases lies beside it.
            algo_path: folder of the fold.
            kwargs: `fold`; `fill_with_datastats=False` takes the settings that were filled before; others are settings
                of the training, in place of those that are chosen.

        Returns:
            The settings, by the name of their file.

        Raises:
            ValueError: the task or its data cannot be trained on.
        """
        folder, target = Path(algo_path).absolute(), Path(algo_path).absolute() / SETTINGS
        target.parent.mkdir(parents=True, exist_ok=True)
        anew = kwargs.pop("fill_with_datastats", True)
        given = settings_of({name: value for name, value in kwargs.items() if name not in OF_MONAI})
        if anew:
            self._fill(data_stats_filename, folder, target, int(kwargs.get("fold", 0)))
        else:
            records = self.fill_records or {}
            write_entries(records[target.name], target)
            (folder / CASES).write_text(json.dumps(records[CASES], indent=1), encoding="utf-8")
        entries = json.loads(target.read_text(encoding="utf-8"))
        entries |= {"dataset_dir": str(folder / CASES), "checkpoint": str(folder / MODEL / "model.pt"), **given}
        write_entries(entries, target)
        return {target.name: entries, CASES: json.loads((folder / CASES).read_text(encoding="utf-8"))}

    def _fill(self, stats: str, folder: Path, target: Path, fold: int) -> None:
        """Write the table of the cases and the settings that follow from the data."""
        task, report = read_task(self.data_list_file), read_report(stats)
        content = table(task, report)
        check_counted(report, len(content["cases"]))
        (folder / CASES).write_text(json.dumps(content, indent=1), encoding="utf-8")
        data_set = read_data_set(folder / CASES)
        given = dict(task[NAME])
        budget = budget_of(given.pop("memory", None), float(given.pop("hours", 8)), None)
        values = content["class_values"]
        sections = [len(cases_of(data_set, section, fold)) for section in ("training", "validation")]
        write_plan(
            data_set,
            fingerprint_of(report, values, values),
            (sections[0], sections[1]),
            budget,
            target,
            command=f"python scripts/train.py run`, or `medsegdiff train {SETTINGS} -o {MODEL}",
            changes={"fold": fold, **settings_of(given)},
        )

    def train(
        self, train_params: dict | None = None, device_setting: dict | None = None
    ) -> subprocess.CompletedProcess:
        """Train a fold by `scripts/train.py`, in a process of its own; on several GPUs by torchrun.

        A training that was cut goes on. One that is done is trained anew, as AutoRunner asks for it with `train=True`
        alone. Unlike `BundleAlgo`, this takes the Python that runs now, and folders with spaces in their names.

        Args:
            train_params: settings, by their names or those of MONAI's templates.
            device_setting: see `AutoRunner.set_device_info`.
        """
        self.device_setting.update(device_setting or {})
        params = dict(train_params or {})
        if self._progress().is_file():
            self._progress().unlink()
            save_algo(self, template_path=self.template_path)  # without the score, or a cut would look like an end
            params["overwrite"] = True
        if int(self.device_setting["NUM_NODES"]) > 1:
            return super().train(params, device_setting)
        devices = str(self.device_setting["CUDA_VISIBLE_DEVICES"])
        number = len(devices.split(","))
        launcher = str(self.device_setting["CMD_PREFIX"] or "").split() or [sys.executable]
        if number > 1 and not self.device_setting["CMD_PREFIX"]:
            launcher += ["-m", "torch.distributed.run", "--nnodes=1", f"--nproc_per_node={number}"]
        words = [f"--{name}={value}" for name, value in params.items()]
        script = Path(self.output_path) / "scripts" / "train.py"
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": devices}
        return run_cmd([*launcher, str(script), "run", *words], run_cmd_verbose=True, env=environment, check=True)

    def get_score(self, *args: Any, **kwargs: Any) -> float:
        """Dice of the best validation, of a training that has come to its end."""
        return float(ConfigParser.load_config_file(str(self._progress()))[-1]["best_avg_dice_score"])

    def _progress(self) -> Path:
        return Path(self.output_path) / MODEL / PROGRESS
