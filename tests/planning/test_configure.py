"""From a folder to settings, and what is refused."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from medsegdiff_bundle import cli, configuration
from medsegdiff_bundle.datalist import read_data_set
from medsegdiff_bundle.planning import check_data_set, measure, plan
from medsegdiff_bundle.planning.configure import _renamed, budget_of
from medsegdiff_bundle.planning.duration import Budget, Plan, set_duration, windows_of
from medsegdiff_bundle.planning.fingerprint import take_fingerprint
from medsegdiff_bundle.planning.measure import Cost
from medsegdiff_bundle.planning.plan import STEPS, line
from medsegdiff_bundle.settings import typed


@pytest.fixture(autouse=True)
def costs(no_measurements):
    """All tests here."""


def configured(tmp_path, root, *words):
    status = cli.main(["configure", str(root), "-o", str(tmp_path / "mine.json"), "-d", "cpu", *words])
    assert status == 0
    return json.loads((tmp_path / "mine.json").read_text()), (tmp_path / "mine.md").read_text()


def test_the_fingerprint_counts_fractions(tmp_path, make_ct_set):
    """DataAnalyzer's "percentage" is a fraction, and its percentiles are those of the foreground."""
    data_set = read_data_set(make_ct_set(tmp_path))
    facts, _ = check_data_set(data_set)
    found = take_fingerprint(data_set, facts, data_set.cases)
    assert found.median_shape == (40, 48, 16)
    np.testing.assert_allclose(found.median_spacing, (0.8, 0.8, 2.5), rtol=1e-5)
    assert found.class_cases == (6, 6, 6)
    np.testing.assert_allclose(found.class_shares[1:], [2040 / 30720, 8 / 30720], rtol=0.02)
    assert abs(found.foreground[0]["mean"] - 100) < 2 and 9 < found.foreground[0]["stdev"] < 15
    assert 60 < found.foreground[0]["percentile_00_5"] < 80 and 115 < found.foreground[0]["percentile_99_5"] < 140


def test_the_fingerprint_counts_segments_by_their_names(tmp_path, make_ct_set):
    """3D Slicer numbers them as they are drawn."""
    root = make_ct_set(tmp_path)
    data_set = read_data_set(root)
    plain = take_fingerprint(data_set, check_data_set(data_set)[0], data_set.cases)
    for file in sorted((root / "labelsTr").iterdir()):
        label = SimpleITK.ReadImage(str(file))
        drawn = SimpleITK.ChangeLabel(SimpleITK.Cast(label, SimpleITK.sitkUInt8), {1: 7, 2: 3})
        for index, (number, name) in enumerate(((3, "tumour"), (7, "liver"))):
            for key, value in {"ID": f"S{index}", "Name": name, "LabelValue": str(number), "Layer": "0"}.items():
                drawn.SetMetaData(f"Segment{index}_{key}", value)
        SimpleITK.WriteImage(drawn, str(file).replace(".nii.gz", ".nrrd"))
        file.unlink()
    for file in sorted((root / "imagesTr").iterdir()):
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)), str(file).replace(".nii.gz", ".nrrd"))
        file.unlink()
    (root / "dataset.json").write_text((root / "dataset.json").read_text().replace(".nii.gz", ".nrrd"))
    data_set = read_data_set(root)
    facts, faults = check_data_set(data_set)
    assert not [fault for fault in faults if fault.fatal]
    found = take_fingerprint(data_set, facts, data_set.cases)
    assert found.class_shares == pytest.approx(plain.class_shares) and found.class_cases == plain.class_cases


