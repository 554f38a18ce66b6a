"""Members per batch, running out of memory, what is alive at a time, and the bar."""

import gc
import logging
import math
import platform
import sys

import forks
import pytest
import torch

from medsegdiff_bundle.inferers import EnsembleInferer, member_noise, memory, sampling
from medsegdiff_bundle.inferers.memory import PeakMemory, free_memory
from medsegdiff_bundle.inferers.noise import WindowNoise
from medsegdiff_bundle.networks import ConditionFeatures, MedSegDiff
from medsegdiff_bundle.schedulers import DDIMScheduler


class Local(torch.nn.Module):
    """A network that looks at 3 x 3 pixels, with a record of what it denoises; `limit` is all that it can denoise."""

    def __init__(self, limit=math.inf, room=lambda shape: shape[0], encode_limit=math.inf):
        super().__init__()
        self.limit, self.room, self.encode_limit = limit, room, encode_limit
        self.batches = []

    def encode(self, image):
        if image[0, 0].numel() > self.encode_limit:
            raise torch.OutOfMemoryError("encoding")
        return ConditionFeatures(torch.cat([image, -image, image.square()], dim=1), None, [], None, None, None)

    def denoise(self, mask, timesteps, features):
        if self.room(mask.shape) > self.limit:
            raise torch.OutOfMemoryError("denoising")
        self.batches.append(mask.shape[0])
        around = torch.nn.functional.avg_pool2d(mask, 3, 1, 1)
        return torch.tanh(around + features.logits)


def scheduler():
    return DDIMScheduler(100, "cosine", "sample")


def image(*size):
    return torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))


def small_network():
    torch.manual_seed(0)
    return MedSegDiff(2, 1, 3, channels=(4, 6), num_heads=2, num_anchor_levels=1).eval()


def printed(code):
    """Words that some lines of Python print in a process of their own."""
    return forks.run([sys.executable, "-c", code], check=True).stdout.split()


# Members per batch


@pytest.mark.parametrize(("members_that_fit", "batches"), [(0.3, [1] * 5), (2.5, [1, 2, 2]), (80, [5])])
def test_free_memory_sets_the_batch_and_not_the_result(members_that_fit, batches, monkeypatch):
    net = small_network()
    counts = []
    denoise = net.denoise
    monkeypatch.setattr(net, "denoise", lambda x, *rest: counts.append(len(x)) or denoise(x, *rest))
    expected = EnsembleInferer(scheduler(), 1, 5, 5)(image(20, 12), net)
    with PeakMemory() as one, torch.no_grad():
        EnsembleInferer(scheduler(), 1, 1, 1)(image(20, 12), net)
    counts.clear()
    monkeypatch.setattr(sampling, "free_memory", lambda device: members_that_fit * one.peak / sampling.MEMORY_SHARE)
    inferer = EnsembleInferer(scheduler(), 1, 5)
    torch.testing.assert_close(inferer(image(20, 12), net), expected, rtol=1e-4, atol=1e-5)
    assert counts == batches
    counts.clear()
    inferer(image(20, 12), net)
    assert counts == ([2, 2, 1] if batches == [1, 2, 2] else batches)  # measured once


def test_all_at_once_where_free_memory_is_unknown(monkeypatch):
    monkeypatch.setattr(sampling, "free_memory", lambda device: None)
    net = Local()
    EnsembleInferer(scheduler(), 1, 5)(image(9, 9), net)
    assert net.batches == [5]


def test_peak_memory_counts_what_is_alive():
    before = torch.zeros(1000)
    with PeakMemory() as memory_of:
        a = before + 1
        for _ in range(5):
            b = a.view(10, 100).T * 2
            del b
        a.add_(1)
        before.view(-1)[10:]
    assert memory_of.peak == 8000


def test_free_memory_of_this_machine(tmp_path, monkeypatch):
    free = free_memory(torch.device("cpu"))
    if (memory.PROC / "meminfo").exists():
        assert 2**20 < free < 2**50
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    assert free_memory(torch.device("cpu")) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:       100 kB\nMemAvailable:        50 kB\n")
    assert free_memory(torch.device("cpu")) == 50 * 1024


FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({}, 1024000),
        ({"": (60000, 40000, 0)}, 20000),  # a container
        ({"": (10000, 40000, 0)}, 0),
        ({"": ("max", 40000, 0)}, 1024000),
        ({"": (2**63 - 4096, 40000, 0)}, 1024000),  # version 1's way to say that there is none
        ({"job_7/step_0": (60000, 40000, 0)}, 20000),  # Slurm
        ({"": (90000, 80000, 0), "job_7": (70000, 40000, 0), "job_7/step_0": (60000, 40000, 0)}, 10000),
        ({"job_7": (70000, 65000, 0), "job_7/step_0": ("max", 40000, 0)}, 5000),
        ({"job_7/step_0": (60000, 40000, 15000)}, 35000),  # what is cached of files can go
        ({"job_8": (100, 0, 0), "job_7/step_1": (100, 0, 0)}, 1024000),  # of other processes
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_every_group_that_the_process_is_in(version, groups, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path / "groups")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 1000 kB\n")
    lines = {1: "9:name=systemd:/a:b\n4:cpu,memory:/job_7/step_0\n0::/\n", 2: "0::/job_7/step_0\n"}
    (tmp_path / "proc" / "self" / "cgroup").write_text(lines[version])
    limit, used, cached = FILES[version]
    for name, (most, now, reclaimable) in groups.items():
        folder = tmp_path / "groups" / {1: "memory", 2: ""}[version] / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{most}\n")
        (folder / used).write_text(f"{now}\n")
        (folder / "memory.stat").write_text(f"anon 12\n{cached} {reclaimable}\nactive_file 5\n")
    assert free_memory(torch.device("cpu")) == expected


