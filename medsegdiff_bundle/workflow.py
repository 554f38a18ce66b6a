"""What a run of MONAI's workflow does first: check the settings that were given to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from medsegdiff_bundle import configuration, errors, model_file, settings
from medsegdiff_bundle.given import texts_kept, texts_restored

STEPS = ("imports", "initialize", "run", "training", "finalize")  # of a configuration, not its settings
# What MONAI's runner takes for itself.
OF_THE_RUNNER = ("meta_file", "logging_file", "run_id", "init_id", "final_id", "workflow_type", "properties_path")


class Caller(NamedTuple):
    """Who evaluates the expression at hand."""

    parser: ConfigParser
    workflow: ConfigWorkflow
    files: tuple[str, ...]  # of the configuration; none if they are not known
    given: dict[str, Any]  # settings in place of those of the files
    nothing: tuple[str, ...] = ()  # names for which a command line gave None, which MONAI passes over


def steps(workflow: Any) -> list[str]:
    """Names of the entries that a workflow of MONAI's runs."""
    return [str(getattr(workflow, name)) for name in ("init_id", "run_id", "final_id")]


def begin() -> None:
    """Complete the configuration of the run whose `initialize` calls this, and check its settings.

    Nothing else is made of them before. Values that a command line hands over as text are put in as what they mean. In
    a process of `python -m monai.bundle`, whatever goes wrong from here on is said in one sentence.

    Raises:
        ValueError: the configuration has no such setting, or the setting no such value.
        SystemExit: `--help` was given: the settings were printed.
    """
    found = caller()
    if _from_shell():
        errors.quiet_readers()
        errors.end_when_told()
        if found is None or not settings.typed("debug", found.parser.get("debug", False)):
            errors.say_errors_in_a_sentence()
    if found is None:
        return  # others than a workflow evaluate a part of a configuration
    folder = _folder(found.workflow)
    of_files = ConfigParser.load_config_files(found.files) if found.files else {}
    if not model_file.is_completed(found.parser):
        if found.files:  # what they say, which the parser has changed before it evaluated this
            found.parser.set(texts_restored(found.parser.get(), [of_files, found.given]))
        model_file.complete_with_weights(found.parser, folder, found.given, steps(found.workflow))
    found.given.update({name: None for name in found.nothing if name in found.parser})  # as it is complete only now
    config: Any = found.parser.get()
    if found.files:
        content = configuration.complete(of_files, folder)
        if found.given.keys() & {"help", "h"} - content.keys():
            print(_listed(content))
            raise SystemExit(0)
        settings.check_names(found.given, content, config, " with ".join(found.files))
    known = settings.bundle_files(settings.bundle_root())
    settings.check_spelling(config, known, steps(found.workflow))
    settings.check_components(config, known)
    _put_in_typed(found)
    training = "training" in steps(found.workflow)
    settings.check_fit(dict(found.parser.get()), None if training else found.given)
    found.parser.set(texts_kept(found.parser.get(), found.parser))
    found.parser.parse(reset=True)  # a changed configuration makes the parser forget what it knew, this expression too
    device = config.get("device")
    if isinstance(device, str) and not settings.is_program(device):
        check_device(device)


def check_device(device: Any) -> None:
    """Refuse a device that is none or not here.

    Raises:
        ValueError: naming it.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"There is no device {str(device)!r} here.") from error


def _folder(workflow: ConfigWorkflow) -> Path:
    """Folder of the configuration files of this bundle: that of the run's first one, if it is one of them."""
    folder = Path(workflow.config_root_path)
    return folder if (folder / "inference.json").is_file() else settings.bundle_root() / "configs"


def _from_shell() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == "monai.bundle.__main__"


def calling_parser() -> ConfigParser | None:
    """The parser that evaluates the expression at hand, which MONAI does not hand over."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if isinstance(found := frame.f_locals.get("self"), ConfigParser):
            return found
        frame = frame.f_back
    return None


def caller() -> Caller | None:
    """The workflow that evaluates an expression, its parser, and what `create_workflow` put into it.

    MONAI merges what is given into the configuration and hands neither to an expression, so they are looked up in the
    calls that lead here. A workflow that was made without `create_workflow` has the merged configuration alone.
    """
    parser, workflow = calling_parser(), None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if workflow is None and isinstance(owner, ConfigWorkflow):
            workflow = owner
        elif workflow is not None and frame.f_code.co_name == "create_workflow":
            break
        frame = frame.f_back
    if parser is None or workflow is None:
        return None
    if frame is None:
        return Caller(parser, workflow, (), {})
    files, given, words = (frame.f_locals.get(name) for name in ("config_file", "_args", "kwargs"))
    given = {name: value for name, value in (given or {}).items() if name not in OF_THE_RUNNER}
    # Where None is the user's word; elsewhere it is the default of an argument.
    nothing = tuple(name for name, value in (words or {}).items() if value is None) if _from_shell() else ()
    given |= {name: None for name in nothing if name in parser}
    named = (files,) if isinstance(files, str) else tuple(str(file) for file in files or ())
    return Caller(parser, workflow, named, given, nothing)


def _put_in_typed(run: Caller) -> None:
    """Replace the values of the configuration, given ones and those of files, by what they mean."""
    parser = run.parser
    config: Any = dict(parser.get())
    for name in dict.fromkeys([*settings.KINDS, *run.given]):
        # The parser looks for the most similar entry of all, a slow search, before it says that there is none.
        if settings.parts(name)[0] not in config or name not in parser:
            continue
        value = run.given.get(name, parser[name])
        if value is None and parser[name] is not None and settings.kind(name, config) is None:
            raise ValueError(f"{name} cannot be None.")
        typed = settings.typed(name, value, config=config)
        if type(typed) is not type(parser[name]) or typed != parser[name]:
            parser[name] = typed


def _listed(content: Mapping[str, Any]) -> str:
    """The settings of a configuration that a command line can give in a word, with their values."""
    words = {name: value for name, value in content.items() if not isinstance(value, dict) and name not in STEPS}
    words |= {f"displayable_configs#{name}": value for name, value in content.get("displayable_configs", {}).items()}
    lines = [f"  --{name} {json.dumps(value)}" for name, value in words.items() if not isinstance(value, dict)]
    return "\n".join(["Settings, and what they are if they are not given:", *lines])
