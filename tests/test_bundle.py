"""The main job, end to end, on real volumes: train, resume, evaluate, segment; and the sentences for bad values."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from matplotlib.image import imread

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


def bundle_run(*files, run_id="run", **settings):
    monai.bundle.run(
        run_id=run_id,
        config_file=[str(CONFIGS / name) for name in files],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=str(CONFIGS / "logging.conf"),
        **settings,
    )


@pytest.fixture(scope="module")
def small_training(small_run):
    return {
        **small_run,
        "patch_size": [16, 16, 16],
        "val_interval": 1,
        "num_inference_steps": 2,
        "ensemble_size": 2,
    }


@pytest.fixture(scope="module")
def trained(small_training, tmp_path_factory):
    """Output folder of a training of two epochs."""
    folder = tmp_path_factory.mktemp("training")
    bundle_run("train.json", run_id="training", output_dir=str(folder), epochs=2, **small_training)
    return folder


def test_training_writes_weights_pictures_and_curves(trained):
    weights = torch.load(trained / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    assert {path.name for path in trained.iterdir()} == {
        *("last.ckpt", "last.1.ckpt", "model.pt", "model.model.json", "overlays", "tensorboard"),
        *("settings.json", "training.log", "history.csv", "curves.png", "done"),
    }
    assert len(list((trained / "overlays").glob("epoch_*.png"))) == 2
    state = torch.load(trained / "last.ckpt", weights_only=True)
    assert (state["epoch"], state["iteration"]) == (2, 4)
    assert 0 <= state["best_metric"] <= 1


def test_a_run_shorter_than_the_interval_is_validated(small_training, tmp_path):
    bundle_run("train.json", output_dir=str(tmp_path), epochs=1, **{**small_training, "val_interval": 10})
    assert (tmp_path / "model.pt").is_file()


@pytest.mark.parametrize(("epochs", "interval", "validated"), [(3, 2, [2, 3]), (2, 2, [2])])
def test_the_last_epoch_is_validated_once(small_training, tmp_path, epochs, interval, validated):
    settings = {**small_training, "val_interval": interval, "ensemble_size": 1}
    bundle_run("train.json", output_dir=str(tmp_path), epochs=epochs, **settings)
    names = sorted(path.name[:10] for path in (tmp_path / "overlays").iterdir())
    assert names == [f"epoch_{epoch:04d}" for epoch in validated]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(small_training, tmp_path, capsys):
    """With a constant learning rate, since the schedule of the first part would have another length."""
    constant = {"_target_": "torch.optim.lr_scheduler.ConstantLR", "optimizer": "@optimizer", "factor": 1.0}
    settings = {**small_training, "lr_scheduler": constant, "ensemble_size": 1}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    bundle_run("train.json", output_dir=str(whole), epochs=2, **settings)
    bundle_run("train.json", output_dir=str(parts), epochs=1, **settings)
    bundle_run("train.json", output_dir=str(parts), epochs=2, resume=True, **settings)
    expected, state = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (whole, parts))
    assert (state["epoch"], state["iteration"]) == (2, 4)
    assert all(each["step"] == 4 for each in state["optimizer"]["state"].values())
    for part in ("network", "ema_network"):
        torch.testing.assert_close(state[part], expected[part], rtol=0, atol=0)
    assert f"Dice: {state['best_metric']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("overlays", [["gpu_train.json"], ["gpu_train.json", "augmentation/hippocampus.json"]])
def test_long_training_of_one_gpu(small_training, tmp_path, overlays):
    """Here without the GPU: three passes over three cases are four batches of two, the ninth sample is left out."""
    settings = {**small_training, "passes_per_epoch": 3, "num_workers": 1, "epochs": 1}
    bundle_run("train.json", *overlays, run_id="training", output_dir=str(tmp_path), **settings)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["iteration"] == 4
    assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic


def test_resume_does_not_replace_better_weights(trained, small_training, tmp_path):
    folder = tmp_path / "resumed"
    shutil.copytree(trained, folder)
    state = torch.load(folder / "last.ckpt", weights_only=True)
    torch.save({**state, "best_metric": 2.0}, folder / "last.ckpt")
    kept = (folder / "model.pt").read_bytes()
    bundle_run("train.json", output_dir=str(folder), epochs=3, resume=True, **small_training)
    assert (folder / "model.pt").read_bytes() == kept


def test_evaluation_prints_fused_and_anchor(trained, small_training, tmp_path, capsys):
    bundle_run(
        "train.json",
        "evaluate.json",
        output_dir=str(tmp_path),
        checkpoint=str(trained / "model.pt"),
        **small_training,
    )
    lines = capsys.readouterr().out.splitlines()
    best = torch.load(trained / "last.ckpt", weights_only=True)["best_metric"]
    assert f"Dice: {best:.4f}" in lines  # the same cases, steps, members and weights as in training
    assert any(line.startswith("anchor 0.") and "posterior" in line for line in lines)
    assert len((tmp_path / "fused_raw.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("fusion", ["staple", "mean", "vote"])
def test_inference_writes_mask_uncertainty_and_picture(trained, small_run, small_dataset, tmp_path, fusion):
    bundle_run(
        "inference.json",
        output_dir=str(tmp_path),
        checkpoint=str(trained / "model.pt"),
        **{**small_run, "displayable_configs#num_inference_steps": 2, "displayable_configs#fusion": fusion},
    )
    images = sorted((small_dataset / "imagesTr").glob("*.nii.gz"))
    written = sorted(tmp_path.glob("*_seg.nii.gz"))
    assert len(written) == 2
    for path in written:
        name = path.name.removesuffix("_seg.nii.gz")
        image = nibabel.load(next(file for file in images if file.name == f"{name}.nii.gz"))
        mask, uncertainty = nibabel.load(path), nibabel.load(tmp_path / f"{name}_uncertainty.nii.gz")
        for result in (mask, uncertainty):
            assert result.shape == image.shape
            np.testing.assert_allclose(result.affine, image.affine)
        assert mask.get_data_dtype() == np.uint8 and set(np.unique(mask.dataobj)) <= {0, 1, 2}
        values = np.asarray(uncertainty.dataobj)
        assert 0 <= values.min() < values.max() <= 1
        assert min(imread(tmp_path / f"{name}_overlay.png").shape[:2]) >= 256
        report = json.loads((tmp_path / f"{name}_report.json").read_text())
        voxels = [(np.asarray(mask.dataobj) == label).sum() for label in (1, 2)]
        volumes = [structure["volume"] for structure in report["structures"].values()]
        assert volumes == pytest.approx([0.001 * count for count in voxels])  # voxels of 1 mm
        assert (tmp_path / f"{name}_report.html").is_file()
    endings = ("_report.html", "_report.json", "_seg.nii.gz", "_uncertainty.nii.gz", "_overlay.png")
    assert len(list(tmp_path.iterdir())) == 2 * len(endings) + 3  # and of both index, table and journal


def test_maps_that_are_asked_for(small_dataset, tmp_path):
    image = nibabel.load(next((small_dataset / "imagesTr").glob("hippocampus_001*")))
    names = ["mutual_information", "disagreement", "variance"]
    bundle_run(
        "inference.json",
        bundle_root=str(ROOT),
        device="cpu",
        dataset_dir=image.get_filename(),
        output_dir=str(tmp_path),
        uncertainty_maps=names,
        report=False,
    )
    case = "hippocampus_001"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{case}_overlay.png",
        f"{case}_report.json",
        *(f"{case}_{what}.nii.gz" for what in ("seg", *names)),
    }
    for name in names:
        written = nibabel.load(tmp_path / f"{case}_{name}.nii.gz")
        assert written.shape == (*image.shape, 2)[: 4 if name == "disagreement" else 3]
        np.testing.assert_allclose(written.affine, image.affine)
        assert 0 <= np.asarray(written.dataobj).min() < np.asarray(written.dataobj).max() <= 1


def test_windows_labels_and_anchor_only(trained, small_run, tmp_path):
    masks = {}
    few = {"displayable_configs#num_inference_steps": 2, "displayable_configs#ensemble_size": 4}
    for name, settings in {
        "whole": {},
        "windows": {"roi_size": [24, 24, 24]},
        "labels": {"output": "labels", "displayable_configs#fusion": "vote"},
        "anchor": {"anchor_only": True},
    }.items():
        folder = tmp_path / name
        bundle_run(
            "inference.json",
            output_dir=str(folder),
            checkpoint=str(trained / "model.pt"),
            **{**small_run, **few, **settings},
        )
        masks[name] = [np.asarray(nibabel.load(path).dataobj) for path in sorted(folder.glob("*_seg.nii.gz"))]
        assert len(masks[name]) == 2
    for whole, labels in zip(masks["whole"], masks["labels"], strict=True):
        # Members of the same noise, fused by their mean or by votes; a network of one epoch is sure of little.
        assert (whole == labels).mean() > 0.8


def test_evaluation_of_the_anchor_alone(trained, small_training, tmp_path, capsys):
    bundle_run(
        "train.json",
        "evaluate.json",
        output_dir=str(tmp_path),
        checkpoint=str(trained / "model.pt"),
        anchor_only=True,
        **small_training,
    )
    lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines() if " 0." in line)
    assert lines["anchor"] == lines["fused"]


def test_other_classes_from_given_weights(trained, small_training, tmp_path):
    """Fine-tuning: weights of a network with three classes start one with four."""
    bundle_run(
        "train.json",
        output_dir=str(tmp_path),
        epochs=1,
        seed=1,  # or fresh weights would be those that the given ones started from
        pretrained=str(trained / "model.pt"),
        **{**small_training, "class_names": ["anterior", "posterior", "other"]},
    )
    start = torch.load(trained / "model.pt", weights_only=True)
    end = torch.load(tmp_path / "model.pt", weights_only=True)
    assert end["condition_model.head.weight"].shape[0] == 4
    # Two iterations move a weight by about the learning rate each: those that were not loaded are far away.
    moved = (end["condition_model.encoder.0.0.conv1.weight"] - start["condition_model.encoder.0.0.conv1.weight"]).abs()
    assert moved.max() < 0.01


@pytest.mark.parametrize(
    ("overlay", "is_kept"),
    [
        ("denoiser_only.json", lambda name: name.startswith("condition_model.")),
        ("condition_only.json", lambda name: not name.startswith("condition_model.")),
    ],
)
def test_one_part_alone(trained, small_training, tmp_path, overlay, is_kept):
    """Of given weights those of the other part stay, resumed too."""
    settings = {**small_training, "output_dir": str(tmp_path), "ensemble_size": 1}
    bundle_run("train.json", overlay, epochs=1, pretrained=str(trained / "model.pt"), **settings)
    bundle_run("train.json", overlay, epochs=2, resume=True, **settings)
    start = torch.load(trained / "model.pt", weights_only=True)
    end = torch.load(tmp_path / "last.ckpt", weights_only=True)["network"]
    assert {name for name in start if torch.equal(start[name], end[name])} == set(filter(is_kept, start))


@contextmanager
def says_once(sentence):
    """An error of MONAI's runner, whose causes hold the sentence once."""
    with pytest.raises(RuntimeError) as raised:
        yield
    causes, cause = [], raised.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    assert sum(sentence in text for text in causes) == 1, causes


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ensemble_size": 0}, "ensemble_size must be a whole number of at least 1, got 0."),
        ({"ensemble_size": 2.5}, "ensemble_size must be a whole number of at least 1, got 2.5."),
        ({"num_inference_steps": 1001}, "from 1 to the 201 training timesteps up to start_from_anchor, got 1001."),
        ({"fusion": "median"}, "fusion must be one of staple, mean, vote, dice, got 'median'."),
        ({"pretrained": "/nowhere.pt"}, "The weights '/nowhere.pt' do not exist."),
        ({"class_names": ["hippocampus"]}, "holds 2, which is none of the 2 classes (0 to 1)."),
        ({"image_channels": 4}, "has 1 channel(s), the network takes 4."),
        ({"dataset_dir": "/nowhere"}, "dataset_dir '/nowhere' is not a folder."),
        ({"resume": True}, "There is nothing to resume from"),
    ],
)
def test_bad_values_are_named_before_any_work(settings, sentence, small_training, tmp_path):
    with says_once(sentence):
        bundle_run("train.json", output_dir=str(tmp_path), epochs=1, **{**small_training, **settings})
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"checkpoint": "/nowhere.pt"}, "The weights '/nowhere.pt' do not exist."),
        ({"displayable_configs#fusion": "median"}, "fusion must be one of staple, mean, vote, dice, got 'median'."),
        ({"dataset_dir": "PICTURE"}, "is a picture, the network takes volumes."),
    ],
)
def test_bad_values_of_inference(settings, sentence, small_run, tmp_path):
    picture = tmp_path / "case.png"
    picture.touch()
    settings = {key: str(picture) if value == "PICTURE" else value for key, value in settings.items()}
    with says_once(sentence):
        bundle_run("inference.json", output_dir=str(tmp_path / "output"), **{**small_run, **settings})
    assert not (tmp_path / "output").exists()


