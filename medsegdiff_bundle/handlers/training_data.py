"""What is wrong with the cases of a training, before its first step."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from medsegdiff_bundle.datalist import read_data_set

logger = logging.getLogger(__name__)


class CheckTrainingData:
    """Warn of cases that teach nothing or deceive: without a class, of one value everywhere, or there twice.

    A case of the training that also validates makes the validation look better than it is. Besides, the names that the
    data set gives the numbers of its labels, as in `dataset.json`, are compared with the class names.

    Args:
        training: data set of the training, a `CacheDataset`: what it keeps in memory is looked at. Of another, files
            alone are.
        validation: that of the validation.
        class_names: without the background.
        dataset_dir: folder of the cases.
        ignore_label: value of what was not annotated, which is nothing but background here.
    """

    def __init__(
        self,
        training: Any,
        validation: Any,
        class_names: Sequence[str],
        dataset_dir: str,
        ignore_label: int | None = None,
    ) -> None:
        self.sections = {"training": training, "validation": validation}
        self.class_names = class_names
        self.dataset_dir = Path(dataset_dir)
        self.ignore_label = ignore_label

    def attach(self, engine: Engine) -> None:
        """Register at a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Say what is found."""
        if idist.get_rank() == 0:
            for sentence in self.found():
                logger.warning(sentence)

    def found(self) -> Iterator[str]:
        """A sentence for each kind of fault of a section, which names its files."""
        seen: dict[Any, str] = {}
        for section, dataset in self.sections.items():
            empty, constant, twice = [], [], []
            for file, image, label in _cases(dataset):
                if label is not None and not bool(((label > 0) & (label != self.ignore_label)).any()):
                    empty.append(file)
                if image is not None and image.amin() == image.amax():
                    constant.append(file)
                key = file if image is None else _digest(image)
                if key in seen:
                    twice.append(f"{file} ({seen[key]})")
                else:
                    seen[key] = f"{section}: {file}"
            yield from _said(f"Labels of the {section} hold nothing but background", empty)
            yield from _said(f"Images of the {section} have one value everywhere", constant)
            yield from _said(f"Cases of the {section} are there already", twice)
        yield from self._names()

    def _names(self) -> Iterator[str]:
        """Whether the data set calls the numbers of its labels the same."""
        try:
            told = read_data_set(self.dataset_dir)
        except ValueError:
            return  # the cases are of some other list
        numbered = told.class_values in ((), tuple(range(len(told.class_names) + 1))) and not told.regions
        if told.class_names and numbered and [*map(_plain, told.class_names)] != [*map(_plain, self.class_names)]:
            yield (
                f"The data set calls its labels {', '.join(told.class_names)}, in this order; "
                f"class_names calls them {', '.join(self.class_names)}."
            )


def _cases(dataset: Any) -> Iterator[tuple[str, Tensor | None, Tensor | None]]:
    """Files of the images of a data set, with image and label as far as they are in memory."""
    kept = getattr(dataset, "_cache", None) or []
    for index, case in enumerate(dataset.data):
        item = kept[index] if index < len(kept) and isinstance(kept[index], Mapping) else {}
        values = [torch.as_tensor(item[key]) if key in item else None for key in ("image", "label")]
        yield str(case["image"]), values[0], values[1]


def _digest(image: Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().cpu().numpy().tobytes()).digest()


def _said(what: str, files: Sequence[str], shown: int = 3) -> Iterator[str]:
    if files:
        more = f" and {len(files) - shown} more" if len(files) > shown else ""
        yield f"{what}: {', '.join(files[:shown])}{more}."


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
