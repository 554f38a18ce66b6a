"""The MONAI side of the metrics: forms of the inputs, JSON, reductions, handlers."""

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import Evaluator
from monai.handlers import IgniteMetricHandler, MetricsSaver, from_engine

from medsegdiff_bundle import metrics
from medsegdiff_bundle.uncertainty import mutual_information, predictive_entropy

NAMES = [
    "GeneralizedEnergyDistanceMetric",
    "HungarianMatchedIoUMetric",
    "CollectiveInsightMetric",
    "ExpectedCalibrationErrorMetric",
    "AreaUnderRiskCoverageMetric",
    "ErrorCaughtMetric",
]
OF_LABELS = NAMES[:3]


def random_case(num_members=5, num_raters=4, num_classes=3, shape=(6, 7), seed=0):
    """Probabilities (E, K, S) and labels (R, S)."""
    generator = torch.Generator().manual_seed(seed)
    members = (3 * torch.randn(num_members, num_classes, *shape, generator=generator)).softmax(1)
    return members, torch.randint(0, num_classes, (num_raters, *shape), generator=generator)


def from_json(name, **arguments):
    return ConfigParser({"metric": {"_target_": f"medsegdiff_bundle.metrics.{name}", **arguments}}).get_parsed_content(
        "metric"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(9,), (6, 7), (4, 5, 6)])
def test_from_json_over_batches(name, shape):
    metric = from_json(name, num_classes=3, reduction="mean_batch", get_not_nans=True)
    cases = [random_case(shape=shape, seed=seed) for seed in range(3)]
    batch = metric(torch.stack([case[0] for case in cases[:2]]), torch.stack([case[1] for case in cases[:2]]))
    values = torch.cat([batch, metric([cases[2][0]], [cases[2][1]])])
    assert values.shape == (3, 2 if name in OF_LABELS else 1) and values.dtype == torch.float32
    mean, count = metric.aggregate()
    torch.testing.assert_close(mean, values.mean(0))
    assert count.tolist() == [3.0] * values.shape[1]
    torch.testing.assert_close(metric.aggregate("none")[0], values)
    metric.reset()
    with pytest.raises(ValueError, match="no case"):
        metric.aggregate()


@pytest.mark.parametrize("name", OF_LABELS)
def test_nan_is_no_perfect_score(name):
    members, raters = random_case(num_classes=2)
    members[0, :, 0] = float("nan")
    with pytest.raises(ValueError, match="The probabilities hold NaN"):
        from_json(name)([members], [raters])


@pytest.mark.parametrize("name", NAMES)
def test_works_as_it_comes(name):
    metric = from_json(name)
    assert (metric.num_classes, metric.num_regions, metric.reduction, metric.get_not_nans) == (2, None, "mean", False)
    assert getattr(metric, "include_background", False) is (name == "ExpectedCalibrationErrorMetric")
    assert getattr(metric, "num_bins", 15) == 15 and getattr(metric, "fraction", 0.05) == 0.05
    assert getattr(metric, "part", "score") == "score"
    assert getattr(metric, "uncertainty", predictive_entropy) is predictive_entropy
    members, raters = random_case(num_classes=2)
    metric([members], [raters])
    assert 0 <= metric.aggregate().item() <= 2


@pytest.mark.parametrize("name", NAMES)
def test_forms_of_members(name):
    metric = getattr(metrics, name)(num_classes=3)
    members, raters = random_case()
    labels = members.argmax(1)
    one_hot = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    value = metric(one_hot.unsqueeze(0), raters.unsqueeze(0))
    for form in (labels, labels.unsqueeze(1), labels.unsqueeze(1).to(torch.uint8), MetaTensor(labels.float())):
        torch.testing.assert_close(metric([form], [MetaTensor(raters.float())]), value)
    if name in OF_LABELS:
        torch.testing.assert_close(metric([members], [raters]), value)
    else:
        assert metric([members], [raters]) != value


@pytest.mark.parametrize("name", NAMES)
def test_one_region_is_a_class_and_its_rest(name):
    members, raters = random_case(num_classes=2)
    of_region = from_json(name, num_classes=1, multi_label=True)
    torch.testing.assert_close(of_region([members[:, 1:]], [raters]), from_json(name)([members], [raters]))
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        getattr(metrics, name)(num_classes=0, multi_label=True)


