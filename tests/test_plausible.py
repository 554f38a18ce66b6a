"""Images in which nothing can be found, and images of something else than the weights know."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from medsegdiff_bundle.__main__ import main
from medsegdiff_bundle.remarks import remarks
from medsegdiff_bundle.transforms import CheckImaged, WarnUncertaind
from medsegdiff_bundle.visualization import grey_window

ROOT = Path(__file__).parent.parent
VOLUME = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"


def checked(values, **given):
    """Warnings of an image (C, S)."""
    image = MetaTensor(torch.as_tensor(values), meta={"filename_or_obj": "a.nii.gz"})
    found = CheckImaged("image", **given)({"image": image})
    return remarks(found["image"].meta)["warnings"]


@pytest.mark.parametrize("value", [0.0, -1024.0, 255.0])
def test_an_image_of_one_value(value):
    values = torch.full((1, 4, 5, 6), value)
    with pytest.raises(ValueError, match=f"'a.nii.gz' has the value {value:g} everywhere: there is nothing to find"):
        checked(values)
    (said,) = checked(values, force=True)
    assert said.startswith(f"The image has the value {value:g} everywhere")
    values[0, 0, 0, 0] += 1
    assert checked(values) == []


def test_a_picture_of_one_colour():
    values = torch.tensor([200.0, 120, 90])[:, None, None].repeat(1, 8, 8)
    with pytest.raises(ValueError, match="'a.nii.gz' has the values 200, 120, 90 everywhere: there is nothing to find"):
        checked(values, modality="dermoscopy")
    (said,) = checked(values, modality="dermoscopy", force=True)
    assert said.startswith("The image has the values 200, 120, 90 everywhere")
    values[1, 0, 0] += 1
    assert not any("everywhere" in sentence for sentence in checked(values, modality="dermoscopy"))


@pytest.mark.parametrize(
    ("lowest", "highest", "modality", "warned"),
    [
        (-1024, 1500, "MR", True),
        (-1000, 300, "MR", True),
        (-3, 5, "MR", False),  # normalised by someone
        (0, 4095, "MR", False),
        (-1024, 1500, "CT", False),
        (-1024, 1500, None, False),
    ],
)
def test_hounsfield_units(lowest, highest, modality, warned):
    said = checked(torch.linspace(lowest, highest, 64).reshape(1, 4, 4, 4), modality=modality)
    assert [f"from {lowest} to {highest}, as CT has" in sentence for sentence in said] == [True] * warned


@pytest.mark.parametrize("padding", [-1024, -2000, -32768])
def test_magnitudes_that_a_program_padded_with_a_value_as_of_air(padding):
    """As converters fill what lies outside the field of view; CT beside such padding is still CT."""
    tissue = torch.rand(1, 12, 12, 12, generator=torch.Generator().manual_seed(0)) * 800
    padded = torch.nn.functional.pad(tissue, (4,) * 6, value=float(padding))
    assert checked(padded, modality="MR") == []
    window = grey_window(padded)
    assert (window.name, 0 <= window.low < 20, 700 < window.high <= 800) == ("", True, True)
    body = torch.nn.functional.pad(tissue - 150, (4,) * 6, value=float(padding))
    assert len(checked(body, modality="MR")) == 1
    assert grey_window(body).name == ("CT, soft tissue" if padding == -1024 else "")


@pytest.mark.parametrize(
    ("said", "known", "warned"), [("CT", "MR", 1), ("MR", "MR", 0), ("MR", "CT", 1), ("US", None, 0)]
)
def test_the_modality_that_a_file_names(said, known, warned):
    image = MetaTensor(torch.rand(1, 4, 4, 4), meta={"filename_or_obj": "series", "Modality": said})
    found = remarks(CheckImaged("image", modality=known)({"image": image})["image"].meta)["warnings"]
    assert found == [f"The file says that it is {said}; the weights know {known}."] * warned


def test_a_picture_without_colours():
    grey = torch.rand(1, 8, 8).expand(3, 8, 8) * 255
    assert checked(grey, modality="dermoscopy") == [
        "The picture has no colours; the weights know photographs of skin in colour."
    ]
    assert checked(grey, modality="CT") == []
    assert checked(torch.stack([grey[0], 0.7 * grey[0], 0.6 * grey[0]]), modality="dermoscopy") == []


@pytest.mark.parametrize(
    ("inside", "limit", "warned"), [(0.3, 0.2, True), (0.1, 0.2, False), (0.3, None, False), (None, 0.2, False)]
)
def test_members_that_are_unsure(inside, limit, warned):
    mask, uncertainty = torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.9)  # at its border, say
    if inside is not None:
        mask[0, 1], uncertainty[0, 1] = 2, inside
    data = {"image": MetaTensor(torch.zeros(1, 4, 4)), "pred": mask, "uncertainty": uncertainty, "result": {}}
    said = WarnUncertaind("pred", limit)(data)["result"].get("warnings", [])
    assert len(said) == warned


def test_from_a_shell(tmp_path, capsys):
    """With the shipped weights: a constant volume is refused and taken with --force, CT is warned about."""
    constant = nibabel.Nifti1Image(np.full((16, 16, 16), 7, dtype=np.int16), np.eye(4))
    nibabel.save(constant, tmp_path / "empty.nii.gz")
    words = ["-o", str(tmp_path / "out"), "--members", "1", "--device", "cpu"]
    assert main(["segment", str(tmp_path / "empty.nii.gz"), *words]) == 1
    assert "empty.nii.gz' has the value 7 everywhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["segment", str(tmp_path / "empty.nii.gz"), *words, "--force"]) == 0
    said = json.loads((tmp_path / "out" / "empty_report.json").read_text())["warnings"]
    assert any("has the value 7 everywhere" in sentence for sentence in said)
    image = nibabel.load(VOLUME)
    values = np.asarray(image.dataobj, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(values * 3000 / values.max() - 1024, image.affine), tmp_path / "ct.nii.gz")
    capsys.readouterr()
    assert main(["segment", str(tmp_path / "ct.nii.gz"), *words]) == 0
    said = json.loads((tmp_path / "out" / "ct_report.json").read_text())["warnings"]
    assert any("as CT has in Hounsfield units; the weights know MR" in sentence for sentence in said)


def test_noise_and_a_grey_picture(tmp_path, capsys):
    noise = np.random.default_rng(0).normal(size=(36, 50, 36)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), tmp_path / "noise.nii.gz")
    assert main(["segment", str(tmp_path / "noise.nii.gz"), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    said = json.loads((tmp_path / "out" / "noise_report.json").read_text())["warnings"]
    assert any(sentence.startswith("The mean uncertainty inside the mask is ") for sentence in said)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / "grey.png")
    words = ["--task", "isic", "--anchor-only", "--mirror_axes", "[]", "--device", "cpu"]
    assert main(["segment", str(tmp_path / "grey.png"), "-o", str(tmp_path / "out"), *words]) == 0
    said = json.loads((tmp_path / "out" / "grey_report.json").read_text())["warnings"]
    assert any("has no colours" in sentence for sentence in said)
