"""A `Segmenter`: loaded once, called often; and what it is given is never a program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import medsegdiff_bundle
from medsegdiff_bundle import cli, configuration

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
NETWORK = {"network_def#channels": [4, 8, 8], "network_def#num_heads": 2, "network_def#token_size": 8}
NETWORK |= {"network_def#num_transformer_blocks": 1}  # which the task leaves out


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A network of a few thousand weights on the CPU."""
    parser = configuration.load([CONFIGS / "inference.json"], {**NETWORK, "bundle_root": str(ROOT)})
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), file)
    return {**NETWORK, "checkpoint": str(file), "ensemble_size": 2, "device": "cpu"}


def volume(file, shape=(12, 14, 16), seed=0, affine=None):
    values = np.random.default_rng(seed).random(shape, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), file)
    return values


def test_calls_are_as_alone(settings, tmp_path, monkeypatch):
    """Whatever came before: another image, a bad one, a folder, an array, an error of the caller's."""
    monkeypatch.chdir(tmp_path)
    arrays = [volume(f"{name}.nii.gz", seed=seed) for seed, name in enumerate("abc")]
    alone = [medsegdiff_bundle.segment(f"{name}.nii.gz", **settings) for name in "abc"]
    volume("two.nii.gz", (12, 14, 16, 2))
    segmenter = medsegdiff_bundle.Segmenter(**settings)
    loads = []
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: loads.append(arguments))
    for expected, name in zip(alone, "abc", strict=True):
        found = segmenter(f"{name}.nii.gz")
        np.testing.assert_array_equal(found.mask, expected.mask)
        np.testing.assert_array_equal(found.uncertainty, expected.uncertainty)
        assert found.report["structures"] == expected.report["structures"] and found.name == name
        with pytest.raises(ValueError, match="two.nii.gz' has 2 channel"):
            segmenter("two.nii.gz")
        with pytest.raises(KeyError, match="mine"):
            segmenter("b.nii.gz", on_result=lambda result: {}["mine"])
    failed = {}
    results = segmenter(tmp_path, on_failure=failed.__setitem__, return_members=True)
    assert [result.name for result in results] == ["a", "b", "c"] and len(failed) == 1
    assert results[0].members.shape == (2, 3, 12, 14, 16)
    found = segmenter(arrays[2])
    np.testing.assert_array_equal(found.mask, alone[2].mask)
    assert found.members is None and found.mask_file is None
    assert not loads


def test_its_parts(settings):
    """They work without it: the network as the inferer calls it."""
    segmenter = medsegdiff_bundle.Segmenter(**settings)
    assert not segmenter.network.training and segmenter.class_names == ("anterior", "posterior")
    members = segmenter.inferer(torch.rand(1, 1, 16, 16, 16), segmenter.network)
    assert members.shape == (1, 2, 3, 16, 16, 16)
    assert segmenter.spatial_dims == 3 and callable(segmenter.preprocessing) and callable(segmenter.postprocessing)


def test_nothing_is_written_for_an_array(settings, tmp_path, monkeypatch):
    """Neither on the way in nor, without a folder, on the way out, nor is a file of that name looked at."""
    monkeypatch.chdir(tmp_path)
    image = volume("image.nii", (4, 4, 4))
    before = (tmp_path / "image.nii").read_bytes()
    segmenter = medsegdiff_bundle.Segmenter(**settings)
    opened = []
    sys.addaudithook(lambda event, words: opened.append(words) if event == "open" and opened is not None else None)
    opened.clear()
    found = segmenter(np.random.default_rng(1).random((12, 14, 16)), affine=np.diag([1, 1, 2, 1]))
    written = [words for words in list(opened) if isinstance(words[1], str) and set(words[1]) & set("wax+")]
    named = [words for words in list(opened) if str(words[0]).endswith((".nii", ".nii.gz", ".png"))]
    assert not written and not named
    assert found.mask.shape == (12, 14, 16) and found.report["input"]["spacing"] == [1, 1, 2]
    assert (
        os.listdir() == ["image.nii"] and (tmp_path / "image.nii").read_bytes() == before and image.shape == (4, 4, 4)
    )


def test_the_results_of_an_array(settings, tmp_path):
    values = volume(tmp_path / "file.nii.gz", affine=np.diag([1.0, 1, 2, 1]))
    segmenter = medsegdiff_bundle.Segmenter(output_dir=tmp_path / "out", **settings)
    of_file, of_array = segmenter(tmp_path / "file.nii.gz"), segmenter(values, affine=np.diag([1, 1, 2, 1]))
    np.testing.assert_array_equal(of_array.mask, of_file.mask)
    assert of_array.mask_file == tmp_path / "out" / "image_seg.nii"
    mask = nibabel.load(of_array.mask_file)
    np.testing.assert_array_equal(mask.dataobj, of_array.mask)
    np.testing.assert_allclose(mask.affine, np.diag([1, 1, 2, 1]))
    report = json.loads((tmp_path / "out" / "image_report.json").read_text())
    assert report["input"]["file"] == "image.nii" and report["structures"] == of_file.report["structures"]
    assert {"image_overlay.png", "image_report.html", "image_uncertainty.nii"} <= set(os.listdir(tmp_path / "out"))