def test_what_the_allocator_is_told(monkeypatch):
    """By the numbers of malloc.h: no block of its own for a large tensor, none given back, 64 MiB at a time."""
    told = []
    library = {"mallopt": lambda parameter, value: told.append((parameter, value)) or 1, "malloc_trim": told.append}
    monkeypatch.setattr(memory, "_c_library", library.get)
    assert memory.tune_allocator() is True
    memory.return_freed_memory()
    assert told == [(-4, 0), (-1, -1), (-2, 64 * 2**20), 0]
    library["mallopt"] = lambda parameter, value: int(parameter != -1)
    assert memory.tune_allocator() is False
    library.clear()
    assert memory.tune_allocator() is False
    memory.return_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_the_tuned_allocator_keeps_what_it_gets_back():
    """In a process of its own, because nothing takes it back."""
    code = """
import resource, torch
from medsegdiff_bundle.inferers import tune_allocator

def faults():
    for count in (9, 5):  # the first ones may find no room yet
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            torch.ones(2**24)  # 16384 pages of 4 kB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), tune_allocator(), faults())
"""
    before, accepted, after = printed(code)
    assert accepted == "True" and 10 * int(after) < int(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("roi_size", [16, None])
def test_an_image_in_windows_gives_back_what_it_took(roi_size):
    """Also with the tuned allocator, which keeps everything: what follows a large image needs room, too."""
    code = f"""
from pathlib import Path
import resource, torch
from medsegdiff_bundle.inferers import EnsembleInferer, tune_allocator
from medsegdiff_bundle.networks import MedSegDiff
from medsegdiff_bundle.schedulers import DDIMScheduler

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

tune_allocator()
inferer = EnsembleInferer(DDIMScheduler(prediction_type="sample"), 1, 1, 1, roi_size={roi_size})
network = MedSegDiff(2, 1, 2, (4, 4), num_transformer_blocks=0).eval()
inferer(torch.zeros(1, 1, 20, 20), network)
freed = [torch.ones(2**18) for _ in range(200)]  # 200 MiB
between = freed.pop()  # the heap cannot shrink from its end
freed = None
before = resident()
inferer(torch.zeros(1, 1, 20, 20), network)
print(before - resident() > 150 * 2**20)
"""
    assert printed(code) == [str(roi_size is not None)]


# Out of memory


@pytest.mark.parametrize(("limit", "tried"), [(5, [4, 4]), (3, [2, 2, 2, 2]), (1, [1] * 8)])
@pytest.mark.parametrize("roi_size", [None, (8, 8)])
def test_out_of_memory_halves_the_members(limit, tried, roi_size, caplog):
    expected = EnsembleInferer(scheduler(), 1, 8, 8, roi_size=roi_size)(image(8, 12), Local())
    net = Local(limit)
    inferer = EnsembleInferer(scheduler(), 1, 8, 8, roi_size=roi_size)
    actual = inferer(image(8, 12), net)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert net.batches == tried * (1 if roi_size is None else 2)
    sentences = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(sentences) == {5: 1, 3: 2, 1: 3}[limit]  # once, not once per window
    assert sentences[0] == "Out of memory with 8 members at once, so 4 from here on."
    assert inferer.members_per_batch == 8  # the next call may have more memory


@pytest.mark.parametrize("where", ["denoise", "encode"])
def test_out_of_memory_with_one_member_halves_the_windows(where, caplog):
    net = Local(2000, lambda shape: shape[-2:].numel()) if where == "denoise" else Local(encode_limit=2000)
    actual = EnsembleInferer(scheduler(), 1, 3, 1)(image(80, 50), net)
    windows = EnsembleInferer(scheduler(), 1, 3, 1, roi_size=(40, 50))(image(80, 50), Local())
    assert torch.equal(actual, windows)
    whole = EnsembleInferer(scheduler(), 1, 3)(image(80, 50), Local())
    torch.testing.assert_close(actual[..., :20, :], whole[..., :20, :])  # where one window lies
    assert [record.getMessage() for record in caplog.records] == [
        "Out of memory with one member: starting again with windows of [40, 50] voxels."
    ]


def test_windows_have_a_smallest_size():
    with pytest.raises(torch.OutOfMemoryError):
        EnsembleInferer(scheduler(), 1, 3)(image(80, 50), Local(limit=0))


# What is alive at a time


def alive(inferer, size, net):
    """Largest number of bytes of tensors at a time."""
    gc.collect()
    with PeakMemory() as of:
        inferer(image(*size), net)
    return of.peak


def test_memory_of_labels_grows_by_labels_alone():
    """Without windows, more members cost one byte per pixel each, and no probabilities (12 bytes for three classes)."""
    size = (64, 48)
    few, many = (alive(EnsembleInferer(scheduler(), 1, e, 2, output="labels"), size, Local()) for e in (4, 24))
    assert (many - few) / 20 <= 2 * 64 * 48  # the batches, and what they are joined to
    kept = alive(EnsembleInferer(scheduler(), 1, 24, 2), size, Local())
    assert kept > many + 20 * 12 * 64 * 48


def test_memory_of_windows_does_not_grow_along_the_volume():
    inferer = EnsembleInferer(scheduler(), 1, 6, 1, roi_size=16, output="labels")
    short, long = (alive(inferer, (length, 16), Local()) for length in (64, 256))
    assert long - short <= 2 * 6 * (256 - 64) * 16  # labels; probabilities would take 72 bytes per pixel


# Seams


def test_shared_noise_leaves_smaller_seams_than_noise_of_each_window(monkeypatch):
    """Neighbouring windows that draw their own noise disagree where they meet."""

    def seam(inferer):
        """Mean difference from sampling the image as a whole, around the places where windows overlap."""
        members = inferer(torch.zeros(1, 1, 48, 136), Smooth())[0, :, 1]  # (E, 48, 136)
        difference = (members - whole[0, :, 1]).abs().mean(dim=(0, 1))  # (136,)
        return torch.cat([difference[24:40], difference[64:80], difference[104:120]]).mean().item()

    class Smooth(Local):
        """Denoises by a wide mean, as if from far-reaching features: what it draws depends on the noise around."""

        def denoise(self, mask, timesteps, features):
            return torch.tanh(20 * torch.nn.functional.avg_pool2d(mask, 9, 1, 4, count_include_pad=False))

        def encode(self, image):
            return ConditionFeatures(image.repeat(1, 2, 1, 1), None, [], None, None, None)

    whole = EnsembleInferer(scheduler(), 3, 4)(torch.zeros(1, 1, 48, 136), Smooth())
    inferer = EnsembleInferer(scheduler(), 3, 4, roi_size=(48, 40), overlap=0.2)
    shared = seam(inferer)

    def of_its_own(self, noise, member, step, start, following):
        noise.copy_(member_noise(self.seed + sum(start), member, step, [0] * len(start), noise.shape))

    monkeypatch.setattr(WindowNoise, "fill", of_its_own)
    own = seam(inferer)
    assert shared < 0.3 * own


# The bar


@pytest.mark.parametrize(
    ("kwargs", "total"),
    [
        ({}, 2 * 5 * 3),
        ({"members_per_batch": 2}, 2 * 5 * 3),
        ({"roi_size": 8}, 2 * 2 * 5 * 3),
        ({"roi_size": 8, "anchor_only": True}, 2 * 2),
    ],
)
def test_one_bar_over_windows_members_and_steps(kwargs, total, capsys):
    class Logits(Local):
        def forward(self, image):
            return image.repeat(1, 3, 1, 1)

    pictures = image(8, 12).repeat(2, 1, 1, 1)
    EnsembleInferer(scheduler(), 3, 5, **kwargs)(pictures, Logits())
    assert capsys.readouterr().err == ""
    EnsembleInferer(scheduler(), 3, 5, progress=True, **kwargs)(pictures, Logits())
    shown = capsys.readouterr().err
    assert shown.count("100%") == 1 and f"{total}/{total}" in shown


def test_the_bar_goes_back_for_members_that_are_done_again(capsys):
    class Late(Local):
        """Memory runs out at the second step."""

        def denoise(self, mask, timesteps, features):
            if len(mask) > 2 and timesteps < 90:
                raise torch.OutOfMemoryError
            return super().denoise(mask, timesteps, features)

    EnsembleInferer(scheduler(), 3, 4, 4, progress=True)(image(8, 12), Late())
    assert "12/12" in capsys.readouterr().err.split("\r")[-1]
