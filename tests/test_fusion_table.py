"""The measures of scripts/fusion_table.py by hand."""

import fusion_table as table
import pytest
import torch


def test_a_threshold_is_that_of_any_structure():
    probabilities = torch.tensor([[0.9, 0.65, 0.2], [0.1, 0.15, 0.5], [0.0, 0.2, 0.3]])
    assert table.thresholded(probabilities, 0.3).tolist() == [0, 2, 1]
    assert table.thresholded(probabilities, 0.5).tolist() == [0, 0, 1]


def test_both_conventions_by_hand():
    """Of one case two of four readers mark two voxels, the others nothing; of another one reader marks one."""
    masks = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    some = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert table.scores(masks, some, 2).tolist() == [[0.5, 0.5, 1, 1], [0.5, 0.5, 0, 0]]
    nothing = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = table.scores(masks, nothing, 2)
    assert found[:, [0, 2]].tolist() == [[pytest.approx(2 / 3 / 4), 0], [0.75, 1]]
    assert found[:, [1, 3]].isnan().all()


def test_no_case_chooses_its_own_threshold():
    """Even cases are best at the first threshold, odd ones at the last: each gets that of the others."""
    values = torch.zeros(6, 3, 1)
    values[0::2, 0], values[1::2, 2] = 1, 1
    assert table.cross_fitted(values).flatten().tolist() == [0] * 6
    values[:, 1] = 2
    assert table.cross_fitted(values).flatten().tolist() == [2] * 6


def test_one_label_of_several_classes():
    label = torch.tensor([[1, 1, 2, 0]])
    found = table.scores(torch.tensor([[1, 0, 2, 0]]), label, 4)
    # Class 3 is nowhere: 1 among all classes, and left out where it must be there.
    assert found[0].tolist() == pytest.approx([(2 / 3 + 1 + 1) / 3, (2 / 3 + 1) / 2] * 2)
