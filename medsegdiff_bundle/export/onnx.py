"""The network as two ONNX files and a JSON file, for software that carries no torch.

`medsegdiff export -o onnx` writes, for a task,

- encoder.onnx: image -> anchor logits and the features that the denoiser needs, once per image;
- denoiser.onnx: noisy masks, timestep and these features -> prediction, once per step, for any number of members;
- sampler.json: the schedule and everything else that `scripts/onnx_sample.py` needs to sample with the two.

Spatial sizes are free but for a factor that sampler.json names: the caller replicates the border up to a multiple of
it.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from medsegdiff_bundle.files import whole_files
from medsegdiff_bundle.handlers import WeightsLoader
from medsegdiff_bundle.model_file import load
from medsegdiff_bundle.networks import ConditionFeatures, MedSegDiff
from medsegdiff_bundle.schedulers import DDIMScheduler, DPMSolverMultistepScheduler

OPSET = 18
TOLERANCE = 1e-3  # of a predicted mask, which is in [-1, 1]
OF_EACH_KEY = ("mode", "padding_mode", "anti_aliasing", "align_corners")  # arguments of a transform with a value a key


class Encoder(nn.Module):
    """The anchor and what the denoiser needs of an image, as a list of tensors.

    Args:
        network: in evaluation mode.

    Attributes:
        names: of the outputs: "logits", then those of the fields of `ConditionFeatures` that the network has.

    Shapes:
        image: (1, C, P), P as `padding` says -> see `ConditionFeatures`
    """

    def __init__(self, network: MedSegDiff) -> None:
        super().__init__()
        self.network = network
        self.names = ["logits"]
        if network.image_stem is not None:
            self.names.append("stem")
        self.names += [f"gate_{level}" for level in range(len(network.anchor_gates))]
        if network.denoiser.transformer is not None:
            self.names += ["tokens", "key", "value"]

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class."""
        features = self.network.encode(image)
        flat = [features.logits, features.stem, *features.gates, features.tokens, features.key, features.value]
        return [feature for feature in flat if feature is not None]


class Denoiser(nn.Module):
    """The denoiser's prediction for several members of one image.

    Args:
        network: in evaluation mode.
        names: of the features, from `Encoder`.

    Shapes:
        mask: noisy masks (E, K, P); timestep: (1,) int64; features: from `Encoder` -> (E, K, P)
    """

    def __init__(self, network: MedSegDiff, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, mask: Tensor, timestep: Tensor, features: list[Tensor]) -> Tensor:
        """See the class."""
        named = dict(zip(self.names, features, strict=True))
        gates = [feature for name, feature in named.items() if name.startswith("gate_")]
        stem, tokens, key, value = (named.get(name) for name in ("stem", "tokens", "key", "value"))
        known = ConditionFeatures(named["logits"], stem, gates, tokens, key, value)
        return self.network.denoise(mask, timestep, known)


def padding(network: MedSegDiff) -> dict[str, int]:
    """What every padded spatial size must be divisible by, and its minimum."""
    return {"size_factor": network.size_factor, "minimum_size": 2 * network.size_factor}


def random_inputs(network: MedSegDiff, grid: Sequence[int], members: int) -> tuple[Tensor, Tensor]:
    """An image (1, C, P) and noisy masks (members, K, P) whose deepest level has the sizes of `grid`."""
    size = [network.size_factor * edge for edge in grid]
    return torch.rand(1, network.in_channels, *size), torch.randn(members, network.out_channels, *size)


def export(network: MedSegDiff, spatial_dims: int, folder: Path) -> None:
    """Write encoder.onnx and denoiser.onnx.

    The tracing exporter is used, because `torch.export` takes minutes over the arithmetic of free sizes. What tracing
    could get wrong, a size that became a constant, is what `check` looks for. The network is in evaluation mode.

    Raises:
        ValueError: tokens are larger than a voxel of the deepest level.
    """
    transformer = network.denoiser.transformer
    if transformer is not None and transformer.token_size != 1:
        raise ValueError(f"Only a network of token_size 1 can be exported, got {transformer.token_size}.")
    image, mask = random_inputs(network, [3, 4, 5][:spatial_dims], 2)
    encoder = Encoder(network)
    with torch.no_grad():
        features = encoder(image)
    axes = range(2, 2 + spatial_dims)
    free = {name: {axis: f"{name}_{axis}" for axis in axes} for name in ("image", "mask", *encoder.names)}
    free |= {"tokens": {1: "tokens"}, "key": {2: "tokens"}, "value": {2: "tokens"}}
    free["mask"] |= {0: "members"}
    for module, inputs, input_names, output_names in (
        (encoder, (image,), ["image"], encoder.names),
        (
            Denoiser(network, encoder.names),
            (mask, torch.tensor([0]), features),
            ["mask", "timestep", *encoder.names],
            ["prediction"],
        ),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                module.eval(),
                inputs,
                str(folder / f"{type(module).__name__.lower()}.onnx"),
                dynamo=False,
                opset_version=OPSET,
                input_names=input_names,
                output_names=output_names,
                dynamic_axes={name: free[name] for name in (*input_names, *output_names) if name in free},
            )


