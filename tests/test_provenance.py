"""What a report says of its making, and a mask that is made again from it."""

import hashlib
import json

import pytest

from medsegdiff_bundle.provenance import check_weights, describe_run, read_report


def written(tmp_path, **entries):
    file = tmp_path / "report.json"
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    report = describe_run({"task": "hippocampus", "seed": 3, "num_classes": 3}, weights, "cuda:0")
    file.write_text(json.dumps({**report, **entries}))
    return file, weights


def test_run(tmp_path):
    file, weights = written(tmp_path)
    run = json.loads(file.read_text())
    assert (run["task"], run["device"]) == ("hippocampus", "cuda")
    assert run["weights"] == {"file": "model.pt", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert describe_run({}, None)["weights"] is None
    report = read_report(file)
    assert (report.task, report.settings) == ("hippocampus", {"seed": 3})
    check_weights(report, file, weights)
    weights.write_bytes(b"others")
    with pytest.raises(ValueError, match="model.pt' .SHA-256 .* are not those of the report '.*report.json'"):
        check_weights(report, file, weights)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"settings": None}, "is no report with task, settings and weights"),
        ({"weights": None}, "is no report with task, settings and weights"),
        (
            {"settings": {"seed": "$__import__('os').abort()"}},
            "another 'seed' than the bundle's, which is a program",
        ),
        ({"settings": {"preprocessing": {"_target_": "os.system"}}}, "another 'preprocessing' than the bundle's"),
        ({"settings": {"a": [{"b": "@checkpoint"}]}}, "with another 'a' than the bundle's"),
    ],
)
def test_refused(entries, message, tmp_path):
    file, _ = written(tmp_path, **entries)
    with pytest.raises(ValueError, match=message):
        read_report(file)


def test_no_report(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_report(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="a.json' cannot be read"):
        read_report(tmp_path / "a.json")
