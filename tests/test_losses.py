import math

import pytest
import torch

from medsegdiff_bundle.losses import SMOOTH, MedSegDiffLoss, energy_score, soft_jaccard_distance
from medsegdiff_bundle.metrics import generalized_energy_distance
from medsegdiff_bundle.prepare_batch import DiffusionTarget

LN2, LN3 = math.log(2), math.log(3)


def target(label, timesteps, classes=2, noise=None):
    noise = torch.zeros(len(label), classes, *label.shape[2:]) if noise is None else noise
    return DiffusionTarget(label, noise, torch.as_tensor(timesteps))


def logits(probability):
    """Two-class logits with this probability of class 1, (N, 1, S) -> (N, 2, S)."""
    return torch.cat([torch.zeros_like(probability), probability.logit()], dim=1)


def anchor_part(loss):
    return loss.parts["anchor"].item()


LABEL = torch.tensor([[[1, 1, 0, 0]], [[1, 0, 0, 0]]])[:, :, None]  # (2, 1, 1, 4)
HALF = logits(torch.full((2, 1, 1, 4), 0.5))
# Foreground Dice loss, 1 - 2 |pl| / (|p| + |l|): 1 - 2 * 1 / (2 + 2) and 1 - 2 * 0.5 / (2 + 1). Cross-entropy: ln 2.
DICE = torch.tensor([1 / 2, 2 / 3])


@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0])
def test_by_hand(beta):
    loss = MedSegDiffLoss(alpha=1, beta=beta)
    total = loss((HALF, HALF), target(LABEL, [0, 1]))
    diffusion, anchor = DICE.mean().item() + LN2, DICE.mean().item() + beta * LN2
    assert loss.parts["diffusion"].item() == pytest.approx(diffusion, abs=1e-4)
    assert anchor_part(loss) == pytest.approx(anchor, abs=1e-4)
    assert total.item() == pytest.approx(diffusion + anchor, abs=1e-4)


def test_uneven_probabilities_by_hand():
    probability = torch.tensor([0.75, 0.5, 0.25, 0.5]).reshape(1, 1, 1, 4)
    loss = MedSegDiffLoss(alpha=1, beta=2.0)
    loss((logits(probability), logits(probability)), target(LABEL[:1], [0]))
    # Dice: p . l = 1.25, |p| = 2, |l| = 2. Cross-entropy: -(2 ln 3/4 + 2 ln 1/2) / 4.
    dice, cross_entropy = 1 - 2.5 / 4, -(2 * math.log(0.75) + 2 * math.log(0.5)) / 4
    assert anchor_part(loss) == pytest.approx(dice + 2 * cross_entropy, abs=1e-4)


@pytest.mark.parametrize("dice_weight", [0.0, 0.5])
def test_dice_is_weighted_in_both_parts(dice_weight):
    loss = MedSegDiffLoss(alpha=1, beta=2.0, dice_weight=dice_weight)
    loss((HALF, HALF), target(LABEL, [0, 1]))
    assert loss.parts["diffusion"].item() == pytest.approx(dice_weight * DICE.mean().item() + LN2, abs=1e-4)
    assert anchor_part(loss) == pytest.approx(dice_weight * DICE.mean().item() + 2 * LN2, abs=1e-4)
    with pytest.raises(ValueError, match="beta and dice_weight cannot be negative, got 1.0 and -1"):
        MedSegDiffLoss(beta=1.0, dice_weight=-1)


def test_three_classes_by_hand():
    """Dice is the mean over the foreground classes, here with equal probabilities 1/3."""
    label = torch.tensor([0, 0, 1, 2, 2, 2]).reshape(1, 1, 6, 1)
    loss = MedSegDiffLoss(alpha=1, beta=1.0)
    even = torch.zeros(1, 3, 6, 1)
    loss((even, even), target(label, [0], 3))
    class_1, class_2 = 1 - 2 * (1 / 3) / (2 + 1), 1 - 2 * 1 / (2 + 3)
    assert anchor_part(loss) == pytest.approx((class_1 + class_2) / 2 + LN3, abs=1e-4)


