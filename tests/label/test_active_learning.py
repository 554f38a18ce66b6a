"""The server of docs/monai_label.md hands out the studies that the members of the ensemble disagree on most."""

import itertools
import json
import os
import time
from pathlib import Path

import bad_requests
import pytest
import torch
from monai.metrics import compute_dice
from monai.networks import one_hot

import medsegdiff_bundle
from medsegdiff_bundle import configuration

pytestmark = pytest.mark.monai_label

ROOT = Path(medsegdiff_bundle.__file__).parent.parent
SAMPLE_DATA = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
HIPPOCAMPUS = "hippocampus_mri_medsegdiff_segmentation"
STUDIES = [f"hippocampus_{number}" for number in ("001", "003", "007")]


@pytest.fixture(scope="module")
def server(guide_workspace, label_python, serve, guide_commands):
    """The guide's server, with three of its studies."""
    for path in (guide_workspace / "studies").iterdir():
        if path.name.split(".")[0] not in STUDIES:
            path.unlink()
    with serve(guide_commands("3. Server"), guide_workspace / "server.log", WORKSPACE=str(guide_workspace)) as running:
        yield running


@pytest.fixture(scope="module")
def expected(guide_workspace):
    """The same scores, computed without the server: what two members lack of a Dice of 1, on average."""
    bundle = guide_workspace / "app" / "model" / HIPPOCAMPUS
    parser = configuration.load([bundle / "configs" / "inference.json"], {"bundle_root": str(bundle), "device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    scores = {}
    for study in STUDIES:
        image = parser.get_parsed_content("preprocessing")(
            {"image": str(guide_workspace / "studies" / f"{study}.nii.gz")}
        )
        members = parser.get_parsed_content("inferer")(image["image"][None], network)[0].as_tensor()
        masks = one_hot(members.argmax(1, keepdim=True), members.shape[1])
        pairs = itertools.combinations(masks, 2)
        overlaps = [compute_dice(one[None], other[None], include_background=False).mean() for one, other in pairs]
        scores[study] = 1 - torch.stack(overlaps).mean().item()
    return scores


def next_study(server):
    return server.call("POST", "/activelearning/disagreement", json={}).json()["id"]


def scores_of(server):
    info = {study: server.call("GET", "/datastore/image/info", params={"image": study}).json() for study in STUDIES}
    return {study: each.get("disagreement") for study, each in info.items()}


def test_info_lists_method_and_strategy_beside_those_of_monaibundle(server):
    info = server.call("GET", "/info/").json()
    assert set(info["scoring"]) == {"disagreement"}
    assert set(info["strategies"]) == {"random", "first", "disagreement"}
    assert set(info["models"]) == set(info["trainers"]) == {HIPPOCAMPUS}


def test_the_server_scores_by_itself(server, expected):
    server.wait_for("scoring")
    deadline = time.monotonic() + 60  # until the server has read what that process wrote
    while None in (scores := scores_of(server)).values():
        assert time.monotonic() < deadline, scores
        time.sleep(0.5)
    assert scores == pytest.approx(expected, rel=1e-3)


def test_scores_are_renewed_when_the_weights_change(server, guide_workspace, expected):
    def score(**params):
        return server.call("POST", "/scoring/disagreement", params={"run_sync": "true"}, json=params).json()

    weights = guide_workspace / "app" / "model" / HIPPOCAMPUS / "models" / "model.pt"
    assert score() == {"total": 3, "executed": 0}
    os.utime(weights)
    assert score(ensemble_size=1) == {"total": 3, "executed": 3}
    assert scores_of(server) == pytest.approx(dict.fromkeys(STUDIES, 0), abs=1e-6)  # one member agrees with itself
    os.utime(weights)
    assert score() == {"total": 3, "executed": 3}
    assert scores_of(server) == pytest.approx(expected, rel=1e-3)


def test_the_most_uncertain_study_is_handed_out_first(server, expected):
    ranking = sorted(STUDIES, key=expected.get, reverse=True)
    assert next_study(server) == ranking[0]
    assert next_study(server) == ranking[1]  # since someone may be at work on the first
    server.wait_for("scoring")  # started by each of these, and it writes the same file
    # The other way round, and nothing handed out: an order that the scores do not give would be the same again.
    for study, score in zip(ranking, sorted(expected.values()), strict=True):
        info = json.dumps({"disagreement": score, "strategy": {}})
        server.call("PUT", "/datastore/image/info", params={"image": study}, data={"info": info})
    assert next_study(server) == ranking[2]
    with (SAMPLE_DATA / "labelsTr" / f"{ranking[2]}.nii.gz").open("rb") as label:
        query = {"image": ranking[2], "tag": "final"}
        server.call("PUT", "/datastore/label", params=query, files={"label": label})
    assert next_study(server) == ranking[1]
    assert next_study(server) == ranking[0]
    assert next_study(server) == ranking[1]  # the one with a label is done


def test_bad_requests_are_answered_in_a_sentence(server, capsys):
    """Those of scripts/bad_requests.py, and a right one in the end."""
    faults = bad_requests.run(server.url, STUDIES[0])
    assert not faults, capsys.readouterr().out
