"""The commands are runs of the same bundle: trained, evaluated and segmented as by MONAI's runner."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import forks
import monai
import numpy as np
import pytest

import medsegdiff_bundle
from medsegdiff_bundle import cli

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr"
SMALL = {"network_def#channels": "[4,8,8]", "network_def#num_heads": "2", "network_def#token_size": "8"}
SET = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def trained(small_dataset, tmp_path_factory):
    """Folder of a training of one epoch, by the command line."""
    out = tmp_path_factory.mktemp("trained")
    words = [
        "train",
        str(small_dataset),
        "-o",
        str(out),
        "-e",
        "1",
        "-d",
        "cpu",
        "--set",
        "patch_size=[16,16,16]",
        *SET,
    ]
    assert cli.main(words) == 0
    return out


def test_training_and_evaluation(trained, small_dataset, tmp_path, capfd):
    assert (trained / "model.pt").is_file() and (trained / "tensorboard").is_dir()
    words = ["evaluate", "--data", str(small_dataset), "-c", str(trained / "model.pt"), "-d", "cpu"]
    assert cli.main([*words, "-o", str(tmp_path), *SET]) == 0
    rows = list(csv.reader((tmp_path / "fused_raw.csv").open(), delimiter="\t"))
    assert len(rows) == 3  # a line of names and two cases
    assert cli.main([*words, "-o", str(tmp_path / "alone")]) == 0  # the weights say what their network is
    capfd.readouterr()
    assert cli.main([*words, "-o", str(tmp_path / "none"), "--set", "network_def#channels=[8,8,8]"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error: ")] == [said[-1]] and "do not fit" in said[-1]
    assert "Traceback" not in "".join(said)


def test_the_same_masks_as_by_monai_s_runner(trained, tmp_path):
    """`medsegdiff segment` and `python -m monai.bundle run`, with the same settings: the same files, byte for byte."""
    given = {**SMALL, "ensemble_size": "3", "num_inference_steps": "2", "fusion": "staple", "seed": "5"}
    image = IMAGES / "hippocampus_001.nii.gz"
    given |= {"checkpoint": str(trained / "model.pt"), "device": "cpu"}
    given |= {"dataset_dir": str(image), "output_dir": str(tmp_path / "runner")}
    words = ["segment", image, "-o", tmp_path / "ours", "-m", "3", "-s", "2", "-f", "staple", "--seed", "5"]
    words += ["-c", given["checkpoint"], "-d", "cpu", *SET]
    assert cli.main([*map(str, words)]) == 0
    command = ["--config_file=configs/inference.json", *(f"--{name}={value}" for name, value in given.items())]
    forks.run([sys.executable, "-m", "monai.bundle", "run", *command], cwd=ROOT, check=True)
    names = [sorted(file.name for file in (tmp_path / folder).iterdir()) for folder in ("ours", "runner")]
    assert names[0] == names[1]
    for name in names[0]:
        if not name.endswith((".json", ".html")):  # which say when
            assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "runner" / name).read_bytes(), name
    import nibabel

    assert np.asarray(nibabel.load(tmp_path / "ours" / "hippocampus_001_seg.nii.gz").dataobj).any()


def test_weights_against_masks(trained, small_dataset, tmp_path, capfd):
    """A network is segmented with first, and compared like a folder."""
    labels, images = tmp_path / "labels", tmp_path / "images"
    for folder, part in ((labels, "labelsTr"), (images, "imagesTr")):
        folder.mkdir()
        for name in ("hippocampus_001", "hippocampus_003"):
            (folder / f"{name}.nii.gz").symlink_to(IMAGES.parent / part / f"{name}.nii.gz")
    words = ["compare", str(labels), f"truth={labels}", "models/isic.pt", "--images", str(images), "-d", "cpu"]
    assert cli.main([*words, "-o", str(tmp_path / "s"), "-q"]) == 2  # of another task
    words[3] = f"shipped={ROOT / 'models' / 'model.pt'}"
    assert cli.main([*words, "-o", str(tmp_path / "out")]) == 0
    out = capfd.readouterr().out
    assert (tmp_path / "out" / "shipped" / "hippocampus_001_seg.nii.gz").is_file()
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["truth"][1] == "1.0000" and 0.8 < float(lines["shipped"][1]) < 1 and lines["shipped"][-1] == "2"


def test_info(capsys):
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    digits = hashlib.sha256((ROOT / "models" / "model.pt").read_bytes()).hexdigest()
    assert found["weights"]["model.pt"]["sha256"] == digits and found["devices"][0].startswith("cpu (")
    assert found["medsegdiff"] == medsegdiff_bundle.__version__ and found["packages"]["monai"] == monai.__version__
    assert cli.main(["info"]) == 0
    assert digits in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "none"], "none"),
        (["train", ".", "--task", "izic"], "There is no task 'izic': choose from"),
        (["train", ".", "--set", "epoch=3"], "There is no setting 'epoch': did you mean '--epochs'?"),
        (["train", ".", "-e", "two"], "epochs must be a number, got 'two'."),
        (["train", ".", "--seed", "$open('ran', 'w')"], "seed must be a number, got"),
        (["train", ".", "--pretrained", "$open('ran', 'w')"], "The weights \"$open('ran', 'w')\" do not exist."),
        (["train", ".", "--set", "optimizer#lr=$open('ran', 'w')"], "optimizer#lr must be a number"),
    ],
)
def test_training_asked_wrongly(words, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "-q"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not Path("ran").exists() and not Path("output").exists()


def test_segment_imports_what_it_uses():
    """What MONAI imports if it is there takes longer than MONAI itself, and comes back where somebody asks for it."""
    code = (
        "import sys; from medsegdiff_bundle.quick_start import UNUSED, import_segmenter; import_segmenter()\n"
        "print(sorted(set(UNUSED) & set(sys.modules)))\n"
        "import sklearn; print(sklearn.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split("\n")[-3:-1] == ["[]", "sklearn"]
