"""What a fused mask costs, as ratios of times that are measured in turn in one run.

`medsegdiff benchmark` runs it.

Networks are those of the configurations, with random weights. Ours is what the bundle does with an image: the inferer
of the configuration, with its mirror images, then fusion and the map of entropy. On a CPU the clock is the processor's
time, so that other programs on the machine count less; on a GPU it is the wall's. Every number is the median of the
repeats.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from medsegdiff_bundle.configuration import load
from medsegdiff_bundle.inferers import member_noise, tune_allocator
from medsegdiff_bundle.settings import bundle_root
from medsegdiff_bundle.transforms import EnsembleUncertaintyd, FuseEnsembled

ROOT = bundle_root()
# Configuration on top of inference.json, size of the image, and MONAI's network of about as many operations.
TASKS: dict[str, tuple[list[str], tuple[int, ...], tuple[int, ...]]] = {
    "hippocampus": ([], (40, 56, 40), (8, 24, 48, 96)),
    "pictures": (["tasks/isic.json"], (256, 256), (24, 24, 48, 96, 96)),
}
NAIVE_STEPS = 100
PROFILED_MEMBERS = 5
MATRIX_PRODUCTS = ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm")


class Bench:
    """Networks, input and clock of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        files, size, self.monai_channels = TASKS[options.task]
        self.size = tuple(options.size or size)
        self.options = options
        torch.manual_seed(0)
        config = self.configuration(files)
        config.update(
            {
                "ensemble_size": options.members,
                "amp": options.dtype == "bfloat16",
                "channels_last": not options.contiguous,
                "compile": options.compile,
                "progress": False,
            }
        )
        for name, value in (
            ("members_per_batch", options.members_per_batch),
            ("num_inference_steps", options.steps),
            ("network_def#channels", options.channels),
            ("network_def#denoiser_channels", options.channels),
        ):
            if value is not None:
                config[name] = value
        self.device = config.get_parsed_content("device")
        self.inferer = config.get_parsed_content("inferer")
        self.network = config.get_parsed_content("network").eval()
        self.scheduler, self.steps = self.inferer.scheduler, self.inferer.num_inference_steps
        self.classes = config.get_parsed_content("num_classes")
        self.fusion = config.get_parsed_content("fusion")
        multi_label = config.get_parsed_content("multi_label")
        self.uncertainty = EnsembleUncertaintyd("pred", "uncertainty", "entropy", self.classes, multi_label)
        self.fuse = FuseEnsembled("pred", self.fusion, num_classes=self.classes, multi_label=multi_label)
        channels = config.get_parsed_content("image_channels")
        baseline = self.configuration([*files, "baselines/dynunet.json"])
        self.dynunet = baseline.get_parsed_content("network_def").eval().to(self.device)
        self.memory_format = torch.contiguous_format
        if self.inferer.channels_last:
            self.memory_format = torch.channels_last if len(self.size) == 2 else torch.channels_last_3d
        self.image = torch.randn(1, channels, *self.size, device=self.device).to(memory_format=self.memory_format)
        for network in (self.network, self.dynunet):
            network.to(memory_format=self.memory_format)

    def configuration(self, files: list[str]) -> ConfigParser:
        """inference.json under other files, all of which the bundle's commands would read."""
        return load([ROOT / "configs" / name for name in ["inference.json", *files]], {"bundle_root": str(ROOT)})

    def autocast(self) -> torch.autocast:
        """The precision of everything that is timed."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.options.dtype == "bfloat16")

    def clock(self) -> float:
        """Seconds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def seconds(self, work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
        """Median time of each piece of work, measured in turn after one round that does not count."""
        times = defaultdict(list)
        with torch.no_grad(), self.autocast():
            for _ in range(repeats + 1):
                for name, call in work.items():
                    begin = self.clock()
                    call()
                    times[name].append(self.clock() - begin)
        return {name: statistics.median(values[1:]) for name, values in times.items()}

    def ours(self) -> dict[str, Tensor]:
        """Fused mask and uncertainty of the image, as the configuration makes them."""
        (members,) = self.inferer(self.image, self.network)
        return self.fuse(self.uncertainty({"pred": members}))  # type: ignore[return-value]

    def switches(self, tuned: bool) -> str:
        """What is on, in words."""
        inferer = self.inferer
        mirrored = f"axes {', '.join(map(str, inferer.mirror_axes))}" if inferer.mirror_axes else "off"
        return (
            f"allocator {'tuned' if tuned else 'as it is'}, channels-last {'on' if inferer.channels_last else 'off'}, "
            f"{self.options.dtype}, mirrored {mirrored}, compiled {'on' if inferer.compile else 'off'}, "
            f"members per batch {inferer.members_per_batch or 'automatic'}"
        )

    def noisy(self, members: int) -> Tensor:
        """Pure noise in the place of masks."""
        return torch.randn(members, self.classes, *self.size, device=self.device)

    def denoising_step(self, members: int) -> Callable[[], Any]:
        """One call of the denoiser for a batch of members of an encoded image."""
        with torch.no_grad(), self.autocast():
            features = self.network.encode(self.image)
        x, t = self.noisy(members), torch.tensor([self.scheduler.num_train_timesteps - 1], device=self.device)
        return lambda: self.network.denoise(x, t, features)


def billions(bench: Bench, call: Callable[[], Any]) -> float:
    """Floating point operations of a call, convolutions and matrix products, in 10^9."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), bench.autocast():
        call()
    return counter.get_total_flops() / 1e9


def convolutions(bench: Bench, members: int) -> dict[str, tuple[Callable[[], Any], float]]:
    """Plain 3 x 3 (x 3) convolutions as wide as the levels of the denoiser, in both memory formats."""
    work: dict[str, tuple[Callable[[], Any], float]] = {}
    dims = len(bench.size)
    layer, channels_last = (nn.Conv2d, torch.channels_last) if dims == 2 else (nn.Conv3d, torch.channels_last_3d)
    widths = sorted({block.out_channels for block in bench.network.modules() if isinstance(block, layer)})
    for width in [width for width in widths if width >= 16]:
        size = [max(8, edge * 16 // width) for edge in bench.size]
        for name, memory_format in (("contiguous", torch.contiguous_format), ("channels-last", channels_last)):
            conv: nn.Module = layer(width, width, 3, padding=1).to(bench.device)
            conv = conv.to(memory_format=memory_format)  # type: ignore[call-overload]  # which torch's hints lack
            x = torch.randn(members, width, *size, device=bench.device).to(memory_format=memory_format)
            amount = 2 * members * width**2 * 3**dims * torch.Size(size).numel() / 1e9
            work[f"conv {width} {name}"] = functools.partial(conv, x), amount
    return work


def peer_of_monai(bench: Bench) -> tuple[nn.Module, Callable[[], None]]:
    """MONAI's network for the same images, and a call that samples the same members with it in as many steps."""
    network = DiffusionModelUNet(
        len(bench.size),
        bench.classes + bench.image.shape[1],
        bench.classes,
        num_res_blocks=1,
        channels=bench.monai_channels,
        attention_levels=[False] * len(bench.monai_channels),
        norm_num_groups=8,
    )
    network.eval().to(bench.device)
    network.to(memory_format=bench.memory_format)  # type: ignore[call-overload]
    scheduler = DDIMScheduler(bench.scheduler.num_train_timesteps)
    inferer = DiffusionInferer(scheduler)
    scheduler.set_timesteps(bench.steps)
    members = bench.options.members
    many = bench.image.expand(members, *bench.image.shape[1:]).contiguous()
    noise = bench.noisy(members)

    def sample() -> None:
        inferer.sample(noise, network, scheduler, conditioning=many, mode="concat", verbose=False)

    return network, sample


def costs(bench: Bench) -> None:
    """The ratios (a), (b) and (c), and the share of the convolution rate."""
    options, members = bench.options, bench.options.members
    step_of_one, t = bench.noisy(1), torch.tensor([999], device=bench.device)
    monai_network, monai = peer_of_monai(bench)

    def naive() -> None:
        features = bench.network.encode(bench.image)
        bench.network.denoise(step_of_one, t, features)

    step = bench.denoising_step(PROFILED_MEMBERS)
    plain = convolutions(bench, PROFILED_MEMBERS)
    work: dict[str, Callable[[], Any]] = {
        "ours": bench.ours,
        "naive step": naive,
        "monai": monai,
        "dynunet": lambda: bench.dynunet(bench.image),
        "step": step,
        **{name: call for name, (call, _) in plain.items()},
    }
    seconds = bench.seconds(work, options.repeats)
    rates = {name: amount / seconds[name] for name, (_, amount) in plain.items()}
    best = max(rates, key=rates.__getitem__)
    amount = billions(bench, step)
    ours, naive_loop = seconds["ours"], seconds["naive step"] * NAIVE_STEPS * members
    monai_amount = billions(bench, monai) / bench.steps / members
    print(f"ours: {members} members, {bench.steps} step(s), fused by {bench.fusion}, with map of entropy: {ours:.2f} s")
    print(f"(a) naive loop, {NAIVE_STEPS} steps x {members} members from one timed step of one: {naive_loop:.0f} s")
    print(f"    naive / ours = {naive_loop / ours:.0f}   (target: at least 50)")
    print(f"(b) DiffusionModelUNet + DiffusionInferer, the same members and steps: {seconds['monai']:.2f} s")
    print(
        f"    {weights(monai_network)} weights, {monai_amount:.1f} GFLOP per member and step; ours "
        f"{weights(bench.network)}, {amount / PROFILED_MEMBERS:.1f}"
    )
    print(
        f"    MONAI / ours = {seconds['monai'] / ours:.2f}; with {NAIVE_STEPS} steps "
        f"{seconds['monai'] / ours * NAIVE_STEPS / bench.steps:.0f}"
    )
    print(f"(c) one pass of DynUNet ({weights(bench.dynunet)} weights): {seconds['dynunet']:.2f} s")
    print(f"    ours / DynUNet = {ours / seconds['dynunet']:.1f}   (target: at most 25)")
    rate = amount / seconds["step"]
    print(
        f"(d) a denoising step of {PROFILED_MEMBERS} members, {amount:.0f} GFLOP: {rate:.0f} GFLOP/s; "
        f"{best}: {rates[best]:.0f} GFLOP/s"
    )
    print(f"    fraction = {rate / rates[best]:.2f}   (target: at least 0.7)")


def weights(network: nn.Module) -> str:
    """Number of weights, in millions."""
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.1f} M"


