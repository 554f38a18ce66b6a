"""Weights in a folder or at an address that MEDSEGDIFF_WEIGHTS names."""

import functools
import hashlib
import json
import logging
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import medsegdiff_bundle
from medsegdiff_bundle import configuration, elsewhere
from medsegdiff_bundle.evaluation.of_networks import shipped_weights

ROOT = Path(__file__).parent.parent
IMAGE = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"


def offer(folder, task, number, *beside):
    """Weights of a task, which are one number."""
    folder.mkdir(exist_ok=True)
    torch.save({"weight": torch.tensor(number)}, folder / f"{task}.pt")
    digest = hashlib.sha256((folder / f"{task}.pt").read_bytes()).hexdigest()
    (folder / f"{task}.model.json").write_text(json.dumps({"sha256": digest}))
    for kind in beside:
        (folder / f"{task}.{kind}.json").write_text(json.dumps({"sha256": digest}))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of a folder, and what was asked for; the cache is one of its own."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, form, *values):
            asked.append(self.path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path / "offered"))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setenv("MEDSEGDIFF_WEIGHTS", f"http://127.0.0.1:{made.server_port}/")
    yield made, asked
    made.shutdown()
    made.server_close()


def number(file):
    return torch.load(file, weights_only=True)["weight"].item()


def test_weights_are_fetched_once(tmp_path, server):
    offer(tmp_path / "offered", "isic", 1, "known")
    file = Path(elsewhere.weights_elsewhere("isic"))
    assert number(file) == 1 and file.is_relative_to(tmp_path / "cache")
    names = {"isic.pt", "isic.model.json", "isic.known.json"}  # there are no intervals at the address
    assert {each.name for each in file.parent.iterdir()} == names
    assert server[1].count("/isic.pt") == 1
    asked = len(server[1])
    assert elsewhere.weights_elsewhere("isic") == str(file) and server[1][asked:] == ["/isic.model.json"]
    (tmp_path / "offered" / "isic.known.json").unlink()
    offer(tmp_path / "offered", "isic", 2)
    assert number(elsewhere.weights_elsewhere("isic")) == 2 and server[1].count("/isic.pt") == 2
    assert {each.name for each in file.parent.iterdir()} == names - {"isic.known.json"}  # which was of the others


def test_other_weights_than_those_that_are_described_are_refused(tmp_path, server):
    offer(tmp_path / "offered", "isic", 1)
    elsewhere.weights_elsewhere("isic")
    torch.save({"weight": torch.tensor(3)}, tmp_path / "offered" / "isic.pt")
    (tmp_path / "offered" / "isic.model.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(ValueError, match=r"isic.pt' holds other weights than isic.model.json beside it says"):
        elsewhere.weights_elsewhere("isic")
    cached = elsewhere.cache_folder(f"http://127.0.0.1:{server[0].server_port}")
    assert number(cached / "isic.pt") == 1 and elsewhere._is(cached / "isic.pt", cached / "isic.model.json")


@pytest.mark.parametrize("content", ["[]", "{}", "{", json.dumps({"sha256": "abc"})])
def test_a_description_that_is_none(tmp_path, server, content):
    offer(tmp_path / "offered", "isic", 1)
    (tmp_path / "offered" / "isic.model.json").write_text(content)
    with pytest.raises(ValueError, match="isic.model.json of 'http"):
        elsewhere.weights_elsewhere("isic")


def test_an_address_without_the_weights(tmp_path, server):
    offer(tmp_path / "offered", "isic", 1)
    with pytest.raises(ValueError, match="lidc.model.json' cannot be fetched: HTTP Error 404"):
        elsewhere.weights_elsewhere("lidc")


def test_without_a_way_there(tmp_path, server, caplog):
    offer(tmp_path / "offered", "isic", 1)
    file = elsewhere.weights_elsewhere("isic")
    server[0].shutdown()
    server[0].server_close()
    with caplog.at_level(logging.WARNING):
        assert elsewhere.weights_elsewhere("isic") == file
    assert "The weights that were fetched before are taken." in caplog.text
    with pytest.raises(ValueError, match="lidc.model.json' cannot be fetched"):
        elsewhere.weights_elsewhere("lidc")


def test_a_folder(tmp_path, monkeypatch):
    offer(tmp_path / "mine", "isic", 1)
    monkeypatch.setenv("MEDSEGDIFF_WEIGHTS", str(tmp_path / "mine"))
    assert shipped_weights("isic") == tmp_path / "mine" / "isic.pt"
    with pytest.raises(ValueError, match=r"MEDSEGDIFF_WEIGHTS names '.*mine', where there is no lidc.pt"):
        elsewhere.weights_elsewhere("lidc")
    monkeypatch.delenv("MEDSEGDIFF_WEIGHTS")
    assert shipped_weights("isic") == ROOT / "models" / "isic.pt"


@pytest.mark.parametrize("config", [{"task": "isic", "checkpoint": "mine.pt"}, {"task": None, "checkpoint": "@a"}, {}])
def test_weights_that_are_named_stay(monkeypatch, config):
    monkeypatch.setenv("MEDSEGDIFF_WEIGHTS", "nowhere")
    assert configuration.with_weights_elsewhere(config) == config


def test_what_is_segmented_is_what_the_weights_say(tmp_path, monkeypatch):
    """The shipped weights of the hippocampus under another name, with the parts of it called otherwise."""
    for file in (ROOT / "models").glob("model.*"):
        shutil.copy(file, tmp_path / file.name.replace("model", "hippocampus", 1))
    description = json.loads((tmp_path / "hippocampus.model.json").read_text())
    description["configuration"]["class_names"] = ["front", "back"]
    (tmp_path / "hippocampus.model.json").write_text(json.dumps(description))
    shipped = medsegdiff_bundle.segment(IMAGE, ensemble_size=1, device="cpu")
    monkeypatch.setenv("MEDSEGDIFF_WEIGHTS", str(tmp_path))
    result = medsegdiff_bundle.segment(IMAGE, ensemble_size=1, device="cpu")
    assert result.class_names == ("front", "back") and np.array_equal(result.mask, shipped.mask)
    named = medsegdiff_bundle.segment(IMAGE, ensemble_size=1, device="cpu", checkpoint=ROOT / "models" / "model.pt")
    assert named.class_names == shipped.class_names == ("anterior", "posterior")


def test_an_address_that_is_none(monkeypatch):
    monkeypatch.setenv("MEDSEGDIFF_WEIGHTS", "http://127.0.0.1:9/my weights")
    with pytest.raises(ValueError, match="9/my weights/isic.model.json' cannot be fetched: URL can't contain"):
        elsewhere.weights_elsewhere("isic")
