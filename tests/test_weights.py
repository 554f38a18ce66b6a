"""The shipped weights: on the six embedded volumes in the space of the files, and on drawn pictures."""

from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter

import medsegdiff_bundle
from medsegdiff_bundle import configuration
from medsegdiff_bundle.evaluation.parts import PARTS, has_part, switched_off

ROOT = Path(__file__).parent.parent


def dice(one, two):
    return 2 * (one & two).sum() / (one.sum() + two.sum())


def ellipse(size, centre, radii):
    y, x = np.ogrid[: size[0], : size[1]]
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1


def test_shipped_weights_reach_their_score(tmp_path, capsys):
    monai.bundle.run(
        config_file=[str(ROOT / "configs" / name) for name in ("train.json", "evaluate.json")],
        bundle_root=str(ROOT),
        output_dir=str(tmp_path),
        device="cpu",
        ensemble_size=2,
        num_inference_steps=1,
    )
    lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines() if " " in line)
    assert float(lines["anchor"].split()[0]) > 0.87
    assert float(lines["Dice:"]) > 0.87


def resliced(values, affine, matrix, shape, order, fill=0.0):
    """Values in another grid: `matrix` leads from its voxels to theirs."""
    turned = affine_transform(values, matrix[:3, :3], matrix[:3, 3], tuple(shape), order=order, cval=fill)
    return turned, affine @ matrix


def about_the_middle(matrix, shape, new_shape):
    whole = np.eye(4)
    whole[:3, :3] = matrix
    whole[:3, 3] = (np.array(shape) - 1) / 2 - matrix @ (np.array(new_shape) - 1) / 2
    return whole


def test_files_as_others_hand_them_over(tmp_path):
    """Padding, another grid, a skull that was cut away, other voxel sizes: as good as the plain file."""
    folder = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
    image, label = (nibabel.load(folder / part / "hippocampus_001.nii.gz") for part in ("imagesTr", "labelsTr"))
    values, marked, affine = np.asarray(image.dataobj, np.float32), np.asarray(label.dataobj), image.affine
    padded = affine.copy()
    padded[:3, 3] -= 4 * affine[:3, :3].sum(axis=1)
    away = np.zeros(values.shape, bool)
    away[:, :, -3:] = away[:3, :12] = True
    cases = {
        "plain": (values, marked, affine),
        "zeros": (np.pad(values, 4), np.pad(marked, 4), padded),
        "air": (np.pad(values - 900, 4, constant_values=-1024), np.pad(marked, 4), padded),
        "nan": (np.pad(values, 4, constant_values=np.nan), np.pad(marked, 4), padded),
        "cut": (np.where(away, 0, values), marked, affine),
    }
    turn = np.deg2rad(10)
    turn = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    for name, matrix in (("turned", turn), ("0.7 mm", 0.7 * np.eye(3)), ("1.4 mm", 1.4 * np.eye(3))):
        shape = np.ceil(np.abs(np.linalg.inv(matrix)) @ values.shape).astype(int)
        matrix = about_the_middle(matrix, values.shape, shape)
        own = np.argmax([resliced((marked == c).astype(np.float32), affine, matrix, shape, 1)[0] for c in range(3)], 0)
        cases[name] = (resliced(values, affine, matrix, shape, 1)[0], own, affine @ matrix)
    for name, (content, _, place) in cases.items():
        nibabel.save(nibabel.Nifti1Image(content.astype(np.float32), place), tmp_path / f"{name}.nii")
    results = medsegdiff_bundle.segment(tmp_path, anchor_only=True, mirror_axes=[], device="cpu")
    scores = {
        result.name: np.mean([dice(result.mask == c, cases[result.name][1] == c) for c in (1, 2)]) for result in results
    }
    assert scores["plain"] > 0.9 and len(scores) == len(cases)
    cost = dict.fromkeys(scores, 0.01) | {"turned": 0.04}  # a turn alone changes what a network sees
    assert {name: score for name, score in scores.items() if score < scores["plain"] - cost[name]} == {}


def drawn_lesion(light=1.0, centre=(100, 120)):
    """A brown, soft-edged ellipse with texture on skin."""
    generator = np.random.default_rng(0)
    lesion = ellipse((200, 240), centre, (40, 55))
    share = gaussian_filter(lesion.astype(float), 2)[..., None]
    texture = gaussian_filter(generator.normal(size=(200, 240)), 2)[..., None] * 40
    colour = share * np.array([110, 70, 50]) + (1 - share) * np.array([225, 180, 165]) + texture
    return np.clip(light * colour, 0, 255).astype(np.uint8), lesion


def drawn_nodule(shift=0):
    """A bright disc in dark, noisy lung."""
    generator = np.random.default_rng(0)
    nodule = ellipse((128, 128), (64 + shift, 64 - shift), (8, 8))
    picture = 50 + 130 * gaussian_filter(nodule.astype(float), 1) + generator.normal(size=(128, 128)) * 5
    return picture.astype(np.uint8), nodule


@pytest.mark.parametrize("light", [1.0, 0.6])
@pytest.mark.parametrize("centre", [(100, 120), (70, 160)])
def test_a_drawn_lesion(light, centre):
    """Wherever it lies and however dark the picture is."""
    picture, lesion = drawn_lesion(light, centre)
    found = medsegdiff_bundle.segment(picture, "isic", device="cpu")
    assert found.mask.shape == (200, 240) and dice(found.mask > 0, lesion) > 0.9


@pytest.mark.parametrize("shift", [0, 10])
def test_a_drawn_nodule(shift):
    """Most members find it, and not all draw it alike."""
    picture, nodule = drawn_nodule(shift)
    found = medsegdiff_bundle.segment(picture, "lidc", return_members=True, device="cpu")
    members = found.members.argmax(axis=1) > 0
    assert np.median([dice(member, nodule) for member in members]) > 0.7
    assert len({int(member.sum()) for member in members}) > 1


@pytest.mark.parametrize("task", ["hippocampus", "isic", "lidc"])
def test_parts_do_what_the_cards_say(task):
    """What does nothing is left out; without what U-SA has learned the mask is the same, but for single voxels."""
    volume = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"
    image = {"hippocampus": volume, "isic": drawn_lesion()[0], "lidc": drawn_nodule()[0]}[task]
    segmenter = medsegdiff_bundle.Segmenter(task, device="cpu")
    assert [part for part in PARTS if has_part(segmenter.network, part)] == ["no_spatial_attention"]
    whole = segmenter(image).mask > 0
    with switched_off(segmenter.network, "no_spatial_attention"):
        found = segmenter(image).mask > 0
    assert dice(found, whole) > 0.98
    assert task != "hippocampus" or (found != whole).any()
    with pytest.MonkeyPatch.context() as patch:  # as it would be if a part did something
        patch.setattr(segmenter.network.denoiser, "forward", lambda mask, *features: -100 * mask)
        assert dice(segmenter(image).mask > 0, whole) < 0.98


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.pt")), ids=lambda path: path.stem)
def test_weights_are_flat_finite_and_small(path):
    assert path.stat().st_size <= 25e6
    weights = torch.load(path, weights_only=True)
    assert all(isinstance(weight, torch.Tensor) and weight.isfinite().all() for weight in weights.values())


def test_every_task_has_weights():
    weights = set()
    for path in (ROOT / "configs" / "tasks").glob("*.json"):
        task = configuration.load([ROOT / "configs" / "inference.json", path], {"bundle_root": str(ROOT)})
        weights.add(task.get_parsed_content("checkpoint"))
    assert weights == {*map(str, (ROOT / "models").glob("*.pt")), None}  # of other structures there are none