def operators(bench: Bench) -> None:
    """Share of each operator in a denoising step: the least time of each over the repeats."""
    step = bench.denoising_step(PROFILED_MEMBERS)
    on_gpu = bench.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    runs: list[dict[str, float]] = []
    with torch.no_grad(), bench.autocast():
        for _ in range(3):
            step()
        for _ in range(2 * bench.options.repeats):
            with profile(activities=activities) as profiler:
                step()
            # An operator has the time of the kernels that it starts, which a GPU lists once more by their own names.
            events = [event for event in profiler.key_averages() if event.device_type == DeviceType.CPU]
            runs.append(
                {event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events}
            )
    least = {name: min(run[name] for run in runs) for name in runs[0]}
    total = sum(least.values())
    largest = 0.0
    for name, spent in sorted(least.items(), key=lambda item: -item[1]):
        if spent > 0.01 * total:
            print(f"{spent / total:6.1%}  {name}")
        if "conv" not in name and name not in MATRIX_PRODUCTS:
            largest = max(largest, spent / total)
    print(f"largest outside convolution and matrix products: {largest:.1%}   (target: at most 15 %)")


def switches(options: argparse.Namespace) -> None:
    """Seconds of one call with each set of switches, in turn, each in a new process: the allocator cannot be undone."""
    together, alone = (["--members_per_batch", str(count)] for count in (options.members, 1))
    sets = {
        "none, one member at a time": [*alone, "--untuned", "--contiguous"],
        "none": [*together, "--untuned", "--contiguous"],
        "channels-last": [*together, "--untuned"],
        "allocator, one member at a time": [*alone, "--contiguous"],
        "allocator": [*together, "--contiguous"],
        "allocator, channels-last": together,
    }
    for name, chosen, option in (
        ("bfloat16", options.dtype == "bfloat16", ["--dtype", "bfloat16"]),
        ("compiled", options.compile, ["--compile"]),
    ):
        if chosen:
            last = list(sets)[-1]
            sets[f"{last}, {name}"] = [*sets[last], *option]
    common = ["--seconds", "--task", options.task, "--members", str(options.members), "--repeats", "1"]
    common += ["--threads", str(options.threads)]
    for name, given in (("--steps", [options.steps]), ("--size", options.size), ("--channels", options.channels)):
        if given and given[0] is not None:
            common += [name, *map(str, given)]
    times = defaultdict(list)
    for _ in range(options.repeats):
        for name, extra in sets.items():
            command = [sys.executable, "-m", "medsegdiff_bundle", "benchmark", *common, *extra]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            times[name].append(float(output.split()[-1]))
    first = statistics.median(times["none"])
    for name, values in times.items():
        seconds = statistics.median(values)
        print(f"{seconds:7.2f} s  {first / seconds:5.2f} x  {name}")


def run(options: argparse.Namespace) -> None:
    """Print what was asked for; options are those of `medsegdiff_bundle.cli.benchmark`."""
    torch.set_num_threads(options.threads)
    if options.switches:
        return switches(options)
    tuned = not options.untuned and tune_allocator()
    bench = Bench(options)
    if options.seconds:
        print(*bench.seconds({"ours": bench.ours}, options.repeats).values())
        return None
    print(
        f"{options.task}: image {tuple(bench.image.shape)}, {options.threads} thread(s), {bench.device}, "
        f"torch {torch.__version__}"
    )
    print(bench.switches(tuned))
    if options.profile:
        return operators(bench)
    costs(bench)
    begin = time.process_time()
    for member in range(options.members):
        member_noise(0, member, 0, [0] * len(bench.size), (bench.classes, *bench.size))
    print(f"(e) noise of {options.members} members, part of ours: {(time.process_time() - begin) * 1e3:.0f} ms")
    return None
