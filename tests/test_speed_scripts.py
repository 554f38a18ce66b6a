"""The scripts behind docs/speed.md, at tiny sizes: that they run, and that their numbers fit together."""

import os
import re
import subprocess
import sys
from pathlib import Path

import forks
import full_size_ct
import pytest

from medsegdiff_bundle import cli
from medsegdiff_bundle.planning import plan
from medsegdiff_bundle.planning.measure import Cost

ROOT = Path(__file__).parent.parent
SMALL = ["--size", "16", "16", "16", "--repeats", "1"]


def run(script, *options):
    """What a script prints."""
    command = [sys.executable, str(ROOT / "scripts" / script), *options]
    environment = {**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    return forks.run(command, env=environment, check=True).stdout


def numbers(pattern, text):
    """The numbers of the only place that a pattern matches."""
    (found,) = re.findall(pattern, text)
    return [float(number) for number in ([found] if isinstance(found, str) else found)]


def test_costs():
    options = [*SMALL, "--members", "2", "--members_per_batch", "2", "--contiguous"]
    command = [sys.executable, "-m", "medsegdiff_bundle", "benchmark", *options, "--untuned"]
    output = forks.run(command, cwd=ROOT, check=True).stdout
    assert output.splitlines()[1] == (
        "allocator as it is, channels-last off, float32, mirrored axes 0, compiled off, members per batch 2"
    )
    (ours,) = numbers(r"fused by mean, with map of entropy: ([\d.]+) s", output)
    (naive,) = numbers(r"from one timed step of one: (\d+) s", output)
    (dynunet,) = numbers(r"weights\): ([\d.]+) s", output)
    (ratio,), (passes,) = numbers(r"naive / ours = (\d+)", output), numbers(r"ours / DynUNet = ([\d.]+)", output)
    # Seconds are printed to 0.01, of which there are few.
    assert naive / (ours + 0.006) - 2 <= ratio <= (naive + 1) / (ours - 0.006) + 1
    assert (ours - 0.006) / (dynunet + 0.006) - 0.1 <= passes
    assert 20 < ratio < 2000  # 200 passes of encoder and denoiser against two of each
    ours_size, amount = numbers(r"ours ([\d.]+) M, ([\d.]+)", output)
    assert 2 < ours_size < 4 and amount > 0
    assert 0 < numbers(r"fraction = ([\d.]+)", output)[0] < 1.5


def printed(capsys, *options):
    """What `medsegdiff benchmark` prints, in this process, whose allocator it leaves alone."""
    assert cli.main(["benchmark", "--untuned", *options]) == 0
    return capsys.readouterr().out


def test_the_profile_adds_up(capsys):
    output = printed(capsys, *SMALL, "--profile")
    shares = {name: float(share) for share, name in re.findall(r"^ *([\d.]+)%  (\S+)$", output, re.MULTILINE)}
    assert 70 < sum(shares.values()) <= 100.5  # those above 1 %
    others = {name: share for name, share in shares.items() if "conv" not in name and "mm" not in name}
    assert numbers(r"matrix products: ([\d.]+)%", output) == [max(others.values())]


def test_the_switches_are_measured_on_the_whole_ensemble(monkeypatch, capsys):
    size = ["--size", "16", "16", "16"]
    options = ["--members", "3", "--steps", "1", "--repeats", "1", *size]
    assert float(printed(capsys, *options, "--members_per_batch", "1", "--seconds")) > 0
    commands = []

    def measured(command, **kwargs):
        commands.append(command[4:])
        alone = command[command.index("--members_per_batch") + 1] == "1"
        seconds = (8 if "--untuned" in command else 4) * (2 if alone else 1)
        return subprocess.CompletedProcess(command, 0, f"{seconds}\n")

    monkeypatch.setattr(subprocess, "run", measured)
    output = printed(capsys, *options, "--switches", "--dtype", "bfloat16", "--compile")
    assert [(name, float(gain)) for gain, name in re.findall(r"s +([\d.]+) x  (.+)$", output, re.MULTILINE)] == [
        ("none, one member at a time", 0.5),
        ("none", 1),
        ("channels-last", 1),
        ("allocator, one member at a time", 1),
        ("allocator", 2),
        ("allocator, channels-last", 2),
        ("allocator, channels-last, bfloat16", 2),
        ("allocator, channels-last, bfloat16, compiled", 2),
    ]
    parts = [" ".join(command) for command in commands]
    assert all("--seconds" in part and "--members 3" in part and "--size 16 16 16" in part for part in parts)
    assert ["--contiguous" in part for part in parts] == [True, True, False, True, True, False, False, False]
    assert ["--compile" in part for part in parts] == [False] * 7 + [True]


def test_fusion():
    output = run("benchmark_fusion.py", "--edges", "32", "16")
    rows = re.findall(r"members of (.+), (\d) classes: SimpleITK (\d+) ms, ours ([\d.]+) ms, (\d+) times", output)
    assert [row[:2] for row in rows] == [(size, k) for size in ("32 x 32", "16 x 16 x 16") for k in "24"]
    for _, _, theirs, ours, ratio in rows:
        assert (float(theirs) - 0.6) / (float(ours) + 0.06) - 1 <= float(ratio)
        assert float(ratio) <= (float(theirs) + 0.6) / (float(ours) - 0.06) + 1
    agreement = [float(value) for value in re.findall(r"Dice of the members ([\d.]+)", output)]
    assert agreement == pytest.approx([0.9] * 4, abs=0.06)


def test_large_volume():
    output = run("large_volume.py", "--size", "64", "64", "48", "--roi_size", "32")
    before, all_of_them = numbers(r"with the image ([\d.]+) GB; .* take ([\d.]+) GB", output)
    peak, with_fusion = (numbers(rf"{where}, peak ([\d.]+) GB", output)[0] for where in ("processors", "volumes"))
    assert "(1, 10, 1, 64, 64, 48) torch.uint8" in output
    assert all_of_them == 0.1  # 10 x 15 x 64 x 64 x 48 x 4 bytes
    assert before <= peak <= with_fusion <= before + 0.6


def test_full_size_ct(run_script, monkeypatch, tmp_path):
    """From files to files in windows, of a set whose settings no measurement chose; the words on the table say what."""
    monkeypatch.setattr(plan, "training_cost", lambda *words, **more: Cost(60.0, 10**9, 1000))
    monkeypatch.setattr(plan, "window_seconds", lambda *words: 0.1)
    monkeypatch.setattr(plan, "epoch_seconds", lambda *words: 0.01)
    monkeypatch.setattr(full_size_ct, "SHAPE", (48, 40, 16))
    full_size_ct.write_set(tmp_path / "set")
    assert cli.main(["configure", str(tmp_path / "set"), "-o", str(tmp_path / "chosen.json"), "--device", "cpu"]) == 0
    assert cli.main(["train", str(tmp_path / "chosen.json"), "--epochs", "1", "--device", "cpu", "-q"]) == 0
    options = ["--folder", tmp_path, "--size", 64, 60, 30, "--spacing", 0.7, 0.7, 1.25]
    output = run_script(full_size_ct, *options)
    assert "5 members, 15 classes, 8-16-32-64 channels" in output
    rows = [re.findall(r"[^|]+", line) for line in output.splitlines() if re.match(r"\| \d", line)]
    rows = [[cell.strip() for cell in row] for row in rows]
    # 56 x 52 x 15 voxels after the resampling.
    assert [row[:4] for row in rows] == [
        ["32 x 32 x 16", "0.8 x 0.8 x 2.5", "1", "1"],
        ["64 x 60 x 30", "0.7 x 0.7 x 1.25", "4", "the first"],
    ]
    assert all(float(row[4]) > 0 and 0.2 < float(row[5]) < 3 for row in rows)
    assert "FirstWindows" in (tmp_path / "stand_in.json").read_text()
    with pytest.raises(SystemExit, match="on another grid"):
        monkeypatch.setattr(full_size_ct, "medsegdiff", lambda *words: None)
        full_size_ct.segment(tmp_path / "chosen.json", (64, 60, 30), (1, 1, 1), tmp_path)
