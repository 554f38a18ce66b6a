"""Weights that lie elsewhere: in a folder or at an address that MEDSEGDIFF_WEIGHTS names, in place of the shipped ones.

There, the weights of a task are <task>.pt, with <task>.model.json beside, which holds their SHA-256, and, if there are
any, <task>.intervals.json and <task>.known.json.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from medsegdiff_bundle.configuration import WEIGHTS as VARIABLE
from medsegdiff_bundle.files import whole_files
from medsegdiff_bundle.provenance import checksum

logger = logging.getLogger(__name__)

BESIDE = ("intervals", "known")
MISSING = (403, 404)  # what stores of objects answer of a file that is not there
TIMEOUT = 30.0  # seconds without an answer


class AddressError(ValueError):
    """An address does not answer, or has no such file: `code` is its answer, None without one."""

    def __init__(self, url: str, error: Exception) -> None:
        super().__init__(f"{url!r} cannot be fetched: {error}.")
        self.code = error.code if isinstance(error, HTTPError) else None


def weights_elsewhere(task: str) -> str:
    """File of the weights of a task, fetched if need be.

    Raises:
        ValueError: there are none, or they are others than their `.model.json` says.
    """
    place = os.environ[VARIABLE]
    if re.match("https?://", place):
        return str(_fetched(place.rstrip("/"), task))
    file = Path(place) / f"{task}.pt"
    if not file.is_file():
        raise ValueError(f"{VARIABLE} names {place!r}, where there is no {file.name}.")
    return str(file)


def cache_folder(address: str) -> Path:
    """Where the files of an address are kept."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "medsegdiff_bundle" / hashlib.sha256(address.encode()).hexdigest()[:16]


def _fetched(address: str, task: str) -> Path:
    """The weights of a task in the cache, as they are at the address; without a way there as they were."""
    cache = cache_folder(address)
    weights, description = cache / f"{task}.pt", cache / f"{task}.model.json"
    with tempfile.TemporaryDirectory() as temporary:
        fetched = Path(temporary)
        try:
            _read(f"{address}/{description.name}", fetched)
        except AddressError as error:
            if error.code is not None or not _is(weights, description):
                raise
            logger.warning("%s The weights that were fetched before are taken.", error)
            return weights
        sha256 = _sha256(fetched / description.name, address)
        if weights.is_file() and checksum(weights) == sha256:
            return weights
        gone = []
        for name in (f"{task}.{kind}.json" for kind in BESIDE):
            try:
                _read(f"{address}/{name}", fetched)
            except AddressError as error:
                if error.code not in MISSING:
                    raise
                gone.append(cache / name)
        _download(f"{address}/{weights.name}", fetched, sha256)
        with whole_files(cache, weights) as unfinished:
            for file in fetched.iterdir():
                shutil.move(file, unfinished)
    for file in gone:  # which was of other weights
        file.unlink(missing_ok=True)
    return weights


def _is(weights: Path, description: Path) -> bool:
    """Whether weights are there, and those that are described."""
    return weights.is_file() and description.is_file() and checksum(weights) == _sha256(description, str(description))


def _sha256(description: Path, place: str) -> str:
    try:
        found = json.loads(description.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{description.name} of {place!r} describes no weights.") from error
    if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
        raise ValueError(f"{description.name} of {place!r} has the SHA-256 {found!r}, which is none.")
    return found


def _read(url: str, folder: Path) -> None:
    """Fetch a small file into a folder.

    Raises:
        AddressError: it cannot be fetched.
    """
    try:
        with urlopen(url, timeout=TIMEOUT) as answer:
            (folder / Path(url).name).write_bytes(answer.read())
    except (OSError, HTTPException) as error:
        raise AddressError(url, error) from error


def _download(url: str, folder: Path, sha256: str) -> None:
    """Fetch a large file into a folder, with a bar.

    Raises:
        AddressError: it cannot be fetched.
        ValueError: it has another checksum.
    """
    from monai.apps.utils import download_url  # takes seconds, and most runs fetch nothing

    file = folder / Path(url).name
    try:
        download_url(url, file)
    except (OSError, HTTPException, RuntimeError) as error:
        raise AddressError(url, error) from error
    if checksum(file) != sha256:
        raise ValueError(f"{url!r} holds other weights than {file.stem}.model.json beside it says.")
