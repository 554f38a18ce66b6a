"""Folders of images of which some are bad, some done, and some of another kind."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import forks
import nibabel
import numpy as np
import pytest
import torch
from monai.utils.module import pytorch_after
from PIL import Image

import medsegdiff_bundle
from medsegdiff_bundle import configuration
from medsegdiff_bundle.__main__ import main
from medsegdiff_bundle.errors import UnsegmentedError
from medsegdiff_bundle.journal import read_journal

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
NETWORK = {"network_def#channels": [4, 8, 8], "network_def#num_heads": 2, "network_def#token_size": 8}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    parser = configuration.load([CONFIGS / "inference.json"], {**NETWORK, "bundle_root": str(ROOT)})
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), file)
    return {**NETWORK, "checkpoint": str(file), "ensemble_size": 1, "device": "cpu"}


def volume(file, shape=(12, 14, 16), seed=0):
    values = np.random.default_rng(seed).random(shape, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), file)


@pytest.fixture
def folder(tmp_path):
    """Three good volumes, one torn in its voxels, one with a header that is none, one of two channels."""
    images = tmp_path / "images of a day"
    images.mkdir()
    for number in range(3):
        volume(images / f"{'bdf'[number]}.nii.gz", seed=number)
    torn = (images / "b.nii.gz").read_bytes()
    (images / "a.nii.gz").write_bytes(b"no image")
    (images / "c.nii.gz").write_bytes(torn[: len(torn) // 2])
    volume(images / "e.nii.gz", (12, 14, 16, 2))
    return images


def test_a_bad_file_does_not_end_the_others(folder, settings, tmp_path):
    out = tmp_path / "out"
    found = []
    with pytest.raises(UnsegmentedError) as caught:
        medsegdiff_bundle.segment(folder, output_dir=out, on_result=found.append, **settings)
    assert [result.name for result in found] == ["b", "d", "f"]
    assert sorted(Path(file).name for file in caught.value.failures) == ["a.nii.gz", "c.nii.gz", "e.nii.gz"]
    text = str(caught.value)
    assert text.startswith("3 of 6 images could not be segmented:\n") and "e.nii.gz' has 2 channel(s)" in text
    assert sorted({file.name[0] for file in out.iterdir() if file.stem not in ("index", "journal")}) == ["b", "d", "f"]
    noted = read_journal(out)
    assert {case: entry["state"] for case, entry in noted.items()} == {
        **dict.fromkeys("bdf", "done"),
        **dict.fromkeys("ace", "failed"),
    }
    assert noted["e"]["reason"].startswith("The image 'e.nii.gz' has 2 channel(s)")  # of folders nothing
    failed = {}
    results = medsegdiff_bundle.segment(folder, on_failure=failed.__setitem__, **settings)
    assert [result.name for result in results] == ["b", "d", "f"] and len(failed) == 3
    alone = folder / "c.nii.gz"
    with pytest.raises(UnsegmentedError, match="^'.*c.nii.gz' cannot be read: ") as caught:
        medsegdiff_bundle.segment(alone, **settings)
    assert "\n" not in str(caught.value)


def test_a_rerun_takes_what_is_missing(folder, settings, tmp_path, caplog):
    out = tmp_path / "out"
    for bad in "ace":
        (folder / f"{bad}.nii.gz").unlink()
    names = []

    def again(**given):
        names.clear()
        medsegdiff_bundle.segment(
            folder, output_dir=out, on_result=lambda result: names.append(result.name), **{**settings, **given}
        )
        return list(names)

    assert again(overwrite=False) == ["b", "d", "f"]
    assert again(overwrite=False) == []
    assert "3 of 3 images have results" in caplog.text
    (out / "d_seg.nii.gz").unlink()
    (out / "f_report.json").unlink()
    assert again(overwrite=False) == ["d", "f"]
    volume(folder / "b.nii.gz", seed=7)  # another image of the same name
    assert again(overwrite=False) == ["b"]
    assert again(overwrite=False, seed=3) == ["b", "d", "f"]  # another setting
    assert again(overwrite=False, seed=3) == []
    assert {entry["state"] for entry in read_journal(out).values()} == {"skipped"}
    assert again() == ["b", "d", "f"]
    assert json.loads((out / "b_report.json").read_text())["case"] == "b"


def test_the_command(folder, tmp_path, capsys):
    (folder / "notes.txt").write_text("none")
    words = ["segment", str(folder), "-o", str(tmp_path / "out"), "--members", "1", "--device", "cpu"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert [line.split(":")[0] for line in said.out.splitlines()] == ["b", "d", "f"]
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3 and all("'" in line for line in errors)
    for bad in "ace":
        (folder / f"{bad}.nii.gz").unlink()
    assert main(words) == 0
    assert capsys.readouterr().out == ""
    assert main([*words, "--overwrite"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert main([*words, "--checkpiont", "x"]) == 2
    assert capsys.readouterr().err == "error: There is no setting '--checkpiont': did you mean '--checkpoint'?\n"
    assert main([*words, "--anchor_only", "maybe"]) == 2
    assert capsys.readouterr().err == "error: anchor_only must be true or false, got 'maybe'.\n"


def test_what_is_left_out_is_named(folder, settings, caplog):
    for bad in "ace":
        (folder / f"{bad}.nii.gz").unlink()
    for name in ("notes.txt", "b_report.html"):
        (folder / name).write_text("none")
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "photo.png")
    (folder / "series").mkdir()
    with caplog.at_level(logging.WARNING):
        results = medsegdiff_bundle.segment(folder, **settings)
    assert [result.name for result in results] == ["b", "d", "f"]
    assert f"Left out of '{folder}': notes.txt, photo.png, series/." in caplog.text


def test_channels_in_files_of_their_own(tmp_path, caplog):
    from medsegdiff_bundle.datalist import image_datalist

    for name in ("x_0000", "x_0001", "y_0000"):
        volume(tmp_path / f"{name}.nii.gz")
    image_datalist(tmp_path, 1, 3)
    assert "named as channels of one image" in caplog.text and caplog.text.strip().endswith("image: x.")


def test_monai_s_runner_goes_on(folder, settings, tmp_path):
    words = [f"--{name}={value}" for name, value in {**settings, "dataset_dir": folder, "output_dir": tmp_path}.items()]
    command = [sys.executable, "-m", "monai.bundle", "run", f"--config_file={CONFIGS / 'inference.json'}", *words]
    process = forks.run(command, cwd=ROOT)
    assert process.returncode == 1
    assert "error: 3 of 6 images could not be segmented:\n" in process.stderr
    assert "Traceback" not in process.stderr + process.stdout
    assert sorted(file.name for file in tmp_path.glob("*_seg.nii.gz")) == [f"{name}_seg.nii.gz" for name in "bdf"]


def test_an_answer_that_needs_no_torch_is_quick(tmp_path):
    """A wrong path and a wrong setting are said before torch and MONAI, which take seconds, are imported."""
    code = (
        "import sys; from medsegdiff_bundle.__main__ import main; "
        "codes = [main(['segment', *words, '-o', 'out']) for words in (['none.nii'], ['.', '--epoch', '2'])]; "
        "print(codes, sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[2, 2] []\n", done.stderr
    assert done.stderr.count("error: ") == 2


def test_a_process_of_our_own_imports_what_it_uses(tmp_path):
    """What MONAI, ignite and PyTorch import for other uses costs as much as all that is used."""
    volume(tmp_path / "a.nii.gz")
    unused = ["mlflow", "matplotlib", "scipy.signal", "tensorboard"]
    if pytorch_after(2, 8):  # before, einops imports the first, and with that the second
        unused += ["torch._dynamo", "torch.distributed.fsdp"]
    code = (
        "import sys; from medsegdiff_bundle.__main__ import main; "
        f"code = main(['segment', {str(tmp_path / 'a.nii.gz')!r}, '-o', {str(tmp_path)!r}, '--device', 'cpu']); "
        f"print(code, sorted(set({unused}) & set(sys.modules))); import scipy.signal, torch.distributed.optim; "
        "print(scipy.signal.hilbert, torch.distributed.optim.ZeroRedundancyOptimizer.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    *_, last, real = done.stdout.splitlines()
    assert last == "0 []", done.stderr
    assert "hilbert" in real and "zero_redundancy" in real  # what is asked for later is the package itself
