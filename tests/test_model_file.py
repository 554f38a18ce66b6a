"""Weights that say what they are: a training of one's own structures, of which inference is told nothing else."""

import json
import shutil
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

import medsegdiff_bundle
from medsegdiff_bundle import cli, configuration, model_file
from medsegdiff_bundle.provenance import checksum

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
MINE = {
    "task": "abdomen",
    "shipped_weights": None,
    "modality": "CT",
    "uncertainty_limit": None,
    "volume_ranges": {"spleen #2": [0.001, 1000.0]},
    "dicom_codes": {},
    "class_names": ["liver", "spleen #2"],
    "spacing": [2.0, 2.0, 2.0],
    "window": [-20.0, 300.0],
    "displayable_configs": {"num_inference_steps": 2, "ensemble_size": 3, "fusion": "mean"},
    "network_def#channels": [4, 8, 8],
    "network_def#num_heads": 2,
    "network_def#token_size": 4,
    "preparation": [
        {"_target_": "Orientationd", "keys": ["image", "label"], "axcodes": "RAS", "labels": None},
        {
            "_target_": "ScaleIntensityRanged",
            "keys": "image",
            "a_min": "$@window[0]",
            "a_max": "$@window[1]",
            "b_min": -1,
            "b_max": 1,
        },
        {
            "_target_": "medsegdiff_bundle.transforms.Spacingd",
            "_requires_": "@bundle_path",
            "_disabled_": "$@spacing is None",
            "keys": ["image", "label"],
            "pixdim": "@spacing",
            "mode": ["bilinear", "nearest"],
        },
    ],
}
CASE = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"


@pytest.fixture(scope="module")
def trained(small_dataset, tmp_path_factory):
    """Folder of a training of one epoch of a file of settings."""
    folder = tmp_path_factory.mktemp("abdomen #1")
    (folder / "mine.json").write_text(json.dumps(MINE))
    monai.bundle.run(
        run_id="training",
        config_file=[str(CONFIGS / "train.json"), str(folder / "mine.json")],
        logging_file=False,
        **{"bundle_root": str(ROOT), "dataset_dir": str(small_dataset), "output_dir": str(folder), "device": "cpu"},
        **{"patch_size": [16, 16, 16], "epochs": 1, "val_interval": 1, "num_inference_steps": 1, "ensemble_size": 1},
    )
    return folder


def test_weights_of_several_models_are_no_folds(trained, tmp_path):
    """They may differ in their numbers, and in nothing that they say of themselves."""
    about = json.loads((trained / "model.model.json").read_text())
    for name, classes in (("a", MINE["class_names"]), ("b", MINE["class_names"]), ("c", ["liver", "lung"])):
        torch.save({"weight": torch.rand(3)}, tmp_path / f"{name}.pt")
        configuration_of = {**about["configuration"], "class_names": classes}
        model_file.write_model(tmp_path / f"{name}.pt", {"task": "abdomen", "configuration": configuration_of})
    files = [str(tmp_path / f"{name}.pt") for name in "abc"]
    assert model_file.read_model(files[:2])["configuration"]["class_names"] == MINE["class_names"]
    with pytest.raises(ValueError, match="The weights '.*a.pt' and '.*c.pt' are of different models."):
        model_file.read_model(files)


def test_what_a_training_writes(trained):
    model = json.loads((trained / "model.model.json").read_text())
    assert model["sha256"] == checksum(trained / "model.pt")
    assert (model["task"], model["version"]) == ("abdomen", medsegdiff_bundle.__version__)
    entries = model["configuration"]
    assert {name: entries[name] for name in ("class_names", "spacing", "displayable_configs", "window")} == {
        name: MINE[name] for name in ("class_names", "spacing", "displayable_configs", "window")
    }
    assert entries["network_def"]["channels"] == [4, 8, 8]
    scale, spacing = entries["preparation"][1:]
    assert (scale["a_min"], scale["a_max"]) == (-20, 300) and spacing["pixdim"] == "@spacing"
    assert "$" not in (trained / "model.model.json").read_text()
    written = json.loads((trained / "settings.json").read_text())
    assert (written["class_names"], written["output_dir"]) == (MINE["class_names"], str(trained))


