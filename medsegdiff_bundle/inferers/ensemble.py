"""The sampler of MedSegDiff-V2: several masks of one image."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn
from tqdm import tqdm

from medsegdiff_bundle.labels import likely

from .arguments import check_counts, check_places, check_steps
from .bounds import PRECISION, kept_bytes, output_that_fits, say_bounds, window_that_fits
from .memory import return_freed_memory
from .noise import WindowNoise
from .sampling import Ensemble, MemberSampler, known_memory
from .windows import blend_windows, window_starts

SMALLEST_WINDOW = 32  # voxels per axis, below which running out of memory is an error
NOISE_SHARE = 0.05  # of the memory, for noise that is kept from one window to the next

logger = logging.getLogger(__name__)


class EnsembleInferer(Inferer):
    """Draw an ensemble of segmentations of each image from a `MedSegDiff` network.

    The condition is encoded once per image or window, and mirror image, and serves every step of every member. A
    member's noise is a function of seed, member, position and step (see `member_noise`), the same for each image of a
    batch, so a member depends neither on the batch nor on the other members, and overlapping windows share their noise.

    Where the memory of a GPU does not suffice, fewer members run at once, and if one is too many, windows are halved
    until they fit; both are logged. The first leaves the result as it is, smaller windows see less around them.

    Args:
        scheduler: one of `medsegdiff_bundle.schedulers`; copied at each call, so its state is never shared.
        num_inference_steps: denoising steps per member, 1 to `scheduler.num_train_timesteps`.
        ensemble_size: members E.
        members_per_batch: members that run through the network at once; None takes as many as half of the free memory
            holds, judging by the first. It changes memory and speed, not the result.
        seed: of the ensemble, a whole number of 64 bits.
        roi_size: window in voxels, one number or one per axis; cut to the image where it is larger. None takes the
            image whole.
        overlap: of neighbouring windows, at least; 0 to below 1.
        start_from_anchor: timestep at which to start, from masks drawn from the anchor and noised to its level
            (truncated diffusion, Zheng et al. 2022, arXiv 2202.09671); None starts from pure noise at T - 1. A member
            draws one level for the whole image, see `level_mask`; the anchor is the mean over the mirror images.
        mirror_axes: spatial axes along which the image may be mirrored, from 0. The members take turns with its
            mirror images along each combination of them, the image itself first, and are mirrored back: member m
            belongs to image m mod 2^axes.
        anchor_only: the Condition Model's segmentation is the only member: no diffusion, and one pass for each mirror
            image, whose mean it is.
        return_anchor: put the Condition Model's segmentation before the members; `SplitAnchord` takes it off.
        output: "probabilities", (N, E, K, S) float32 that sum to one over the K classes; or "labels", (N, E, 1, S)
            uint8, K times fewer numbers of a quarter of the size, of windows blended in half precision. Then the
            probabilities of no more than `members_per_batch` members exist at a time, of the image or of one window,
            and those of all members where windows overlap, which are blended before the classes are chosen.
        amp: run the network in bfloat16 autocast; without it, autocast of the caller stays in force.
        channels_last: keep the channels of a voxel side by side in memory, of the images and of the weights of the
            network that is called. It changes the speed (`docs/speed.md`), not the result.
        compile: denoise with `torch.compile(network.denoise)`, which needs a C++ compiler on a CPU and takes minutes at
            the first images. It changes the speed (`docs/speed.md`), not the result.
        progress: show one bar over windows, members and steps.
        memory: bytes that an image's segmentation may take, beside the image and what is made of the result. Where
            more would be needed, and `roi_size` is None, the image is taken in windows; where the probabilities of all
            members would take too much of it, their labels are returned as with `output` "labels"; fewer members run
            at once. What is done is logged. None has no bound but the memory that is free.
        multi_label: whether the network's channels are regions that may overlap, see `MedSegDiff`. Their probabilities
            do not sum to one, and "labels" are (N, E, K, S) uint8: 1 where a region is more probable than not.
        folds: state dicts of several networks of one kind, such as those of the folds of a cross-validation. Each draws
            `ensemble_size` members, within its share of `memory`; they are put one after the other, so that their mean
            is the mean over the folds. The network that is called gets their weights in turn, and keeps the last.

    Raises:
        ValueError: an argument is out of range.

    Examples:
        >>> from medsegdiff_bundle.networks import MedSegDiff
        >>> from medsegdiff_bundle.schedulers import DDIMScheduler
        >>> network = MedSegDiff(2, in_channels=1, out_channels=3, channels=[8, 16], prediction_type="sample").eval()
        >>> inferer = EnsembleInferer(DDIMScheduler(prediction_type="sample"), num_inference_steps=2, ensemble_size=4)
        >>> inferer(torch.rand(1, 1, 40, 56), network).shape  # (N, E, K, S)
        torch.Size([1, 4, 3, 40, 56])
    """

    def __init__(
        self,
        scheduler: Scheduler,
        num_inference_steps: int = 10,
        ensemble_size: int = 10,
        members_per_batch: int | None = None,
        seed: int = 0,
        roi_size: Sequence[int] | int | None = None,
        overlap: float = 0.25,
        start_from_anchor: int | None = None,
        mirror_axes: Sequence[int] = (),
        anchor_only: bool = False,
        return_anchor: bool = False,
        output: str = "probabilities",
        amp: bool = False,
        channels_last: bool = False,
        compile: bool = False,
        progress: bool = False,
        memory: int | None = None,
        multi_label: bool = False,
        folds: Sequence[Mapping[str, Tensor]] = (),
    ) -> None:
        super().__init__()
        check_steps(num_inference_steps, start_from_anchor, scheduler.num_train_timesteps)
        check_counts(seed, ensemble_size, members_per_batch=members_per_batch, memory=memory)
        check_places(roi_size, overlap, mirror_axes)
        if output not in ("probabilities", "labels"):
            raise ValueError(f"output must be 'probabilities' or 'labels', got {output!r}.")
        self.scheduler = scheduler
        self.num_inference_steps = num_inference_steps
        self.ensemble_size = ensemble_size
        self.members_per_batch = members_per_batch
        self.seed = seed
        self.roi_size = roi_size
        self.overlap = overlap
        self.start_from_anchor = start_from_anchor
        self.mirror_axes = mirror_axes
        self.anchor_only = anchor_only
        self.return_anchor = return_anchor
        self.output = output
        self.amp = amp
        self.channels_last = channels_last
        self.compile = compile
        self.progress = progress
        self.memory = memory
        self.multi_label = multi_label
        self.folds = folds
        self._bytes_per_member: dict[Any, tuple[int, bool]] = {}
        self._compiled: tuple[Any, Callable[..., Tensor]] | None = None  # the last network, and its compiled `denoise`

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Sample.

        Args:
            inputs: images (N, C, S), metadata kept if there is any.
            network: a `MedSegDiff`, scripted or not: anything with its `encode` and `denoise`. With `anchor_only`,
                anything that turns images into logits.
            args: handed on to `network.encode`, or to the network itself with `anchor_only`.
            kwargs: likewise.

        Returns:
            (N, M, K, S) float32 or (N, M, 1, S) uint8, see `output`. M is E, or 1 with `anchor_only`; and one more with
            `return_anchor`, the anchor first. Of `folds`, as many for each.

        Raises:
            ValueError: `roi_size` or `mirror_axes` do not fit the image's number of axes, or the network predicts
                something else than the scheduler expects.
            torch.OutOfMemoryError: one member of the smallest window does not fit.
        """
        if self.folds:
            return self._of_folds(inputs, network, args, kwargs)
        expected = getattr(self.scheduler, "prediction_type", None)
        predicted = getattr(network, "prediction_type", expected)
        told = not getattr(self.scheduler, "follows_network", False)
        if not self.anchor_only and told and predicted != expected:
            raise ValueError(f"The network's prediction_type is {predicted!r}, the scheduler's {expected!r}.")
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        if self.channels_last:
            memory_format = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
            image = image.to(memory_format=memory_format)
            if isinstance(network, nn.Module):
                network.to(memory_format=memory_format)  # type: ignore[call-overload]
        if (found := getattr(network, "multi_label", self.multi_label)) != self.multi_label:
            raise ValueError(f"multi_label is {self.multi_label} here and {found} of the network.")
        roi, output = self._bounds(image, network)
        if max(self.mirror_axes, default=0) > image.ndim - 3:
            raise ValueError(
                f"mirror_axes must be axes of the image, 0 to {image.ndim - 3}, got {tuple(self.mirror_axes)}."
            )
        members = None
        while members is None:
            try:
                members = self._run(image, roi, output, network, args, kwargs)
            except torch.OutOfMemoryError:
                smaller = _halved(roi or list(image.shape[2:]))
                if smaller is None:
                    raise
                logger.warning("Out of memory with one member: starting again with windows of %s voxels.", smaller)
                roi = smaller
        if roi is not None and image.device.type == "cpu":
            return_freed_memory()  # an image in windows is a large one, and what comes next may need room for it
        return MetaTensor(members).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else members

    def _of_folds(self, inputs: Tensor, network: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """The members of all folds."""
        one = copy.copy(self)
        one.folds = ()
        one.memory = None if self.memory is None else self.memory // len(self.folds)
        parts = []
        for number, weights in enumerate(self.folds):
            try:
                network.load_state_dict(weights)
            except RuntimeError as error:
                raise ValueError(f"The weights of fold {number}, from 0, do not fit the network: {error}") from error
            parts.append(one(inputs, network, *args, **kwargs))
        members = torch.cat([part.as_tensor() if isinstance(part, MetaTensor) else part for part in parts], dim=1)
        return MetaTensor(members).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else members

    def _compile(self, network: Any) -> Callable[..., Tensor] | None:
        """The compiled `denoise` of a network, the same at each call with it, or None without `compile`."""
        if not self.compile or self.anchor_only:
            return None
        if self._compiled is None or self._compiled[0] is not network:
            self._compiled = network, torch.compile(network.denoise)
        return self._compiled[1]

    def _bounds(self, image: Tensor, network: Any) -> tuple[list[int] | None, str]:
        """Size of the windows, None for the whole image, and what is returned, both within the memory."""
        roi, output = self._window(image), self.output
        channels = getattr(network, "out_channels", None)
        if self.memory is None or channels is None:
            return roi, output
        size, members = list(image.shape[2:]), self._num_results
        if output == "probabilities":
            output = output_that_fits(size, channels, members, len(image), self.memory)
        found = roi or window_that_fits(size, network, channels, self.overlap, members, self.memory, output)
        say_bounds(size, None if roi else found, output != self.output, self.memory)
        return found, output

    def _window(self, image: Tensor) -> list[int] | None:
        """Size of the windows, None for the whole image."""
        if self.roi_size is None:
            return None
        size = image.shape[2:]
        roi = [self.roi_size] * len(size) if isinstance(self.roi_size, int) else list(self.roi_size)
        if len(roi) != len(size):
            raise ValueError(f"roi_size must have {len(size)} numbers, one per axis of the image, got {self.roi_size}.")
        # Padding a smaller image up to the window would be no help: the network takes it as it is.
        return [min(edge, whole) for edge, whole in zip(roi, size, strict=True)]

    def _run(
        self,
        image: Tensor,
        roi: list[int] | None,
        output: str,
        network: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> Tensor:
        """The result for windows of a size, or for the image as a whole."""
        scheduler: Any = copy.deepcopy(self.scheduler).to(image.device)
        if getattr(scheduler, "follows_network", False):
            scheduler.prediction_type = getattr(network, "prediction_type", scheduler.prediction_type)
        scheduler.set_timesteps(self.num_inference_steps, image.device, self.start_from_anchor)
        edges = zip(image.shape[2:], roi or image.shape[2:], strict=True)
        windows = math.prod(len(window_starts(*edge, self.overlap)) for edge in edges)
        finish = _as_they_are if output != "labels" else _regions if self.multi_label else _labels
        per_window = 1 if self.anchor_only else self.ensemble_size * self.num_inference_steps
        with tqdm(total=len(image) * windows * per_window, desc="sampling", disable=not self.progress) as bar:
            sample = MemberSampler(
                network=network,
                encode=lambda x: (network if self.anchor_only else network.encode)(x, *args, **kwargs),
                compiled=self._compile(network),
                scheduler=scheduler,
                ensemble=self._ensemble(),
                bytes_per_member=self._bytes_per_member,
                advance=bar.update,
                noise=WindowNoise(self.seed, self._for_noise()),
                memory=self._for_members(list(image.shape[2:]), roi, network, output),
            )
            if roi is not None:
                return blend_windows(image, roi, self.overlap, self._num_results, sample, finish, PRECISION[output])
            result = torch.empty(0)
            for place, members in sample(image, [0] * (image.ndim - 2)):
                piece = finish(members)
                if result.numel() == 0:
                    result = piece.new_empty(len(image), self._num_results, *piece.shape[2:])
                result[:, place] = piece
            return result

    @property
    def _num_results(self) -> int:
        """M, of one network."""
        return self.return_anchor + (1 if self.anchor_only else self.ensemble_size)

    def _for_noise(self) -> float:
        """Bytes of noise that may be kept from one window to the next."""
        return NOISE_SHARE * min(known_memory(torch.device("cpu"), self.memory), default=math.inf)

    def _for_members(self, size: list[int], roi: list[int] | None, network: Any, output: str) -> int | None:
        """Bytes that members may take at once: what windows keep for the next is not for them."""
        channels = getattr(network, "out_channels", None)
        if self.memory is None or roi is None or channels is None:
            return self.memory
        return max(1, self.memory - kept_bytes(size, roi, channels, self.overlap, self._num_results, output))

    def _ensemble(self) -> Ensemble:
        """What the members of a window are to be."""
        return Ensemble(
            size=self.ensemble_size,
            at_once=self.members_per_batch,
            seed=self.seed,
            start_from_anchor=self.start_from_anchor,
            mirror_axes=tuple(self.mirror_axes),
            anchor_only=self.anchor_only,
            return_anchor=self.return_anchor,
            amp=self.amp,
            multi_label=self.multi_label,
        )


def _labels(members: Tensor) -> Tensor:
    """Class of the highest probability, the first of several, (N, M, K, S) -> (N, M, 1, S) uint8."""
    # One class after the other: `argmax` along an axis whose values lie apart takes many times as long.
    highest = members[:, :, :1].clone()
    labels = torch.zeros_like(highest, dtype=torch.uint8)
    for label in range(1, members.shape[2]):
        probability = members[:, :, label : label + 1]
        higher = (probability > highest).view(torch.uint8)
        torch.maximum(labels, higher.mul_(label), out=labels)  # no label before this one is as large
        torch.maximum(highest, probability, out=highest)
    if highest.isnan().any():
        raise ValueError("The probabilities hold NaN: the weights are not finite, or the values of the image overflow.")
    return labels


def _regions(members: Tensor) -> Tensor:
    """Regions that are more probable than not, (N, M, K, S) -> uint8 of the same shape."""
    return likely(members).to(torch.uint8)


def _as_they_are(members: Tensor) -> Tensor:
    return members


def _halved(size: list[int]) -> list[int] | None:
    """Half of the longest axis of a window, or None if it is small enough."""
    longest = max(size)
    if longest <= SMALLEST_WINDOW:
        return None
    axis = size.index(longest)
    return [*size[:axis], (longest + 1) // 2, *size[axis + 1 :]]
