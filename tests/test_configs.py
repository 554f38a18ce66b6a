"""The JSON files: complete, consistent with each other and with MONAI's rules."""

import json
import pydoc
import re
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from monai.bundle import ConfigWorkflow

import medsegdiff_bundle
from medsegdiff_bundle import configuration, settings

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


HEAD = {"imports", "bundle_root", "bundle_path", "begin", "debug"}  # which stands before anything is completed


def test_what_training_and_inference_share_stands_once():
    train, inference = read("train.json"), read("inference.json")
    assert {name for name in train.keys() & inference.keys() if train[name] == inference[name]} <= HEAD
    whole = configuration.read([CONFIGS / "train.json"])
    shared = {name for name in whole if whole[name] == inference.get(name)}
    settings = {"spatial_dims", "image_channels", "num_classes", "prediction_type", "signal_scale", "ensemble_size"}
    assert shared >= settings | {"scheduler", "inferer", "load", "preparation", "crop", "fuse_members"}
    assert whole["network_def"].items() >= inference["network_def"].items()  # and what the task says of it
    assert whole["class_names"] == read("tasks/hippocampus.json")["class_names"]
    assert configuration.BASE not in whole and configuration.REST not in json.dumps(whole["network_def"])


def positions(node):
    """Addresses of an element of a list by its place, as `handlers#0` and `$@handlers[:-2]`."""
    if isinstance(node, str):
        yield from re.findall(r"(?:#|::)\d+|@[\w#]+\[-?\d|@[\w#]+\[.*:", node) if node[:1] in "$@%" else []
    elif isinstance(node, (dict, list)):
        for key in node if isinstance(node, dict) else []:
            yield from re.findall(r"(?:#|::)\d+", key)
        for each in node.values() if isinstance(node, dict) else node:
            yield from positions(each)


