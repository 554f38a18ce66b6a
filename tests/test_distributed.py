"""Training, evaluation and inference on two processes of the CPU: the training started as a user would."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import forks
import monai.bundle
import nibabel
import numpy as np
import pytest
import torch

from medsegdiff_bundle.journal import read_journal

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


def one_process(*configs, **settings):
    """`monai.bundle run` here."""
    monai.bundle.run(
        config_file=[str(CONFIGS / each) for each in configs],
        logging_file=str(CONFIGS / "logging.conf"),
        **settings,
        device="cpu",
    )


def command_of(configs, settings):
    options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    return ["-m", "monai.bundle", "run", "--config_file", str([str(CONFIGS / each) for each in configs]), *options]


ENVIRONMENT = {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def torchrun(*configs, folder, **settings):
    """`monai.bundle run` by torchrun; the finished process, whatever its exit status."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, *command_of(configs, settings)]
    environment = {**os.environ, **ENVIRONMENT}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:
        try:
            output, errors = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun then ends its processes
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def two_processes(*configs, folder, **settings):
    """The same in forks, whose environment is the one that torchrun gives, and which it ends when one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"} for rank in "01"]
    environments = [{**os.environ, **ENVIRONMENT, **place, **rank} for rank in ranks]
    return forks.run_together([sys.executable, *command_of(configs, settings)], environments, folder)


def output_of(process):
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def dataset(make_dataset):
    """Four training and three validation cases, and a folder of the latter's images."""
    folder = make_dataset(4, 3)
    (folder / "images").mkdir()
    for entry in json.loads((folder / "dataset.json").read_text())["validation"]:
        (folder / "images" / Path(entry["image"]).name).symlink_to(folder / entry["image"])
    return folder


@pytest.fixture(scope="module")
def tiny(small_run, dataset):
    """Settings that make a run small; the device is left to the configs."""
    return {**{key: value for key, value in small_run.items() if key != "device"}, "dataset_dir": str(dataset)}


@pytest.fixture(scope="module")
def untrained(tiny):
    """Settings of an evaluation by one member of first weights."""
    return {**tiny, "checkpoint": "", "ensemble_size": 1}


@pytest.fixture(scope="module")
def training(tiny, tmp_path_factory):
    """Settings of a training without chance, but for the first weights: files and options."""
    config = tmp_path_factory.mktemp("config") / "given.json"
    size = [16, 16, 16]
    config.write_text(
        json.dumps(
            {
                "patches": [{"_target_": "CenterSpatialCropd", "keys": ["image", "label"], "roi_size": size}],
                "augmentation": [],
                "train#dataloader#shuffle": False,
                "train#trainer#prepare_batch#_target_": "given_noise.GivenNoise",
            }
        )
    )
    return config, {
        **tiny,
        "patch_size": size,
        "recycling": 0,
        "epochs": 2,
        "val_interval": 2,
        "ensemble_size": 1,
        # Or rounding decides the sign of whole steps, where a norm takes away what a bias adds.
        "optimizer#eps": 1e-5,
        "lr_scheduler#warmup_steps": 0,
    }


@pytest.fixture(scope="module")
def trained(training, tmp_path_factory):
    """Output folder of one process with batches of two."""
    config, options = training
    folder = tmp_path_factory.mktemp("one_process")
    one_process("train.json", config, output_dir=str(folder), batch_size=2, **options)
    return folder


def test_two_processes_train_as_one_with_the_doubled_batch(training, trained, tmp_path):
    config, options = training
    files = ("train.json", "multi_gpu_train.json", config)
    options = {**options, "train#sampler#shuffle": False, "batch_size": 1}
    output = output_of(torchrun(*files, folder=tmp_path, output_dir=tmp_path, **options))
    assert output.count("Dice: ") == 1 and (tmp_path / "model.pt").is_file()
    one, two = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (trained, tmp_path))
    assert one["iteration"] == two["iteration"] == 4
    for part in ("network", "ema_network"):
        torch.testing.assert_close(two[part], one[part], rtol=0, atol=4e-5)  # four steps of up to 1e-3


