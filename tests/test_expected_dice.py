"""The mask of highest mean Dice with the members, against every mask of a few voxels."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medsegdiff_bundle.fusion import expected_dice
from medsegdiff_bundle.transforms import FuseEnsembled

VOXELS = 8
EVERY_MASK = np.array(list(itertools.product([0, 1], repeat=VOXELS)))


def mean_dice(masks, members):
    """Of masks (M, P) with members (E, P): (M,). Two empty masks: 1."""
    total = masks.sum(1)[:, None] + members.sum(1)
    return np.where(total > 0, 2 * masks @ members.T / np.maximum(total, 1), 1).mean(1)


def level_sets(mean):
    return np.array([mean >= threshold for threshold in [2, *np.unique(mean)]]).astype(int)


def drawn(seed, num_members=None):
    """Members (E, P) of one blurred truth; every other time large and small ones."""
    generator = np.random.default_rng(seed)
    num_members = num_members or int(generator.integers(2, 8))
    chances = generator.random(VOXELS) ** generator.choice([0.5, 1, 2])
    if seed % 2:
        chances = (
            chances + generator.normal(0, 0.3, (num_members, 1)) + generator.normal(0, 0.15, (num_members, VOXELS))
        )
        return (chances > 0.6).astype(int)
    return (generator.random((num_members, VOXELS)) < chances).astype(int)


@pytest.mark.parametrize("seed", range(0, 300, 50))
def test_no_mask_of_a_few_voxels_is_better(seed):
    for members in map(drawn, range(seed, seed + 50)):
        result = expected_dice(torch.from_numpy(members))
        found = mean_dice(result.labels.numpy()[None], members)[0]
        assert result.dice.tolist() == pytest.approx([found])
        assert found == pytest.approx(mean_dice(EVERY_MASK, members).max())


def test_it_is_more_than_a_level_set_of_the_mean():
    """Members of unlike sizes: what the small ones share weighs more."""
    behind = [
        members
        for members in map(drawn, range(300))
        if mean_dice(level_sets(members.mean(0)), members).max() < mean_dice(EVERY_MASK, members).max() - 1e-9
    ]
    assert behind
    for members in behind:
        found = expected_dice(torch.from_numpy(members)).labels.numpy()
        assert mean_dice(found[None], members) > mean_dice(level_sets(members.mean(0)), members).max() + 1e-9


def test_a_large_image_is_searched_like_a_small_one():
    """Weights of members of many voxels are small numbers, whose differences must not be taken for rounding."""
    for members in map(drawn, range(1, 60, 2)):
        small = torch.from_numpy(members).bool()
        large = small.repeat_interleave(20_000, dim=1)
        assert torch.equal(expected_dice(large).labels[::20_000], expected_dice(small).labels)


@pytest.mark.parametrize("size", range(1, VOXELS))
def test_a_level_set_is_the_best_mask_where_all_members_are_of_one_size(size):
    generator = np.random.default_rng(size)
    for _ in range(20):
        members = np.array([generator.permutation(VOXELS) < size for _ in range(5)]).astype(int)
        found = expected_dice(torch.from_numpy(members)).labels.numpy()
        assert any(np.array_equal(found, level) for level in level_sets(members.mean(0)))
        assert mean_dice(found[None], members)[0] == pytest.approx(mean_dice(EVERY_MASK, members).max())


def test_probabilities_are_searched_over_level_sets_of_their_mean():
    generator = torch.Generator().manual_seed(0)
    unlike = 0
    for _ in range(100):
        foreground = torch.rand(4, VOXELS, generator=generator)
        probabilities = torch.stack([1 - foreground, foreground], dim=1)
        members = probabilities.argmax(1)
        result = expected_dice(members, 2, probabilities)
        found = mean_dice(result.labels.numpy()[None], members.numpy())[0]
        best = mean_dice(level_sets(foreground.double().mean(0).numpy()), members.numpy()).max()
        assert best - 1e-9 <= found <= mean_dice(EVERY_MASK, members.numpy()).max() + 1e-9
        unlike += not torch.equal(result.labels, expected_dice(members).labels)
    assert unlike > 10  # it matters which mean has the level sets


def test_by_hand():
    """Three of four members share two voxels, and one of them has two more; the fourth is empty."""
    members = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    result = expected_dice(members)
    assert result.labels.tolist() == [1, 1, 0, 0, 0]
    assert result.dice.tolist() == pytest.approx([(1 + 1 + 4 / 6 + 0) / 4])


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("num_members", [1, 2, 5])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_unanimous_members_come_back(label, num_members, probabilities):
    for one in (torch.full((4, 5), label), torch.randint(0, label + 1, (4, 5, 3), generator=torch.manual_seed(0))):
        members = one.expand(num_members, *one.shape)
        sure = torch.nn.functional.one_hot(members, 3).movedim(-1, 1).float() if probabilities else None
        result = expected_dice(members, 3, sure)
        assert torch.equal(result.labels, one) and result.dice.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("members", "expected", "dice"),
    [
        ([[1, 1, 0, 0], [0, 0, 0, 0]], [0, 0, 0, 0], 1 / 2),  # as good as the other member's: fewer voxels
        ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], [1, 1, 0, 0], 2 / 3),
        ([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], [0, 0, 0, 0], 1 / 2),
        ([[1, 1, 0, 0], [0, 0, 1, 1]], [1, 1, 1, 1], 2 / 3),  # disjoint
        ([[1, 1, 0, 0], [1, 1, 1, 1]], [1, 1, 0, 0], 5 / 6),  # one within the other: both are as good
    ],
)
def test_ties(members, expected, dice):
    result = expected_dice(torch.tensor(members))
    assert result.labels.tolist() == expected and result.dice.tolist() == pytest.approx([dice])


def test_a_voxel_of_two_classes_goes_to_the_one_that_loses_more():
    """Both classes want the first voxel: of one it is one voxel of four, of the other one of two."""
    members = torch.tensor([[1, 0, 2, 1, 1], [2, 1, 0, 1, 1]])
    alone = [expected_dice((members == label).long()).labels.tolist() for label in (1, 2)]
    assert alone == [[1, 1, 0, 1, 1], [1, 0, 1, 0, 0]]
    result = expected_dice(members, 3)
    assert result.labels.tolist() == [2, 1, 2, 1, 1]
    assert result.dice.tolist() == pytest.approx([(4 / 6 + 1) / 2, 2 / 3])
    assert expected_dice(torch.tensor([0, 2, 1])[members], 3).labels.tolist() == [1, 2, 1, 2, 2]


def test_a_tie_of_two_classes_goes_to_the_lowest():
    members = torch.tensor([[1, 0, 2], [2, 1, 0]])
    assert expected_dice(members, 3).labels.tolist() == [1, 1, 2]
    assert expected_dice(torch.tensor([0, 2, 1])[members], 3).labels.tolist() == [1, 2, 1]


def test_several_classes_are_near_the_best_of_all_masks():
    """The rule for conflicts is not proven to be the best: it is, of five voxels, in most cases, and near it in all."""
    every = np.array(list(itertools.product([0, 1, 2], repeat=5)))
    generator, behind = np.random.default_rng(0), []
    for _ in range(100):
        chances = generator.dirichlet([1, 1, 1], 5)
        members = np.array([[generator.choice(3, p=each) for each in chances] for _ in range(5)])
        best = np.mean([mean_dice((every == k).astype(int), (members == k).astype(int)) for k in (1, 2)], axis=0).max()
        behind.append(best - expected_dice(torch.from_numpy(members), 3).dice.mean().item())
    assert min(behind) > -1e-9
    assert np.mean(np.array(behind) > 1e-9) < 0.15 and max(behind) < 0.1


def test_order_of_members_and_place_of_voxels_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    members = torch.rand(7, 1, 6, 6, 6, generator=generator).round().squeeze(1).long()
    whole = expected_dice(members)
    assert torch.equal(expected_dice(members[torch.randperm(7, generator=generator)]).labels, whole.labels)
    places = torch.randperm(216, generator=generator)
    assert torch.equal(expected_dice(members.flatten(1)[:, places]).labels, whole.labels.flatten()[places])


@pytest.mark.parametrize(
    ("members", "probabilities", "message"),
    [
        (torch.rand(3, 4), None, "must be integer or bool labels"),
        (torch.tensor([[0, 2]]), None, r"0\.\.1, got 0\.\.2"),
        (torch.tensor([[0, 1]]), torch.rand(1, 2, 3), r"probabilities must be \(1, 2, 2\), got \(1, 2, 3\)"),
    ],
)
def test_bad_values_are_named(members, probabilities, message):
    with pytest.raises(ValueError, match=message):
        expected_dice(members, 2, probabilities)


@pytest.mark.parametrize("kind", ["probabilities", "labels", "several keys"])
def test_a_word_in_a_configuration(kind):
    foreground = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(1))
    probabilities = torch.stack([1 - foreground, foreground], dim=1)
    members = probabilities.argmax(1)
    expected = expected_dice(members, 2, None if kind == "labels" else probabilities).labels
    if kind == "several keys":
        keys = [f"member{index}" for index in range(5)]
        data = dict(zip(keys, map(MetaTensor, probabilities), strict=True))
        fused = FuseEnsembled(keys, "dice", "fused")(data)["fused"]
    else:
        value = MetaTensor(members.unsqueeze(1).to(torch.uint8) if kind == "labels" else probabilities)
        fused = FuseEnsembled("pred", "dice", num_classes=2)({"pred": value})["pred"]
    assert isinstance(fused, MetaTensor) and fused.dtype == torch.float32 and fused.shape == (1, 4, 4)
    assert torch.equal(fused.as_tensor()[0].long(), expected)