def test_a_label_on_another_grid_than_its_image(small_training, small_dataset, tmp_path):
    """Found in training as in validation, with the names of both files."""
    dataset = json.loads((small_dataset / "dataset.json").read_text())
    for section in ("training", "validation"):
        folder = tmp_path / section
        shutil.copytree(small_dataset, folder)
        path = folder / dataset[section][-1]["label"]
        label = nibabel.load(path)
        moved = label.affine.copy()
        moved[0, 3] += 3
        nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj), moved), path)
        with says_once(f"{path.name}' lies elsewhere than its image '{folder / dataset[section][-1]['image']}'"):
            bundle_run("train.json", output_dir=str(tmp_path), **{**small_training, "dataset_dir": str(folder)})
        assert not list(tmp_path.glob("*.pt"))


def test_module_run_from_another_folder(small_training, tmp_path):
    """`python -m monai.bundle run`, as a user would type it, with the bundle found by `--bundle_root` alone."""
    settings = {**small_training, "config_file": CONFIGS / "train.json", "output_dir": tmp_path / "output", "epochs": 1}
    arguments = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "training", *arguments],
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "output" / "model.pt").is_file()


def as_others_store_it(dataset, folder):
    """The cases of a data set as scanners and annotation tools store them: voxels, padding, headers, labels."""
    entries = json.loads((dataset / "dataset.json").read_text())
    for section in ("training", "validation"):
        for number, entry in enumerate(entries[section]):
            image, label = (nibabel.load(dataset / entry[what]) for what in ("image", "label"))
            values, marked = np.asarray(image.dataobj, np.float32), np.asarray(label.dataobj)
            affine = image.affine
            if number % 3 == 0:  # thick slices in a frame, the label with its axes in another order and direction
                affine = affine @ np.diag([1, 1, 2, 1])
                values, marked = (np.pad(each[..., ::2], 3) for each in (values, marked))
                marked, place = marked.transpose(2, 0, 1)[::-1], affine[:, [2, 0, 1, 3]] @ np.diag([-1, 1, 1, 1])
                place[:, 3] += affine[:, 2] * (len(marked) - 1)
                stored = nibabel.Nifti1Image(marked.astype(np.float32) + 2e-4, place)
            elif number % 3 == 1:  # a tilted gantry, and one channel for each class
                affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0.2, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
                stored = nibabel.Nifti1Image(np.stack([marked == 1, marked == 2], -1).astype(np.uint8), affine)
            else:
                stored = nibabel.Nifti1Image(np.stack([marked == c for c in range(3)], -1).astype(np.uint8), affine)
            image = nibabel.Nifti1Image(values, affine)
            if number % 3 == 0:
                image.header.set_xyzt_units("micron")
                image.set_sform(np.diag([1000, 1000, 1000, 1]) @ affine, 1)
            for what, content in (("image", image), ("label", stored)):
                path = folder / entry[what]
                path.parent.mkdir(parents=True, exist_ok=True)
                nibabel.save(content, path)
    (folder / "dataset.json").write_text(json.dumps(entries))


def test_training_and_evaluation_take_what_others_store(trained, small_training, small_dataset, tmp_path, capsys):
    as_others_store_it(small_dataset, tmp_path)
    settings = {**small_training, "dataset_dir": str(tmp_path), "ensemble_size": 1, "num_inference_steps": 1}
    bundle_run("train.json", output_dir=str(tmp_path / "training"), epochs=1, **settings)
    assert (tmp_path / "training" / "model.pt").is_file()
    shipped = {key: value for key, value in settings.items() if not key.startswith("network_def")}
    weights = str(ROOT / "models" / "model.pt")
    capsys.readouterr()
    bundle_run(
        *("train.json", "evaluate.json"),
        output_dir=str(tmp_path),
        checkpoint=weights,
        **{**shipped, "anchor_only": True},
    )
    dice = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Dice: "))
    assert float(dice.split()[1]) > 0.8  # 0.9 as they are
