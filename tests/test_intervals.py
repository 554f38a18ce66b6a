"""Calibrated intervals: their coverage on other cases, their file, and what a report says with and without it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medsegdiff_bundle import configuration
from medsegdiff_bundle.case_page import html_report
from medsegdiff_bundle.intervals import (
    Interval,
    VolumeIntervals,
    conformal_quantile,
    fit,
    leave_one_out,
    write_calibration,
)
from medsegdiff_bundle.statistics import ensemble_statistics
from medsegdiff_bundle.transforms import EnsembleStatisticsd

ROOT = Path(__file__).parent.parent
SETTINGS = {"num_inference_steps": 3, "ensemble_size": 4, "mirror_axes": [0], "eta": 0.25}


@pytest.mark.parametrize(
    ("n", "level", "rank"), [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (26, 0.9, 25), (46, 0.9, 43), (3, 0.5, 2)]
)
def test_the_quantile_by_hand(n, level, rank):
    errors = np.random.default_rng(0).permutation(np.arange(1, n + 1))
    assert conformal_quantile(errors, level) == rank


def test_too_few_cases_are_named():
    with pytest.raises(ValueError, match="An interval of 90% needs 9 cases or more, got 8."):
        conformal_quantile(range(8))
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 1"):
        conformal_quantile(range(8), 1)


def cases(kind, n, generator):
    """True volumes, means and deviations of members, as three kinds of model would give them."""
    volume = generator.lognormal(0, 0.8, n)
    deviation = volume * generator.uniform(0.02, 0.3, n)
    if kind == "deviation":
        true = volume + deviation * generator.standard_t(5, n)
    elif kind == "share":  # members that all agree, as those of one label do
        true, deviation = volume * np.exp(0.1 * generator.normal(size=n)), 0.001 * deviation
    else:  # small structures that are missed, and empty masks
        empty = generator.random(n) < 0.3
        volume, deviation = np.where(empty, 0, volume), np.where(empty, 0, deviation)
        true = np.where(empty & (generator.random(n) < 0.2), 0.2, np.abs(volume + deviation * generator.normal(size=n)))
    return true, volume, deviation


@pytest.mark.parametrize("n", [26, 46, 131])
@pytest.mark.parametrize("kind", ["deviation", "share", "empty"])
def test_other_cases_lie_within(kind, n):
    """On average over calibrations: 90 %, and what the finite number of cases adds."""
    generator = np.random.default_rng(n)
    covered = []
    for _ in range(40):
        interval = fit(*cases(kind, n, generator))
        true, mean, deviation = cases(kind, 500, generator)
        low, high = interval.ends(mean, deviation)
        assert (low >= 0).all() and interval.n == n
        covered.append(((low <= true) & (true <= high)).mean())
    assert 0.88 < np.mean(covered) < 0.95


def test_each_case_left_out():
    found = cases("deviation", 131, np.random.default_rng(1))
    coverage, width = leave_one_out(*found)
    assert 0.85 <= coverage <= 0.95
    errors = np.abs(found[0] - found[1])
    assert width < 2 * conformal_quantile(errors)  # where the deviation tells the error, narrower than a constant


def test_areas_do_not_depend_on_the_size_of_the_pixels():
    true, mean, deviation = cases("deviation", 46, np.random.default_rng(2))
    small, large = fit(true, mean, deviation, 100), fit(16 * true, 16 * mean, 16 * deviation, 1600)
    np.testing.assert_allclose(small, large)
    np.testing.assert_allclose(16 * small.ends(3.0, 0.5, 100)[1], large.ends(48.0, 8.0, 1600)[1])


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    interval = Interval(n=26, quantile=2.0, floor=0.5, floor_share=0.1)
    write_calibration(tmp_path / "model.intervals.json", {"lesion": interval}, path, SETTINGS, "1.2.3")
    return path


def intervals(weights, **settings):
    return VolumeIntervals(weights.with_suffix(".intervals.json"), weights, {**SETTINGS, **settings})


def test_the_file_says_what_it_holds_for(weights):
    content = json.loads(weights.with_suffix(".intervals.json").read_text())
    assert content["software"] == "medsegdiff_bundle 1.2.3" and content["level"] == 0.9
    assert len(content["sha256"]) == 64 and content["settings"] == SETTINGS and content["method"]
    assert content["structures"]["lesion"]["n"] == 26
    read = intervals(weights)
    assert read.missing is None
    # 10 ± 2 * (2 + 0.5 + 1): three members of 8, 10 and 12.
    assert read("lesion", [8, 10, 12]) == pytest.approx([3, 17]) and read("other", [8, 10]) is None
    assert read("lesion", [0, 0, 0]) == pytest.approx([0, 1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": 2},
        {"level": float("nan")},
        {"settings": 3},
        {"structures": {"lesion": {"n": 26, "quantile": float("nan"), "floor": 1, "floor_share": 0}}},
        {"structures": {"lesion": {"n": float("inf"), "quantile": 1, "floor": 1, "floor_share": 0}}},
        {"structures": {"lesion": {"n": 26, "quantile": 1, "floor": -1, "floor_share": 0}}},
        {"structures": {"lesion": {"n": 26, "quantile": []}}},
    ],
)
def test_numbers_that_are_none_make_no_intervals(wrong, weights):
    intervals(weights)
    file = weights.with_suffix(".intervals.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    read = intervals(weights)
    assert read.missing == "'model.intervals.json' holds no intervals" and read("lesion", [8, 10, 12]) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda weights: weights.with_suffix(".intervals.json").unlink(), "these weights have no calibrated intervals"),
        (lambda weights: weights.write_bytes(b"others"), "'model.intervals.json' is of other weights"),
        (lambda weights: weights.unlink(), "there are no weights"),
        (
            lambda weights: weights.with_suffix(".intervals.json").write_text("[]"),
            "'model.intervals.json' holds no int",
        ),
    ],
)
def test_without_intervals_that_hold_there_are_none(change, why, weights):
    change(weights)
    read = intervals(weights)
    assert read.missing.startswith(why) and read("lesion", [8, 10, 12]) is None


@pytest.mark.parametrize(("name", "value"), [("num_inference_steps", 5), ("mirror_axes", []), ("ensemble_size", 3)])
def test_they_are_for_the_settings_they_were_made_with(name, value, weights):
    assert (
        intervals(weights, **{name: value}).missing == f"the intervals are for {name} {SETTINGS[name]!r}, not {value!r}"
    )


@pytest.mark.parametrize("calibrated", [True, False])
def test_numbers_and_page_say_which_interval_it_is(calibrated, weights):
    if not calibrated:
        weights.write_bytes(b"others")
    members = torch.zeros(4, 6, 6, dtype=torch.uint8)
    for index in range(4):
        members[index, : index + 1, :4] = 1
    data = {
        "pred": MetaTensor(members[1:2].float()),
        "member_labels": members,
        "uncertainty": MetaTensor(torch.zeros(1, 6, 6)),
    }
    result = EnsembleStatisticsd("pred", ["lesion"], intervals=intervals(weights))(data)["result"]
    lesion = result["structures"]["lesion"]
    assert lesion["members_interval"] == pytest.approx([4.6, 15.4]) and result["coverage"] == 0.9
    assert lesion["expected_dice"] == pytest.approx((8 / 12 + 1 + 16 / 20 + 16 / 24) / 4)
    page = html_report("case", torch.rand(1, 6, 6), members[1], members, torch.zeros(6, 6), result)
    text = " ".join(re.sub("<[^>]+>", " ", page).split())
    if calibrated:
        reach = 2 * (np.std([4, 8, 12, 16], ddof=1) + 0.5 * 36 + 1)
        assert lesion["volume_interval"] == pytest.approx([0, 10 + reach]) and result["interval"] == {
            "calibrated": True
        }
        assert "90% interval, calibrated" in text and "only their spread" not in text
    else:
        assert lesion["volume_interval"] == lesion["members_interval"]
        assert result["interval"] == {"calibrated": False, "why": "'model.intervals.json' is of other weights"}
        assert "90% of the members" in text and "It is only their spread" in text and "is of other weights" in text


def test_one_member_has_no_interval(weights):
    result = ensemble_statistics(
        torch.ones(1, 4, dtype=torch.uint8), torch.ones(4), torch.zeros(4), ["lesion"], intervals=intervals(weights)
    )
    assert result["structures"]["lesion"]["volume_interval"] is None
    assert result["interval"] == {"calibrated": False, "why": "one member has no spread"}


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.intervals.json")), ids=lambda path: path.name)
def test_what_ships_holds_for_its_weights_and_the_defaults(path):
    task = path.name.split(".")[0]
    files = ["inference.json", *([] if task == "model" else [f"tasks/{task}.json"])]
    parser = configuration.load(
        [ROOT / "configs" / file for file in files], {"bundle_root": str(ROOT), "device": "cpu"}
    )
    shipped = parser.get_parsed_content("volume_intervals")
    assert shipped.missing is None and set(shipped.structures) == set(parser.get_parsed_content("class_names"))


@pytest.mark.filterwarnings("error")
def test_a_structure_that_the_weights_never_find():
    """Intervals reach as far as what they miss; of one that no case has, both ends are nothing."""
    true, nothing, size = np.linspace(1e4, 2e4, 12), np.zeros(12), np.full(12, 65536.0)
    low, high = fit(true, nothing, nothing, size).ends(0.0, 0.0, 65536.0)
    assert low == 0 and 1.9e4 < high < 2.1e4
    assert leave_one_out(true, nothing, nothing, size)[0] == pytest.approx(11 / 12)
    assert fit(nothing, nothing, nothing, size).ends(0.0, 0.0, 65536.0) == (0, 0)
