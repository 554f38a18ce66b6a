"""Headers of images and JSON files with random faults, through our own readers: each ends in a result or one sentence.

Every input is a right file after one to four changes: bits, whole fields, bytes cut, doubled or put in; in JSON values,
names and whole parts. The generator has a seed for each input, so that `--kind nifti --first 1234 --number 1` makes
that input again, and `--keep` leaves it. What is a fault: another error than `ValueError`, one of several lines, with
control characters or longer than 1000 characters, a result that is none (an image without voxels or place), more than
ten seconds, or the end of the process. For Linux:

    python scripts/fuzz_headers.py --number 10000
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import SimpleITK
from bad_input_cases.writers import series as write_series

import medsegdiff_bundle
from medsegdiff_bundle import configuration, known, model_file, settings
from medsegdiff_bundle.case_numbers import Description
from medsegdiff_bundle.datalist import image_datalist, segmentation_datalist, series_datalist
from medsegdiff_bundle.grid import image_grid
from medsegdiff_bundle.intervals import VolumeIntervals
from medsegdiff_bundle.provenance import as_reported, checksum
from medsegdiff_bundle.transforms.load import FARTHEST, load_image

ROOT = Path(medsegdiff_bundle.__file__).parent.parent
CONFIGS = ROOT / "configs"
LIMIT = 10  # seconds of the processor for an input
MEMORY = 4 << 30  # bytes besides what this process has
LONGEST = 1000  # characters of a sentence
BLOCK = 500  # inputs of a child
NUMBERS = [0, 1, -1, 2, 7, 255, -32768, 32767, 2**31 - 1, -(2**31), 1e-38, 1e30, float("nan"), float("inf"), -0.0]
VALUES = [
    None,
    True,
    False,
    "",
    "x",
    "@epochs",
    "@",
    "$1",
    "%x",
    "...",
    "a#b",
    "::",
    [],
    {},
    [[]],
    "1",
    "nan",
    *NUMBERS,
]
VALUES += [2**70, -3, 0.5, "\udc80", "é", ["..."], {"_target_": "x"}, {"a": {"b": 1}}, "/", "..", [1, 2], ["a", "a"]]


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        make: writes a right one into a folder, and returns its file.
        change: of its bytes.
        read: what reads the file.
    """

    make: Callable[[Path], Path]
    change: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], Any]


# ------------------------------------------------------------------------------------------------------------ changes


def bytes_of(limit: int) -> Callable[[bytes, random.Random], bytes]:
    """Changes of the bytes before a place: bits, bytes, parts; or the file is cut."""

    def change(data: bytes, chance: random.Random) -> bytes:
        found = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(min(limit, len(found)) or 1) if found else 0
            match chance.randrange(7):
                case 0 | 1 if found:
                    found[at] ^= 1 << chance.randrange(8)
                case 2 if found:
                    found[at] = chance.choice([0, 1, 10, 32, 45, 48, 57, 127, 128, 255])
                case 3:
                    del found[at:]
                case 4:
                    del found[at : at + chance.randint(1, 8)]
                case 5:
                    found[at:at] = found[at : at + chance.randint(1, 40)]
                case _:
                    found[at:at] = chance.choice([b"0", b"-", b"nan", b"9" * 20, b"\n", b"\0\0", b"=", b":", b"\xff"])
        return bytes(found)

    return change


def fields(data: bytes, chance: random.Random) -> bytes:
    """Changes of the fields of a header of NIfTI, sometimes of its bytes."""
    if chance.random() < 0.2:
        return bytes_of(352)(data, chance)
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        name = chance.choice(list(nibabel.nifti1.header_dtype.names))
        kind, offset = nibabel.nifti1.header_dtype.fields[name][:2]
        base = kind.base
        place = offset + base.itemsize * chance.randrange(kind.itemsize // base.itemsize)
        if base.kind in "iuf":
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                new = np.asarray(float(chance.choice(NUMBERS))).astype(base).tobytes()
        else:
            new = chance.randbytes(base.itemsize)
        found[place : place + base.itemsize] = new
    return bytes(found)


def json_of(data: bytes, chance: random.Random) -> bytes:
    """Changes of what a JSON file holds, sometimes of its bytes."""
    if chance.random() < 0.1:
        return bytes_of(len(data))(data, chance)
    content = json.loads(data)
    for _ in range(chance.randint(1, 4)):
        places = list(_places(content))
        if not places:
            content = chance.choice(VALUES)
            break
        holder, key = chance.choice(places)
        match chance.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[str(chance.choice(["", "a#b", "+" + key, "$x", key + "#0", "...", key.upper()]))] = holder[key]
            case 2:
                holder[key] = [holder[key]]
            case 3:
                other, name = chance.choice(places)
                holder[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else name))
            case _:
                holder[key] = chance.choice(VALUES)
    if chance.random() < 0.02:
        content = chance.choice(VALUES)
    return json.dumps(content).encode()