def test_segment_needs_nothing_else(trained):
    weights = trained / "model.pt"
    segmenter = medsegdiff_bundle.Segmenter(checkpoint=weights, device="cpu")
    assert segmenter.class_names == ("liver", "spleen #2")
    assert (segmenter.inferer.num_inference_steps, segmenter.inferer.ensemble_size) == (2, 3)
    names = [type(step).__name__ for step in segmenter.preprocessing.transforms]
    assert names[3:] == ["Orientationd", "ScaleIntensityRanged", "Spacingd"]
    found = segmenter(CASE)
    assert list(found.report["structures"]) == ["liver", "spleen #2"]
    told = medsegdiff_bundle.segment(CASE, checkpoint=weights, device="cpu", seed=0, class_names=["liver", "spleen #2"])
    np.testing.assert_array_equal(found.mask, told.mask)


def test_a_mask_is_made_again_from_its_report(trained, tmp_path):
    weights = trained / "model.pt"
    given = {"ensemble_size": 2, "seed": 3, "spacing": [3, 3, 3]}
    found = medsegdiff_bundle.segment(CASE, checkpoint=weights, output_dir=tmp_path, device="cpu", **given)
    report = tmp_path / "hippocampus_001_report.json"
    assert not any("_target_" in str(value) for value in json.loads(report.read_text())["settings"].values())
    again = medsegdiff_bundle.segment(CASE, like=report, checkpoint=weights, device="cpu")
    np.testing.assert_array_equal(again.mask, found.mask)


