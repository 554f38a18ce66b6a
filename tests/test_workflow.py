"""Settings and errors of `python -m monai.bundle run`, by the first expression of the bundle's `initialize`."""

import json
import sys
from pathlib import Path

import forks
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow

from medsegdiff_bundle import errors
from medsegdiff_bundle.given import as_said, put_in

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


def create(*files, **given):
    """The workflow that `python -m monai.bundle run` makes, without its run."""
    return create_workflow(
        config_file=[str(CONFIGS / file) if isinstance(file, str) else str(file) for file in files],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        workflow_type="train" if files[0] == "train.json" else "infer",
        **given,
    )


@pytest.fixture
def only_settings(small_run):
    """Of a run that ends after its settings were checked."""
    return {**small_run, "initialize": ["$@bundle_path", "$@begin"]}


def causes(error):
    while error is not None:
        yield str(error)
        error = error.__cause__


@pytest.mark.parametrize(
    ("files", "given", "sentence"),
    [
        (["inference.json"], {"checkpiont": "X"}, "did you mean 'checkpoint'?"),
        (["train.json"], {"epoch": 2}, "did you mean 'epochs'?"),
        (["train.json", "evaluate.json"], {"chekpoint": 2}, "did you mean 'checkpoint'?"),
        (["train.json"], {"network_def#chanels": [1]}, "did you mean 'network_def#channels'?"),
        (
            ["inference.json"],
            {"displayable_configs#num_inference_step": 2},
            "'displayable_configs#num_inference_steps'?",
        ),
        (["inference.json"], {"epochs": 2}, "inference.json has no setting 'epochs'."),
        (["inference.json"], {"amp": "maybe"}, "amp must be true or false, got 'maybe'."),
        (["train.json"], {"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'."),
    ],
)
def test_wrong_settings_are_refused(files, given, sentence, only_settings):
    with pytest.raises(RuntimeError) as caught:
        create(*files, **only_settings, **given)
    assert any(text.endswith(sentence) for text in causes(caught.value))


def test_a_device_that_is_none(only_settings):
    with pytest.raises(RuntimeError) as caught:
        create("train.json", **{**only_settings, "device": "cud"})
    assert "There is no device 'cud' here." in causes(caught.value)


def test_settings_as_people_type_them(only_settings):
    given = {"amp": "false", "anchor_only": "False", "channels_last": "no", "roi_size": "None", "progress": "true"}
    run = create("inference.json", **only_settings, **given, **{"displayable_configs#ensemble_size": "3"})
    inferer = run.parser.get_parsed_content("inferer")
    assert [inferer.amp, inferer.anchor_only, inferer.channels_last] == [False, False, False]
    assert (inferer.roi_size, inferer.progress, inferer.ensemble_size) == (None, True, 3)


def test_texts_of_files_keep_their_hash(only_settings, tmp_path):
    """MONAI writes "::" for it in every text, before the first expression is evaluated."""
    own = {
        "class_names": ["lobe #1", "lobe #2"],
        "dicom_codes": {"lobe #1": ["1", "SCT", "lobe #1 of 2"]},
        "mine": ["a#b", "$'a' + '#b'", "@class_names#1", "c::d"],
    }
    (tmp_path / "own.json").write_text(json.dumps(own))
    run = create("inference.json", tmp_path / "own.json", **only_settings, output_dir=str(tmp_path / "set#1"))
    content = run.parser.get_parsed_content
    assert (content("class_names"), content("dicom_codes")) == (own["class_names"], own["dicom_codes"])
    assert content("output_dir") == str(tmp_path / "set#1")
    assert content("mine") == ["a#b", "a::b", "lobe #2", "c::d"]


def test_what_is_looked_up_is_said_as_a_file_would():
    """Texts of callers are no programs, and none when their record is read as a file."""
    given = {"output_dir": "@here#1", "class_names": ["$print(1)", "lobe #2"], "spacing": [1.0, 1.0, 1.0]}
    parser = ConfigParser({"output_dir": None, "displayable_configs": {"fusion": "mean"}})
    put_in(parser, given)
    said = as_said(parser)
    assert said == {
        "output_dir": "$'@here#1'",
        "displayable_configs": {"fusion": "mean"},
        "class_names": ["$'$print(1)'", "lobe #2"],
        "spacing": [1.0, 1.0, 1.0],
    }
    assert ConfigParser(said).get_parsed_content("class_names")[0] == "$print(1)"


def test_an_argument_of_a_component_that_the_file_does_not_name(only_settings):
    run = create("train.json", **only_settings, **{"network_def#dropout": 0.1, "train#dataloader#pin_memory": False})
    assert run.parser["network_def#dropout"] == 0.1


def test_entries_of_a_file_of_the_user(only_settings, tmp_path):
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"author": "me", "lowest": 1e-5, "lr_scheduler#eta": "@lowest", "amp": "no"}))
    run = create("train.json", own, **only_settings)
    assert run.parser["amp"] is False
    own.write_text(json.dumps({"learning_rates": 1e-5}))
    with pytest.raises(RuntimeError) as caught:
        create("train.json", own, **only_settings)
    assert "There is no setting 'learning_rates': did you mean 'learning_rate'?" in causes(caught.value)