PROGRAM = "$open('ran', 'w').write('x')"
TAKEN = ("class_names", "modality", "output_ext", "also_write", "bundle_root")  # some for what is not done here
TEXTS = [PROGRAM, "@seed", "%seed", "$@seed + 1", "$import turtle"]


@pytest.mark.parametrize("text", [PROGRAM, "@seed"])
@pytest.mark.parametrize(
    "name",
    [
        *("seed", "fusion", "output", "device", "checkpoint", "num_inference_steps", "anchor_only", "class_names"),
        *("roi_size", "output_ext", "modality", "also_write", "network_def#act", "volume_ranges", "bundle_root"),
        *("imports", "initialize", "scheduler#schedule"),
    ],
)
def test_a_setting_is_no_program(name, text, settings, tmp_path, monkeypatch):
    """It is refused, or taken as the text that it is."""
    monkeypatch.chdir(tmp_path)
    volume("a.nii.gz")
    given = {**settings, name: text}
    for call in (
        lambda: medsegdiff_bundle.segment("a.nii.gz", output_dir="out", **given),
        lambda: medsegdiff_bundle.Segmenter(**given)("a.nii.gz"),
        lambda: medsegdiff_bundle.Segmenter(**{**given, name: [text]})("a.nii.gz"),
        lambda: medsegdiff_bundle.Segmenter(**{**given, name: {"key": text}})("a.nii.gz"),
    ):
        try:
            result = call()
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert name in TAKEN and result.mask.shape == (12, 14, 16)
    assert "turtle" not in sys.modules and not Path("ran").exists()


@pytest.mark.parametrize("text", TEXTS)
def test_a_path_is_no_program(text, settings, tmp_path, monkeypatch):
    """Files and folders of such names are files and folders."""
    monkeypatch.chdir(tmp_path)
    text = text.replace("/", "")
    expected = medsegdiff_bundle.segment(volume("a.nii.gz"), **settings)
    os.rename("a.nii.gz", f"{text}.nii.gz")
    Path(f"{text}.pt").write_bytes(Path(settings["checkpoint"]).read_bytes())
    given = {**settings, "checkpoint": f"{text}.pt"}
    found = medsegdiff_bundle.segment(f"{text}.nii.gz", output_dir=text, **given)
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert found.mask_file == Path(text) / f"{text}_seg.nii.gz" and found.mask_file.is_file()
    with pytest.raises(ValueError, match="There is no task"):
        medsegdiff_bundle.segment(f"{text}.nii.gz", text, **given)
    with pytest.raises(ValueError, match="cannot be read"):
        medsegdiff_bundle.segment(f"{text}.nii.gz", like=f"{text}.nii.gz", **given)
    assert not Path("ran").exists()


@pytest.mark.parametrize("text", TEXTS)
def test_a_word_of_the_command_line_is_no_program(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    volume("a.nii.gz")
    for words in (
        *([option, text] for option in ("--seed", "--fusion", "--device", "--checkpoint", "--steps", "--task")),
        *(["--set", f"{name}={text}"] for name in ("output", "roi_size", "network_def#act", "bundle_root", "imports")),
        ["--anchor_only", text],
    ):
        assert cli.main(["segment", "a.nii.gz", "-o", "out", *words]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "turtle" not in sys.modules and os.listdir() == ["a.nii.gz"]


def test_pictures(tmp_path):
    """Of skin, with the shipped weights: an array, and the file of the same picture."""
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    segmenter = medsegdiff_bundle.Segmenter("isic", device="cpu", ensemble_size=1)
    np.testing.assert_array_equal(segmenter(picture).uncertainty, segmenter(tmp_path / "a.png").uncertainty)
    with pytest.raises(ValueError, match=r"The task takes arrays of 2 axes"):
        segmenter(picture[None, None])


def test_it_is_imported_when_it_is_asked_for():
    code = (
        "import sys, medsegdiff_bundle; assert 'torch' not in sys.modules; "
        "from medsegdiff_bundle import quick_start; sys.modules.update(dict.fromkeys(quick_start.UNUSED)); "  # seconds
        "print(medsegdiff_bundle.Segmenter.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "Segmenter True\n", done.stderr
