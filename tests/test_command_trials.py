"""scripts/command_trials.py: each situation is a command and the files that it needs; what is said of it is right."""

from pathlib import Path

import command_trials as trials
import nibabel
import numpy as np
from PIL import Image


def test_every_situation_has_the_files_of_its_command(tmp_path):
    for number, (name, trial) in enumerate(trials.TRIALS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        trial.make(folder)
        words = trials.shown(trial.words, {"IN": str(folder), "OUT": "results"})
        paths = [Path(word) for word in words if word.startswith(str(folder))]
        assert all(path.exists() for path in paths) or name == "a file that does not exist", name
        assert not any(word in ("IN", "OUT") for word in words)


def test_what_is_found(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert trials.dices(tmp_path) == "" and trials.dicom_segmentation(tmp_path) == "no SEG"
    assert trials.weights(tmp_path) == "no weights" and trials.front_right(tmp_path) == ""
    label = trials.volume()[1]
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), out / "x_seg.nii.gz")
    assert trials.dices(tmp_path) == "Dice 1.000 / 1.000"
    nibabel.save(nibabel.Nifti1Image(label[:3], np.eye(4)), out / "x_seg.nii.gz")
    assert trials.dices(tmp_path) == f"mask of {label[:3].shape}"
    for height, first in ((40, 30), (120, 30)):  # of one plane and of three
        picture = np.zeros((height, 160), dtype=np.uint8)
        picture[first : first + 8, :8], picture[-5:, 80:] = 255, 255
        Image.fromarray(picture).save(out / "x_overlay.png")
        assert trials.front_right(tmp_path) == "shown at the bottom left"


def test_what_a_user_sees_first():
    said = (
        "/x/a.py:3: UserWarning: none\n  warnings.warn(\n2026-01-01 10:00:00,000 - root - ERROR - 'T/in/a' is none.\n"
    )
    assert trials.first_line(said, Path("T")) == "'a' is none."
