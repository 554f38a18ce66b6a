"""What becomes of commands asked wrongly, and of series, folders, labels and files that are not as they should be.

Each situation is one command line, which runs in a process of its own in each checkout that is given, here "before" and
"after". Prints a Markdown table: the situation, the command, and of each checkout the exit status, the number of masks
that were written, what was found in them, and the first line that a user sees. Example:

    python scripts/command_trials.py CHECKOUT_OF_0.11 .
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from file_trials import FILE, dice, photograph, volume
from PIL import Image

SECONDS = 240  # after which a command counts as one that goes on
OURS, RUNNER = "medsegdiff_bundle", "monai.bundle"
INFERENCE, TRAINING = "configs/inference.json", "configs/train.json"
Find = Callable[[Path], str]  # what is to be said of a folder after the command


class Trial(NamedTuple):
    """A situation.

    Attributes:
        make: writes files into a folder.
        words: of the command behind `python -m`; IN, OUT stand for that folder and an empty one.
        find: says what is in the two folders afterwards.
    """

    make: Callable[[Path], Any]
    words: list[str]
    find: Find | None = None


def segment(name: str, *more: str) -> list[str]:
    """The command for a file of the folder."""
    return [OURS, "segment", f"IN/{name}", "-o", "OUT", "--device", "cpu", *more]


def run(config: str, *more: str) -> list[str]:
    """A command of MONAI's runner."""
    return [RUNNER, "run", "--config_file", config, "--output_dir", "OUT", *more]


# Files


def saved(values: np.ndarray, name: str = "x.nii.gz", affine: np.ndarray | None = None) -> Callable[[Path], Any]:
    """A volume."""
    return lambda folder: nibabel.save(
        nibabel.Nifti1Image(values, volume()[2] if affine is None else affine), folder / name
    )


