"""Segment an image with the files of `medsegdiff export`: numpy and onnxruntime, nothing else.

    python scripts/onnx_sample.py --model onnx --image image.npy --output result.npz

image.npy holds channels first, (C, H, W) or (C, D, H, W), turned and resized as "preprocessing" in sampler.json says;
from the normalisation on this is done here. result.npz holds `members` (E, K, ...), each member's probability of each
class, `labels` (...), the class of the largest mean, and `uncertainty` (...), the entropy of the mean, 0 to 1. Of
regions that overlap `members` holds the probability of each, `labels` (R, ...) whether its mean is above a half, and
`uncertainty` the mean over the regions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[np.float32]


def normalize(image: Array) -> Array:
    """Zero mean and unit deviation of each channel of an image (C, S); a constant channel becomes zero."""
    axes = tuple(range(1, image.ndim))
    deviation = image.std(axis=axes, keepdims=True)
    return (image - image.mean(axis=axes, keepdims=True)) / np.where(deviation == 0, 1, deviation)


def levels(seed: int, members: int, classes: int) -> Array:
    """A point of the simplex for each member, (E, K), spread evenly: `medsegdiff_bundle.inferers.noise.member_levels`.

    Only the beginning of the sequence, which the seed draws, is another.
    """
    axes = classes - 1
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / classes)
    begin = np.random.default_rng(seed).random(axes)
    places = (begin + np.arange(members)[:, None] * root ** -np.arange(1.0, classes)) % 1
    uniform = (places.argsort(axis=0).argsort(axis=0) + 0.5) / members
    shares = 1 - (1 - uniform) ** (1 / np.arange(axes, 0, -1))
    rest = np.cumprod(1 - shares, axis=1)
    one = np.ones((members, 1))
    return (np.concatenate([one, rest], 1) * np.concatenate([shares, one], 1)).astype(np.float32)


class OnnxSampler:
    """The sampler of a MedSegDiff network, `EnsembleInferer`, without torch.

    Args:
        folder: with encoder.onnx, denoiser.onnx and sampler.json.

    Attributes:
        settings: content of sampler.json.
        draws: how often a member takes noise: at the start, and with eta > 0 at every step but the last.
        multi_label: whether the channels are regions that may overlap, and no classes.
    """

    def __init__(self, folder: Path) -> None:
        self.settings = json.loads((folder / "sampler.json").read_text())
        self.encoder = onnxruntime.InferenceSession(folder / "encoder.onnx")
        self.denoiser = onnxruntime.InferenceSession(folder / "denoiser.onnx")
        self.draws = len(self.settings["timesteps"]) if self.settings["eta"] > 0 else 1
        self.multi_label = self.settings["multi_label"]
        self.alpha_bar = np.clip(self.settings["alphas_cumprod"], 1e-38, 1 - 1e-12)  # float64; no division by zero

    def pad(self, x: Array) -> Array:
        """Replicate the border at the end of each spatial axis, (N, C, S) -> (N, C, P)."""
        factor, minimum = self.settings["size_factor"], self.settings["minimum_size"]
        sizes = [max(minimum, -(-size // factor) * factor) for size in x.shape[2:]]
        pads = [(0, size - old) for size, old in zip(sizes, x.shape[2:], strict=True)]
        return np.pad(x, [(0, 0), (0, 0), *pads], mode="edge")

    def prepare(self, image: Array) -> Array:
        """The rest of the preprocessing: the normalisation and, where the configuration has one, a central crop.

        Args:
            image: (C, S).

        Returns:
            (C, S), S no larger than a crop's `roi_size`.

        Raises:
            ValueError: the shape does not fit, or something else comes after the normalisation.
        """
        self._check_image(image)
        image = normalize(image)
        steps = self.settings["preprocessing"]
        while steps and steps[0]["transform"] != "NormalizeIntensityd":
            steps = steps[1:]
        for step in steps[1:]:
            if step["transform"] in ("CropMeasuredd", "Spacingd"):
                continue  # the image has no padding, and voxels of that size
            if step["transform"] != "CenterSpatialCropd":
                raise ValueError(
                    f"After the normalisation only a CenterSpatialCropd is known, got {step['transform']}."
                )
            edges = np.broadcast_to(step["roi_size"], image.ndim - 1)
            edges = np.where(edges > 0, edges, image.shape[1:])  # none of an axis to crop
            starts = [max(size // 2 - edge // 2, 0) for size, edge in zip(image.shape[1:], edges, strict=True)]
            crop = [slice(start, start + edge) for start, edge in zip(starts, edges, strict=True)]
            image = image[(slice(None), *crop)]
        return image

    def __call__(self, image: Array, noise: Array, level: Array | None = None) -> Array:
        """Sample as many members as there is noise for.

        Args:
            image: normalised, (C, S).
            noise: standard normal, (E, draws, K, S).
            level: of each member, (E, K), of regions (E, 2), see `levels`; needed where members start from the anchor.

        Returns:
            probabilities, (E, K, S), K the number of regions where there are such.

        Raises:
            ValueError: a shape does not fit.
        """
        self._check(image, noise, level)
        axes = [axis - self.settings["spatial_dims"] for axis in self.settings["mirror_axes"]]  # from the end
        views = [view for count in range(len(axes) + 1) for view in itertools.combinations(axes, count)]
        views = views[: len(noise)]
        drawn = None if level is None else self._drawn_from_anchor(image, views, level)
        members = np.empty(noise[:, 0].shape, dtype=np.float32)
        for index, view in enumerate(views):  # the members take turns with the mirror images
            mine = slice(index, None, len(views))
            begin = None if drawn is None else np.flip(drawn[mine], view)
            members[mine] = np.flip(self._sample(np.flip(image, view), np.flip(noise[mine], view), begin), view)
        return members

    def _encode(self, image: Array) -> dict[str, Array]:
        """Features by their names, of the padded image."""
        outputs = self.encoder.run(None, {"image": self.pad(image[None].astype(np.float32))})
        return {entry.name: value for entry, value in zip(self.encoder.get_outputs(), outputs, strict=True)}

    def _drawn_from_anchor(self, image: Array, views: Sequence[Sequence[int]], level: Array) -> Array:
        """Masks one-hot in [-1, 1], (E, K, S): of highest probability / level by the mean of the mirror images.

        Each region is where its probability is above the member's one level.
        """
        total = np.zeros(1, dtype=np.float32)
        for view in views:
            logits = self._encode(np.flip(image, view))["logits"][
                (slice(None), slice(None), *map(slice, image.shape[1:]))
            ]
            total = total + np.flip(self._probabilities(logits), view) / len(views)
        shares = level.reshape(*level.shape, *[1] * (image.ndim - 1))
        if self.multi_label:
            return np.where(total > shares[:, 1:], 1, -1).astype(np.float32)
        classes = (total / shares).argmax(axis=1)
        return np.moveaxis(2 * np.eye(level.shape[1], dtype=np.float32)[classes] - 1, -1, 1)

    def _probabilities(self, logits: Array) -> Array:
        """Of classes, which sum to one, or of regions, each for itself, (1, K, S) -> the same."""
        if self.multi_label:
            return 0.5 * (1 + np.tanh(0.5 * logits))
        shares: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def _sample(self, image: Array, noise: Array, begin: Array | None) -> Array:
        """Members of one mirror image, from pure noise or from the masks that they begin with."""
        inside = (slice(None), slice(None), *(slice(size) for size in image.shape[1:]))
        features = self._encode(image)
        needed = {entry.name for entry in self.denoiser.get_inputs()}
        inputs = {name: value for name, value in features.items() if name in needed}

        timesteps = self.settings["timesteps"]
        x, *later = noise.astype(np.float32).swapaxes(0, 1)
        if begin is not None:
            alpha = self.alpha_bar[timesteps[0]]
            x = (alpha**0.5 * begin + (1 - alpha) ** 0.5 * x).astype(np.float32)
        previous = None
        for t, following, again in itertools.zip_longest(timesteps, timesteps[1:], later):
            timestep = np.array([t], dtype=np.int64)
            (output,) = self.denoiser.run(None, {"mask": self.pad(x), "timestep": timestep, **inputs})
            x, clean = self._step(output[inside], x, t, following, again, previous)
            previous = t, clean
        if self.multi_label:
            return np.clip((x + 1) / 2, 0, 1)
        probabilities = np.clip((x + 1) / 2, 1e-6, 1)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def _step(
        self,
        output: Array,
        x: Array,
        t: int,
        following: int | None,
        noise: Array | None,
        previous: tuple[int, Array] | None,
    ) -> tuple[Array, Array]:
        """A step to the next timestep or, with None, to clean data; and the clean data that the network predicts.

        DDIM (Song et al. 2021, eq. 12), or, with "solver_order" 2, DPM-Solver++ (Lu et al. 2022, algorithm 2), which is
        the same of a prediction that is extrapolated from the previous timestep's.
        """
        alpha, kind = self.alpha_bar[t], self.settings["prediction_type"]
        signal, spread = alpha**0.5, (1 - alpha) ** 0.5
        clean = output
        if kind == "epsilon":
            clean = (x - spread * output) / max(signal, 2.0**-12)
        elif kind == "v_prediction":
            clean = signal * x - spread * output
        if self.settings["clip_sample"]:
            clean = np.clip(clean, -1, 1)
        data = clean
        if self.settings["solver_order"] == 2 and previous is not None and following is not None:
            before, now, after = (
                0.5 * np.log(self.alpha_bar[each] / (1 - self.alpha_bar[each])) for each in (previous[0], t, following)
            )
            data = clean + (after - now) / (2 * (now - before)) * (clean - previous[1])
        epsilon = (x - signal * data) / spread
        alpha_next = 1.0 if following is None else self.alpha_bar[following]
        variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
        deviation = self.settings["eta"] * variance**0.5  # eq. 16; zero at the last step
        stepped = alpha_next**0.5 * data + max(1 - alpha_next - deviation**2, 0.0) ** 0.5 * epsilon
        if noise is not None:
            stepped = stepped + deviation * noise
        return stepped.astype(np.float32), clean

    def _check_image(self, image: Array) -> None:
        channels, dims = self.settings["in_channels"], self.settings["spatial_dims"]
        if image.ndim != dims + 1 or len(image) != channels:
            raise ValueError(f"The image must have {channels} channel(s) and {dims} axes, got shape {image.shape}.")

    def _check(self, image: Array, noise: Array, level: Array | None) -> None:
        self._check_image(image)
        expected = (self.draws, len(self.settings["class_names"]), *image.shape[1:])
        if noise.shape[1:] != expected or len(noise) < 1:
            raise ValueError(f"The noise must be (members, {', '.join(map(str, expected))}), got shape {noise.shape}.")
        needed = (len(noise), 2 if self.multi_label else expected[1]) if self.settings["start_from_anchor"] else None
        if (None if level is None else level.shape) != needed:
            raise ValueError(f"The levels must be {needed}, got {None if level is None else level.shape}.")


def main() -> None:
    """Read the command line, segment and print the size of each structure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="folder that medsegdiff export wrote")
    parser.add_argument("--image", required=True, type=Path, help=".npy file, channels first")
    parser.add_argument("--output", required=True, type=Path, help=".npz file")
    parser.add_argument("--ensemble_size", type=int, help="members; as configured by default")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    options = parser.parse_args()
    sampler = OnnxSampler(options.model)
    classes = sampler.settings["class_names"]
    members = sampler.settings["ensemble_size"] if options.ensemble_size is None else options.ensemble_size
    try:
        image = sampler.prepare(np.load(options.image))
        shape = members, sampler.draws, len(classes), *image.shape[1:]
        noise = np.random.default_rng(options.seed).standard_normal(shape)
        simplex = 2 if sampler.multi_label else len(classes)
        level = levels(options.seed, members, simplex) if sampler.settings["start_from_anchor"] else None
        samples = sampler(image, noise.astype(np.float32), level)
        if np.isnan(samples).any():
            raise ValueError("The probabilities hold NaN: the values of the image are not finite, or overflow.")
    except ValueError as error:
        sys.exit(f"onnx_sample.py: {error}")
    mean = samples.mean(axis=0)
    if sampler.multi_label:
        labels = (mean > 0.5).astype(np.uint8)
        pair = np.clip(np.stack([mean, 1 - mean]), 1e-12, 1)
        uncertainty = -(pair * np.log(pair)).sum(axis=0).mean(axis=0) / np.log(2)
    else:
        labels = mean.argmax(axis=0).astype(np.uint8)
        uncertainty = np.clip(-(mean * np.log(mean)).sum(axis=0) / np.log(len(classes)), 0, 1)
    unfinished = options.output.with_name(f".unfinished-{options.output.name}.npz")
    np.savez_compressed(unfinished, members=samples, labels=labels, uncertainty=uncertainty)
    unfinished.replace(options.output if options.output.suffix == ".npz" else Path(f"{options.output}.npz"))
    for value, name in enumerate(classes):
        marked = labels[value] == 1 if sampler.multi_label else labels == value
        print(f"{name}: {int(marked.sum())} voxels")


if __name__ == "__main__":
    main()
