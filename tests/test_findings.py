"""What is found in a mask against what was put into it."""

import torch

from medsegdiff_bundle.findings import implausible, structure_findings


def test_by_hand():
    labels = torch.zeros(6, 5, 4, dtype=torch.uint8)
    labels[0:2, 1, 1], labels[3, 3, 2], labels[4, 4, 3] = 1, 1, 1  # the last two share a corner alone
    labels[2:4, 1:3, 1] = 2
    image = torch.arange(2 * 120).reshape(2, 6, 5, 4)
    found = structure_findings(labels, ["liver", "tumour", "cyst"], image[:1], "LPS")
    inside = image[0][labels == 1].double().mean().item()
    assert found["liver"] == {"mean_intensity": inside, "components": 3, "border": ["R", "P", "S"]}
    assert found["tumour"]["components"] == 1 and found["tumour"]["border"] == []
    assert found["cyst"] == {"mean_intensity": None, "components": 0, "border": []}
    two = structure_findings(labels, ["liver"], image)
    assert two["liver"]["mean_intensity"] == [inside, inside + 120]
    assert two["liver"]["border"] == ["start of axis 1", "end of axis 2", "end of axis 3"]
    assert structure_findings(labels, ["liver"])["liver"]["mean_intensity"] is None


def test_pictures_and_single_slices():
    labels = torch.zeros(6, 5)
    labels[0, 4] = 1
    assert structure_findings(labels, ["lesion"])["lesion"]["border"] == ["left", "bottom"]
    assert structure_findings(labels[1:5, :1, None] + 1, ["a"], None, "RAS")["a"]["border"] == ["L", "R"]


def test_implausible():
    plain = {"volume": 1.0, "member_volumes": [0.9, 1.1], "border": []}
    said = implausible(
        {
            "right": plain,
            "nearly": {**plain, "volume": 1.15},
            "fused": {**plain, "volume": 1.2},
            "small": plain,
            "cut": {**plain, "border": ["S", "L"]},
            "alone": {**plain, "volume": 9.0, "member_volumes": [1.0]},
        },
        "ml",
        {"right": (0.5, 2), "small": (2.0, 3.0)},
    )
    assert said == [
        "Implausible: the fused mask of fused, 1.2 ml, lies outside of its members, 0.9 to 1.1 ml.",
        "Implausible: small, 1 ml, lies outside of the training cases, 2 to 3 ml.",
        "cut reaches the border of the image (S, L): it may be cut off.",
    ]
