"""The scripts behind the tables and figures of the cards: robustness, sampling, figures, averages of weights."""

import json
import sys
from pathlib import Path

import average_weights
import baseline_table
import card_figures
import leave_out_parts
import numpy as np
import pytest
import robustness_table as robustness
import split_table
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Zoomd
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from medsegdiff_bundle import cli, configuration

ROOT = Path(__file__).parent.parent


def test_no_shift_changes_nothing_but_the_rounding():
    image = torch.rand(3, 20, 30) * 500 - 100
    found = robustness.shifted(image, lambda unit: unit)
    assert (found - image).abs().max() <= 0.51 * (image.max() - image.min()) / 255


@pytest.mark.parametrize("name", [*robustness.SHIFTS, *robustness.COLOUR_SHIFTS, *robustness.SOURCE_SHIFTS])
def test_a_shift_stays_in_the_range_of_the_image(name):
    image = torch.rand(3, 20, 30) * 500 - 100
    found = robustness.STEPS[name]["func"](image)
    assert found.shape == image.shape and not torch.equal(found, image)
    assert image.min() - 1e-3 <= found.min() and found.max() <= image.max() + 1e-3


def test_shifts_do_what_they_say():
    image = torch.tensor([[0.0, 1.0, 0.25], [0.0, 1.0, 0.5], [0.0, 1.0, 0.75]])[:, None]
    shifts = {name: robustness.shifted(image, each)[:, 0, 2] for name, each in robustness.COLOUR_SHIFTS.items()}
    torch.testing.assert_close(shifts["grey"], torch.full((3,), 0.5), atol=0.002, rtol=0)
    torch.testing.assert_close(shifts["vivid"], torch.tensor([0.1, 0.5, 0.9]), atol=0.002, rtol=0)
    gamma = robustness.shifted(image, robustness.SHIFTS["gamma 2"])[:, 0, 2]
    torch.testing.assert_close(gamma, torch.tensor([0.0625, 0.25, 0.5625]), atol=0.002, rtol=0)


def test_shifts_of_another_source():
    grey = torch.rand(1, 20, 30).expand(3, -1, -1)
    mixed, marked = (robustness.STEPS[name]["func"](grey) for name in ("other colours", "sticker"))
    assert (mixed - grey).abs().max() < 0.01
    where = (marked - grey).abs().max(dim=0).values > 0.01
    assert where[10, 25:].all() and not where[:, :20].any() and not where[:4].any()


def test_half_the_size_is_undone():
    """What the network gives comes back to where the image was, enlarged."""
    waves = torch.linspace(0, 3, 40).sin()[:, None] * torch.linspace(0, 2, 60).cos()
    zoom = robustness.STEPS["half the size"]
    transform = Compose([Zoomd(**{key: value for key, value in zoom.items() if key != "_target_"})])
    case = transform({"image": MetaTensor(waves[None])})
    torch.testing.assert_close(case["image"][0, 10:30, 15:45].as_tensor(), waves[::2, ::2], atol=0.1, rtol=0)
    assert torch.equal(case["image"][0, :10], case["image"][0, 10:11].expand(10, -1))  # the border, repeated
    torch.testing.assert_close(transform.inverse(case)["image"][0].as_tensor(), waves, atol=0.1, rtol=0)


def test_a_shift_of_colours_needs_colours(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["robustness_table.py", "--networks", "ours=none.pt", "--shifts", "noise", "grey"])
    with pytest.raises(ValueError, match="The shift 'grey' is one of colours, and the images have none."):
        robustness.main()


def test_the_robustness_table_of_named_shifts(run_script):
    options = ["--networks", f"ours={ROOT / 'models' / 'model.pt'}", "--cases", "1"]
    options += ["--shifts", "half the size", "noise", "--overrides", "anchor_only=true", "mirror_axes=[]"]
    head, _, *rows = run_script(robustness, *options).splitlines()
    assert head == "| network | as it is | half the size | noise |"
    usual, half, noise = (float(cell) for cell in rows[0].split("|")[2:5])
    assert usual > 0.8 and -0.15 < half < -0.03 and abs(noise) < 0.1  # voxels of 2 mm are resampled to 1 mm