@pytest.mark.parametrize(
    ("alpha", "timesteps", "chosen"),
    [
        (None, [0, 5], [0, 0]),
        (5, [10, 3], [1, 0]),
        (5, [3, 15], [0, 1]),
        (5, [1, 2], [0, 0]),
        (5, [0, 995], [1, 1]),
        (1, [7, 8], [1, 1]),
    ],
)
def test_samples_between_multiples_of_alpha_count_as_zero(alpha, timesteps, chosen):
    loss = MedSegDiffLoss(alpha=alpha, beta=10.0)
    total = loss((HALF, HALF), target(LABEL, timesteps))
    each = DICE + 10 * LN2
    expected = (torch.tensor(chosen) * each).sum().item() / 2  # over the whole batch, not over the chosen
    assert anchor_part(loss) == pytest.approx(expected, abs=1e-3)
    assert total.item() == pytest.approx(expected + DICE.mean().item() + LN2, abs=1e-3)


def test_only_chosen_samples_train_the_anchor():
    anchor = HALF.clone().requires_grad_()
    prediction = HALF.clone().requires_grad_()
    MedSegDiffLoss(alpha=5)((prediction, anchor), target(LABEL, [4, 5])).backward()
    assert anchor.grad[0].abs().max() == 0 and anchor.grad[1].abs().min() > 0
    assert prediction.grad.abs().amax(dim=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noise_and_velocity_are_squared_errors(prediction_type):
    loss = MedSegDiffLoss(prediction_type, alpha=5)
    prediction = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).reshape(2, 2, 1, 1).requires_grad_()
    expected = torch.tensor([[0.0, 0.0], [1.0, -1.0]]).reshape(2, 2, 1, 1)
    total = loss((prediction, torch.zeros(2, 2, 1, 1)), target(torch.zeros(2, 1, 1, 1).long(), [1, 2], noise=expected))
    assert total.item() == pytest.approx((1 + 4 + 4 + 0) / 4)
    assert anchor_part(loss) == 0
    total.backward()
    torch.testing.assert_close(prediction.grad, 2 * (prediction.detach() - expected) / 4)


@pytest.mark.parametrize("size", [(5, 4), (3, 4, 5)])
@pytest.mark.parametrize("prediction_type", ["sample", "epsilon"])
def test_perfect_outputs_cost_nothing(size, prediction_type):
    label = torch.randint(0, 4, (2, 1, *size), generator=torch.Generator().manual_seed(0))
    certain = 100.0 * torch.nn.functional.one_hot(label[:, 0], 4).movedim(-1, 1)
    noise = torch.randn(certain.shape)
    prediction = certain if prediction_type == "sample" else noise
    loss = MedSegDiffLoss(prediction_type, alpha=1)
    assert loss((prediction, certain), target(label, [0, 5], 4, noise)).item() == pytest.approx(0, abs=1e-5)
    assert loss((-prediction, certain), target(label, [0, 5], 4, noise)).item() > 1
    assert loss((prediction, -certain), target(label, [0, 5], 4, noise)).item() > 1


def test_parts_are_detached_and_add_up():
    loss = MedSegDiffLoss()
    total = loss((HALF.clone().requires_grad_(), HALF.clone().requires_grad_()), target(LABEL, [0, 5]))
    assert set(loss.parts) == {"diffusion", "anchor"} and not any(p.requires_grad for p in loss.parts.values())
    assert total.requires_grad and sum(loss.parts.values()).item() == pytest.approx(total.item())


