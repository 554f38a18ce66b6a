"""What a call of `EnsembleInferer` does with one image or window: encode it, once a view, then denoise its members."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from .memory import PeakMemory, free_memory
from .noise import WindowNoise, level_mask, level_regions, member_levels

# Share of the free memory that a batch of members may take. The rest is for what `PeakMemory` does not see, the
# workspace of convolutions, and for the results.
MEMORY_SHARE = 0.5

# A member of the denoiser takes less than this many times the memory of encoding. In the networks of this bundle the
# two are alike; the guess only serves to spare small images the measurement.
MEMBER_PER_ENCODING = 8

# Share of the free memory that the features of all mirror images may take, to be kept until their members are drawn.
# Where they take more, as those of a large volume, each mirror image is encoded twice.
FEATURES_SHARE = 0.05

logger = logging.getLogger(__name__)

# Position of a window's first voxel in the image, and that of the next window if there is one.
Place = tuple[Sequence[int], Sequence[int] | None]


class Ensemble(NamedTuple):
    """What the members of a window are to be; see the arguments of `EnsembleInferer` for each."""

    size: int
    at_once: int | None
    seed: int
    start_from_anchor: int | None
    mirror_axes: tuple[int, ...]
    anchor_only: bool
    return_anchor: bool
    amp: bool
    multi_label: bool


@dataclass
class MemberSampler:
    """Draws the members of one window after the other.

    Args:
        network: anything with `encode` and `denoise`; with `anchor_only`, anything that turns images into logits.
        encode: from images to what the network's `denoise` takes of them, or to logits with `anchor_only`.
        compiled: what to call in the place of `network.denoise`, unless that is None.
        scheduler: with its timesteps set.
        ensemble: what to draw; fewer members run at once where the memory does not suffice.
        bytes_per_member: memory of a member by kind of window, and whether it was measured or is a guess; from
            earlier calls, and this one adds to it.
        advance: told the sampling steps of members that were done; fewer than none if they are to be done again.
        noise: of the windows.
        memory: see `EnsembleInferer`.
    """

    network: Any
    encode: Callable[[Tensor], Any]
    compiled: Callable[..., Tensor] | None
    scheduler: Any
    ensemble: Ensemble
    bytes_per_member: dict[Any, tuple[int, bool]]
    advance: Callable[[int], Any]
    noise: WindowNoise
    memory: int | None = None

    def __call__(
        self, image: Tensor, start: Sequence[int], following: Sequence[int] | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Probabilities of the anchor, if it is asked for, and of the members, in batches.

        Args:
            image: the window, (N, C, S).
            start: position of its first voxel in the image.
            following: that of the next window of the image, None without one.

        Yields:
            which of the window's M results they are, and the probabilities (N, m, K, S).

        Raises:
            torch.OutOfMemoryError: a single member does not fit.
        """
        mirrored = [axis + 2 for axis in self.ensemble.mirror_axes]  # of a tensor (N, C, S)
        views = [axes for count in range(len(mirrored) + 1) for axes in itertools.combinations(mirrored, count)]
        if self.ensemble.anchor_only:
            anchor, _ = self._mean_anchor(image, views)
            self.advance(len(image))
            copies = 2 if self.ensemble.return_anchor else 1
            yield slice(0, copies), anchor if copies == 1 else anchor.repeat_interleave(copies, dim=1)
            return
        first = 1 if self.ensemble.return_anchor else 0
        views = views[: self.ensemble.size]
        drawn = self.ensemble.start_from_anchor is not None
        mean, kept = self._mean_anchor(image, views) if drawn and len(views) > 1 else (None, [])
        for view, axes in enumerate(views):
            features = kept[view] if view < len(kept) else self._encode(image, axes)
            if self.ensemble.return_anchor and not axes:
                yield slice(0, 1), self._anchor(features.logits, axes)
            members = range(view, self.ensemble.size, len(views))
            begin = None
            if drawn:
                begin = _mirrored((self._anchor(features.logits, axes) if mean is None else mean).squeeze(1), axes)
            while members:
                batch = members[: self._members_at_once(image)]
                samples = self._sample(batch, image, (start, following), axes, features, begin)
                if samples is None:
                    self.ensemble = self.ensemble._replace(at_once=len(batch) // 2)
                    logger.warning(
                        "Out of memory with %d members at once, so %d from here on.", len(batch), len(batch) // 2
                    )
                else:
                    members = members[len(batch) :]
                    yield slice(first + batch.start, first + batch.stop, batch.step), samples

    def _encode(self, image: Tensor, axes: Sequence[int]) -> Any:
        """Features of an image that is mirrored along some axes, or logits with `anchor_only`."""
        # The batches are handed out between the autocast blocks, not inside: the caller must not see one.
        kind = self._kind(image)
        with PeakMemory() if kind not in self.bytes_per_member else nullcontext() as memory, self._autocast(image):
            features = self.encode(_mirrored(image, axes))
        if memory is not None:
            self.bytes_per_member[kind] = MEMBER_PER_ENCODING * max(1, memory.peak), False
        return features

    def _mean_anchor(self, image: Tensor, views: Sequence[Sequence[int]]) -> tuple[Tensor, list[Any]]:
        """Mean of the anchor's probabilities over mirror images, (N, 1, K, S), and features of the first of them.

        Those are kept of as many as take little of the memory, of all or, of a large image, of none.
        """
        total = torch.zeros(0)
        kept: list[Any] = []
        for view, axes in enumerate(views):
            encoded = self._encode(image, axes)
            if (
                not self.ensemble.anchor_only
                and len(kept) == view
                and self._can_keep(encoded, len(views), image.device)
            ):
                kept.append(encoded)
            anchor = self._anchor(encoded if self.ensemble.anchor_only else encoded.logits, axes)
            total = anchor if total.numel() == 0 else total + anchor
        return total / len(views), kept

    def _can_keep(self, features: Any, views: int, device: torch.device) -> bool:
        """Whether the features of so many mirror images take little of the memory."""
        size = sum(each.nbytes for each in tree_leaves(features) if isinstance(each, Tensor))
        return all(views * size <= FEATURES_SHARE * known for known in known_memory(device, self.memory))

    def _anchor(self, logits: Tensor, axes: Sequence[int]) -> Tensor:
        """The anchor's probabilities, mirrored back, (N, 1, K, S)."""
        logits = logits.float()
        probabilities = torch.sigmoid(logits) if self.ensemble.multi_label else torch.softmax(logits, dim=1)
        return _mirrored(probabilities, axes).unsqueeze(1)

    def _autocast(self, image: Tensor) -> AbstractContextManager[Any]:
        return torch.autocast(image.device.type, dtype=torch.bfloat16) if self.ensemble.amp else nullcontext()

    def _kind(self, image: Tensor) -> tuple[Any, ...]:
        """What the memory of a member depends on."""
        return id(self.network), image.shape, image.device, self.ensemble.amp

    def _members_at_once(self, image: Tensor) -> int:
        """As many as were asked for, or as a share of the free memory holds; one where that is to be measured first."""
        if self.ensemble.at_once is not None:
            return self.ensemble.at_once
        known = known_memory(image.device, self.memory)
        if not known:
            return self.ensemble.size
        free = min(known)
        need, measured = self.bytes_per_member[self._kind(image)]
        count = int(MEMORY_SHARE * free / need)
        return max(1, count) if measured or count >= self.ensemble.size else 1

    def _sample(
        self,
        members: range,
        image: Tensor,
        place: Place,
        axes: Sequence[int],
        features: Any,
        anchor: Tensor | None,
    ) -> Tensor | None:
        """Denoise some members of a view, (N, m, K, S); None if there are several and the memory does not hold them.

        With `start_from_anchor` they begin with masks drawn from the `anchor`, (N, K, S), mirrored as the view is.
        """
        measure = len(members) == 1 and not self.bytes_per_member[self._kind(image)][1]
        # Under `PeakMemory` a compiled function runs as it is, and torch never compiles it afterwards.
        denoise = self.network.denoise if measure or self.compiled is None else self.compiled
        told = 0

        def count(masks: int) -> None:
            nonlocal told
            told += masks
            self.advance(masks)

        try:
            with PeakMemory() if measure else nullcontext() as memory, self._autocast(image):
                x, features_of_each = self._begin(members, place, axes, features, anchor)
                x = denoised(
                    x,
                    self.scheduler,
                    predict=lambda mask, timestep: denoise(mask, timestep, features_of_each),
                    noise=lambda draw: self._noise(members, draw, place, axes, features.logits),
                    on_step=count,
                )
                probabilities = as_probabilities(x, self.ensemble.multi_label)
        except torch.OutOfMemoryError:
            self.advance(-told)
            if len(members) == 1:
                raise
            return None
        if memory is not None:
            self.bytes_per_member[self._kind(image)] = max(1, memory.peak), True
        return rearrange(_mirrored(probabilities, axes), "(n m) ... -> n m ...", n=len(image))

    def _begin(
        self, members: range, place: Place, axes: Sequence[int], features: Any, anchor: Tensor | None
    ) -> tuple[Tensor, Any]:
        """First noisy masks (N * m, K, S), image by image, and features for as many."""
        logits = features.logits
        x = self._noise(members, 0, place, axes, logits)
        if len(logits) > 1:  # one image's features serve all of its members as they are
            features = tree_map_only(Tensor, lambda one: repeat(one, "n ... -> (n m) ...", m=len(members)), features)
        if anchor is not None:
            drawn = rearrange(self._drawn(members, anchor), "n m ... -> (n m) ...")
            x = self.scheduler.add_noise(drawn, x, self.scheduler.timesteps[0])
        return x, features

    def _drawn(self, members: range, anchor: Tensor) -> Tensor:
        """Masks of some members, (N, m, K, S) in [-1, 1], from the anchor's probabilities (N, K, S)."""
        multi_label = self.ensemble.multi_label
        levels = member_levels(self.ensemble.seed, self.ensemble.size, 2 if multi_label else anchor.shape[1])
        return (level_regions if multi_label else level_mask)(anchor, levels[list(members)])

    def _noise(self, members: range, step: int, place: Place, axes: Sequence[int], logits: Tensor) -> Tensor:
        """Noise of one step, (N * m, K, S), the same for every image; mirrored with it, so that it keeps its place."""
        noise = torch.empty(len(members), *logits.shape[1:])
        for of_member, member in zip(noise, members, strict=True):
            self.noise.fill(of_member, member, step, *place)
        return repeat(_mirrored(noise, axes).to(logits.device), "m ... -> (n m) ...", n=len(logits))


def known_memory(device: torch.device, memory: int | None) -> list[int]:
    """Bytes that are free, and that may be taken, of those that are known."""
    return [size for size in (free_memory(device), memory) if size is not None]


def denoised(
    x: Tensor,
    scheduler: Any,
    predict: Callable[[Tensor, Tensor], Tensor],
    noise: Callable[[int], Tensor],
    on_step: Callable[[int], Any],
) -> Tensor:
    """The sampler: masks of the scheduler's last timestep from those of its first.

    Args:
        x: noisy masks, (N, K, S).
        scheduler: with its timesteps set.
        predict: of noisy masks and their timestep what the scheduler expects of a network.
        noise: of a step, from 1; asked for only by a stochastic scheduler.
        on_step: told the number of masks after each step.

    Returns:
        (N, K, S) float32.
    """
    for step, timestep in enumerate(scheduler.timesteps, start=1):
        prediction = predict(x, timestep).float()
        x, _ = scheduler.step(prediction, timestep, x, noise=noise(step) if scheduler.stochastic else None)
        on_step(len(x))
    return x


def as_probabilities(x: Tensor, multi_label: bool) -> Tensor:
    """Masks in [-1, 1] as probabilities, (N, K, S): of classes they sum to one, of regions each stands for itself."""
    if multi_label:
        return (x + 1).div_(2).clamp_(0, 1)
    # The floor keeps the distribution defined where every class was clipped. Twice the probabilities: it cancels.
    probabilities = (x + 1).clamp_(2e-6, 2)
    return probabilities.div_(probabilities.sum(dim=1, keepdim=True))


def _mirrored(values: Tensor, axes: Sequence[int]) -> Tensor:
    """Mirrored along some axes; without any not even a copy, which `flip` would make."""
    return values.flip(list(axes)) if axes else values