def test_ct(tmp_path, make_ct_set):
    entries, page = configured(tmp_path, make_ct_set(tmp_path / "set"), "--memory", "8GB", "--hours", "1")
    assert entries["class_names"] == ["liver", "tumour"] and entries["modality"] == "CT"
    assert entries["spacing"] == [0.8, 0.8, 2.5] and entries["image_channels"] == 1
    assert 60 < entries["window"][0] < 80 and 115 < entries["window"][1] < 140
    assert abs(sum(entries["window_values"])) < 1
    assert entries["network_def#strides"][0] == [2, 2, 1], "z waits until x and y caught up"
    assert entries["roi_size"] is None and entries["patch_size"][0] >= 40
    assert entries["mirror_axes"] == [0]
    for name in ("spacing", "patch_size", "batch_size", "epochs", "network_def#strides", "mirror_axes"):
        assert f"| `{name}` |" in page
    assert "CT has units" in page and "1 h on cpu with 8 GB" in page


def test_volumes_larger_than_the_patch_have_windows_and_balanced_classes(tmp_path, make_ct_set):
    root = make_ct_set(tmp_path / "set", (64, 72, 40), (1, 1, 1))
    entries, page = configured(tmp_path, root, "--memory", "2GB", "--hours", "1")
    assert np.prod(entries["patch_size"]) < 64 * 72 * 40
    assert entries["roi_size"] == entries["patch_size"]
    assert entries["class_ratios"] == [0.3333, 0.3333, 0.3333] and "0.004%" in page


def test_less_memory_and_time_make_less(tmp_path, make_ct_set):
    root = make_ct_set(tmp_path / "set", (96, 96, 96), (1, 1, 1))
    sizes = []
    for words in (("--memory", "100GB", "--hours", "40"), ("--memory", "3GB", "--hours", "40"), ("--hours", "0.2")):
        entries, _ = configured(tmp_path, root, *words, "--overwrite")
        sizes.append((entries["network_def#channels"][0], int(np.prod(entries["patch_size"]))))
    assert sizes[0] == (16, 96**3)
    assert sizes[1][1] < 96**3 and sizes[2] < sizes[1]
    amount = 2 * sizes[1][0] * sizes[1][1] * 1000
    assert 0.5 * 0.8 * 3e9 < amount <= 0.8 * 3e9, "the largest that fits"


def test_classes_with_sides_are_not_mirrored(tmp_path, make_ct_set):
    root = make_ct_set(tmp_path / "set")
    names = "['left kidney', 'right kidney']"
    entries, page = configured(tmp_path, root, "--class-names", names)
    assert entries["mirror_axes"] == [] and entries["class_names"] == ["left kidney", "right kidney"]
    assert "a mirror image would call them by the other name" in page


def test_pictures(tmp_path):
    from PIL import Image

    random = np.random.default_rng(0)
    for name in "abcdef":
        for folder, values in (
            ("images", random.integers(0, 255, (90, 120, 3))),
            ("masks", 255 * random.integers(0, 2, (90, 120))),
        ):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / "set" / folder / f"{name}.png")
    entries, _ = configured(tmp_path, tmp_path / "set", "--memory", "8GB")
    assert (entries["spatial_dims"], entries["image_channels"]) == (2, 3)
    assert entries["picture_size"] == entries["patch_size"] == [128, 96]
    assert entries["class_names"] == ["foreground"] and "spacing" not in entries