def test_so_do_the_runs_of_the_bundle(trained, small_dataset, tmp_path, capsys):
    common = {"logging_file": False, "bundle_root": str(ROOT), "device": "cpu", "checkpoint": str(trained / "model.pt")}
    out = {"output_dir": str(tmp_path)}
    monai.bundle.run(config_file=str(CONFIGS / "inference.json"), dataset_dir=str(CASE), **common, **out)
    report = json.loads((tmp_path / "hippocampus_001_report.json").read_text())
    assert list(report["structures"]) == ["liver", "spleen #2"] and report["task"] == "abdomen"
    alone = medsegdiff_bundle.segment(CASE, checkpoint=trained / "model.pt", device="cpu")
    mask = np.asarray(nibabel.load(tmp_path / "hippocampus_001_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(mask, alone.mask)
    files = [str(CONFIGS / name) for name in ("train.json", "evaluate.json")]
    monai.bundle.run(config_file=files, dataset_dir=str(small_dataset), **common, **out)
    assert "liver 0." in capsys.readouterr().out


def test_so_do_the_commands(trained, small_dataset, tmp_path, capsys, monkeypatch):
    """Without a word on classes or network; and what is given stays."""
    weights = str(trained / "model.pt")
    made = []
    monkeypatch.setattr(ConfigWorkflow, "finalize", lambda workflow: made.append(workflow.parser))
    words = ["evaluate", "--data", str(small_dataset), "-c", weights, "-d", "cpu", "-o", str(tmp_path)]
    words += ["--overlap=0.25", "--start_from_anchor=200", "--mirror_axes=[1]"]
    assert cli.main([*words, "--set", "displayable_configs#ensemble_size=4"]) == 0
    assert "liver 0." in capsys.readouterr().out
    inferer = made[0].get_parsed_content("validate#inferer")
    assert (inferer.ensemble_size, inferer.num_inference_steps) == (4, 2) and list(inferer.mirror_axes) == [1]
    assert (inferer.overlap, inferer.start_from_anchor) == (0.25, 200)
    words = ["sweep", str(small_dataset), "-c", weights, "--steps", "1", "--members", "1", "--fusions", "mean"]
    assert cli.main([*words, "--cases", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_so_does_the_export(trained):
    onnx = pytest.importorskip("medsegdiff_bundle.export.onnx")
    config = onnx.read_config([CONFIGS / "inference.json"], trained / "model.pt")
    network = onnx.trained_network(config)
    assert onnx.sampler_settings(config, network)["class_names"] == ["background", "liver", "spleen #2"]


def test_what_the_user_says_stays(trained, tmp_path):
    given = {"checkpoint": trained / "model.pt", "device": "cpu"}
    changed = medsegdiff_bundle.Segmenter(**given, ensemble_size=2, spacing=[3, 3, 3], mirror_axes=[])
    assert changed.inferer.ensemble_size == 2 and list(changed.inferer.mirror_axes) == []
    assert changed.preprocessing.transforms[-1].spacing_transform.pixdim.tolist() == [3, 3, 3]
    shown = medsegdiff_bundle.Segmenter(**given, **{"displayable_configs#ensemble_size": 5})
    assert (shown.inferer.ensemble_size, shown.inferer.num_inference_steps) == (5, 2)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"task": "hippocampus"}, "are of class_names liver, spleen #2, not anterior, posterior."),
        ({"task": "isic"}, "are of class_names liver, spleen #2, not lesion."),
        ({"class_names": ["liver"]}, "are of class_names liver, spleen #2, not liver."),
        ({"class_names": ["spleen #2", "liver"]}, "are of class_names liver, spleen #2, not spleen #2, liver."),
        ({"image_channels": 2}, "are of image_channels 1, not 2."),
        ({"spatial_dims": 2}, "are of spatial_dims 3, not 2."),
        ({"network_def#channels": [4, 8, 16]}, "do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(given, sentence, trained):
    with pytest.raises(ValueError, match=f"model.pt' {sentence}"):
        medsegdiff_bundle.segment(CASE, checkpoint=trained / "model.pt", device="cpu", **given)


def test_a_run_refuses_it_too(trained, tmp_path):
    files = [str(CONFIGS / name) for name in ("inference.json", "tasks/hippocampus.json")]
    settings = {"bundle_root": str(ROOT), "device": "cpu", "checkpoint": str(trained / "model.pt")}
    with pytest.raises(RuntimeError) as raised:
        monai.bundle.run(config_file=files, logging_file=False, output_dir=str(tmp_path / "out"), **settings)
    causes, cause = [], raised.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    assert any("are of class_names liver, spleen #2, not anterior, posterior." in text for text in causes)
    assert not (tmp_path / "out").exists()


def test_weights_of_before_load_with_a_remark(trained, tmp_path, caplog):
    shutil.copy(trained / "model.pt", tmp_path / "old.pt")
    settings = {
        "class_names": ["liver", "spleen #2"],
        **{key: MINE[key] for key in MINE if key.startswith("network_def")},
    }
    with caplog.at_level("WARNING"):
        found = medsegdiff_bundle.segment(CASE, checkpoint=tmp_path / "old.pt", device="cpu", **settings)
    assert list(found.report["structures"]) == ["liver", "spleen #2"]
    said = [record.message for record in caplog.records if "do not say what they segment" in record.message]
    assert len(said) == 1 and "'old.model.json' is not there: liver, spleen #2 is what the settings say" in said[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: {**model, "sha256": "0" * 64}, "model.json' describes other weights than those of '.*mine.pt'"),
        (lambda model: {**model, "configuration": {}}, "does not describe weights: KeyError 'class_names'"),
        (lambda model: [1], "'.*mine.model.json' does not describe weights: TypeError"),
        (lambda model: with_entry(model, load=["$__import__('os').abort()"]), "holds \".*abort.*\", which may be"),
        (lambda model: with_entry(model, load=[{"_target_": "os.system"}]), "holds 'os.system', which may"),
        (lambda model: with_entry(model, load=[{"_target_": "SaveImaged"}]), "holds 'SaveImaged', which"),
        (lambda model: with_entry(model, load=[{"_target_": "Resized", "_mode_": "callable"}]), "holds '_mode_'"),
        (lambda model: with_entry(model, load=[{"_target_": "monai.transforms.Lambdad"}]), "holds 'monai.transforms.L"),
        (lambda model: with_entry(model, load=[{"_target_": "monai.bundle.ConfigParser"}]), "holds 'monai.bundle.C"),
        (lambda model: with_entry(model, load=[{"_target_": "ConfigWorkflow"}]), "holds 'ConfigWorkflow'"),
        (lambda model: with_entry(model, load=[{"_target_": "LoadImaged", "reader": "os.system"}]), "holds 'os"),
        (lambda model: with_entry(model, load=[{"_target_": "LoadImaged", "reader": ["exec"]}]), "holds .*exec"),
        (lambda model: with_entry(model, load=[{"_target_": "LoadImaged", "reader": "@load"}]), "holds '@load'"),
        (lambda model: with_entry(model, load="$" + "1" * 9999), r"holds '.1{199}', which may"),
        (lambda model: with_entry(model, displayable_configs=[1] * 9999), "weights: displayable_c.{0,400}$"),
        (lambda model: with_entry(model, load="%/etc/any.json"), "holds '%/etc/any.json'"),
        (lambda model: with_entry(model, class_names=["liver", "liver"]), "model.json'.*: class_names must be a list"),
        (lambda model: with_entry(model, base="/any.json"), "mine.model.json'.*: base is no part of a model"),
        (lambda model: with_entry(model, initialize=["@run"]), "mine.model.json'.*: initialize is no part of a model"),
        (lambda model: with_entry(model, spacing="no"), "mine.model.json'.*: spacing must be a voxel size"),
        (lambda model: {**model, "fold": -1}, "mine.model.json'.*: fold must be a whole number of at least 0"),
        (lambda model: with_entry(model, network_def=3), "mine.model.json'.*: network_def must be a component, got 3"),
        (lambda model: with_entry(model, preparation="no"), "mine.model.json'.*: preparation must be a list of trans"),
        (lambda model: with_entry(model, displayable_configs={"ensemble_size": 0}), "ensemble_size must be a whole"),
    ],
)  # fmt: skip
def test_files_that_are_none(change, sentence, trained, tmp_path):
    shutil.copy(trained / "model.pt", tmp_path / "mine.pt")
    model = json.loads((trained / "model.model.json").read_text())
    (tmp_path / "mine.model.json").write_text(json.dumps(change(model)))
    with pytest.raises(ValueError, match=sentence):
        medsegdiff_bundle.segment(CASE, checkpoint=tmp_path / "mine.pt", device="cpu")


def with_entry(model, **entries):
    return {**model, "configuration": {**model["configuration"], **entries}}


@pytest.mark.parametrize("task", configuration.tasks_with_weights(CONFIGS))
def test_shipped_weights_say_what_the_files_of_their_task_say(task):
    config = configuration.load(
        [CONFIGS / "inference.json", CONFIGS / "tasks" / f"{task}.json"], {"bundle_root": str(ROOT), "device": "cpu"}
    )
    model = model_file.read_model(config.get_parsed_content("checkpoint"))
    assert model["task"] == task
    assert model["configuration"] == model_file.describe_model(config)["configuration"]


@pytest.mark.parametrize("task", configuration.tasks_with_weights(CONFIGS))
def test_weights_name_the_task_that_reads_their_labels(task, tmp_path):
    """Unless it trained them for other classes."""
    config = configuration.load(
        [CONFIGS / "inference.json", CONFIGS / "tasks" / f"{task}.json"], {"bundle_root": str(ROOT), "device": "cpu"}
    )
    shipped = config.get_parsed_content("checkpoint")
    assert model_file.task_of(shipped) == task
    torch.save({}, tmp_path / "own.pt")
    assert model_file.task_of(tmp_path / "own.pt") is None
    model = model_file.read_model(shipped)
    for change in ({"task": "mine"}, with_entry(model, class_names=["liver"])):
        model_file.write_model(tmp_path / "own.pt", {**model, **change, "sha256": checksum(tmp_path / "own.pt")})
        assert model_file.task_of(tmp_path / "own.pt") is None


def parser_of(**entries):
    config = configuration.load([CONFIGS / "train.json"], {"bundle_root": str(ROOT), "device": "cpu", **entries})
    config.set({"_target_": "medsegdiff_bundle.model_file.described_model"}, "model")
    return config


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"normalization": [{"_target_": "my.Transform"}]}, "normalization holds 'my.Transform'"),
        ({"network_def#norm": "$torch.nn.ReLU"}, "network_def#norm cannot be written"),
        ({"load": [{"_target_": "LoadImaged", "keys": "image", "reader": "my.Reader"}]}, "load holds 'my.Reader'"),
        ({"preparation": [{"_target_": "Lambdad", "func": "$lambda x: x"}]}, "preparation#0#func cannot be written"),
        ({"preparation": [{"_target_": "CastToTyped", "dtype": torch.float32}]}, "preparation cannot be written"),
        ({"train_transforms": [{"_target_": "LoadImaged", "keys": ["image"]}]}, "load is not used"),
        ({"train_transforms": "$@load + @patches"}, "preparation is not used"),
        ({"train#preprocessing#transforms": "$@load + @patches"}, "preparation is not used"),
        ({"normalization": ["@x"], "x": {}, "train_transforms": "$@load + @preparation"}, "normalization is not used"),
    ],
)
def test_a_model_that_no_file_can_say_is_trained_without_one(entries, sentence, caplog):
    assert parser_of(**entries).get_parsed_content("model") is None
    (said,) = [record.message for record in caplog.records]
    assert f"The weights will not say what they segment: {sentence}" in said


