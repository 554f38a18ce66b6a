"""The JSON files: complete, consistent with each other and with MONAI's rules."""

import json
import pydoc
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

import medsegdiff_bundle

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


def read(name):
    return json.loads((CONFIGS / name).read_text())


def targets(node):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize("name", sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.json")))
def test_our_targets_exist(name):
    for target in targets(read(name)):
        if target.startswith("medsegdiff_bundle."):
            assert pydoc.locate(target) is not None, target


@pytest.mark.parametrize(
    "key",
    [
        "network_def",
        "scheduler",
        "spatial_dims",
        "image_channels",
        "class_names",
        "num_train_timesteps",
        "schedule",
        "signal_scale",
        "prediction_type",
    ],
)
def test_train_and_inference_agree(key):
    assert read("train.json")[key] == read("inference.json")[key]


def test_validation_preprocessing_is_that_of_inference():
    expected = read("inference.json")["preprocessing"]["transforms"]
    transforms = [each for each in read("train.json")["val_transforms"] if each["keys"] != "label"]
    for ours, theirs in zip(transforms, [each for each in expected if "force" not in each], strict=True):
        assert {**ours, "keys": "image"} == theirs


def test_metadata():
    metadata = read("metadata.json")
    jsonschema.validate(metadata, json.loads((ROOT / "tests" / "meta_schema_20240725.json").read_text()))
    assert metadata["version"] == medsegdiff_bundle.__version__
    assert metadata["version"] in metadata["changelog"]


def test_metadata_describes_the_network():
    parser = ConfigParser(read("inference.json"))
    parser["bundle_root"] = str(ROOT)
    network = parser.get_parsed_content("network_def").eval()
    data = read("metadata.json")["network_data_format"]
    with torch.no_grad():
        pred = network(torch.rand(1, data["inputs"]["image"]["num_channels"], 9, 10, 11))
    assert pred.shape == (1, data["outputs"]["pred"]["num_channels"], 9, 10, 11)
    names = list(data["outputs"]["pred"]["channel_def"].values())
    assert names == ["background", *read("inference.json")["class_names"]]


def test_the_network_fits_its_file():
    parser = ConfigParser(read("inference.json"))
    parser["bundle_root"] = str(ROOT)
    weights = sum(weight.numel() for weight in parser.get_parsed_content("network_def").parameters())
    assert 4 * weights < 25e6


@pytest.mark.parametrize(
    ("files", "workflow_type"),
    [
        (["train.json"], "train"),
        (["train.json", "evaluate.json"], "train"),
        (["inference.json"], "infer"),
    ],
)
def test_monai_finds_every_property(files, workflow_type, small_run, tmp_path):
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / name) for name in files],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=str(CONFIGS / "logging.conf"),
        workflow_type=workflow_type,
        output_dir=str(tmp_path),
        **small_run,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize(
    ("terminal", "settings", "shown"),
    [
        (True, {}, True),
        (False, {}, False),  # a log
        (True, {"progress": False}, False),
        (False, {"progress": True}, True),
        (True, {"use_click": False}, False),  # MONAI Label
    ],
)
def test_a_bar_on_a_terminal(terminal, settings, shown, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    parser = ConfigParser(read("inference.json"))
    parser.update({"bundle_root": str(ROOT), **settings})
    assert parser.get_parsed_content("inferer").progress is shown


def test_the_switches_reach_the_inferer():
    parser = ConfigParser(read("inference.json"))
    parser.update({"bundle_root": str(ROOT), "channels_last": False, "compile": True})
    inferer = parser.get_parsed_content("inferer")
    assert (inferer.channels_last, inferer.compile) == (False, True)


def test_switches_of_the_ablation_are_one_line(small_run):
    for line in (
        {"network_def#num_anchor_levels": 0},
        {"network_def#num_transformer_blocks": 0},
        {"network_def#num_filter_blocks": 0},
        {"network_def#image_concat": False},
        {"network_def#anchor_residual": False},
    ):
        parser = ConfigParser(read("train.json"))
        parser.update({**small_run, **line})
        network = parser.get_parsed_content("network_def").eval()
        mask = torch.randn(1, 3, 16, 16, 16)
        assert network(torch.rand(1, 1, 16, 16, 16), mask, torch.tensor(7)).shape == mask.shape