def test_a_workflow_made_by_hand(only_settings):
    """Without `create_workflow` the merged configuration tells."""
    run = ConfigWorkflow(str(CONFIGS / "train.json"), logging_file=False, **only_settings, epoch=2)
    with pytest.raises(RuntimeError) as caught:
        run.initialize()
    assert "There is no setting 'epoch': did you mean 'epochs'?" in causes(caught.value)


def test_tracking_settings_are_known(only_settings):
    create("train.json", **only_settings, tracking="mlflow", experiment_name="mine", run_name="first")


def test_help_starts_nothing(only_settings, capsys):
    with pytest.raises(SystemExit) as caught:
        create("train.json", **only_settings, help=True)
    assert caught.value.code == 0
    assert "--epochs 20\n" in capsys.readouterr().out


@pytest.mark.parametrize("file", sorted(path.name for path in CONFIGS.glob("*.json")))
def test_each_initialize_begins_with_the_check(file):
    content = json.loads((CONFIGS / file).read_text())
    if "initialize" in content:
        assert content["initialize"][:2] == ["$@bundle_path", "$@begin"]


def test_the_sentence_of_a_process_that_loads_data():
    error = ValueError(
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        f'  File "{errors.PACKAGE}/transforms/load.py", line 104, in __call__\n    raise ValueError(...)\n'
        "ValueError: 'a.nii.gz' cannot be read: it is torn.\n"
    )
    assert errors.sentence(error) == "'a.nii.gz' cannot be read: it is torn."


def test_an_error_of_a_component_names_its_entry(only_settings):
    """Of which MONAI's parser says nothing that a user could look for."""
    workflow = create("train.json", **only_settings, **{"loss": {"_target_": "DiceLoss", "sizes": 3}})
    with pytest.raises(RuntimeError) as caught:
        workflow.parser.get_parsed_content("loss")
    assert errors.sentence(caught.value).startswith("loss: TypeError: ")
    assert errors.entry(ValueError("of nothing")) == ""


def test_from_a_shell(small_run, tmp_path):
    """One process: the sentence is all that standard error has of an error in the midst of a run."""
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    network = create("inference.json", **small_run).parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "small.pt")
    changed = {"dataset_dir": broken, "checkpoint": tmp_path / "small.pt"}
    words = [f"--{key}={value}" for key, value in {**small_run, **changed}.items()]
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "monai.bundle",
        "run",
        f"--config_file={CONFIGS / 'inference.json'}",
    ]
    process = forks.run([*command, *words, "--amp", "false", f"--output_dir={tmp_path}"], cwd=ROOT)
    assert process.returncode == 1
    lines = process.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and str(broken) in lines[0]
    assert "Traceback" not in process.stdout
