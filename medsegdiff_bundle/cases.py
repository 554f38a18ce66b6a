"""Run of an evaluator over many images, of which a bad one does not end it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch.distributed as dist
from ignite.engine import Engine, Events
from ignite.engine.events import RemovableEventHandle
from monai.data import DataLoader
from monai.engines import Evaluator
from monai.utils import ensure_tuple

import medsegdiff_bundle
from medsegdiff_bundle import errors
from medsegdiff_bundle.datalist import case_name, dicom_files
from medsegdiff_bundle.datalist.naming import VOLUMES
from medsegdiff_bundle.files import FullDiskError, check_writable
from medsegdiff_bundle.given import as_said
from medsegdiff_bundle.journal import DONE, FAILED, SKIPPED, Journal
from medsegdiff_bundle.provenance import checksum
from medsegdiff_bundle.remarks import without_folders
from medsegdiff_bundle.workflow import caller

logger = logging.getLogger(__name__)

# Settings that say where, how fast and how loudly, not what comes out.
BESIDES = ("bundle_root", "dataset_dir", "output_dir", "overwrite", "debug", "progress", "members_per_batch", "_meta_")


def run_cases(
    evaluator: Evaluator,
    output_dir: str | os.PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike | None = None,
    overwrite: bool = True,
    on_failure: Callable[[str, str], None] | None = None,
) -> None:
    """Run an evaluator, case by case, to the end of its data, whatever becomes of single ones.

    Args:
        evaluator: with a `DataLoader` of cases {"image": path}; a case may hold `refused`, why it is none.
        output_dir: folder of the results of `inference.json`, which for several images gets a `Journal`; None looks for
            none.
        settings: of the run, as they are written; None takes those of the workflow that calls this. Results are made
            anew unless they are of the same settings, weights, version and image file, which a `fingerprint` in their
            report tells.
        checkpoint: file of weights.
        overwrite: make all results anew.
        on_failure: called with an image's file and a sentence for each that fails, instead of the error at the end.

    Raises:
        medsegdiff_bundle.errors.UnsegmentedError: about the images that failed, after the others were done.
        medsegdiff_bundle.files.WriteError: the folder cannot be written, or the disk is full, which ends the run.
    """
    loader: Any = evaluator.data_loader
    cases: list[dict[str, Any]] = loader.dataset.data
    left, skipped = list(loader.sampler), list[int]()
    number = len(left)
    if output_dir is not None:
        check_writable(output_dir)
    of_workflow = settings is None
    if of_workflow and (workflow := caller()) is not None:
        settings = as_said(workflow.parser)
    if output_dir is not None and settings is not None and checkpoint is not None:
        run = run_fingerprint(settings, checkpoint)
        for case in cases:
            case["fingerprint"] = _fingerprint(run, case["image"])
        if not overwrite:
            skipped = _done_before(cases, left, Path(output_dir))
    outcomes = _Outcomes(output_dir, cases, number, on_failure)
    outcomes.note(SKIPPED, skipped)
    there = set(skipped)
    left = [index for index in left if index not in there]
    for index in left:
        if "refused" in cases[index]:
            outcomes.fail(index, cases[index]["refused"])
    error = _run_one_by_one(evaluator, [index for index in left if "refused" not in cases[index]], outcomes)
    if of_workflow:  # else another program's processes, which may have other numbers of images
        _wait_for_the_others()
    if outcomes.failures and on_failure is None:
        raise errors.UnsegmentedError(outcomes.failures, number) from error


def _done_before(cases: Sequence[Mapping[str, Any]], indices: Sequence[int], output_dir: Path) -> list[int]:
    """Which of some cases need not be done again, which is logged."""
    done = [index for index in indices if is_done(cases[index], output_dir)]
    if done:
        logger.warning(
            "%d of %d images have results of these settings in %r already: --overwrite makes them anew.",
            len(done),
            len(indices),
            str(output_dir),
        )
    return done


def _run_one_by_one(evaluator: Evaluator, left: list[int], outcomes: _Outcomes) -> BaseException | None:
    """Run some cases, each batch that fails again by its cases, and each case that fails left out of the rest.

    Returns:
        The error that ended the last run, or None.
    """
    loader: Any = evaluator.data_loader
    size = loader.batch_size
    watch = _Watch(evaluator, lambda batch: outcomes.note(DONE, left[batch * size : (batch + 1) * size]))
    while left:
        if len(left) < outcomes.number:
            evaluator.data_loader = DataLoader(
                loader.dataset,
                loader.num_workers,
                batch_size=size,
                sampler=left,
                collate_fn=loader.collate_fn,
            )
            evaluator.state.epoch_length = len(evaluator.data_loader)
        watch.start()
        evaluator.run()
        left = left[watch.done * size :]
        if watch.error is None:
            break
        if size > 1:
            size = 1  # to tell whose error it is
            continue
        index = left.pop(0)
        outcomes.fail(index, case_sentence(watch.error, outcomes.file(index)))
    return watch.error


def _wait_for_the_others() -> None:
    """Until all processes that torchrun started are here: it ends all of them once one ends with an error."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return
    alone = not dist.is_initialized()
    if alone:
        dist.init_process_group("gloo", timeout=timedelta(days=7))
    dist.barrier()
    if alone:
        dist.destroy_process_group()