def test_the_robustness_table(run_script, monkeypatch):
    """Of two of the usual shifts."""
    usual = {name: robustness.SHIFTS[name] for name in ("half the contrast", "noise")}
    monkeypatch.setattr(robustness, "SHIFTS", usual)
    options = ["--networks", f"ours={ROOT / 'models' / 'model.pt'}", "--cases", "1", "--overrides", "ensemble_size=2"]
    lines = run_script(robustness, *options).splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert table[0] == ["network", "as it is", *usual]  # a volume has no colours
    assert [row[0] for row in table[2:]] == ["ours, anchor", "ours, anchor, mirrored", "ours, fused"]
    assert all(float(row[1]) > 0.8 and abs(float(row[2])) < 0.01 for row in table[2:])  # the contrast is normalised


def halves(first, length=10, width=4):
    """A block of classes (1, X, Y, Z), anterior from slice `first` of Y on, with two empty slices at either end."""
    label = torch.zeros(1, 6, length, 6, dtype=torch.long)
    label[:, 1 : 1 + width, 2:first, 1:5], label[:, 1 : 1 + width, first:-2, 1:5] = 2, 1
    return label


@pytest.mark.parametrize("first", [3, 4, 7])
def test_the_plane_between_two_parts(first):
    label = halves(first)
    assert split_table.plane(label) == first
    torch.testing.assert_close(split_table.parted(label, first), label)
    label[0, 1, first, 1] = 2  # a voxel on the wrong side does not move it
    assert split_table.plane(label) == first and not torch.equal(split_table.parted(label, first), label)


def test_a_mask_of_one_part_has_its_plane_at_an_end():
    label = halves(4)
    assert split_table.plane((label > 0).long()) <= 2  # all anterior
    assert split_table.plane(2 * (label > 0).long()) >= 8  # all posterior


def test_outline_and_plane_are_told_apart():
    label = halves(5)
    other_plane = split_table.measured(halves(4), label)
    assert other_plane[1:3] == [1, 1] and other_plane[0] == other_plane[3] < 0.9 and other_plane[4] == 1
    other_outline = split_table.measured(halves(5, width=3), label)
    assert other_outline[3:] == [1, 0] and other_outline[0] == other_outline[2] == pytest.approx(6 / 7)


def test_the_table_of_outline_and_plane(run_script):
    first, _, *table = run_script(split_table, "--cases", "1").splitlines()
    assert first in [f"A plane parts the label exactly in {exact} of 1 cases." for exact in (0, 1)]
    rows = {cells[1].strip(): cells[2:-1] for cells in (line.split("|") for line in table[2:])}
    assert list(rows) == ["ours, anchor", "ours, anchor, mirrored", "ours, fused"]
    for cells in rows.values():
        mask, together, *parted = (float(cell.split("±")[0]) for cell in cells)
        assert 0.8 < mask < together < 1 and all(mask < value <= 1 for value in parted[:2]) and parted[2] < 4


def test_a_class_that_is_missed_has_no_distance():
    label = torch.zeros(1, 8, 8)
    label[0, 2:4, 2:4] = 1
    label[0, 5:7, 5:7] = 2
    found = torch.where(label == 2, 0, label)  # class 2 is missed
    dice, distance, _ = baseline_table.measure(found, label, 4, [1.0, 1.0], 1.0)
    assert distance[:2].tolist() == [0, torch.inf] and distance[2].isnan()  # nobody marks class 3
    assert dice[:2].tolist() == [1, 0] and dice[2].isnan()
    invented = baseline_table.measure(label, found, 4, [1.0, 1.0], 1.0)[1]
    assert invented[1] == torch.inf