def test_numbers_of_members_and_raters_may_differ_between_cases():
    metric = metrics.HungarianMatchedIoUMetric(num_classes=3)
    first, second = random_case(16, 4), random_case(3, 1, seed=1)
    together = metric([first[0], second[0]], [first[1], second[1]])
    alone = torch.cat([metric([members], [raters]) for members, raters in (first, second)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("GeneralizedEnergyDistanceMetric", metrics.generalized_energy_distance),
        ("HungarianMatchedIoUMetric", metrics.hungarian_matched_iou),
    ],
)
def test_labels_are_the_argmax_and_background_an_option(name, function):
    members, raters = random_case()
    metric = from_json(name, num_classes=3, include_background=True)
    expected = function(members.argmax(1), raters, 3, include_background=True)
    torch.testing.assert_close(metric([members], [raters])[0], expected)
    assert expected.shape == (3,)


@pytest.mark.parametrize("part", metrics.CollectiveInsight._fields)
def test_parts_of_collective_insight(part):
    members, raters = random_case()
    metric = from_json("CollectiveInsightMetric", part=part, num_classes=3)
    insight = metrics.collective_insight(members.argmax(1), raters, 3)
    torch.testing.assert_close(metric([members], [raters])[0], getattr(insight, part))


def test_calibration_is_that_of_the_mean():
    members, raters = random_case()
    metric = from_json("ExpectedCalibrationErrorMetric", num_classes=3, num_bins=7, include_background=False)
    curve = metrics.reliability_curve(members.mean(0), raters, 7, include_background=False)
    assert metric([members], [raters]).item() == metrics.expected_calibration_error(curve).item()


def test_uncertainty_against_the_error_of_the_mean():
    members, raters = random_case()
    error = (raters != members.mean(0).argmax(0)).float().mean(0)
    uncertainty = mutual_information(members)
    area = from_json("AreaUnderRiskCoverageMetric", uncertainty="mutual_information", num_classes=3)
    caught = from_json("ErrorCaughtMetric", uncertainty="mutual_information", num_classes=3, fraction=0.1)
    expected = metrics.area_under_risk_coverage(uncertainty, error), metrics.error_caught(uncertainty, error, 0.1)
    assert area([members], [raters]).item() == pytest.approx(expected[0].item())
    assert caught([members], [raters]).item() == pytest.approx(expected[1].item())


def test_a_case_without_error_is_passed_over():
    metric = metrics.ErrorCaughtMetric(get_not_nans=True)
    members, raters = random_case(num_classes=2)
    right = members.mean(0).argmax(0, keepdim=True)
    values = metric([members, members], [raters, right])
    assert values[1].isnan()
    mean, count = metric.aggregate()
    assert mean.item() == values[0].item() and count == 1