@pytest.mark.parametrize(
    "entries",
    [
        {"normalization": [{"_target_": "monai.transforms.ScaleIntensityRanged", "keys": "image"}]},
        {"network_def": {"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 3}},
        {"mine": ["@as_tensors"], "train_transforms": "$@load + @both", "both": "$@preparation + @mine"},
    ],
)
def test_components_of_monai_by_their_whole_names(entries, tmp_path):
    model = parser_of(**entries).get_parsed_content("model")
    (tmp_path / "mine.pt").touch()
    model_file.write_model(tmp_path / "mine.pt", model)
    assert model_file.read_model(tmp_path / "mine.pt")["configuration"] == model["configuration"]


def test_a_fold_is_said_and_one_split_is_not():
    assert "fold" not in model_file.describe_model(parser_of())
    said = model_file.describe_model(parser_of(fold=2, num_folds=4))
    assert model_file.fold_of(said) == {"fold": 2, "num_folds": 4} and "fold" not in said["configuration"]


def test_a_resumed_training_describes_what_is_there(trained, small_dataset, tmp_path):
    """The run ended between the two files."""
    folder = tmp_path / "again"
    shutil.copytree(trained, folder)
    state = torch.load(folder / "last.ckpt", weights_only=True)
    torch.save({**state, "best_metric": 2.0}, folder / "last.ckpt")
    (folder / "model.model.json").write_text("{}")
    monai.bundle.run(
        run_id="training",
        config_file=[str(CONFIGS / "train.json"), str(folder / "mine.json")],
        logging_file=False,
        **{"bundle_root": str(ROOT), "dataset_dir": str(small_dataset), "output_dir": str(folder), "device": "cpu"},
        **{"patch_size": [16, 16, 16], "epochs": 2, "val_interval": 1, "num_inference_steps": 1, "ensemble_size": 1},
        resume=True,
    )
    assert json.loads((folder / "model.model.json").read_text())["sha256"] == checksum(folder / "model.pt")


def test_weights_named_by_their_folder(tmp_path):
    said = model_file.no_weights("hippocampus", str(tmp_path))
    assert said == f"There are no weights in the folder '{tmp_path}' itself: name a file, such as model.pt."