def _places(value: Any) -> Any:
    """Every holder in a value, with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


# -------------------------------------------------------------------------------------------------------------- kinds


def image(path: Path) -> None:
    """Read an image, as data lists and runs do, and look at what came."""
    image_datalist(path)
    found = load_image(path)
    image_grid(found)
    affine = found.affine.numpy()
    assert found.ndim in (3, 4) and min(found.shape) > 0, f"an image of {tuple(found.shape)}"
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    right = np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3] / sizes) == 3
    assert right and np.abs(affine[:3, 3]).max() < FARTHEST * sizes.min(), f"a place {affine.tolist()}"


def series(path: Path) -> None:
    """Read a DICOM series of which one file has a fault."""
    series_datalist(path.parent)
    found = load_image(path.parent)
    assert min(found.shape) > 0 and np.isfinite(found.affine.numpy()).all()


def overlay(path: Path) -> None:
    """Check a configuration file over that of a training, as far as that runs nothing of it."""
    content = configuration.read([CONFIGS / "train.json", path])
    settings.check_names({}, content)
    settings.check_spelling(content, settings.bundle_files(ROOT))
    typed = {name: settings.typed(name, value, config=content) for name, value in content.items()}
    settings.check_fit({**content, **typed})


def datalist(path: Path) -> None:
    """Read the list of a data set."""
    for section in ("training", "validation"):
        segmentation_datalist(path.parent, section, 1, 3)


def model(path: Path) -> None:
    """Read what weights say of their model, and put it over the configuration."""
    checkpoint = path.with_name("x.pt")
    found = model_file.read_model(checkpoint)
    assert found is not None
    base = settings.read_files([CONFIGS / "inference.json"])
    whole = configuration.complete(model_file.over_files(base, found, checkpoint, CONFIGS), CONFIGS)
    for name, value in whole.items():
        settings.typed(name, value, config=whole)


def of_known(path: Path) -> None:
    """Compare a case with what weights know."""
    found = known.Known(path, path.with_name("x.pt"), {"ensemble_size": 6})
    numbers = dict.fromkeys(json.loads((ROOT / "models" / "model.known.json").read_text())["numbers"], 1.0)
    compared = found.compare(Description(numbers, numbers))
    if compared is not None:
        known.unlike(compared, found.cases)
    known.too_small([16, 16, 16], found.patch_size, (20, 20, 20))


def of_intervals(path: Path) -> None:
    """Ask for the interval of a volume."""
    found = VolumeIntervals(path, path.with_name("x.pt"), {})
    found("anterior", [1.0, 1.1, 1.3])


def report(path: Path) -> None:
    """Take the settings of a report."""
    as_reported(path)


def _volume(ending: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        values = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)
        file = folder / f"x{ending}"
        if ending == ".nii":
            nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2, 3, 1])), file)
        else:
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(file))
        return file

    return make


def _series(folder: Path) -> Path:
    write_series(lambda slice_, index: None)(folder)
    return folder / "series" / "1.dcm"


def _copied(source: str, name: str) -> Callable[[Path], Path]:
    """A file beside weights, with their checksum."""

    def make(folder: Path) -> Path:
        (folder / "x.pt").write_bytes(b"weights")
        content = json.loads((ROOT / "models" / source).read_text())
        (folder / name).write_text(json.dumps({**content, "sha256": checksum(folder / "x.pt")}))
        return folder / name

    return make


def _datalist(folder: Path) -> Path:
    file = _volume(".nii")(folder)
    for name in "abcd":
        shutil.copy(file, folder / f"{name}.nii")
    file.unlink()
    cases = [{"image": "a.nii", "label": "b.nii"}, {"image": "c.nii", "label": "d.nii"}]
    content = {"labels": {"0": "background", "1": "one"}, "training": cases[:1], "validation": cases[1:]}
    content |= {"modality": {"0": "MRI"}, "numTraining": 2, "tensorImageSize": "3D"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


def _written(name: str, content: Any) -> Callable[[Path], Path]:
    return lambda folder: (folder / name).write_text(json.dumps(content)) and folder / name or folder


OVERLAY = {
    "epochs": 3,
    "class_names": ["one", "two"],
    "patch_size": [16, 16, 16],
    "network_def#channels": [4, 8],
    "network_def": {"...": "", "num_heads": 2},
    "preparation": ["...", {"_target_": "ScaleIntensityd", "keys": "image"}],
    "train#trainer#max_epochs": 2,
    "+mirror_axes": [1],
    "loss": {"_target_": "DiceLoss", "sigmoid": True},
    "spacing": [1, 1, 2],
    "task": "mine",
}
REPORT = {
    "task": "hippocampus",
    "version": medsegdiff_bundle.__version__,
    "settings": {"ensemble_size": 6, "roi_size": None, "seed": 0},
    "weights": {"file": "model.pt", "sha256": "0" * 64},
}
KINDS = {
    "nifti": Kind(_volume(".nii"), fields, image),
    "nrrd": Kind(_volume(".nrrd"), bytes_of(400), image),
    "metaimage": Kind(_volume(".mha"), bytes_of(400), image),
    "dicom": Kind(_series, bytes_of(1200), series),
    "overlay": Kind(_written("mine.json", OVERLAY), json_of, overlay),
    "datalist": Kind(_datalist, json_of, datalist),
    "model": Kind(_copied("model.model.json", "x.model.json"), json_of, model),
    "known": Kind(_copied("model.known.json", "x.known.json"), json_of, of_known),
    "intervals": Kind(_copied("model.intervals.json", "x.intervals.json"), json_of, of_intervals),
    "report": Kind(_written("x_report.json", REPORT), json_of, report),
}


# ---------------------------------------------------------------------------------------------------------------- run


def outcome(kind: Kind, file: Path, data: bytes) -> str:
    """Read an input: "result", "refused", or the fault."""
    file.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        kind.read(file)
    except ValueError as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        own = Path(where.filename).is_relative_to(Path(medsegdiff_bundle.__file__).parent)
        said = str(error).strip()
        return "refused" if own and said.isprintable() and len(said) < LONGEST else _fault(error)
    except BaseException as error:
        return _fault(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "result"


def _fault(error: BaseException) -> str:
    own = [each for each in traceback.extract_tb(error.__traceback__) if "medsegdiff_bundle" in each.filename]
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "scripts"
    return f"{type(error).__name__} in {where}: {(str(error).splitlines() or [''])[0][:120]}"


def too_long(number: int, frame: Any) -> None:
    """What the signal of the time that an input may take leads to."""
    raise TimeoutError(f"more than {LIMIT} s")


def block(name: str, first: int, number: int, notes: Path, keep: Path | None) -> None:
    """Try some inputs, and note each outcome as a line: this process may end at any of them."""
    kind = KINDS[name]
    signal.signal(signal.SIGPROF, too_long)
    with tempfile.TemporaryDirectory() as folder, notes.open("a") as stream:
        file = kind.make(Path(folder))
        right = file.read_bytes()
        assert outcome(kind, file, right) == "result", outcome(kind, file, right)
        for index in range(first, first + number):
            stream.write(f"{index}\t")
            stream.flush()
            data = kind.change(right, random.Random(f"{name} {index}"))
            if keep is not None:
                keep.write_bytes(data)
            stream.write(f"{outcome(kind, file, data)}\n")


def tried(name: str, first: int, number: int, keep: Path | None) -> tuple[Counter[str], dict[str, int]]:
    """Outcomes of some inputs, in children of this process, and the first input of each fault."""
    counted: Counter[str] = Counter()
    faults: dict[str, int] = {}
    end = first + number
    with tempfile.TemporaryDirectory() as folder:
        while first < end:
            notes = Path(folder) / "notes"
            notes.unlink(missing_ok=True)
            child = os.fork()
            if child == 0:
                _be_child(name, first, min(BLOCK, end - first), notes, keep)
            _, code = os.waitpid(child, 0)
            lines = [line.split("\t") for line in notes.read_text().splitlines()] if notes.is_file() else []
            if code and not (lines and lines[-1][1] == ""):
                raise RuntimeError(f"The right file of the kind {name} failed.")
            for index, said in lines:
                said = said or f"the process ended by {os.waitstatus_to_exitcode(code)}"
                counted[said if said in ("result", "refused") else "fault"] += 1
                if said not in ("result", "refused"):
                    faults.setdefault(said, int(index))
            first = int(lines[-1][0]) + 1
    return counted, faults


def _be_child(name: str, first: int, number: int, notes: Path, keep: Path | None) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where ITK talks by itself
    code = 1
    try:
        block(name, first, number, notes, keep)
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    os._exit(code)


def common_options(about: str | None) -> argparse.ArgumentParser:
    """Options that `fuzz_guided.py` has, too; `about` is the page of the script."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--number", type=int, default=1000, help="of each kind")
    return parser


def silence() -> None:
    """No logs, warnings, or talk of ITK: of some inputs there is a lot."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = common_options(__doc__)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="that gets each input, the last one in the end")
    return parser.parse_args()


def main() -> int:
    """Try them, and print the counts and the faults."""
    options = arguments()
    silence()
    print("| kind | inputs | results | refused | faults | seconds |\n|---|---|---|---|---|---|")
    found: list[str] = []
    for name in options.kind:
        begin = time.monotonic()
        counted, faults = tried(name, options.first, options.number, options.keep)
        numbers = [options.number, counted["result"], counted["refused"], counted["fault"]]
        print(f"| {name} | {' | '.join(map(str, numbers))} | {time.monotonic() - begin:.0f} |", flush=True)
        found += [f"{name} {index}: {said}" for said, index in faults.items()]
    print("\n".join(["", *found]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
