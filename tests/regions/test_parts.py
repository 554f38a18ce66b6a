"""Regions that overlap, and ignored voxels, in each part: against hand-computed values and brute force."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import DiceMetric
from monai.transforms import Compose, Identityd

from medsegdiff_bundle import settings
from medsegdiff_bundle.evaluation.folders import Pair, find_regions
from medsegdiff_bundle.evaluation.scores import compare_masks
from medsegdiff_bundle.fusion import expected_dice, staple
from medsegdiff_bundle.handlers.overlay import drawn_masks
from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.inferers.noise import level_mask, level_regions, member_levels
from medsegdiff_bundle.labels import marked, one_mask, region_channels
from medsegdiff_bundle.losses import SMOOTH, MedSegDiffLoss, energy_score, mean_where
from medsegdiff_bundle.metrics import (
    AreaUnderRiskCoverageMetric,
    ExpectedCalibrationErrorMetric,
    GeneralizedEnergyDistanceMetric,
)
from medsegdiff_bundle.networks import BaselineNetwork, MedSegDiff
from medsegdiff_bundle.prepare_batch import DiffusionTarget, SegmentationPrepareBatch, num_labels
from medsegdiff_bundle.schedulers import DDIMScheduler
from medsegdiff_bundle.statistics import ensemble_statistics, region_statistics
from medsegdiff_bundle.transforms import (
    CheckLabelsd,
    EnsembleStatisticsd,
    EnsembleUncertaintyd,
    FuseEnsembled,
    InvertLabelsd,
    LabelRegionsd,
    MaskIgnoredd,
    MemberLabelsd,
    OneMaskd,
)
from medsegdiff_bundle.uncertainty import mutual_information, predictive_entropy

REGIONS = [[1, 2, 3], [2, 3], [3]]
IGNORED = 4
LN2 = math.log(2)


def random_members(members=4, regions=3, size=(5, 6), seed=0):
    return torch.rand(members, regions, *size, generator=torch.Generator().manual_seed(seed))


# Labels


def test_regions_of_classes_by_hand():
    labels = torch.tensor([[0, 1, 2, 3, IGNORED]])
    channels = region_channels(labels, REGIONS)
    assert channels.int().tolist() == [[0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0]]
    assert torch.equal(region_channels(labels[None], REGIONS, dim=1), channels[None])
    assert torch.equal(marked(labels, 2), torch.tensor([False, False, True, False, False]))
    assert torch.equal(marked(channels, 2), channels[1])


def test_one_mask_is_written_in_its_order():
    masks = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 0, 1], [0, 0, 1, 0, 0]])
    assert one_mask(masks, [1, 2, 3]).tolist() == [[1, 2, 3, 0, 2]]
    assert one_mask(masks, [2, 1, 4]).tolist() == [[2, 1, 4, 0, 1]]
    # What nnU-Net trains on comes back from what it writes.
    labels = torch.randint(0, 4, (1, 50))
    assert torch.equal(one_mask(region_channels(labels, REGIONS), [1, 2, 3]).long(), labels)


def test_labels_of_files_may_hold_the_ignored_value():
    check = CheckLabelsd("label", 3, ignore_label=IGNORED)
    label = torch.tensor([[[0.0, 2.0, 4.0]]])
    assert torch.equal(check({"label": label})["label"], label)
    with pytest.raises(ValueError, match="holds 3, which is none of the 3 classes"):
        check({"label": torch.tensor([[[0.0, 3.0, 4.0]]])})
    with pytest.raises(ValueError, match="holds 4"):
        CheckLabelsd("label", 3)({"label": label})


# A training step


def prepared(label, **given):
    """Target and further arguments of a label (N, 1, S)."""
    prepare = SegmentationPrepareBatch(DDIMScheduler(prediction_type="sample"), **given)
    torch.manual_seed(0)
    return prepare({"image": torch.zeros(len(label), 1, *label.shape[2:]), "label": label.float()})


def test_masks_of_a_training_step():
    label = torch.tensor([0, 1, 2, 3, IGNORED]).reshape(1, 1, 1, 5)
    _, target, _, _ = prepared(label, num_classes=3, regions=REGIONS, ignore_label=IGNORED)
    assert target.target[0, :, 0].tolist() == [[-1, 1, 1, 1, 0], [-1, -1, 1, 1, 0], [-1, -1, -1, 1, 0]]
    assert torch.equal(target.label, label)
    _, target, _, _ = prepared(label, num_classes=4, ignore_label=IGNORED)
    assert target.target[0, :, 0].tolist() == [
        [1, -1, -1, -1, 0],
        [-1, 1, -1, -1, 0],
        [-1, -1, 1, -1, 0],
        [-1, -1, -1, 1, 0],
    ]
    assert num_labels(3, REGIONS) == 4 and num_labels(3, None) == 3
    with pytest.raises(ValueError, match="holds class 4, but num_classes is 4"):
        prepared(label, num_classes=3, regions=REGIONS)


def test_noise_is_the_same_with_an_ignored_value_that_no_label_holds():
    label = torch.randint(0, 3, (2, 1, 4, 5))
    plain, ignoring = prepared(label, num_classes=3), prepared(label, num_classes=3, ignore_label=IGNORED)
    assert all(torch.equal(a, b) for a, b in zip([*plain[1], *plain[2]], [*ignoring[1], *ignoring[2]], strict=True))


def test_loss_of_regions_by_hand():
    """Probabilities 1/2: Dice of a region of n of 5 voxels is 1 - 2 (n / 2) / (5 / 2 + n), cross-entropy ln 2."""
    label = torch.tensor([0, 1, 2, 3, 3]).reshape(1, 1, 1, 5)
    logits = torch.zeros(1, 3, 1, 5)
    loss = MedSegDiffLoss(alpha=1, beta=3.0, regions=REGIONS)
    loss((logits, logits), DiffusionTarget(label, logits, torch.tensor([0])))
    dice = sum(1 - n / (2.5 + n) for n in (4, 3, 2)) / 3
    assert loss.parts["diffusion"].item() == pytest.approx(dice + LN2, abs=1e-4)
    assert loss.parts["anchor"].item() == pytest.approx(dice + 3 * LN2, abs=1e-4)
    sure = 40 * (2 * region_channels(label, REGIONS, dim=1).float() - 1)
    assert loss((sure, sure), DiffusionTarget(label, logits, torch.tensor([0]))).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("regions", [None, REGIONS])
@pytest.mark.parametrize("kind", ["sample", "epsilon", "drawn"])
def test_ignored_voxels_are_as_if_they_were_not_there(regions, kind):
    """The loss of 12 voxels, 5 of them ignored, is that of the other 7; and no gradient reaches the 5."""
    generator = torch.Generator().manual_seed(1)
    channels = 3 if regions else 4
    label = torch.randint(0, 4, (2, 1, 1, 12), generator=generator)
    label[..., 7:] = IGNORED
    values = torch.randn(2, 3, channels, 1, 12, generator=generator).requires_grad_()
    given, noise = torch.randn(2, 2, channels, 1, 12, generator=generator).unbind(1)
    parts = {"regions": regions, "alpha": 1, "prediction_type": "epsilon" if kind == "epsilon" else "sample"}

    def value(end, **ignore):
        prediction = values if kind == "drawn" else values[:, 0]
        target = DiffusionTarget(label[..., :end], noise[..., :end], torch.zeros(2).long())
        return MedSegDiffLoss(**parts, **ignore)((prediction[..., :end], given[..., :end]), target)

    found = value(12, ignore_label=IGNORED)
    assert found.item() == pytest.approx(value(7).item(), rel=1e-5)
    found.backward()
    assert not values.grad[..., 7:].any() and values.grad[..., :7].any()


@pytest.mark.parametrize("regions", [None, REGIONS])
@pytest.mark.parametrize("kind", ["sample", "epsilon", "drawn"])
def test_a_patch_of_ignored_voxels_alone_has_no_loss(regions, kind):
    channels = 3 if regions else 4
    shape = (1, 2, channels, 4, 4) if kind == "drawn" else (1, channels, 4, 4)
    prediction, logits = torch.randn(shape, requires_grad=True), torch.randn(1, channels, 4, 4, requires_grad=True)
    name = "epsilon" if kind == "epsilon" else "sample"
    loss = MedSegDiffLoss(name, alpha=1, regions=regions, ignore_label=IGNORED)
    label = torch.full((1, 1, 4, 4), IGNORED)
    total = loss((prediction, logits), DiffusionTarget(label, torch.zeros(1, channels, 4, 4), torch.tensor([0])))
    total.backward()
    assert total.item() == pytest.approx(0, abs=1e-6)
    assert prediction.grad.abs().max() == 0 and logits.grad.abs().max() < 1e-6


def test_mean_where():
    values, chosen = torch.tensor([[1.0, 2.0, 6.0], [4.0, 5.0, 6.0]]), torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()
    assert mean_where(values, chosen).tolist() == [1.5, 0] and mean_where(values, None).tolist() == [3, 5]


def test_energy_score_of_drawn_regions():
    members = torch.randn(2, 3, 3, 1, 8, generator=torch.Generator().manual_seed(2))
    label = torch.randint(0, 4, (2, 1, 1, 8), generator=torch.Generator().manual_seed(3))
    loss = MedSegDiffLoss(alpha=None, mean_weight=0.0, regions=REGIONS)
    found = loss((members, members[:, 0]), DiffusionTarget(label, members[:, 0], torch.tensor([1, 1])))
    masks = region_channels(label, REGIONS, dim=1).float().flatten(2)
    each = [energy_score(members.sigmoid().flatten(3)[:, :, r], masks[:, None, r], SMOOTH) for r in range(3)]
    assert found.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)


# Network and sampler


def small(**given):
    return MedSegDiff(2, 1, channels=[4, 8], num_heads=2, multi_label=True, **given).eval()


def test_a_region_is_a_channel_with_a_sigmoid():
    torch.manual_seed(0)
    network, image = small(out_channels=3, anchor_residual=True), torch.rand(2, 1, 9, 10)
    mask = torch.randn(2, 3, 9, 10)
    features = network.encode(image)
    found = network.denoise(mask, torch.tensor(7), features)
    assert torch.allclose(found, 2 * network.denoise_logits(mask, torch.tensor(7), features).sigmoid() - 1)
    assert small(out_channels=1)(image, mask[:, :1], torch.tensor(7)).shape == (2, 1, 9, 10)
    baseline = BaselineNetwork(torch.nn.Conv2d(1, 3, 1), 1, multi_label=True)
    assert torch.allclose(
        baseline.denoise(mask, torch.tensor(7), baseline.encode(image)), 2 * baseline(image).sigmoid() - 1
    )
    with pytest.raises(ValueError, match="out_channels counts regions and must be at least 1, got 0"):
        small(out_channels=0)


def test_levels_of_one_region_are_those_of_two_classes():
    probabilities, levels = random_members(2, 1), member_levels(3, 5, 2)
    two = level_mask(torch.cat([1 - probabilities, probabilities], dim=1), levels)
    assert torch.equal(level_regions(probabilities, levels), two[:, :, 1:])


def test_regions_within_one_another_stay_so_in_each_member():
    probabilities = random_members(1, 3, (30, 30)).sort(dim=1, descending=True).values
    masks = level_regions(probabilities, member_levels(0, 8, 2))
    assert masks.shape == (1, 8, 3, 30, 30) and set(masks.unique().tolist()) == {-1, 1}
    assert (masks[:, :, 1] <= masks[:, :, 0]).all() and (masks[:, :, 2] <= masks[:, :, 1]).all()
    # A voxel is marked with just its probability.
    many = level_regions(probabilities, member_levels(0, 500, 2)) > 0
    assert torch.allclose(many.float().mean(dim=1), probabilities, atol=2e-3)


class Known(torch.nn.Module):
    """Whose anchor is the image, and whose members are what they begin with."""

    out_channels, prediction_type, multi_label = 3, "sample", True

    def encode(self, image):
        return type("Features", (), {"logits": image.logit()})()

    def denoise(self, mask, timesteps, features):
        return mask.clamp(-1, 1)

    def forward(self, image):
        return image.logit()


def test_the_sampler_of_regions():
    image = random_members(1, 3, (40, 24)) * 0.98 + 0.01
    scheduler = DDIMScheduler(prediction_type="sample")
    given = {"num_inference_steps": 1, "ensemble_size": 3, "multi_label": True}
    anchor = EnsembleInferer(scheduler, anchor_only=True, **given)(image, Known())
    assert torch.allclose(anchor[:, 0], image, atol=1e-5)  # no sum of one
    whole = EnsembleInferer(scheduler, start_from_anchor=0, return_anchor=True, **given)(image, Known())
    expected = level_regions(image, member_levels(0, 3, 2)) > 0
    assert torch.equal(whole[:, 1:] > 0.5, expected) and whole.max() <= 1 and whole.min() >= 0
    labels = EnsembleInferer(scheduler, anchor_only=True, output="labels", roi_size=16, **given)(image, Known())
    assert labels.dtype == torch.uint8 and torch.equal(labels[:, 0] > 0, image > 0.5)
    with pytest.raises(ValueError, match="multi_label is False here and True of the network"):
        EnsembleInferer(scheduler, num_inference_steps=1)(image, Known())


# Members to results


def fused(members, method):
    return FuseEnsembled("pred", method, num_classes=members.shape[1], multi_label=True)({"pred": members})["pred"]


def test_fusion_is_that_of_each_region():
    members = random_members()
    binary = (members > 0.5).long()
    assert torch.equal(fused(members, "mean"), (members.mean(0) > 0.5).float())
    assert torch.equal(fused(members, "vote"), (binary.float().mean(0) > 0.5).float())  # a tie is outside
    for region in range(3):
        posterior = staple(binary[:, region], 2).posterior
        assert torch.equal(fused(members, "staple")[region], (posterior > 0.5).float())
        both = torch.stack([1 - members[:, region], members[:, region]], dim=1)
        assert torch.equal(fused(members, "dice")[region], expected_dice(binary[:, region], 2, both).labels.float())
    soft = FuseEnsembled("pred", "mean", num_classes=3, labels=False, multi_label=True)({"pred": members})["pred"]
    assert torch.allclose(soft, members.mean(0))
    assert fused(random_members(regions=1), "mean").shape == (1, 5, 6)


def test_members_of_regions():
    members = random_members()
    make = MemberLabelsd("pred", "labels", num_classes=3, multi_label=True)
    labels = make({"pred": members})["labels"]
    assert labels.dtype == torch.uint8 and torch.equal(labels.unflatten(0, (4, 3)) > 0, members > 0.5)
    assert torch.equal(make({"pred": (members > 0.5).to(torch.uint8)})["labels"], labels)
    with pytest.raises(ValueError, match="num_classes is 3, but the members have 2 channels"):
        make({"pred": members[:, :2]})


def test_uncertainty_by_hand():
    """One voxel, two regions: mean probabilities 1/2 and 1, members 0 and 1 of the first."""
    members = torch.tensor([[[1.0], [1.0]], [[0.0], [1.0]]])
    names = ["entropy", "mutual_information", "variance", "disagreement"]
    found = EnsembleUncertaintyd("pred", names, names, num_classes=2, multi_label=True)({"pred": members})
    assert [found[name].flatten().tolist() for name in names] == [[0.5], [0.5], [0.125], [0.5, 0.0]]


@pytest.mark.parametrize(
    ("name", "measure"), [("entropy", predictive_entropy), ("mutual_information", mutual_information)]
)
def test_uncertainty_is_the_mean_of_that_of_each_region(name, measure):
    members = random_members()
    found = EnsembleUncertaintyd("pred", "map", name, num_classes=3, multi_label=True)({"pred": members})["map"]
    each = [measure(torch.stack([1 - members[:, r], members[:, r]], dim=1)) for r in range(3)]
    assert torch.allclose(found[0], sum(each) / 3)


def test_back_to_the_file():
    probabilities = random_members(1)[0]
    image = MetaTensor(torch.zeros(1, 5, 6))
    back = InvertLabelsd("pred", Compose([Identityd("image")]), multi_label=True)
    found = back({"image": image, "pred": MetaTensor(probabilities)})["pred"]
    assert torch.equal(found.as_tensor(), (probabilities > 0.5).float())
    with pytest.raises(ValueError, match="hold NaN"):
        back({"image": image, "pred": MetaTensor(probabilities * math.nan)})


def test_statistics_are_those_of_each_region_by_itself():
    members, uncertainty = (random_members(size=(4, 5, 6)) > 0.6).long(), torch.rand(4, 5, 6)
    mask = members[0]
    found = region_statistics(members, mask, uncertainty, ["a", "b", "c"], 2.0)
    for index, name in enumerate("abc"):
        alone = ensemble_statistics(members[:, index], mask[index], uncertainty, [name], 2.0)
        assert found["structures"][name] == alone["structures"][name]
        assert found["structures"][name]["volume"] == pytest.approx(2e-3 * mask[index].sum().item())
    either = torch.cat([mask[None], members]).flatten(0, 1).any(0)
    assert found["mean_uncertainty"] == pytest.approx(uncertainty[either].mean().item(), rel=1e-5)
    assert not found["interval"]["calibrated"] and found["ensemble_size"] == 4


class OneInterval:
    """Calibrated of one structure only."""

    missing, level = None, 0.8

    def __call__(self, name, volumes, size):
        return [0.0, 9.0] if name == "a" else None


def test_intervals_of_some_regions_count_for_none():
    members = (random_members(size=(4, 5, 6)) > 0.6).long()
    given = (members, members[0], torch.rand(4, 5, 6))
    found = region_statistics(*given, ["a", "b", "c"], 1.0, OneInterval())
    assert found["interval"] == {"calibrated": False, "why": "a structure has no calibrated interval"}
    assert found["structures"]["a"]["volume_interval"] == found["structures"]["a"]["members_interval"]
    alone = region_statistics(members[:, :1], members[0, :1], given[2], ["a"], 1.0, OneInterval())
    assert alone["interval"] == {"calibrated": True} and alone["coverage"] == 0.8
    assert alone["structures"]["a"]["volume_interval"] == [0.0, 9.0]


def test_one_mask_beside_its_regions():
    masks = (random_members()[0] > 0.5).float()
    members = (random_members() > 0.5).to(torch.uint8).flatten(0, 1)
    case = {"pred": MetaTensor(masks), "member_labels": members, "uncertainty": torch.rand(1, 5, 6)}
    case = EnsembleStatisticsd("pred", ["a", "b", "c"])({**case, "image": MetaTensor(torch.zeros(1, 5, 6))})
    assert case["result"]["structures"]["b"]["volume"] == masks[1].sum().item()
    case = OneMaskd("pred", [1, 2, 4])(case)
    assert torch.equal(case["regions"].as_tensor(), masks)
    assert torch.equal(case["pred"].as_tensor(), one_mask(masks, [1, 2, 4]).float())
    mask, drawn = drawn_masks(case)
    assert torch.equal(mask.as_subclass(torch.Tensor), one_mask(masks, [1, 2, 3]))
    assert torch.equal(drawn[1:2], one_mask(members[3:6], [1, 2, 3])) and drawn.shape == (4, 5, 6)


# Metrics


def test_what_metrics_compare():
    label = torch.tensor([[0, 1, 2, 3, IGNORED, IGNORED]])
    case = {"label": label, "pred": torch.ones(3, 6), "anchor": torch.zeros(3, 6)}
    case = MaskIgnoredd(["pred", "anchor", "label"], IGNORED)(case)
    assert case["pred"].tolist() == [[1, 1, 1, 1, 0, 0]] * 3 and case["label"].tolist() == [[0, 1, 2, 3, 0, 0]]
    case = LabelRegionsd("label", REGIONS)(case)
    assert case["label"].tolist() == [[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]]
    # MONAI's, as `train.json` has it: 2 n / (4 + n) for n marked voxels.
    dice = DiceMetric(include_background=True, reduction="none")(case["pred"][None], case["label"][None])
    assert dice[0].tolist() == pytest.approx([6 / 7, 4 / 6, 2 / 5])


@pytest.mark.parametrize(
    "metric", [GeneralizedEnergyDistanceMetric, ExpectedCalibrationErrorMetric, AreaUnderRiskCoverageMetric]
)
def test_metrics_of_an_ensemble_are_those_of_each_region(metric):
    members = random_members(members=4)[None]
    raters = torch.randint(0, 2, (1, 2, 3, 5, 6), generator=torch.Generator().manual_seed(5))
    found = metric(num_classes=3, multi_label=True)(members, raters.flatten(1, 2))
    for region in range(3):
        both = torch.stack([1 - members[:, :, region], members[:, :, region]], dim=2)
        alone = metric(num_classes=2)(both, raters[:, :, region])
        assert torch.allclose(found[:, region], alone[:, 0])
    masks = (members > 0.5).to(torch.uint8)
    flat = metric(num_classes=3, multi_label=True)(masks.flatten(1, 2), raters.flatten(1, 2))
    assert torch.allclose(flat, metric(num_classes=3, multi_label=True)(masks, raters.flatten(1, 2)))


def test_scores_of_masks_by_brute_force():
    generator = torch.Generator().manual_seed(6)
    prediction, label = torch.randint(0, 4, (2, 6, 7, 5), generator=generator)
    names = {1: "whole", 2: "core", 3: "enhancing"}
    rows = compare_masks(prediction, label, (1.0, 1.0, 2.0), "a", names, regions=REGIONS)
    assert [row.name for row in rows] == [*names.values()]
    for row, region in zip(rows, REGIONS, strict=True):
        first, second = (np.isin(mask.numpy(), region) for mask in (prediction, label))
        assert row.dice == pytest.approx(2 * (first & second).sum() / (first.sum() + second.sum()))
        assert row.volume == pytest.approx(2e-3 * first.sum()) and row.label_volume == pytest.approx(
            2e-3 * second.sum()
        )


def test_regions_are_found_beside_the_labels(tmp_path):
    pair = Pair("a", tmp_path / "out" / "a.nii.gz", tmp_path / "labelsTr" / "a.nii.gz")
    assert find_regions([pair]) == {}
    text = '{"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "regions_class_order": [1, 2]}'
    (tmp_path / "dataset.json").write_text(text)
    assert find_regions([pair]) == {"whole": [1, 2], "core": [2]}


# Settings


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"regions": [[1], []]}, "regions must be a list with a list of classes, from 1, for each region"),
        ({"regions": [1, 2], "class_names": ["a"]}, "regions are 2 and class_names 1"),
        ({"regions": [[1], [2]], "regions_class_order": [1]}, "must have a number for each of 2 regions, got"),
        ({"regions_class_order": [1]}, "there are no regions"),
        ({"regions_class_order": [0]}, "regions_class_order must be a list of numbers from 1 to 255"),
    ],
)
def test_regions_that_do_not_fit(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        settings.check_regions(given)


def test_settings_that_fit():
    settings.check_regions({"regions": REGIONS, "class_names": list("abc"), "regions_class_order": [1, 2, 4]})
    settings.check_regions({"regions": "$@mine", "class_names": list("abc")})
