"""A run of the bundle's configurations, as `python -m monai.bundle run` makes it, of what a command was asked for."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff_bundle import configuration, settings
from medsegdiff_bundle.cli.options import task_files


def add_overlays(parser: argparse.ArgumentParser, default: str = "hippocampus") -> None:
    """Add the options that choose configuration files; the task is `default`, in words, if none is given."""
    tasks = [path.stem for path in task_files()]
    parser.add_argument("-t", "--task", help=f"of configs/tasks: {', '.join(tasks)} (default: {default})")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="configuration over the others: a file of yours, or one of configs/ by its name, such as gpu_train or "
        "baselines/dynunet",
    )


def chosen_files(base: str, task: str | None, overlays: Iterable[str], last: Sequence[str] = ()) -> list[Path]:
    """The configuration files of a run.

    Args:
        base: of `configs`.
        task: of `configs/tasks`, over it; None for none.
        overlays: over these, see `add_overlays`.
        last: of `configs`, over all.

    Raises:
        ValueError: there is no such task or file.
    """
    configs = settings.bundle_root() / "configs"
    files = [configs / base]
    tasks = {path.stem: path for path in task_files()}
    if task is not None:
        if task not in tasks:
            raise ValueError(f"There is no task {task!r}: choose from {', '.join(tasks)}.")
        files.append(tasks[task])
    for overlay in overlays:
        inside = configs / f"{overlay.removesuffix('.json')}.json"
        if not os.path.isfile(overlay) and not inside.is_file():
            known = [path.relative_to(configs).as_posix().removesuffix(".json") for path in configs.rglob("*.json")]
            similar = settings.nearest(overlay, known)
            hint = f": did you mean {similar!r}?" if similar else ", nor one of configs/ of that name."
            raise ValueError(f"There is no configuration file {overlay!r}{hint}")
        files.append(Path(overlay) if os.path.isfile(overlay) else inside)
    return [*files, *(configs / name for name in last)]


def run_bundle(files: Sequence[Path], given: Mapping[str, Any], quiet: bool = False, debug: bool = False) -> None:
    """Run configuration files, with settings in place of theirs.

    Args:
        files: see `chosen_files`.
        given: settings, as values: none of them is a program.
        quiet: without what MONAI and ignite log.
        debug: with where errors come from.

    Raises:
        ValueError: there is no such setting or value, or the run says what was asked wrongly.
    """
    content = configuration.read(files, given)
    settings.check_names(given, content, [content, dict(given)], " with ".join(file.name for file in files))
    typed = {name: settings.typed(name, value, programs=False, config=content) for name, value in given.items()}
    settings.check_fit({**content, **typed}, typed)
    from monai.bundle import ConfigWorkflow

    from medsegdiff_bundle import errors, model_file
    from medsegdiff_bundle.given import put_in
    from medsegdiff_bundle.workflow import steps

    errors.quiet_readers()
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # that files lie in several folders
    workflow = ConfigWorkflow([str(file) for file in files], logging_file=False if quiet else None)
    if not debug:
        for handler in logging.getLogger().handlers:
            handler.addFilter(errors.WithoutTraceback())
    # What stands within an entry may be there only once the configuration is complete.
    within = {name: value for name, value in typed.items() if len(settings.parts(name)) > 1}
    whole = {name: value for name, value in typed.items() if name not in within}
    put_in(workflow.parser, {"bundle_root": str(settings.bundle_root()), **whole})
    model_file.complete_with_weights(workflow.parser, files[0].parent, given, steps(workflow))
    put_in(workflow.parser, within)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
