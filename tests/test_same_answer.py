"""The same seed gives the same mask, however it is computed."""

import hashlib
import sys
from pathlib import Path

import forks
import nibabel
import numpy as np
import pytest
import torch

import medsegdiff_bundle
from medsegdiff_bundle import configuration

ROOT = Path(__file__).parent.parent
NETWORK = {"network_def#channels": [4, 8, 8], "network_def#num_heads": 2, "network_def#token_size": 8}
NETWORK |= {"network_def#num_transformer_blocks": 1}  # which the task leaves out
SHAPE = (18, 22, 20)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Settings with a tiny network of random weights, and a file of a volume, one of three."""
    folder = tmp_path_factory.mktemp("same")
    parser = configuration.load([ROOT / "configs" / "inference.json"], {**NETWORK, "bundle_root": str(ROOT)})
    torch.manual_seed(1)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "weights.pt")
    (folder / "images").mkdir()
    for number in range(3):
        values = np.random.default_rng(number).random(SHAPE, dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / "images" / f"case_{number}.nii.gz")
    settings = {**NETWORK, "checkpoint": str(folder / "weights.pt"), "ensemble_size": 4, "device": "cpu"}
    return settings, folder / "images" / "case_2.nii.gz"


@pytest.fixture(scope="module")
def expected(given):
    settings, file = given
    return medsegdiff_bundle.segment(file, **settings)


def same(found, expected):
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.uncertainty, expected.uncertainty, atol=1e-4)


def test_the_mask_is_no_trivial_one(expected):
    assert 0.02 < (expected.mask > 0).mean() < 0.98


@pytest.mark.parametrize("changed", [{"members_per_batch": n} for n in (1, 2, 3, 4)] + [{"channels_last": False}])
def test_members_at_once(changed, given, expected):
    settings, file = given
    same(medsegdiff_bundle.segment(file, **settings, **changed), expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads, given, expected):
    settings, file = given
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        same(medsegdiff_bundle.segment(file, **settings), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [0, 2])
def test_of_a_folder_the_last_and_processes_that_load(workers, given, expected):
    settings, file = given
    results = medsegdiff_bundle.segment(file.parent, **settings, **{"dataloader#num_workers": workers})
    same(results[-1], expected)


def test_an_array_and_another_state_of_random_numbers(given, expected):
    settings, file = given
    torch.manual_seed(123)
    np.random.seed(5)
    same(medsegdiff_bundle.segment(np.asarray(nibabel.load(file).dataobj), **settings), expected)


def test_another_process(given, expected):
    settings, file = given
    code = (
        "import hashlib, medsegdiff_bundle\n"
        f"mask = medsegdiff_bundle.segment({str(file)!r}, **{settings!r}).mask\n"
        "print(hashlib.sha256(mask.tobytes()).hexdigest())"
    )
    done = forks.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert done.stdout.split()[-1] == hashlib.sha256(expected.mask.tobytes()).hexdigest()


def test_another_seed_gives_another(given, expected):
    settings, file = given
    assert (medsegdiff_bundle.segment(file, seed=1, **settings).mask != expected.mask).any()
