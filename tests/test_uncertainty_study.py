"""The measures of scripts/uncertainty_study.py by hand."""

import pytest
import torch
import uncertainty_study as study
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCropd, Compose


def test_near_is_a_box_around_what_any_rater_marks():
    label = torch.zeros(2, 9, 9)
    label[0, 4, 4] = 2
    label[1, 4, 5] = 1
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:8] = True
    assert torch.equal(study.near(label, 2), expected)
    assert study.near(torch.ones(1, 4, 4, 4), 1).all()


def test_score_of_a_region():
    # Class 1 everywhere, wrong in voxels 0 and 5; voxel 9 is outside of the region, and wrong too.
    foreground = torch.full((10,), 0.8)
    label = torch.ones(1, 10)
    label[0, [0, 5, 9]] = 0
    uncertainty = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.4, 0.05, 0.5, 0.6, 0.0, 1.0])
    region = torch.arange(10) < 9
    given = study.Answer("fused", "entropy", torch.stack([1 - foreground, foreground]), uncertainty)
    score = study.measure(given, label, region, fraction=1 / 9)
    assert score.error_rate == pytest.approx(2 / 9)
    assert (score.caught, score.at_most) == pytest.approx((1 / 2, 1 / 2))  # one voxel reviewed, of two wrong ones
    # Certain to uncertain: 8, 5 (wrong), 1, 2, 3, 4, 6, 7, 0 (wrong).
    assert score.aurc == pytest.approx((sum(1 / n for n in range(2, 9)) + 2 / 9) / 9)
    assert score.caught_by_share[0] == 0 and score.caught_by_share[-1] == pytest.approx(1 / 2)  # 20 %: two of nine
    assert score.curve.num_voxels.sum() == 9


def test_cases_without_an_error_do_not_count_in_what_can_be_caught(capsys):
    foreground = torch.tensor([0.8, 0.8, 0.1, 0.1])
    given = study.Answer("anchor", "softmax entropy", torch.stack([1 - foreground, foreground]), torch.rand(4))
    labels = torch.tensor([[[1.0, 1, 0, 0]], [[0.0, 1, 0, 0]]])
    scores = [study.measure(given, label, torch.ones(4, dtype=torch.bool), 0.5) for label in labels]
    study.print_scores({("anchor", "softmax entropy"): scores}, "title", 0.5)
    assert capsys.readouterr().out.splitlines()[-1].endswith("| 1.000 |")


def test_spread_passes_over_cases_without_a_value():
    assert study.spread([1.0, float("nan"), 3.0], 2) == "2.00 ± 1.00"
    assert study.spread(torch.tensor([0.1, 0.3]), 1, "+") == "+0.2 ± 0.1"


def test_what_is_cut_away_before_the_network_is_background():
    crop = Compose([CenterSpatialCropd("image", (2, 2))])
    image = crop({"image": MetaTensor(torch.zeros(1, 4, 4))})["image"]
    case = {"image": image, "pred": MetaTensor(torch.zeros(1)), "preprocessing": crop}
    found = study.answer(case, "fused", "entropy", torch.full((2, 2, 2), 0.5), torch.ones(2, 2))
    expected = torch.ones(4, 4)
    expected[1:3, 1:3] = 0.5
    assert torch.equal(found.probabilities, torch.stack([expected, 1 - expected]))
    assert found.uncertainty.sum() == 4


def test_the_share_of_the_noise(capsys):
    study.print_share_of_noise([(3.0, 1.0), (5.0, 2.0)], 5, 2)
    study.print_share_of_noise([], 5, 4)
    study.print_share_of_noise([(0.0, 0.0)], 4, 1)
    first, second, third = capsys.readouterr().out.strip().split("\n\n")
    assert (
        first.startswith("5 members take turns with 2 views")
        and ", 2 each: 63.2% of the mutual" in first
        and "(37.5% of it" in first
    )
    assert second.endswith("nobody can tell noise from mirroring")
    assert third.startswith("4 members take turns with 1 view,") and third.endswith("4 each: no two members differ")
