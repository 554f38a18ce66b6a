"""What is said of the cases of a training before its first step."""

import json

import numpy as np
import pytest
from monai.data import CacheDataset, Dataset
from PIL import Image

from medsegdiff_bundle.handlers import CheckTrainingData
from medsegdiff_bundle.transforms import LoadImaged


@pytest.fixture
def cases(tmp_path):
    """Pictures a to f with labels; c has no class, d one value, e is a copy of a."""
    for name in "abcdef":
        values = np.random.default_rng(ord(name) if name != "e" else ord("a")).integers(0, 255, (6, 6), dtype=np.uint8)
        Image.fromarray(np.full_like(values, 7) if name == "d" else values).save(tmp_path / f"{name}.png")
        Image.fromarray((values > 100).astype(np.uint8) * (name != "c")).save(tmp_path / f"{name}_label.png")
    return {name: {"image": tmp_path / f"{name}.png", "label": tmp_path / f"{name}_label.png"} for name in "abcdef"}


def found(training, validation, names=("one", "two"), folder="nowhere", kind=CacheDataset):
    """Sentences, of cases whose files are read in the deterministic part."""
    options = {"progress": False} if kind is CacheDataset else {}
    sets = [
        kind([{**case} for case in part], LoadImaged(["image", "label"]), **options) for part in (training, validation)
    ]
    return list(CheckTrainingData(*sets, names, str(folder)).found())


def test_good_cases(cases):
    assert found([cases["a"], cases["b"]], [cases["f"]]) == []


def test_faults_are_named_with_their_files(cases):
    said = found([cases[name] for name in "abcd"], [cases["e"], cases["f"]])
    assert [sentence.split(":")[0] for sentence in said] == [
        "Labels of the training hold nothing but background",
        "Images of the training have one value everywhere",
        "Cases of the validation are there already",
    ]
    assert "c.png" in said[0] and "a.png" not in said[0] and "d.png" in said[1]
    assert f"{cases['e']['image']} (training: {cases['a']['image']})" in said[2]


@pytest.mark.parametrize("kind", [CacheDataset, Dataset])
def test_one_file_in_both_sections_or_twice(kind, cases):
    """Known from the list alone, too, where no values are kept."""
    for training, validation in (("ab", "a"), ("aba", "f")):
        (said,) = found([cases[n] for n in training], [cases[n] for n in validation], kind=kind)
        assert "are there already" in said and "a.png" in said


def test_names_that_contradict(tmp_path):
    content = {"labels": {"0": "background", "1": "One ", "2": "two"}, "training": [], "validation": []}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert found([], [], folder=tmp_path) == []
    for names in (("two", "one"), ("one",), ("liver", "tumour")):
        (said,) = found([], [], names, tmp_path)
        assert said.endswith(f"in this order; class_names calls them {', '.join(names)}.")
