"""From what a result was made, so that it can be made again: settings, weights, versions."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import medsegdiff_bundle
from medsegdiff_bundle import configuration, settings
from medsegdiff_bundle.given import as_said

logger = logging.getLogger(__name__)

# Of the settings those that say where, how loudly and what is written besides, not what comes out.
LEFT_OUT = (
    *("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "checkpoint", "device", "progress", "report", "debug"),
    *("dicom_seg", "use_click", "resume", "overwrite", "keep", "fold", "num_folds", "pretrained"),
    *("weights_sha256", "shipped_weights"),
)
UNTYPED = ("spacing",)  # settings that may be taken as they are
STEPS = (
    "imports",
    "run_cases",
    "initialize",
    "run",
    "bundle_path",
    "begin",
    "settings",
)  # of a configuration, no settings


def used_settings() -> dict[str, Any]:
    """Values of the settings of the configuration that calls this, by the names that its command line takes.

    All that the evaluator depends on of `medsegdiff_bundle.settings.KINDS`, but paths and what has no influence on the
    mask, and whatever else differs from these files, such as `network_def#channels`.
    """
    from medsegdiff_bundle.model_file import read_model
    from medsegdiff_bundle.workflow import calling_parser  # with torch and MONAI, which the rest here need not

    parser = calling_parser()
    if parser is None:
        return {}
    config: Any = as_said(parser)
    shipped = _shipped(config.get("task"))
    model = read_model(parser.get_parsed_content("checkpoint")) if "checkpoint" in config else None
    of_weights = model["configuration"] if model else {}
    of_evaluator = configuration.behind(["evaluator"], config)
    names = [name for name in ("task", *settings.KINDS, *UNTYPED) if name in of_evaluator or name == "task"]
    found = {name: _plain(parser.ref_resolver.get_resolved_content(name)) for name in names if name not in LEFT_OUT}
    for name, value in _changes(config, shipped):
        first = settings.parts(name)[0]
        if name not in found and first not in (*LEFT_OUT, *STEPS) and not name.startswith("_"):
            if first not in of_weights or config[first] != of_weights[first]:  # which carry it themselves
                found[name] = _plain(value)
    return found


def weight_files(checkpoint: Any) -> list[str]:
    """Files of the setting `checkpoint`: one, several of folds, or none."""
    return [str(file) for file in (checkpoint if isinstance(checkpoint, (list, tuple)) else [checkpoint]) if file]


def describe_run(
    used: Mapping[str, Any], checkpoint: str | os.PathLike | list[str] | None, device: Any = None
) -> dict[str, Any]:
    """What the cases of a run have in common.

    - `task`, `version` of this package, and those of torch and MONAI (`software`).
    - `weights`: name of the `file` and its `sha256`, or names of several and one for all; None if there is none.
    - `settings`: see `used_settings`.
    - `device`: "cpu", "cuda" or another kind.

    Args:
        used: the settings.
        checkpoint: file of weights, or files of folds.
        device: that the network ran on.
    """
    import monai
    import torch

    weights = None
    files = weight_files(checkpoint)
    if files and all(map(os.path.isfile, files)):
        names = [Path(file).name if len(files) == 1 else "/".join(Path(file).parts[-2:]) for file in files]
        weights = {"file": ", ".join(names), "sha256": checksum(files if len(files) > 1 else files[0])}
    return {
        "task": used.get("task"),
        "version": medsegdiff_bundle.__version__,
        "software": {"torch": str(torch.__version__), "monai": monai.__version__},
        "device": None if device is None else torch.device(device).type,
        "weights": weights,
        "settings": dict(used),
    }


def as_reported(
    file: str | os.PathLike, task: str | None = None, given: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """Task and settings that make the mask of a report again, from the weights that made it.

    Args:
        file: a report that `ReportHandler` wrote.
        task: of the caller, who may leave it to the report.
        given: settings of the caller, such as `checkpoint`, `device` and others that have no influence on the mask.

    Returns:
        The task, and all settings; `weights_sha256` among them lets a run refuse other weights.

    Raises:
        ValueError: the file is no report, or says too little; what is given contradicts it; or one of its settings is
            an expression, which may be anyone's code.
    """
    try:
        report = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"The report {str(file)!r} cannot be read: {str(error).splitlines()[0]}.") from error
    try:
        of_task, used, sha256 = str(report["task"]), dict(report["settings"]), str(report["weights"]["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The file {str(file)!r} is no report with task, settings and weights.") from error
    for name, value in used.items():
        if any(settings.is_program(text) or text == "_target_" for text in (name, *settings.texts(value))):
            raise ValueError(
                f"The report {str(file)!r} was made with another {name!r} than the bundle's, which is a program: "
                "give it by a configuration file."
            )
    given = given or {}
    for name, value in {**given, "task": task or of_task}.items():
        if name in {**used, "task": of_task} and value != used.get(name, of_task):
            raise ValueError(
                f"{name} is {used.get(name, of_task)!r} in the report {str(file)!r}, but {value!r} is given."
            )
    for name in ("task", "num_classes", "multi_label"):  # which follow from the class names and the regions
        used.pop(name, None)
    if report.get("version") != medsegdiff_bundle.__version__:
        logger.warning(
            "The report %r was made by version %s, this is %s: its mask may come out differently.",
            str(file),
            report.get("version"),
            medsegdiff_bundle.__version__,
        )
    return of_task, {**used, **given, "weights_sha256": sha256}


def checksum(file: str | os.PathLike | Sequence[str]) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; read once for as long as it is not written again.

    Of a list of files, that of the text of theirs.
    """
    if not isinstance(file, (str, os.PathLike)):
        return hashlib.sha256(" ".join(map(checksum, file)).encode()).hexdigest()
    state = os.stat(file)
    return _checksum(os.path.abspath(file), state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=16)  # several parts of a run ask for that of its weights
def _checksum(file: str, *state: int) -> str:
    found = hashlib.sha256()
    with open(file, "rb") as stream:
        for part in iter(lambda: stream.read(1 << 20), b""):
            found.update(part)
    return found.hexdigest()


def _shipped(task: Any) -> dict[str, Any]:
    """Content of `inference.json` with the file of a task."""
    configs = settings.bundle_root() / "configs"
    overlay = configs / "tasks" / f"{task}.json"
    return configuration.read([file for file in (configs / "inference.json", overlay) if file.is_file()])


def _changes(config: Any, shipped: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Entries of a configuration that are not as another has them, by their names `a#b`."""
    if (
        isinstance(config, Mapping)
        and isinstance(shipped, Mapping)
        and config.get("_target_") == shipped.get("_target_")
    ):
        for key, value in config.items():
            yield from _changes(value, shipped.get(key), f"{before}#{key}" if before else str(key))
    elif _same_references(config) != _same_references(shipped):
        yield before, config


def _same_references(value: Any) -> Any:
    return value.replace("#", "::") if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """A value as JSON has it; what JSON lacks as text."""
    value = value.tolist() if hasattr(value, "tolist") else value
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)