def test_handlers(tmp_path):
    cases = [random_case(num_classes=2, seed=seed) for seed in range(3)]
    data = [{"image": torch.zeros(1, 1, 6, 7), "pred": [members], "label": [raters]} for members, raters in cases]
    handlers = {name: from_json(name) for name in NAMES}

    def iterate(engine, batch):
        return [{"pred": batch["pred"][0], "label": batch["label"][0]}]

    evaluator = Evaluator(
        device="cpu",
        val_data_loader=data,
        iteration_update=iterate,
        key_val_metric={
            name: IgniteMetricHandler(metric_fn=metric, output_transform=from_engine(["pred", "label"]))
            for name, metric in handlers.items()
        },
        val_handlers=[MetricsSaver(save_dir=str(tmp_path), metric_details="*", summary_ops="*")],
    )
    evaluator.run()
    for name in NAMES:
        metric = from_json(name)
        values = torch.cat([metric([members], [raters]) for members, raters in cases])
        assert evaluator.state.metrics[name] == pytest.approx(values.mean().item())
        torch.testing.assert_close(evaluator.state.metric_details[name], values)
        assert len((tmp_path / f"{name}_raw.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("name", NAMES)
def test_in_the_json_of_an_evaluator(name):
    """As a configuration has it: members beside the fused mask, the output transform an expression."""
    cases = [random_case(seed=seed) for seed in range(2)]
    config = {
        "imports": ["$import monai"],
        "handler": {
            "_target_": "IgniteMetricHandler",
            "metric_fn": {"_target_": f"medsegdiff_bundle.metrics.{name}", "num_classes": 3},
            "output_transform": "$monai.handlers.from_engine(['members', 'label'])",
        },
    }
    engine = Engine(lambda engine, batch: [{"pred": None, "members": cases[batch][0], "label": cases[batch][1]}])
    ConfigParser(config).get_parsed_content("handler").attach(engine, name)
    engine.run([0, 1])
    values = torch.cat([from_json(name, num_classes=3)([members], [raters]) for members, raters in cases])
    assert engine.state.metrics[name] == pytest.approx(values.mean().item())


# By hand: two members and two raters who marked nothing; then one rater and one member who mark one of four voxels.
EMPTY = (torch.zeros(2, 1, 4), torch.zeros(2, 4))
FOUND = (torch.tensor([[[0, 0, 0, 0]], [[1, 0, 0, 0]]]), torch.zeros(1, 4))
MISSED = (torch.zeros(2, 1, 4), torch.tensor([[1, 0, 0, 0]]))


@pytest.mark.parametrize(
    ("name", "empty", "found", "missed"),
    [
        ("GeneralizedEnergyDistanceMetric", 0.0, 2 * 0.5 - 0.5, 2.0),
        ("HungarianMatchedIoUMetric", 1.0, 0.5, 0.0),
        ("CollectiveInsightMetric", 1.0, 3 / (1 + 1 + 1 / (1 - 3 / 16)), 0.0),
        # A tie goes to the background: right, at confidence 1/2 in one of four voxels.
        ("ExpectedCalibrationErrorMetric", 0.0, 0.5 / 4, 1 / 4),
        ("AreaUnderRiskCoverageMetric", 0.0, 0.0, 1 / 4),
        ("ErrorCaughtMetric", None, None, 0.05),
    ],
)
def test_empty_masks(name, empty, found, missed):
    for (members, raters), expected in ((EMPTY, empty), (FOUND, found), (MISSED, missed)):
        value = from_json(name)([members], [raters]).item()
        assert value != value if expected is None else value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("members", "raters", "message"),
    [
        (torch.zeros(2, 5, 4, 4), torch.zeros(3, 4, 4), "1 or 2 channels"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3, 4, 5), "the same voxels"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(4), "members must be"),
        (torch.full((2, 1, 4, 4), 0.7), torch.zeros(3, 4, 4), "one channel per class"),
        (torch.zeros(2, 1, 4, 4), torch.full((3, 4, 4), 2), "labels of raters must be in 0..1"),
    ],
)
def test_refuses_inputs(name, members, raters, message):
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)()([members], [raters])


def test_regions_of_which_there_are_others():
    metric = metrics.GeneralizedEnergyDistanceMetric(num_classes=3, multi_label=True)
    with pytest.raises(ValueError, match=r"members must have 3 channels, got shape \(4, 2, 6, 5\)"):
        metric([torch.zeros(4, 2, 6, 5)], [torch.zeros(6, 6, 5)])


def test_nothing_to_aggregate():
    with pytest.raises(ValueError, match="GeneralizedEnergyDistanceMetric has seen no case to aggregate."):
        metrics.GeneralizedEnergyDistanceMetric().aggregate()


def test_refuses_missing_labels_and_uneven_batches():
    metric = metrics.GeneralizedEnergyDistanceMetric()
    with pytest.raises(ValueError, match="needs the labels"):
        metric(torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="as many cases"):
        metric(torch.zeros(2, 2, 4), torch.zeros(3, 2, 4))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("GeneralizedEnergyDistanceMetric", {"num_classes": 1}, "num_classes"),
        ("GeneralizedEnergyDistanceMetric", {"reduction": "median"}, "median"),
        ("CollectiveInsightMetric", {"part": "luck"}, "part must be one of score"),
        ("ExpectedCalibrationErrorMetric", {"num_bins": 0}, "num_bins"),
        ("AreaUnderRiskCoverageMetric", {"uncertainty": "doubt"}, "uncertainty must be one of entropy"),
        ("ErrorCaughtMetric", {"fraction": 0}, "fraction"),
    ],
)
def test_refuses_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)(**arguments)


def test_consensus_of_raters():
    raters = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]])
    assert metrics.rater_consensus(raters).tolist() == [[1, 1, 0, 0]]  # half of them is enough
    assert metrics.rater_consensus(raters).dtype == raters.dtype
    several_classes = torch.tensor([[0, 1, 2]])
    assert metrics.rater_consensus(several_classes) is several_classes
    with pytest.raises(ValueError, match=r"0\.\.1, got 0\.\.2"):
        metrics.rater_consensus(several_classes.repeat(2, 1))