def check(network: MedSegDiff, spatial_dims: int, folder: Path) -> float:
    """Run the two files in onnxruntime on sizes that tracing did not see, and compare with the network in torch.

    Returns:
        The largest difference of a predicted value.

    Raises:
        RuntimeError: it exceeds `TOLERANCE`.
    """
    encoder, denoiser = (onnxruntime.InferenceSession(folder / name) for name in ("encoder.onnx", "denoiser.onnx"))
    largest = 0.0
    for grid, members, timestep in (((6, 2, 3), 1, 999), ((5, 7, 4), 3, 400)):
        image, mask = random_inputs(network, grid[:spatial_dims], members)
        with torch.no_grad():
            expected = network.denoise(mask, torch.tensor(timestep), network.encode(image)).numpy()
        outputs = encoder.run(None, {"image": image.numpy()})
        features = {entry.name: value for entry, value in zip(encoder.get_outputs(), outputs, strict=True)}
        inputs = {"mask": mask.numpy(), "timestep": np.array([timestep]), **features}
        (found,) = denoiser.run(None, {entry.name: inputs[entry.name] for entry in denoiser.get_inputs()})
        largest = max(largest, float(np.abs(found - expected).max()))
    if not largest <= TOLERANCE:
        raise RuntimeError(f"The ONNX files differ from the network by {largest:.2g}, more than {TOLERANCE:.2g}.")
    return largest


def sampler_settings(config: ConfigParser, network: MedSegDiff) -> dict[str, Any]:
    """Content of sampler.json.

    Raises:
        ValueError: the configuration's sampler is none of those that onnx_sample.py knows.
    """
    names, multi_label = config.get_parsed_content("class_names"), config.get_parsed_content("multi_label")
    inferer = config.get_parsed_content("inferer")
    scheduler = copy.deepcopy(inferer.scheduler)
    if not isinstance(scheduler, (DDIMScheduler, DPMSolverMultistepScheduler)):
        raise ValueError(
            f"The scheduler must be a DDIMScheduler or DPMSolverMultistepScheduler, got {type(scheduler).__name__}."
        )
    scheduler.set_timesteps(inferer.num_inference_steps, start=inferer.start_from_anchor)
    return {
        "class_names": list(names) if multi_label else ["background", *names],  # a channel each
        "multi_label": multi_label,
        "in_channels": network.in_channels,
        "spatial_dims": config.get_parsed_content("spatial_dims"),
        **padding(network),
        "preprocessing": preprocessing_summary(config),
        "prediction_type": scheduler.prediction_type,
        "clip_sample": scheduler.clip_sample,
        "eta": scheduler.eta if isinstance(scheduler, DDIMScheduler) else 0.0,
        "solver_order": 1 if isinstance(scheduler, DDIMScheduler) else scheduler.solver_order,
        "start_from_anchor": inferer.start_from_anchor is not None,
        "mirror_axes": list(inferer.mirror_axes),
        "ensemble_size": inferer.ensemble_size,
        "timesteps": scheduler.timesteps.tolist(),
        "alphas_cumprod": scheduler.alphas_cumprod.tolist(),
    }


def preprocessing_summary(config: ConfigParser) -> list[dict[str, Any]]:
    """Names and plain arguments of the preprocessing's transforms."""
    summary = []
    for name in ("load", "image_checks", "preparation", "crop", "normalization"):
        for index, transform in enumerate(config[name]):
            place = f"{name}#{index}"
            keys = transform["keys"] if isinstance(transform["keys"], list) else [transform["keys"]]
            if "image" not in keys or "_disabled_" in transform and config.get_parsed_content(f"{place}#_disabled_"):
                continue
            plain = {"transform": transform["_target_"].rpartition(".")[2]}
            for key in transform:
                if not key.startswith("_") and key != "keys":
                    value = config.get_parsed_content(f"{place}#{key}")
                    if isinstance(value, list) and key in OF_EACH_KEY:
                        value = value[keys.index("image")]
                    if isinstance(value, (bool, int, float, str, list, type(None))):  # a function, say, is not
                        plain[key] = value
            summary.append(plain)
    return summary


def read_config(files: list[Path], checkpoint: str | Path | None = None) -> ConfigParser:
    """An inference configuration, whose first file lies in the bundle's folder `configs`.

    Args:
        files: of the configuration.
        checkpoint: file of weights, which may say more than the files; None takes that of the files.
    """
    given = {"bundle_root": str(files[0].resolve().parent.parent), "device": "cpu"}
    return load(files, given if checkpoint is None else {**given, "checkpoint": str(checkpoint)})


def trained_network(config: ConfigParser) -> MedSegDiff:
    """The network of an inference configuration with its weights.

    Raises:
        ValueError: the weights are missing or do not fit.
    """
    named = config.get_parsed_content("checkpoint")
    if named is None:
        raise ValueError(f"There are no weights of the task {config['task']!r}: name a file of them as checkpoint.")
    checkpoint = Path(named)
    if not checkpoint.is_file():
        raise ValueError(f"There are no weights {str(checkpoint)!r}.")
    network: MedSegDiff = config.get_parsed_content("network_def").eval()
    WeightsLoader(str(checkpoint), network).load()
    return network


def write(config: ConfigParser, folder: Path) -> float:
    """Write the three files of an inference configuration, once they are complete and checked.

    Returns:
        The largest difference from torch, see `check`.

    Raises:
        ValueError: the weights are missing, or the network or the sampler is none that can be exported.
        RuntimeError: see `check`.
    """
    network = trained_network(config)
    settings = sampler_settings(config, network)
    with whole_files(folder) as unchecked:
        export(network, settings["spatial_dims"], unchecked)
        difference = check(network, settings["spatial_dims"], unchecked)
        (unchecked / "sampler.json").write_text(json.dumps(settings) + "\n")
    return difference