def test_two_classes_whose_background_is_not_zero(tmp_path):
    from PIL import Image

    random = np.random.default_rng(0)
    mask = np.full((40, 50), 255, np.uint8)
    mask[10:20, 10:30] = 0
    cases = []
    for name in "abcdef":
        Image.fromarray(random.integers(0, 255, (40, 50)).astype(np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / f"{name}_m.png")
        cases.append({"image": f"{name}.png", "label": f"{name}_m.png"})
    table = {"cases": cases, "class_names": ["nodule"], "class_values": [255, 0]}
    (tmp_path / "cases.json").write_text(json.dumps(table))
    entries, _ = configured(tmp_path, tmp_path / "cases.json", "--memory", "8GB")
    assert entries["class_values"] == [255, 0]
    root = Path(__file__).parent.parent.parent
    files = [root / "configs" / "train.json", root / "configs" / "tasks" / "other.json", tmp_path / "mine.json"]
    config = configuration.load(files, {"bundle_root": str(root), "device": "cpu"})
    case = config.get_parsed_content("validate#dataset#data")[0]
    label = config.get_parsed_content("validate#preprocessing")(case)["label"]
    assert int(label.sum()) == 200


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--memory", "8"], "memory must be like 8GB, of at least 100MB, got '8'"),
        (["--hours", "0"], "hours must be positive, got 0"),
        (["--class-names", "['a']"], "class_names must be 2, one for each value of the labels but 0, got ['a']"),
        (["--class-names", "[3]"], "--class-names must be a list of names"),
    ],
)
def test_what_is_asked_wrongly(tmp_path, capsys, words, sentence, make_ct_set):
    root = make_ct_set(tmp_path / "set")
    assert cli.main(["configure", str(root), "-o", str(tmp_path / "mine.json"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "mine.json").exists()


def test_a_faulty_set_is_not_configured(tmp_path, capsys, make_ct_set):
    root = make_ct_set(tmp_path / "set")
    (root / "labelsTr" / "c1.nii.gz").unlink()
    assert cli.main(["configure", str(root), "-o", str(tmp_path / "mine.json")]) == 2
    said = capsys.readouterr()
    assert "c1  labels  It has no label." in said.out and "has 1 fault: mend or remove" in said.err
    assert not (tmp_path / "mine.json").exists()


def test_an_existing_file_stays(tmp_path, capsys):
    (tmp_path / "mine.json").write_text("{}")
    assert cli.main(["configure", str(tmp_path), "-o", str(tmp_path / "mine.json")]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert (tmp_path / "mine.json").read_text() == "{}"


def test_words_of_memory():
    assert [typed("memory", word) for word in ("8GB", "8 gib", "500MB", "1.5G")] == [
        8 * 10**9,
        2**33,
        5 * 10**8,
        15 * 10**8,
    ]
    assert budget_of(None, 1.0, "cpu").memory <= 8 * 10**9


def test_a_step_is_measured():
    """Twice the batch takes nearly twice the memory for the tensors; weights, gradients and optimizer are in it."""
    network = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [8, 8], "num_heads": 2}
    first, second = (measure.training_cost(network, n, (32, 32), torch.device("cpu"), False, 10**9) for n in (4, 8))
    assert 1.5 < second.memory / first.memory <= 2
    assert first.memory > 16 * first.parameters and first.seconds > 0


def test_the_faster_of_two_windows_counts(monkeypatch):
    """Of all members of one image; the first also pays for what is made once."""
    shapes, times = [], iter([0.0, 9.0, 10.0, 12.0])
    monkeypatch.setattr(measure, "_clock", lambda gpu: next(times))
    sample = measure.EnsembleInferer.__call__
    monkeypatch.setattr(
        measure.EnsembleInferer, "__call__", lambda *words: shapes.append(sample(*words).shape) or torch.zeros(1)
    )
    network = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [8, 8], "num_heads": 2}
    assert measure.window_seconds(network, (16, 24), torch.device("cpu"), False, members=3) == 2
    assert shapes == [(1, 3, 2, 16, 24)] * 2


@pytest.mark.parametrize("kind", [RuntimeError("shape mismatch"), ValueError("no network")])
def test_an_error_of_a_step_that_is_not_of_memory_goes_on(kind, monkeypatch):
    def fail(*args):
        raise kind

    monkeypatch.setattr(measure, "_run_steps", fail)
    with pytest.raises(type(kind), match=str(kind)):
        measure.training_cost({"b": 1}, 2, (8, 8), torch.device("cpu"), False, 10**9)


def test_regions_get_other_names(tmp_path):
    """As many as there are; without regions the classes get them."""
    cases = [{"image": "a.nii", "label": "b.nii"}]
    content = {
        "cases": cases,
        "class_names": ["x", "y"],
        "regions": {"all": [1, 2], "core": [2]},
        "region_order": [1, 2],
    }
    (tmp_path / "cases.json").write_text(json.dumps(content))
    data_set = read_data_set(tmp_path / "cases.json")
    assert _renamed(data_set, ["tumour", "necrosis"]).regions == (("tumour", (1, 2)), ("necrosis", (2,)))
    with pytest.raises(ValueError, match="class_names must be 2, one for each region, got \\['tumour'\\]."):
        _renamed(data_set, ["tumour"])
    (tmp_path / "cases.json").write_text(json.dumps({"cases": cases, "class_names": ["x", "y"]}))
    assert _renamed(read_data_set(tmp_path / "cases.json"), ["liver", "spleen"]).class_names == ("liver", "spleen")


def test_what_does_not_fit_is_said(tmp_path, make_ct_set, capsys, monkeypatch):
    """The smallest network that was tried is taken, with what it keeps not to; what does not run is refused."""
    root = make_ct_set(tmp_path / "set", (96, 96, 96), (1, 1, 1))
    monkeypatch.setattr(plan, "training_cost", lambda *args: Cost(1.0, 4 * 10**9, 1000))
    _, page = configured(tmp_path, root, "--memory", "2GB", "--hours", "40")
    assert "**Nothing that was tried fits 80% of 2 GB: this is the smallest. Measured: 2 x 32 x 32 x 32 take" in page
    assert "warning: Nothing that was tried fits" in capsys.readouterr().err and "The largest with which" not in page
    _, page = configured(tmp_path, root, "--memory", "20GB", "--hours", "0.1", "--overwrite")
    assert "fits 1500 steps in 0.1 h: this" in page
    monkeypatch.setattr(plan, "training_cost", lambda *args: Cost(math.inf, sys.maxsize, 0))
    words = ["configure", str(root), "-o", str(tmp_path / "other.json"), "-d", "cpu", "--memory", "2GB"]
    assert cli.main(words) == 2 and not (tmp_path / "other.json").exists()
    assert "No training step runs in 2 GB on cpu: not even 2 x 32 x 32 x 32 voxels" in capsys.readouterr().err


def test_no_candidate_beyond_the_memory_is_run(tmp_path, make_ct_set, monkeypatch):
    root = make_ct_set(tmp_path / "set", (96, 96, 96), (1, 1, 1))
    ran = []

    def cost(network, batch_size, patch, *rest):
        amount = batch_size * int(np.prod(patch)) * network["channels"][0] * 1000
        ran.append(amount)
        return Cost(1e-3, amount, 1000) if amount <= 3 * 10**9 else Cost(math.inf, sys.maxsize, 0)

    monkeypatch.setattr(plan, "training_cost", cost)
    _, page = configured(tmp_path, root, "--memory", "3GB", "--hours", "40")
    assert max(ran) <= 3 * 10**9 and "The largest with which a step fits 80% of 3 GB" in page


@pytest.mark.parametrize(("slower", "tried", "chosen"), [(10, 1, False), (1, 2, False), (0.5, 2, True)])
def test_bfloat16_is_tried_on_a_larger_patch_unless_it_is_far_slower(
    tmp_path, make_ct_set, monkeypatch, slower, tried, chosen
):
    steps = []

    def cost(network, batch_size, patch, device, amp, limit):
        steps.append((amp, patch))
        return Cost(slower if amp else 1.0, 10**6, 1000)

    monkeypatch.setattr(plan, "training_cost", cost)
    settings, page = configured(tmp_path, make_ct_set(tmp_path / "set"))
    assert steps[: 2 * tried : 2] == [(False, patch) for _, patch in steps[1 : 2 * tried : 2]]
    assert [amp for amp, _ in steps[: 2 * tried]] == [False, True] * tried
    assert settings["amp"] is chosen and f"bfloat16 takes {slower:.2f} times as long as float32 here" in page
    assert chosen or not any(amp for amp, _ in steps[2 * tried :])


def test_a_step_that_runs_out_of_memory(monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(measure, "_run_steps", fail)
    found = measure.training_cost({"a": 1}, 2, (8, 8), torch.device("cpu"), False, 10**9)
    assert math.isinf(found.seconds) and found.memory > 10**15
    lines = line([8, 64], [Cost(0.5, 800, 1), found])
    assert lines.at(16) == Cost(1.0, 1600, 0), "the line of the smaller one"


def test_the_hours_hold_validations_and_checkpoints():
    """480 s of 600 s: of 100 validated cases 50 and 20 validations would take 1000 s."""
    budget = Budget(10**9, 1 / 6, torch.device("cpu"))
    found = Plan(cost=Cost(0.1, 10**9, 1000))
    set_duration(found, (20, 100), 2, budget, of_case=1.0, of_epoch=1.0)
    epochs, stride = found.settings["epochs"], found.settings["val_stride"]
    validations = math.ceil(epochs / found.settings["val_interval"])
    assert validations * math.ceil(100 / stride) + epochs * (10 * 0.1 + 1.0) <= 480
    assert epochs >= 180 and 4 <= validations <= 20
    slow = Plan(cost=Cost(0.1, 10**9, 1000))
    set_duration(slow, (20, 100), 2, budget, of_case=1.0, of_epoch=9.0)
    assert slow.settings["epochs"] * 10.0 <= 480


@pytest.mark.parametrize(
    ("shape", "window", "number"), [((96, 40), None, 1), ((96, 40), (48, 48), 3), ((96, 96), (48, 96), 3)]
)
def test_windows_of_an_image(shape, window, number):
    assert windows_of(shape, window) == number


def test_pages_of_reasons_are_there(tmp_path, make_ct_set):
    _, page = configured(tmp_path, make_ct_set(tmp_path / "set"))
    pages = re.findall(r"docs/[\w/]+\.md", page + " ".join(STEPS.values()))
    assert pages and all((Path(__file__).parents[2] / name).is_file() for name in pages)


def test_regions_are_what_is_learned(tmp_path, make_ct_set):
    root = make_ct_set(tmp_path / "set")
    described = json.loads((root / "dataset.json").read_text())
    described |= {"labels": {"background": 0, "whole organ": [1, 2], "tumour": 2}, "regions_class_order": [1, 2]}
    (root / "dataset.json").write_text(json.dumps(described))
    entries, page = configured(tmp_path, root)
    assert entries["class_names"] == ["whole organ", "tumour"]
    assert entries["regions"] == [[1, 2], [2]] and entries["regions_class_order"] == [1, 2]
    assert "The set names regions (whole organ: value 1 + tumour; tumour: tumour), which are learned." in page


def test_names_of_a_table_are_as_many_as_its_classes(tmp_path, make_ct_set, capsys):
    root = make_ct_set(tmp_path / "set")
    cases = [{"image": f"imagesTr/c{n}_0000.nii.gz", "label": f"labelsTr/c{n}.nii.gz"} for n in range(6)]
    table = {"cases": cases, "class_names": ["organ"], "class_values": [0, 1, 2]}
    (root / "cases.json").write_text(json.dumps(table))
    assert cli.main(["configure", str(root / "cases.json"), "-o", str(tmp_path / "mine.json"), "-d", "cpu"]) == 2
    assert "class_names must be 2, one for each value of the labels but 0, got ['organ']." in capsys.readouterr().err
    assert not (tmp_path / "mine.json").exists()


def test_a_folder_of_the_settings_that_is_not_there_is_made(tmp_path):
    assert measure.epoch_seconds(10, tmp_path / "new" / "folder") > 0
    assert list((tmp_path / "new" / "folder").iterdir()) == []
