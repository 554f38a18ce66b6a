"""Miniatures of data sets in the layouts in which they are handed out, of few voxels; `docs/tasks.md` has sources."""

import json
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff_bundle import cli

VOXELS = (16, 16, 8)
AMOS_LABELS = ["background", "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach"]
AMOS_LABELS += ["arota", "postcava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder"]
AMOS_LABELS += ["prostate/uterus"]


def volume(path, values, voxels=(1.5, 1.5, 2.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*voxels, 1.0])), path)


def picture(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def organs(highest):
    """A label with a box of each class, and an image in which each has its own value."""
    label = np.zeros(VOXELS, np.uint8)
    for number in range(1, highest + 1):
        row, column = divmod(number - 1, 4)
        label[4 * row : 4 * row + 3, 4 * column : 4 * column + 3, 2:6] = number
    return label


def scan(label, seed, air):
    noise = np.random.default_rng(seed).normal(0, 10, label.shape)
    return (np.where(label > 0, 20.0 * label, air) + noise).astype(np.int16)


def amos22(root):
    """CT up to number 500 and MR above, as amos22.zip has them; `dataset.json` calls all of it CT."""
    sections = {"Tr": ("training", (1, 4, 410, 507, 600)), "Va": ("validation", (8, 500, 540))}
    listed = {}
    for part, (section, numbers) in sections.items():
        for number in numbers:
            label, name = organs(15), f"amos_{number:04d}.nii.gz"
            volume(root / f"images{part}" / name, scan(label, number, -1000 if number <= 500 else 0))
            volume(root / f"labels{part}" / name, label)
            entry = {"image": f"./images{part}/{name}", "label": f"./labels{part}/{name}"}
            listed.setdefault(section, []).append(entry)
    labels = {str(number): name for number, name in enumerate(AMOS_LABELS)}
    described = {"name": "AMOS", "licence": "CC-BY-SA 4.0", "modality": {"0": "CT"}, "labels": labels}
    listed["test"] = ["./imagesTs/amos_0002.nii.gz"]
    (root / "dataset.json").write_text(json.dumps({**described, **listed}))


def btcv(root):
    """RawData.zip: images and labels of the training by numbers of their own words; images alone of the test."""
    for number in (1, 2, 3, 4, 5, 61):
        label = organs(13)
        part = "Training" if number < 60 else "Testing"
        volume(root / part / "img" / f"img{number:04d}.nii.gz", scan(label, number, -1000))
        if number < 60:
            volume(root / part / "label" / f"label{number:04d}.nii.gz", label)


def _brats(root, name, separator, channels, enhancing):
    """One case: each part within the one before, and nothing measured around the head."""
    label = np.zeros(VOXELS, np.uint8)
    label[2:14, 2:14, 1:7], label[4:11, 4:11, 2:6], label[5:8, 5:8, 3:5] = 2, 1, enhancing
    for number, channel in enumerate(channels):
        head = np.zeros(VOXELS, np.int16)
        head[1:15, 1:15] = scan(label, number, 100)[1:15, 1:15] + 100
        volume(root / name / f"{name}{separator}{channel}.nii.gz", head, (1, 1, 1))
    volume(root / name / f"{name}{separator}seg.nii.gz", label, (1, 1, 1))


def brats2021(root):
    for number in (0, 2, 3, 5, 6):
        _brats(root, f"BraTS2021_{number:05d}", "_", ("flair", "t1", "t1ce", "t2"), 4)


def brats2023(root):
    """Ten patients, of which two came twice."""
    for number in range(10):
        for visit in range(2 if number in (0, 7) else 1):
            _brats(root, f"BraTS-GLI-{number:05d}-{visit:03d}", "-", ("t1c", "t1n", "t2f", "t2w"), 3)


def _retina(size):
    """A photograph (H, W, 3), and its mask with the values of REFUGE."""
    height, width = size
    mask = np.full(size, 255, np.uint8)
    mask[height // 4 : height // 2, width // 3 : 2 * width // 3] = 128
    mask[height // 3 : height // 2 - 2, width // 3 + 3 : width // 2] = 0
    grey = (100 + (255 - mask) // 2).astype(np.uint8)
    return np.stack([grey, grey // 2, grey // 3], axis=2), mask


def refuge2(root):
    """The unpacked archives of the challenge: folders within folders, illustrations among the masks, two sizes."""
    training, annotation = root / "REFUGE-Training400" / "Training400", root / "Annotation-Training400"
    for name, kind in (("g0001", "Glaucoma"), ("g0002", "Glaucoma"), ("n0001", "Non-Glaucoma")):
        image, mask = _retina((41, 42))
        picture(training / kind / f"{name}.jpg", image)
        picture(annotation / "Annotation-Training400" / "Disc_Cup_Masks" / kind / f"{name}.bmp", mask)
        picture(annotation / "Annotation-Training400" / "Disc_Cup_Fovea_Illustration" / f"{name}.jpg", image)
    image, mask = _retina((33, 33))
    picture(root / "REFUGE-Validation400" / "REFUGE-Validation400" / "V0001.jpg", image)
    picture(root / "REFUGE-Validation400-GT" / "Disc_Cup_Masks" / "V0001.bmp", mask)
    picture(root / "REFUGE-Test400" / "Test400" / "T0001.jpg", image)
    picture(root / "REFUGE-Test-GT" / "Disc_Cup_Masks" / "G" / "T0001.bmp", mask)


def refuge2_folders(root):
    """The same as it goes from hand to hand: sections with images and mask."""
    names = {"train": ("g0001", "n0001", "n0002"), "val": ("V0001",), "test": ("T0001",)}
    for section, cases in names.items():
        image, mask = _retina((41, 42) if section == "train" else (33, 33))
        for name in cases:
            picture(root / section / "images" / f"{name}.jpg", image)
            picture(root / section / "mask" / f"{name}.bmp", mask)


def refuge2_editions(root):
    """REFUGE2.zip: the first edition trains, the second validates and tests with names that the first has, too."""
    image, mask = _retina((41, 42))
    first = root / "Train"
    for name, kind in (("g0001", "Glaucoma"), ("n0001", "Non-Glaucoma")):
        picture(first / "REFUGE1-train" / "Training400" / kind / f"{name}.jpg", image)
        picture(first / "REFUGE1-train" / "Disc_Cup_Masks" / kind / f"{name}.bmp", mask)
    image, mask = _retina((33, 33))
    for part, photographs, name in (("val", "REFUGE-Validation400", "V0001"), ("test", "Test400", "T0001")):
        picture(first / f"REFUGE1-{part}" / photographs / f"{name}.jpg", image)
        picture(first / f"REFUGE1-{part}" / "Disc_Cup_Masks" / f"{name}.bmp", mask)
    picture(root / "Validation" / "Images" / "V0001.jpg", image)
    picture(root / "Validation" / "Disc_Masks" / "V0001.png", np.stack([mask] * 3, axis=2))
    picture(root / "Test" / "refuge2-test" / "T0001.jpg", image)
    picture(root / "Test" / "Disc_Mask" / "T0001.png", mask)


def _lesion(size):
    height, width = size
    mask = np.zeros(size, np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    return (90 + mask // 2).astype(np.uint8), mask


def tn3k(root):
    """Masks in JPEG, numbers that begin anew in the test, a file for each fold."""
    for part, numbers in (("trainval", range(5)), ("test", range(2))):
        for number in numbers:
            image, mask = _lesion((30 + number, 40))
            picture(root / f"{part}-image" / f"{number:04d}.jpg", np.stack([image] * 3, axis=2))
            picture(root / f"{part}-mask" / f"{number:04d}.jpg", mask)
    for fold in range(5):
        chosen = {"train": [number for number in range(5) if number != 4 - fold], "val": [4 - fold]}
        (root / f"tn3k-trainval-fold{fold}.json").write_text(json.dumps(chosen))


def ddti(root):
    """A file of outlines for each patient, of whom the first has two pictures."""
    root.mkdir(parents=True)
    for patient in range(1, 12):
        marks = ""
        for number in (1, 2) if patient == 1 else (1,):
            picture(root / f"{patient}_{number}.jpg", np.stack([_lesion((30, 40))[0]] * 3, axis=2))
            points = [{"x": x, "y": y} for x, y in ((10, 7), (20, 7), (20, 15), (10, 15))]
            outlines = json.dumps([{"points": points, "regionType": "freehand"}])
            marks += f"<mark><image>{number}</image><svg>{outlines}</svg></mark>"
        (root / f"{patient}.xml").write_text(f"<case><number>{patient}</number>{marks}</case>")


def _isic(root, images, masks, ending, name):
    image, mask = _lesion((30, 40))
    picture(root / images / f"{name}.jpg", np.stack([image, image // 2, image // 2], axis=2))
    picture(root / masks / f"{name}{ending}.png", mask)


def isic2016(root):
    """Part 1, with the tables of other parts beside it."""
    for part, names in (("Training", range(5)), ("Test", (9,))):
        for number in names:
            folders = f"ISBI2016_ISIC_Part1_{part}_Data", f"ISBI2016_ISIC_Part1_{part}_GroundTruth"
            _isic(root, *folders, "_Segmentation", f"ISIC_{number:07d}")
    (root / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv").write_text("ISIC_0000000,benign\n")


def isic2016_sections(root):
    """The same in a folder for each section, as the paper's authors have it."""
    isic2016(root)
    for section, part in (("Train", "Training"), ("Test", "Test")):
        for folder in list(root.glob(f"ISBI2016_ISIC_Part1_{part}_*")):
            (root / section).mkdir(exist_ok=True)
            folder.rename(root / section / folder.name)
        (root / section / f"ISBI2016_ISIC_Part1_{part}_GroundTruth.csv").write_text("")


def isic2018(root):
    """Task 1, with the masks of task 2 and the notices beside it."""
    for part, names in (("Training", range(3)), ("Validation", (7,)), ("Test", (9,))):
        for number in names:
            folders = f"ISIC2018_Task1-2_{part}_Input", f"ISIC2018_Task1_{part}_GroundTruth"
            _isic(root, *folders, "_segmentation", f"ISIC_{number:07d}")
            name = f"ISIC_{number:07d}_attribute_globules.png"
            picture(root / f"ISIC2018_Task2_{part}_GroundTruth_v3" / name, _lesion((30, 40))[1])
        (root / f"ISIC2018_Task1-2_{part}_Input" / "LICENSE.txt").write_text("CC-BY-NC")


class Layout(NamedTuple):
    """A set as it is handed out, and what must be read of it."""

    build: object  # what writes it into a folder
    task: str
    training: tuple  # names of the first image of each case
    validation: tuple
    values: tuple  # that a mask may hold
    root: Path | None = None


VISITS = [(number, visit) for number in range(10) for visit in range(2 if number in (0, 7) else 1)]
GLI = [tuple(f"BraTS-GLI-{n:05d}-{v:03d}-t1c" for n, v in VISITS if (n in (0, 5)) == val) for val in (False, True)]
BRATS = [tuple(f"BraTS2021_{number:05d}_flair" for number in chosen) for chosen in ((2, 3, 5, 6), (0,))]
PATIENTS = [tuple(f"patient{n:03d}_1" for n in (2, 3, 4, 5, 7, 8, 9, 10))]
PATIENTS += [("patient001_1", "patient001_2", "patient006_1", "patient011_1")]
SKIN = tuple(f"ISIC_{number:07d}" for number in range(5))
BTCV = ("img0002", "img0003", "img0004", "img0005"), ("img0001",)
ONE = (0, 255)  # of one class
LAYOUTS = {
    "amos22": Layout(amos22, "amos22", ("amos_0001", "amos_0004", "amos_0410"), ("amos_0008", "amos_0500"), range(16)),
    "amos22_mr": Layout(amos22, "amos22_mr", ("amos_0507", "amos_0600"), ("amos_0540",), range(16)),
    "btcv": Layout(btcv, "btcv", *BTCV, range(14)),
    "brats2021": Layout(brats2021, "brats2021", *BRATS, (0, 1, 2, 4)),
    "brats2023": Layout(brats2023, "brats2023", *GLI, (0, 1, 2, 3)),
    "refuge2": Layout(refuge2, "refuge2", ("g0001", "g0002", "n0001"), ("V0001",), (0, 1, 2)),
    "refuge2_folders": Layout(refuge2_folders, "refuge2", ("g0001", "n0001", "n0002"), ("V0001",), (0, 1, 2)),
    "tn3k": Layout(tn3k, "tn3k", ("0000", "0001", "0002", "0003"), ("0004",), ONE),
    "ddti": Layout(ddti, "ddti", *PATIENTS, ONE),
    "isic2016": Layout(isic2016, "isic2016", SKIN[1:], SKIN[:1], ONE),
    "isic2018": Layout(isic2018, "isic2018", SKIN[:3], ("ISIC_0000007",), ONE),
}

# Other forms of these sets, of which it is enough that they are read.
EDITIONS = ("T0001", "V0001", "g0001", "n0001")
OTHERS = {
    "refuge2_editions": Layout(refuge2_editions, "refuge2", EDITIONS, ("V0001",), (0, 1, 2)),
    "isic2016_sections": Layout(isic2016_sections, "isic2016", SKIN[1:], SKIN[:1], ONE),
}


@pytest.fixture(scope="session")
def find_layout(tmp_path_factory):
    """The layout of a name, written once."""
    written = {}

    def find(name):
        if name not in written:
            found = {**LAYOUTS, **OTHERS}[name]
            root = tmp_path_factory.mktemp(name) / "set"
            found.build(root)
            if found.build is ddti:
                source, root = root, root.with_name("prepared")
                assert cli.main(["prepare", "ddti", str(source), str(root), "-q"]) == 0
            written[name] = found._replace(root=root)
        return written[name]

    return find


@pytest.fixture(scope="session", params=LAYOUTS)
def layout(request, find_layout):
    return find_layout(request.param)


@pytest.fixture(scope="session", params=[*LAYOUTS, *OTHERS])
def any_layout(request, find_layout):
    return find_layout(request.param)


@pytest.fixture
def tasks_of_layouts():
    return {layout.task for layout in LAYOUTS.values()}