def test_members_in_the_space_of_the_file(tmp_path, capsys):
    """The network sees a part of the picture; the table measures on the whole."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    grey, raters = np.full((128, 128), 60, np.uint8), np.zeros((128, 128), np.uint8)
    grey[56:72, 56:72], raters[56:72, 56:72] = 200, 15
    for name in ("a_n1_s1", "b_n1_s1"):
        Image.fromarray(grey).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(raters).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a_n1_s1"], "val": ["b_n1_s1"]}))
    options = [str(tmp_path), "--task", "lidc", "--checkpoint", str(ROOT / "models" / "lidc.pt")]
    options += ["--steps", "1", "--members", "1", "2", "--csv", str(tmp_path / "cases.csv")]
    assert cli.main(["sweep", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [(row[1], row[2], row[3]) for row in table] == [("1", m, f) for m in "12" for f in ("mean", "staple")]
    assert all(float(row[4]) > 0.5 and float(row[8]) > 0.5 and 0.5 < float(row[9]) < 2 for row in table)
    assert all(0.5 < float(cell) <= 1 for row in table for cell in row[10:12])  # all readers alike
    cases = [line.split(",") for line in (tmp_path / "cases.csv").read_text().splitlines()[1:]]
    assert [case[4] for case in cases] == ["b_n1_s1"] * 4
    for case, row in zip(cases, table, strict=True):
        assert [float(value) for value in case[5:7]] == pytest.approx([float(row[7]), float(row[8])], abs=1e-3)


def test_figures_of_the_card(run_script, tmp_path):
    with SummaryWriter(tmp_path / "run") as writer:
        for epoch in range(1, 4):
            writer.add_scalar("train_loss/anchor", 1 / epoch, epoch)
            writer.add_scalar("val_dice_fused/anterior", 0.9, epoch)
    options = ["--runs", str(tmp_path / "run"), "--figures", str(tmp_path / "figures"), "--cases", "3"]
    run_script(card_figures, *options, "--overrides", "ensemble_size=2")
    figures = {file.name: Image.open(file) for file in (tmp_path / "figures").iterdir()}
    assert set(figures) == {"hippocampus_cases.png", "hippocampus_curves.png"}
    assert all(min(picture.size) > 200 and len(picture.getcolors(1 << 20)) > 20 for picture in figures.values())


def test_mean_of_weights(run_script, tmp_path):
    flat, ema = {"a": torch.ones(2), "n": torch.tensor(3)}, {"a": torch.full((2,), 3.0), "n": torch.tensor(5)}
    torch.save(flat, tmp_path / "model.pt")
    torch.save({"network": flat, "ema_network": ema, "epoch": 1}, tmp_path / "last.ckpt")
    checkpoints = [str(tmp_path / name) for name in ("model.pt", "last.ckpt")]
    run_script(average_weights, *checkpoints, "--output", str(tmp_path / "mean.pt"))
    found = torch.load(tmp_path / "mean.pt", weights_only=True)
    assert found.keys() == flat.keys() and found["a"].tolist() == [2, 2] and found["n"] == 3
    torch.save({"a": torch.ones(3), "n": torch.tensor(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="other.pt' are weights of different networks"):
        run_script(average_weights, checkpoints[0], str(tmp_path / "other.pt"), "--output", str(tmp_path / "none.pt"))
    assert not (tmp_path / "none.pt").exists()


def test_parts_that_a_task_has_not_are_left_out(tmp_path, run_script):
    files = [ROOT / "configs" / "inference.json", ROOT / "configs" / "tasks" / "lidc.json"]
    given = {"bundle_root": str(ROOT), "network_def#num_transformer_blocks": 1}
    whole = configuration.load(files, given).get_parsed_content("network_def").state_dict()
    torch.save(whole, tmp_path / "whole.pt")
    run_script(leave_out_parts, str(tmp_path / "whole.pt"), "--task", "lidc", "--output", str(tmp_path / "less.pt"))
    found = torch.load(tmp_path / "less.pt", weights_only=True)
    assert found.keys() == {name for name in whole if not name.startswith("denoiser.transformer.")} < whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in found)
    del whole["condition_model.head.weight"]
    torch.save(whole, tmp_path / "whole.pt")
    with pytest.raises(RuntimeError, match="condition_model.head.weight"):
        run_script(leave_out_parts, str(tmp_path / "whole.pt"), "--task", "lidc", "--output", str(tmp_path / "none.pt"))
    assert not (tmp_path / "none.pt").exists()
