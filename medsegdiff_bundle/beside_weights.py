"""Files beside weights, which say something of these weights, and of no others."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medsegdiff_bundle.provenance import checksum

if TYPE_CHECKING:
    from medsegdiff_bundle.inferers import EnsembleInferer

BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


def sampler_settings(inferer: EnsembleInferer) -> dict[str, Any]:
    """What the numbers of such a file depend on, by the names of `inference.json`."""
    names = ("num_inference_steps", "ensemble_size", "start_from_anchor", "anchor_only")
    settings = {name: getattr(inferer, name) for name in names}
    return settings | {"mirror_axes": list(inferer.mirror_axes), "eta": getattr(inferer.scheduler, "eta", None)}


class BesideWeights(ABC):
    """What a JSON file beside weights says, where it is of these weights and holds what it should.

    Args:
        file: need not exist.
        checkpoint: the weights in use, whose SHA-256 the file names.
        settings: of the sampler in use, by name.

    Attributes:
        missing: why nothing is known, as a sentence; None if something is.
    """

    nothing: ClassVar[str]  # why nothing is known where there is no file
    no_weights: ClassVar[str]  # or where there are no weights, whose path takes the place of "{}"
    not_it: ClassVar[str]  # what is said after the name of a file that holds something else

    def __init__(self, file: str | os.PathLike, checkpoint: str | os.PathLike, settings: Mapping[str, Any]) -> None:
        self.file, self.checkpoint, self.settings = Path(file), checkpoint, settings
        self.missing = self._open()

    def _open(self) -> str | None:
        if not self.file.is_file():
            return self.nothing
        if not Path(self.checkpoint).is_file():
            return self.no_weights.format(repr(str(self.checkpoint)))
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            if content["sha256"] != checksum(self.checkpoint):
                return f"{self.file.name!r} is of other weights"
            return self._take(content)
        except BROKEN:
            return f"{self.file.name!r} {self.not_it}"

    @abstractmethod
    def _take(self, content: Any) -> str | None:
        """Keep what a file says, or tell why it does not hold; any of the errors of `BROKEN` if it says nothing."""

    def other_settings(self, content: Any) -> Iterator[tuple[str, Any, Any]]:
        """Name, value of the file and value in use of each setting that the two have not in common."""
        said = dict(content["settings"])
        for name, value in json.loads(json.dumps(dict(self.settings))).items():
            if said.get(name) != value:
                yield name, said.get(name), value
