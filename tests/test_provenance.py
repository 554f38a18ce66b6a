"""What a report says of its making, and how its mask is made again."""

import hashlib
import json

import pytest
import torch
from torch import nn

import medsegdiff_bundle
from medsegdiff_bundle.handlers import WeightsLoader
from medsegdiff_bundle.provenance import as_reported, checksum, describe_run

SHA256 = hashlib.sha256(b"weights").hexdigest()


def written(tmp_path, **entries):
    file = tmp_path / "report.json"
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    report = describe_run({"task": "hippocampus", "seed": 3, "num_classes": 3}, weights, "cuda:0")
    file.write_text(json.dumps({**report, **entries}))
    return file, weights


def test_run(tmp_path, caplog):
    file, weights = written(tmp_path)
    run = json.loads(file.read_text())
    assert (run["task"], run["device"], run["version"]) == ("hippocampus", "cuda", medsegdiff_bundle.__version__)
    assert run["weights"] == {"file": "model.pt", "sha256": SHA256}
    assert describe_run({}, None)["weights"] is None
    assert as_reported(file) == ("hippocampus", {"seed": 3, "weights_sha256": SHA256})
    given = {"device": "cpu", "seed": 3}
    assert as_reported(file, "hippocampus", given) == ("hippocampus", {**given, "weights_sha256": SHA256})
    assert not caplog.text
    file, _ = written(tmp_path, version="0.1")
    as_reported(file)
    assert "was made by version 0.1" in caplog.text


def test_other_weights(tmp_path):
    _, weights = written(tmp_path)
    torch.save(nn.Linear(1, 1).state_dict(), weights)
    WeightsLoader(str(weights), nn.Linear(1, 1), sha256=checksum(weights).upper())
    weights.write_bytes(b"others")
    with pytest.raises(ValueError, match="model.pt' are others than those asked for: SHA-256 "):
        WeightsLoader(str(weights), nn.Linear(1, 1), sha256=SHA256)


@pytest.mark.parametrize(
    ("entries", "given", "message"),
    [
        ({"settings": None}, {}, "is no report with task, settings and weights"),
        ({"weights": None}, {}, "is no report with task, settings and weights"),
        (
            {"settings": {"seed": "$__import__('os').abort()"}},
            {},
            "another 'seed' than the bundle's, which is a program",
        ),
        ({"settings": {"preprocessing": {"_target_": "os.system"}}}, {}, "another 'preprocessing' than the bundle's"),
        ({"settings": {"a": [{"b": "@checkpoint"}]}}, {}, "with another 'a' than the bundle's"),
        ({}, {"seed": 4}, "seed is 3 in the report '.*report.json', but 4 is given"),
        ({}, {"task": "isic"}, "task is 'hippocampus' in the report '.*report.json', but 'isic' is given"),
    ],
)
def test_refused(entries, given, message, tmp_path):
    file, _ = written(tmp_path, **entries)
    with pytest.raises(ValueError, match=message):
        as_reported(file, given.pop("task", None), given)


def test_no_report(tmp_path):
    with pytest.raises(ValueError, match="none.json' cannot be read"):
        as_reported(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="a.json' cannot be read"):
        as_reported(tmp_path / "a.json")