@pytest.mark.parametrize("name", sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.json")))
def test_nothing_is_addressed_by_its_place(name):
    if name != "metadata.json":
        assert list(positions(read(name))) == []


TASKS = configuration.tasks(CONFIGS)


@pytest.mark.parametrize("task", [task for task in TASKS if task != configuration.OTHER])
def test_validation_prepares_an_image_as_inference_does(task):
    given = {"bundle_root": str(ROOT), "device": "cpu"}
    steps = {}
    for name, key in (("train", "val_transforms"), ("inference", "preprocessing#transforms")):
        config = configuration.load([CONFIGS / f"{name}.json", CONFIGS / "tasks" / f"{task}.json"], given)
        steps[name] = [type(step).__name__ for step in config.get_parsed_content(key) if "image" in step.keys]
    steps["inference"].remove("CheckImaged")
    assert steps["train"] == steps["inference"]


@pytest.mark.parametrize("task", configuration.tasks_with_weights(CONFIGS))
def test_inference_with_a_task_is_complete_for_tools_that_read_files_alone(task):
    content = settings.read_files([CONFIGS / "inference.json", CONFIGS / "tasks" / f"{task}.json"])
    needed = {name: content[name] for name in configuration.behind(read("inference.json"), content)}
    assert {name.split("#")[0] for name in settings.references(needed)} <= content.keys()
    assert configuration.complete(content, CONFIGS) == content


def test_a_task_of_which_nothing_is_known_has_the_entries_of_one():
    known = {name for name in read("tasks/hippocampus.json") if not name.startswith("network_def#")}
    assert read("tasks/other.json").keys() - {"_desc_"} == known - {"class_names"}


def test_what_the_task_says_of_a_part_of_an_entry():
    """Whether its file is named or not; other settings go before it, and other structures know nothing of it."""
    plain = configuration.load([CONFIGS / "inference.json"])
    named = configuration.load([CONFIGS / "inference.json", CONFIGS / "tasks" / "hippocampus.json"])
    assert plain["network_def"] == named["network_def"] and plain["network_def"]["image_concat"] is False
    assert plain.get_parsed_content("network_def").denoiser.stem.out_channels == 16
    small = configuration.load([CONFIGS / "inference.json"], {"network_def#channels": [4, 8]})
    assert small.get_parsed_content("network_def").denoiser_level == 0  # whoever says other widths says them of both
    given = configuration.load([CONFIGS / "train.json"], {"network_def#denoiser_channels": None})["network_def"]
    assert given["denoiser_channels"] is None and given["image_concat"] is False
    another = configuration.load([CONFIGS / "inference.json", CONFIGS / "baselines" / "dynunet.json"])["network_def"]
    assert "denoiser_channels" not in another  # which is no argument of the network that stands there
    other = configuration.load([CONFIGS / "inference.json"], {"class_names": ["liver"]})["network_def"]
    assert "denoiser_channels" not in other and "image_concat" not in other


@pytest.mark.parametrize(
    ("given", "task", "spacing"),
    [
        ({}, "hippocampus", [1.0, 1.0, 1.0]),
        ({"class_names": ["anterior", "posterior"]}, "hippocampus", [1.0, 1.0, 1.0]),
        ({"class_names": ["liver"]}, "other", None),
        ({"spacing": [2, 2, 2]}, "hippocampus", [2, 2, 2]),
        ({"task": "mine", "class_names": ["liver"]}, "mine", None),
        ({"task": "other", "class_names": ["liver"]}, "other", None),
    ],
)
@pytest.mark.parametrize("name", ["train.json", "inference.json"])
def test_the_task_of_a_configuration_without_one(name, given, task, spacing):
    content = configuration.load([CONFIGS / name], given).get()
    assert (content["task"], content["spacing"]) == (task, spacing)


def test_what_stands_for_the_rest(tmp_path):
    (tmp_path / "below.json").write_text(
        '{"steps": [1, 2], "net": {"_target_": "A", "width": 3}, "depth": 4, "more": 5}'
    )
    config = {"base": "below.json", "steps": [0, "...", 3], "net": {"...": "of it", "width": 8}, "run": "$@depth + 1"}
    whole = {
        "steps": [0, 1, 2, 3],
        "net": {"_target_": "A", "width": 8},
        "run": "$@depth + 1",
        "depth": 4,
        "task": None,
    }
    assert configuration.complete(config, tmp_path) == whole
    replaced = {"base": "below.json", "steps": [7], "net": {"_target_": "B"}}
    assert configuration.complete(replaced, tmp_path) == {"steps": [7], "net": {"_target_": "B"}, "task": None}
    with pytest.raises(ValueError, match="There is no nothing of below.json, for which '...' would stand"):
        configuration.complete({"base": "below.json", "nothing": ["..."]}, tmp_path)
    with pytest.raises(ValueError, match="no configuration file '.*none.json'"):
        configuration.complete({"base": "none.json"}, tmp_path)


def test_metadata():
    metadata = read("metadata.json")
    jsonschema.validate(metadata, json.loads((ROOT / "tests" / "meta_schema_20240725.json").read_text()))
    assert metadata["version"] == medsegdiff_bundle.__version__
    assert metadata["version"] in metadata["changelog"]


def test_metadata_describes_the_network():
    parser = configuration.load([CONFIGS / "inference.json"], {"bundle_root": str(ROOT)})
    network = parser.get_parsed_content("network_def").eval()
    data = read("metadata.json")["network_data_format"]
    with torch.no_grad():
        pred = network(torch.rand(1, data["inputs"]["image"]["num_channels"], 9, 10, 11))
    assert pred.shape == (1, data["outputs"]["pred"]["num_channels"], 9, 10, 11)
    names = list(data["outputs"]["pred"]["channel_def"].values())
    assert names == ["background", *read("tasks/hippocampus.json")["class_names"]]


def test_the_network_fits_its_file():
    parser = configuration.load([CONFIGS / "inference.json"], {"bundle_root": str(ROOT)})
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
    parser = configuration.load([CONFIGS / "inference.json"], {"bundle_root": str(ROOT), **settings})
    assert parser.get_parsed_content("inferer").progress is shown


def test_the_switches_reach_the_inferer():
    parser = configuration.load(
        [CONFIGS / "inference.json"], {"bundle_root": str(ROOT), "channels_last": False, "compile": True}
    )
    inferer = parser.get_parsed_content("inferer")
    assert (inferer.channels_last, inferer.compile) == (False, True)


def test_switches_of_the_ablation_are_one_line(small_run):
    for line in (
        {"network_def#num_anchor_levels": 0, "network_def#num_transformer_blocks": 2},
        {"network_def#num_transformer_blocks": 0},
        {"network_def#num_filter_blocks": 0, "network_def#num_transformer_blocks": 2},
        {"network_def#image_concat": False},
        {"network_def#anchor_residual": False},
    ):
        parser = configuration.load([CONFIGS / "train.json"], {**small_run, **line})
        network = parser.get_parsed_content("network_def").eval()
        mask = torch.randn(1, 3, 16, 16, 16)
        assert network(torch.rand(1, 1, 16, 16, 16), mask, torch.tensor(7)).shape == mask.shape