def test_inference_takes_every_case_once(tiny, trained, dataset, tmp_path):
    options = {
        **tiny,
        "dataset_dir": str(dataset / "images"),
        "checkpoint": str(trained / "model.pt"),
        "displayable_configs#ensemble_size": 2,
    }
    counted = tmp_path / "counted.json"  # a file each: two processes on one pipe write into each other's lines
    count = f"$open({str(tmp_path)!r} + '/images_' + os.environ['RANK'], 'w').write(str(len(@dataloader)))"
    counted.write_text(json.dumps({"finalize": [count]}))
    one_process("inference.json", output_dir=str(tmp_path / "one"), **options)
    files = ("inference.json", "multi_gpu_inference.json", counted)
    output_of(two_processes(*files, folder=tmp_path, output_dir=tmp_path / "two", **options))
    expected = sorted((tmp_path / "one").iterdir())
    assert {entry["state"] for entry in read_journal(tmp_path / "two").values()} == {"done"}
    for journal in tmp_path.glob("*/journal*.jsonl"):
        journal.unlink()
    expected = [path for path in expected if path.exists()]
    assert [path.name for path in expected] == sorted(path.name for path in (tmp_path / "two").iterdir())
    for path in expected:
        if path.name.endswith(".nii.gz"):
            one, two = (np.asarray(nibabel.load(tmp_path / run / path.name).dataobj) for run in ("one", "two"))
            assert (np.abs(one - two.astype(float)) < 1e-5).mean() > 0.999  # rounding may decide a voxel of a mask
    numbers = [int(path.read_text()) for path in tmp_path.glob("images_*")]
    assert len(numbers) == 2 and sum(numbers) == sum(path.name.endswith("_seg.nii.gz") for path in expected)


def test_more_processes_than_images(tiny, dataset, tmp_path):
    image = sorted((dataset / "images").iterdir())[0]
    options = {**tiny, "dataset_dir": image, "checkpoint": "", "output_dir": tmp_path / "output"}
    output_of(two_processes("inference.json", "multi_gpu_inference.json", folder=tmp_path, **options))
    assert len(list((tmp_path / "output").glob("*_seg.nii.gz"))) == 1


EVALUATE = ("train.json", "evaluate.json", "multi_gpu_evaluate.json")


def report(output):
    return [line for line in output.splitlines() if line.startswith(("anchor ", "fused ", "Dice: "))]


def test_evaluation_is_over_the_cases_of_all_processes(tiny, trained, tmp_path, capsys):
    options = {**tiny, "checkpoint": str(trained / "model.pt"), "ensemble_size": 1}
    one_process(*EVALUATE[:2], output_dir=str(tmp_path / "one"), **options)
    expected = report(capsys.readouterr().out)
    output = output_of(two_processes(*EVALUATE, folder=tmp_path, output_dir=tmp_path / "two", **options))
    assert report(output) == expected and len(expected) == 3
    for name in ("fused_raw.csv", "anchor_raw.csv"):
        one, two = (
            {line.split(",")[0]: line.split(",")[1:] for line in (tmp_path / run / name).read_text().splitlines()[1:]}
            for run in ("one", "two")
        )
        assert set(one) == set(two) and len(two) == 3
        for case, values in one.items():
            assert [float(each) for each in two[case]] == pytest.approx([float(each) for each in values], abs=1e-3)


def copy_of(dataset, folder, cases):
    """The data set with its first validation cases only, whose files may be changed."""
    entries = json.loads((dataset / "dataset.json").read_text())
    entries["validation"] = entries["validation"][:cases]
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").symlink_to(dataset / "labelsTr")
    for entry in entries["validation"]:
        shutil.copy(dataset / entry["image"], folder / entry["image"])
    (folder / "dataset.json").write_text(json.dumps(entries))
    return folder / "imagesTr"


def test_more_processes_than_cases_to_evaluate(untrained, dataset, tmp_path):
    copy_of(dataset, tmp_path / "data", cases=1)
    options = {**untrained, "dataset_dir": tmp_path / "data", "output_dir": tmp_path / "output"}
    process = two_processes(*EVALUATE, folder=tmp_path, **options)
    assert process.returncode != 0
    assert "ValueError: the dataset length is less than the number of participating ranks." in process.stderr


def test_a_case_that_cannot_be_read_ends_the_run(untrained, dataset, tmp_path):
    """The second process stops at its only case, while the first is to share metrics with it."""
    broken = sorted(copy_of(dataset, tmp_path / "data", cases=3).iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:-2000])  # the header is whole
    options = {**untrained, "dataset_dir": tmp_path / "data", "output_dir": tmp_path / "output"}
    process = two_processes(*EVALUATE, folder=tmp_path, **options)
    assert process.returncode != 0
    assert re.search(rf"error: .*{broken.name}' cannot be read: Compressed file ended", process.stderr)


def test_a_process_that_stalls_ends_the_run(untrained, tmp_path):
    stall = tmp_path / "stall.json"
    sleep = "$__import__('time').sleep(3600) if dist.get_rank() == 1 else None"
    stall.write_text(json.dumps({"run": [sleep, "$@validate#evaluator.run()"]}))
    options = {**untrained, "process_group_timeout": 10, "output_dir": tmp_path / "output"}
    process = two_processes(*EVALUATE, stall, folder=tmp_path, **options)
    assert process.returncode != 0
    assert "Timed out waiting 10000ms" in process.stderr