def test_label_without_foreground_is_finite():
    outputs = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = MedSegDiffLoss(alpha=1)((outputs, outputs), target(torch.zeros(1, 1, 4, 4).long(), [0], 3))
    loss.backward()
    assert loss.isfinite() and outputs.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"prediction_type": "mask"}, "prediction_type must be epsilon, sample or v_prediction, got 'mask'"),
        ({"alpha": 0}, "alpha must be None or at least 1, got 0"),
    ],
)
def test_bad_arguments(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        MedSegDiffLoss(**kwargs)


def masks(*shape, seed=0):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def test_jaccard_distance_of_masks_is_one_minus_iou():
    first, second = masks(20, 12), masks(20, 12, seed=1)
    both, either = (first * second).sum(-1), torch.maximum(first, second).sum(-1)
    torch.testing.assert_close(soft_jaccard_distance(first, second), 1 - both / either)
    empty = torch.zeros(12)
    assert soft_jaccard_distance(empty, empty) == 0 and soft_jaccard_distance(first[0], empty) == 1


def test_jaccard_distance_of_probabilities():
    """Equal ones have none; elsewhere |a - b| of half of |a| + |b| + |a - b|."""
    soft = torch.tensor([0.2, 0.9, 0.0, 0.9])
    assert soft_jaccard_distance(soft, soft) == 0
    other = torch.tensor([0.4, 0.9, 0.1, 0.0])
    assert soft_jaccard_distance(soft, other).item() == pytest.approx(1.2 / ((2.0 + 1.4 + 1.2) / 2))


def test_energy_score_is_the_energy_distance_without_its_bias():
    """GED^2 counts each member against itself, and the raters among themselves, which no member changes."""
    members, raters = masks(3, 4, 15), masks(3, 4, 15, seed=1)
    score = energy_score(members, raters)
    for case in range(3):
        labels = members[case].long().reshape(4, 3, 5), raters[case].long().reshape(4, 3, 5)
        ged = generalized_energy_distance(*labels, 2)[0].item()
        pairs = lambda a, b: soft_jaccard_distance(a.unsqueeze(1), b.unsqueeze(0)).mean().item()  # noqa: E731
        among = pairs(members[case], members[case])
        expected = ged + among + pairs(raters[case], raters[case]) - among * 4 / 3
        assert score[case].item() == pytest.approx(expected, abs=1e-5)


def test_energy_score_is_least_for_the_readers_own_masks():
    """Of two readers, each right as often: drawing both is better than one of them, and than their mean."""
    one, two = torch.tensor([1.0, 1, 0, 0]), torch.tensor([0.0, 1, 1, 1])
    raters = torch.stack([one, two]).unsqueeze(0)
    drawn = lambda *each: torch.stack(each).unsqueeze(0)  # noqa: E731
    # The mean over independent draws: E = 2 members, both pairs and both equal ones as likely.
    proper = sum(energy_score(drawn(a, b), raters).item() for a in (one, two) for b in (one, two)) / 4
    assert proper < energy_score(drawn(one, one), raters).item() - 0.1
    assert proper < energy_score(drawn((one + two) / 2, (one + two) / 2), raters).item() - 0.1


def test_one_member_has_no_energy_score():
    with pytest.raises(ValueError, match="needs two or more, got 1"):
        energy_score(torch.rand(1, 1, 4), torch.rand(1, 2, 4))


@pytest.mark.parametrize("size", [(5, 4), (3, 4, 5)])
def test_drawn_masks_by_parts(size):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, 4, *size), generator=generator)
    drawn = torch.randn(2, 3, 3, *size, generator=generator)
    loss = MedSegDiffLoss(alpha=None, mean_weight=2.0)
    total = loss((drawn, torch.zeros(2, 3, *size)), DiffusionTarget(label, torch.empty(0), torch.tensor([999, 999])))
    members = drawn.softmax(dim=2)
    scores = [energy_score(members[:, :, k].flatten(2), (label == k).float().flatten(2), SMOOTH) for k in (1, 2)]
    logs = members.mean(dim=1).log()
    cross_entropy = torch.stack([torch.nn.functional.nll_loss(logs, label[:, rater]) for rater in range(4)]).mean()
    expected = torch.stack(scores).mean() + 2 * cross_entropy
    assert total.item() == pytest.approx(expected.item(), abs=1e-5)
    assert loss.parts["diffusion"].item() == pytest.approx(total.item()) and anchor_part(loss) == 0


def test_drawn_masks_train_where_nothing_is_marked():
    drawn = torch.randn(1, 2, 2, 4, 4, requires_grad=True)
    empty = DiffusionTarget(torch.zeros(1, 4, 4, 4).long(), torch.empty(0), torch.tensor([999]))
    loss = MedSegDiffLoss(alpha=None)((drawn, torch.zeros(1, 2, 4, 4)), empty)
    loss.backward()
    assert loss.isfinite() and drawn.grad.isfinite().all() and drawn.grad.abs().max() > 0


def test_the_anchor_learns_from_each_rater():
    label = torch.cat([LABEL[:1], LABEL[1:]], dim=1)  # (1, 2, 1, 4)
    loss = MedSegDiffLoss(alpha=1, beta=1.0)
    drawn = torch.zeros(1, 2, 2, 1, 4)
    loss((drawn, HALF[:1]), DiffusionTarget(label, torch.empty(0), torch.tensor([999])))
    assert anchor_part(loss) == pytest.approx(DICE.mean().item() + LN2, abs=1e-4)


def test_noise_is_not_drawn():
    drawn = torch.zeros(1, 2, 2, 1, 4)
    with pytest.raises(ValueError, match="drawn with prediction_type 'sample' only, got 'epsilon'"):
        MedSegDiffLoss("epsilon")((drawn, HALF[:1]), target(LABEL[:1], [0]))
    with pytest.raises(ValueError, match="mean_weight cannot be negative, got -1"):
        MedSegDiffLoss(mean_weight=-1)