_HANDLES: WeakKeyDictionary[Engine, list[RemovableEventHandle]] = WeakKeyDictionary()  # of the watch of an evaluator


class _Watch:
    """How many batches of a run are done, and the error that ended it while one was in work."""

    def __init__(self, evaluator: Evaluator, on_done: Callable[[int], None]) -> None:
        self.begun = False
        self.on_done = on_done
        self.done = 0
        self.error: BaseException | None = None
        for handle in _HANDLES.pop(evaluator, []):
            handle.remove()  # of the last watch
        _HANDLES[evaluator] = [
            evaluator.add_event_handler(Events.STARTED, self._begin, False),
            evaluator.add_event_handler(Events.EPOCH_STARTED, self._begin, True),
            evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._count),
            evaluator.add_event_handler(Events.EXCEPTION_RAISED, self._keep),
        ]

    def start(self) -> None:
        """Forget the last run."""
        self.done, self.error = 0, None

    def _begin(self, begun: bool) -> None:
        self.begun = begun

    def _count(self) -> None:
        self.done += 1
        self.on_done(self.done - 1)

    def _keep(self, engine: Engine, error: BaseException) -> None:
        # Not of one case: weights that do not fit; or nothing that the next case could mend.
        lasting = isinstance(error, CallersError) or isinstance(errors.root_cause(error), FullDiskError)
        if not self.begun or not isinstance(error, Exception) or lasting:
            raise error
        self.error = error  # and the engine ends as after its last case


class _Outcomes:
    """What became of the cases of a run: in the journal of a folder of several images, and of those that failed."""

    def __init__(
        self,
        output_dir: str | os.PathLike | None,
        cases: Sequence[Mapping[str, Any]],
        number: int,
        on_failure: Callable[[str, str], None] | None,
    ) -> None:
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        process = int(os.environ["RANK"]) if several else None
        self.cases, self.number, self.on_failure = cases, number, on_failure
        self.journal = Journal(output_dir, process) if output_dir is not None and number > 1 else None
        self.failures: dict[str, str] = {}  # sentences by file

    def file(self, index: int) -> str:
        """The image's, or its first."""
        return str(ensure_tuple(self.cases[index]["image"])[0])

    def note(self, state: str, indices: Iterable[int], reason: str | None = None) -> None:
        """Add what became of some cases to the journal."""
        if self.journal is None:
            return
        for index in indices:
            file = Path(self.file(index))
            said = None if reason is None else without_folders(reason, file)
            self.journal.note(case_name(file), file.name, state, said)

    def fail(self, index: int, sentence: str) -> None:
        """Keep why a case has no result, and tell it."""
        file = self.file(index)
        self.failures[file] = sentence
        self.note(FAILED, [index], sentence)
        if self.on_failure is not None:
            self.on_failure(file, sentence)
        elif self.number > 1:
            logger.error("%s", sentence)


class CallersError(Exception):
    """An error of the caller's own function, which ends the run."""


def case_sentence(error: BaseException, file: str) -> str:
    """What an error says, in one line that names the image."""
    line = errors.reason(errors.root_cause(error))
    return line if file in line else f"{file!r} cannot be segmented: {line}"


def run_fingerprint(settings: Mapping[str, Any], checkpoint: str | os.PathLike) -> str:
    """What results depend on besides the image, in 64 letters: settings, weights and version."""
    words = {name: value for name, value in settings.items() if name not in BESIDES}
    found = hashlib.sha256(json.dumps(words, sort_keys=True, default=repr).encode())
    found.update(medsegdiff_bundle.__version__.encode())
    if checkpoint:  # an empty path stands for weights that nothing loads
        found.update(checksum(checkpoint).encode())
    return found.hexdigest()


def _fingerprint(run: str, image: Any) -> str:
    found = hashlib.sha256(run.encode())
    for file in ensure_tuple(image):
        path = Path(os.path.abspath(file))
        for each in dicom_files(path) if path.is_dir() else [path]:
            if each.exists():
                found.update(f"{each}\n{each.stat().st_size}\n{each.stat().st_mtime_ns}\n".encode())
    return found.hexdigest()


def is_done(case: Mapping[str, Any], output_dir: Path) -> bool:
    """Whether a folder holds the mask of a case and a report, which is written last, with its fingerprint."""
    name = case_name(ensure_tuple(case["image"])[0])
    try:
        report = json.loads((output_dir / f"{name}_report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    same = isinstance(report, dict) and report.get("fingerprint") == case["fingerprint"]
    return same and any((output_dir / f"{name}_seg{ending}").is_file() for ending in (*VOLUMES, ".png"))