def write_series(folder: Path, change: Callable[[Any, int], None] = lambda item, index: None, first: int = 0) -> None:
    """The embedded volume as slices of a DICOM series, each after a change that knows its place."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    values, _, affine = volume()
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(values.shape[2]):
        item = pydicom.Dataset()
        item.file_meta = pydicom.dataset.FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.SOPClassUID, item.SOPInstanceUID = MRImageStorage, f"1.2.826.0.1.{first + index + 1}"
        item.StudyInstanceUID, item.SeriesInstanceUID, item.FrameOfReferenceUID = "1.2.1", "1.2.2", "1.2.3"
        item.Modality, item.SeriesNumber, item.StudyID, item.AccessionNumber = "MR", 1, "1", ""
        item.PatientName, item.PatientID, item.PatientBirthDate, item.PatientSex = "a", "b", "", ""
        item.StudyDate, item.StudyTime, item.ReferringPhysicianName = "20200102", "101500", ""
        item.Manufacturer, item.PositionReferenceIndicator, item.InstanceNumber = "c", "", index + 1
        item.Rows, item.Columns = values.shape[1], values.shape[0]
        item.ImageOrientationPatient = [*lps[:3, 0], *lps[:3, 1]]
        item.ImagePositionPatient = (lps @ [0, 0, index, 1])[:3].tolist()
        item.PixelSpacing, item.SliceThickness = [1, 1], 1
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
        item.PixelData = np.ascontiguousarray(values[:, :, index].T.round().astype("<i2")).tobytes()
        change(item, index)
        item.save_as(folder / f"IM{first + index:04d}", enforce_file_format=True)


def series(change: Callable[[Any, int], None] = lambda item, index: None) -> Callable[[Path], Any]:
    """A series in the folder `series`."""
    return lambda folder: write_series(folder / "series", change)


def setting(**given: Any) -> Callable[[Any, int], None]:
    """A change that sets attributes, of numbers or by the place of a slice."""

    def change(item: Any, index: int) -> None:
        for name, value in given.items():
            setattr(item, name, value(index) if callable(value) else value)

    return change


def two_echoes(folder: Path) -> None:
    """Both in one folder."""
    for number in range(2):
        write_series(folder / "series", setting(EchoTime=10 * (number + 1)), 100 * number)


def copied(folder: Path) -> None:
    """One file twice."""
    series()(folder)
    shutil.copy(folder / "series/IM0003", folder / "series/copy")


def missing(folder: Path) -> None:
    """One slice less."""
    series()(folder)
    (folder / "series/IM0012").unlink()


def with_folder(folder: Path) -> None:
    """A folder of results among the slices."""
    series()(folder)
    (folder / "series/results").mkdir()
    (folder / "series/results/notes.txt").write_text("a")


def zipped(folder: Path) -> None:
    """The series as a zip."""
    series()(folder)
    with zipfile.ZipFile(folder / "series.zip", "w") as archive:
        for file in sorted((folder / "series").iterdir()):
            archive.write(file, f"a/{file.name}")
    shutil.rmtree(folder / "series")


def three_files(folder: Path) -> None:
    """Images in a folder, the second of which is cut."""
    for name in "abc":
        shutil.copy(FILE, folder / f"{name}.nii.gz")
    (folder / "b.nii.gz").write_bytes(FILE.read_bytes()[:5000])


def mixed(folder: Path) -> None:
    """A volume, a picture and a text."""
    shutil.copy(FILE, folder / "a.nii.gz")
    photograph(1)(folder)
    (folder / "notes.txt").write_text("a")


def two_channels(folder: Path) -> None:
    """As nnU-Net names the channels of one image."""
    for channel in range(2):
        shutil.copy(FILE, folder / f"case_{channel:04d}.nii.gz")


def picture(name: str) -> Callable[[Path], Any]:
    """The drawn lesion in another file."""

    def make(folder: Path) -> None:
        file, _ = photograph(1)(folder)
        Image.open(file).save(folder / name)

    return make


def grey(folder: Path) -> None:
    """The drawn lesion without its colours."""
    file, _ = photograph(1)(folder)
    Image.open(file).convert("L").save(folder / "x.png")


def megapixels(folder: Path) -> None:
    """200 of them."""
    Image.new("L", (20000, 10000)).save(folder / "x.png")


def data_set(
    change: Callable[[np.ndarray], np.ndarray], moved: float = 0, only: int | None = None, order: str = "XYZ"
) -> Callable[[Path], Any]:
    """A set of two cases in the form of the Decathlon, with their labels after a change, their axes in an order."""

    def make(folder: Path) -> None:
        cases = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in "ab"]
        values, label, affine = volume()
        place = affine.copy()
        place[0, 3] += moved
        axes = ["XYZ".index(name) for name in order]
        changed = change(label if only is None else label * (label == only))
        for case in cases:
            for kind in case.values():
                (folder / kind).parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, affine), folder / case["image"])
            turned = changed.transpose([*axes, *range(3, changed.ndim)])
            nibabel.save(nibabel.Nifti1Image(turned, place[:, [*axes, 3]]), folder / case["label"])
        names = {"0": "background", "1": "anterior", "2": "posterior"}
        content = {"labels": names, "training": cases[:1], "validation": cases[1:]}
        (folder / "dataset.json").write_text(json.dumps(content))

    return make


EVALUATE = [RUNNER, "run", "--config_file", "['configs/train.json','configs/evaluate.json']", "--dataset_dir", "IN"]
EVALUATE += ["--checkpoint", "models/model.pt", "--device", "$torch.device('cpu')"]
TRAIN = [*run(TRAINING, "--dataset_dir", "IN"), "--epochs", "2", "--val_interval", "1", "--batch_size", "1"]
TRAIN += ["--network_def#channels", "[8, 16, 16]", "--device", "$torch.device('cpu')"]


# What is found


def dices(folder: Path) -> str:
    """Of the mask of the embedded volume."""
    masks = sorted((folder / "out").glob("*_seg.nii*"))
    if not masks:
        return ""
    mask = np.asarray(nibabel.load(masks[0]).dataobj)
    label = volume()[1]
    if mask.shape != label.shape:
        return f"mask of {mask.shape}"
    return "Dice " + dice(mask, label)


def dicom_segmentation(folder: Path) -> str:
    """Whether highdicom reads the segmentation object as a volume."""
    import highdicom

    (file,) = [*(folder / "out").glob("*_seg.dcm"), None][:1]
    if file is None:
        return "no SEG"
    try:
        highdicom.seg.segread(file).get_volume(combine_segments=True)
    except Exception as error:
        return f"SEG: {type(error).__name__}"
    return "SEG is read"


def front_right(folder: Path) -> str:
    """Where a picture shows what lies to the front and the right of the patient."""
    pictures = sorted((folder / "out").glob("*_overlay.png"))
    if not pictures:
        return ""
    shown = np.asarray(Image.open(pictures[0]).convert("L"), dtype=float)
    height, width = shown.shape[0], shown.shape[1] // 4  # of the first of four columns
    tile = shown[: height // 3 if height > 1.5 * width else height, :width]  # of three planes, or of one
    rows, columns = np.nonzero(tile > 0.9 * tile.max())
    vertical = "top" if rows.mean() < tile.shape[0] / 2 else "bottom"
    return f"shown at the {vertical} {'left' if columns.mean() < width / 2 else 'right'}"


def weights(folder: Path) -> str:
    """Whether a training has kept any."""
    file = folder / "out/model.pt"
    return "no weights" if not file.exists() else ""


def marked(folder: Path) -> None:
    """An LPS file that is bright to the front and the right."""
    values = np.random.default_rng(0).normal(100, 3, (40, 40, 24)).astype(np.float32)
    values[4:14, 4:14] += 900  # in LPS the first voxels lie to the right and to the front
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, -1, 1, 1])), folder / "x.nii.gz")


TRIALS: dict[str, Trial] = {
    "help": Trial(lambda folder: None, [OURS, "--help"]),
    "a file that does not exist": Trial(lambda folder: None, segment("x.nii.gz")),
    "a setting misspelt": Trial(saved(volume()[0]), segment("x.nii.gz", "--checkpiont", "y.pt")),
    "a setting misspelt, in MONAI's runner": Trial(
        saved(volume()[0]), run(INFERENCE, "--dataset_dir", "IN", "--checkpiont", "y.pt")
    ),
    "`--anchor_only false` there": Trial(
        saved(volume()[0]),
        run(
            INFERENCE,
            "--dataset_dir",
            "IN",
            "--anchor_only",
            "false",
            "--num_inference_steps",
            "1",
            "--ensemble_size",
            "1",
        ),
        dices,
    ),
    "`--amp flase` there": Trial(saved(volume()[0]), run(INFERENCE, "--dataset_dir", "IN", "--amp", "flase")),
    "`run training --help` there": Trial(
        lambda folder: None, [RUNNER, "run", "training", "--config_file", TRAINING, "--help", "--output_dir", "OUT"]
    ),
    "slices that InstanceNumber orders wrongly": Trial(
        series(setting(InstanceNumber=lambda index: index * 7 % 35)), segment("series"), dices
    ),
    "directions that differ by 0.0001": Trial(
        series(setting(ImageOrientationPatient=lambda index: [1, 0.0001 * (index % 2), 0, 0, 1, 0])),
        segment("series"),
        dicom_segmentation,
    ),
    "an empty SliceThickness": Trial(series(setting(SliceThickness=None)), segment("series"), dicom_segmentation),
    "a tilted gantry": Trial(
        series(setting(ImagePositionPatient=lambda index: [0, round(0.3 * index, 3), index])), segment("series"), dices
    ),
    "a folder among the slices": Trial(with_folder, segment("series"), dices),
    "a slice that is there twice": Trial(copied, segment("series"), dices),
    "a missing slice": Trial(missing, segment("series")),
    "two echoes": Trial(two_echoes, segment("series")),
    "white as the lowest value": Trial(
        series(
            lambda item, index: setting(
                PhotometricInterpretation="MONOCHROME1", PixelData=(-1 - np.frombuffer(item.PixelData, "<i2")).tobytes()
            )(item, index)
        ),
        segment("series"),
        dices,
    ),
    "a zip of a series": Trial(zipped, segment("series.zip"), dices),
    "a folder with one bad file": Trial(three_files, [OURS, "segment", "IN", "-o", "OUT", "--device", "cpu"]),
    "a folder of a volume, a picture and a text": Trial(mixed, [OURS, "segment", "IN", "-o", "OUT", "--device", "cpu"]),
    "channels in files of their own": Trial(two_channels, [OURS, "segment", "IN", "-o", "OUT", "--device", "cpu"]),
    "as `.webp`": Trial(picture("x.webp"), segment("x.webp", "--task", "isic")),
    "as `.gif`": Trial(picture("x.gif"), segment("x.gif", "--task", "isic")),
    "200 megapixels": Trial(megapixels, segment("x.png", "--task", "isic")),
    "complex numbers": Trial(saved(volume()[0].astype(np.complex64)), segment("x.nii.gz")),
    "(X, Y, Z, 1, 1)": Trial(saved(volume()[0][..., None, None]), segment("x.nii.gz"), dices),
    "values of a CT": Trial(saved(volume()[0] * 10 - 1024), segment("x.nii.gz")),
    "a picture without colours": Trial(grey, segment("x.png", "--task", "isic")),
    "the picture of an LPS file": Trial(marked, segment("x.nii.gz"), front_right),
    "labels in floats, off by 0.0005": Trial(data_set(lambda label: label + np.float32(0.0005)), EVALUATE),
    "labels with their axes in another order": Trial(data_set(lambda label: label, order="ZYX"), EVALUATE),
    "labels of one channel a class": Trial(
        data_set(lambda label: np.stack([label == k for k in range(3)], -1).astype(np.uint8)), EVALUATE
    ),
    "labels that lie 5 mm elsewhere": Trial(data_set(lambda label: label, 5), EVALUATE),
    "a class that no case holds": Trial(data_set(lambda label: label, only=1), TRAIN, weights),
}


def shown(words: list[str], names: dict[str, str]) -> list[str]:
    """Words with their folders."""
    return [re.sub(r"\b(IN|OUT)\b", lambda match: names[match[1]], word) for word in words]


def first_line(text: str, folder: Path) -> str:
    """What a user sees first, without the date and the folder."""
    for line in text.splitlines():
        line = re.sub(r"^\d{4}-\d\d-\d\d [\d:,]+ - \S+ - \w+ - ", "", line).strip()
        noise = (
            "warnings.warn",
            "Warning",
            "nvImageCodec",
            "INFO",
            "---",
            "Current run is",
            "Engine run",
            "Processing",
        )
        if line and not any(word in line for word in noise):
            names = {f"{folder}/in/": "", f"{folder}/in": "FOLDER", f"{folder}/out": "OUT", "|": "/"}
            for name, short in names.items():
                line = line.replace(name, short)
            return line[:160]
    return ""


def outcome(trial: Trial, checkout: Path) -> str:
    """What becomes of a situation in a checkout."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        trial.make(folder / "in")
        words = shown(trial.words, {"IN": str(folder / "in"), "OUT": str(folder / "out")})
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "PYTHONWARNINGS": "ignore"}
        where = checkout if trial.words[0] == RUNNER else folder
        try:
            process = subprocess.run(
                [sys.executable, "-m", *words],
                env=environment,
                cwd=where,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "works on and on"
        lines = len(process.stderr.splitlines())
        said = first_line(process.stderr, folder) or first_line(process.stdout, folder)
        if "Traceback" in process.stderr:
            errors = [
                line for line in process.stderr.splitlines() if re.match(r"\w*(Error|Exception|Interrupt)\b", line)
            ]
            said = f"{lines} lines, in them: {first_line(errors[0] if errors else said, folder)}"
        masks = len([*(folder / "out").glob("**/*_seg.*")])
        found = trial.find(folder) if trial.find else ""
        return "; ".join(
            each for each in (f"status {process.returncode}", f"masks: {masks}" * bool(masks), found, said) if each
        )


def chosen(pattern: str) -> Iterator[tuple[str, Trial]]:
    """Situations whose names match."""
    return ((name, trial) for name, trial in TRIALS.items() if re.search(pattern, name))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="checkout of one version")
    parser.add_argument("after", type=Path, help="checkout of another one")
    parser.add_argument("--only", default="", help="situations whose names match this regular expression")
    arguments = parser.parse_args()
    print("| situation | command | before | after |\n|---|---|---|---|")
    for name, trial in chosen(arguments.only):
        command = " ".join(shown(trial.words, {"IN": "FOLDER", "OUT": "OUT"}))
        each = [outcome(trial, checkout) for checkout in (arguments.before, arguments.after)]
        print(f"| {name} | `{command}` | {each[0]} | {each[1]} |", flush=True)


if __name__ == "__main__":
    main()
