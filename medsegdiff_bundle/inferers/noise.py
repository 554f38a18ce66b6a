"""What makes a member: noise that belongs to a place in the image, not to a call, and a mask drawn from the anchor."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

BLOCK = 32  # voxels along each axis; part of the definition of the noise, so a change of it changes every sample
NUMBERS_PER_THREAD = 2**18  # of which drawing takes a thread longer than the thread takes to start


Box = list[tuple[int, int]]  # first voxel and the one after the last, along each axis


def _shared(one: Box, other: Box) -> Box | None:
    """What two boxes share; None without any."""
    box = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True)]
    return box if all(first < last for first, last in box) else None


class Placed(NamedTuple):
    """Values (channels, S) of the voxels of a box in the image, float32, on the CPU, and the first of the voxels."""

    start: tuple[int, ...]
    values: Tensor

    @property
    def box(self) -> Box:
        """Where the values lie."""
        return [(a, a + n) for a, n in zip(self.start, self.values.shape[1:], strict=True)]

    def copy_to(self, other: Placed) -> None:
        """Write the values where they belong in another box; by numpy, in this thread and without Python's lock."""
        if (box := _shared(self.box, other.box)) is not None:
            here, there = (
                (slice(None), *(slice(first - a, last - a) for a, (first, last) in zip(one.start, box, strict=True)))
                for one in (self, other)
            )
            other.values.numpy()[there] = self.values.numpy()[here]


def member_noise(seed: int, member: int, step: int, start: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise as a function of seed, member, sampling step and position.

    The noise of a volume is laid out in blocks, each with a generator of its own. A window of the volume therefore gets
    the same values whatever the window's size, so overlapping windows share their noise, and a member depends on no
    other. It is drawn on the CPU, the same on every device, by as many threads as PyTorch has.

    Args:
        seed: of the ensemble.
        member: index of the member.
        step: 0 for the first noise x_T, i + 1 for the noise that the i-th sampling step adds.
        start: position of the first voxel, one non-negative number per spatial axis.
        shape: (channels, S) of the result.

    Returns:
        (channels, S), float32, on the CPU.
    """
    noise = torch.empty(tuple(shape))
    _draw((seed, member, step), [Placed(tuple(start), noise)], None)
    return noise


class WindowNoise:
    """`member_noise` of windows that follow one another, which draws only once what a window shares with the next.

    Windows overlap, and blocks reach beyond them, so windows next to one another need many of the same blocks. What the
    next window needs of those that were drawn is kept, for each member and step.

    Args:
        seed: of the ensemble.
        capacity: bytes that may be kept; what would be more is drawn again.
    """

    def __init__(self, seed: int, capacity: float) -> None:
        self.seed = seed
        self.capacity = capacity
        self._kept: dict[tuple[int, int], Placed] = {}

    def fill(
        self, noise: Tensor, member: int, step: int, start: Sequence[int], following: Sequence[int] | None
    ) -> None:
        """Write the noise of a window.

        Args:
            noise: (channels, S), to be written; float32, on the CPU.
            member: index of the member.
            step: see `member_noise`.
            start: position of the first voxel.
            following: that of the next window, of the same size, which may be asked for next; None without one.
        """
        targets = [Placed(tuple(start), noise)]
        known = self._kept.pop((member, step), None)
        kept = _kept_for(following, targets[0])
        if kept is not None and self.size() + kept.values.nbytes <= self.capacity:
            targets.append(kept)
        _draw((self.seed, member, step), targets, known)
        if len(targets) > 1:
            self._kept[member, step] = targets[1]

    def size(self) -> int:
        """Bytes that are kept."""
        return sum(kept.values.nbytes for kept in self._kept.values())


def _kept_for(following: Sequence[int] | None, window: Placed) -> Placed | None:
    """Room for what the next window shares with the blocks of this one, if it lies beside it along one axis."""
    if following is None:
        return None
    size = list(window.values.shape)
    moved = [axis for axis, (a, b) in enumerate(zip(window.start, following, strict=True)) if a != b]
    if len(moved) != 1:
        return None
    axis = moved[0]
    end = -(-(window.start[axis] + size[axis + 1]) // BLOCK) * BLOCK  # of the last block
    size[axis + 1] = min(size[axis + 1], end - following[axis])
    return Placed(tuple(following), torch.empty(size)) if window.start[axis] < following[axis] < end else None


def _draw(key: tuple[int, int, int], targets: Sequence[Placed], known: Placed | None) -> None:
    """Fill boxes with the noise of a seed, member and step.

    Args:
        key: seed, member and step.
        targets: the boxes. The blocks of the first hold all of them.
        known: what was drawn already.
    """
    window = targets[0]
    channels, size = window.values.shape[0], window.values.shape[1:]
    ranges = [range(a // BLOCK, (a + n - 1) // BLOCK + 1) for a, n in zip(window.start, size, strict=True)]

    def draw(blocks: Sequence[tuple[int, ...]]) -> None:
        generator = torch.Generator()
        for block in blocks:
            digest = hashlib.blake2b(struct.pack(f"<{3 + len(block)}q", *key, *block), digest_size=8).digest()
            generator.manual_seed(int.from_bytes(digest, "little") >> 1)
            values = torch.randn((channels, *[BLOCK] * len(block)), generator=generator)
            drawn = Placed(tuple(index * BLOCK for index in block), values)
            for target in targets:
                drawn.copy_to(target)

    blocks = list(itertools.product(*ranges))
    if known is not None:
        for target in targets:
            known.copy_to(target)
        blocks = [block for block in blocks if not _covers(known, block, targets)]
    threads = min(torch.get_num_threads(), len(blocks) * channels * BLOCK ** len(size) // NUMBERS_PER_THREAD)
    if threads < 2:
        draw(blocks)
        return
    with ThreadPoolExecutor(threads) as pool:  # PyTorch draws without Python's lock
        list(pool.map(draw, [blocks[index::threads] for index in range(threads)]))


def _covers(known: Placed, block: Sequence[int], targets: Sequence[Placed]) -> bool:
    """Whether a box holds all that a block has of some others."""
    box = [(index * BLOCK, (index + 1) * BLOCK) for index in block]
    needed = [part for target in targets if (part := _shared(box, target.box)) is not None]
    return all(_shared(part, known.box) == part for part in needed)


def member_levels(seed: int, members: int, num_classes: int) -> Tensor:
    """The level of each member: points of the simplex, spread evenly over it.

    Along each axis every member has one of E equal parts, and its middle (a Latin hypercube, McKay et al. 1979), so
    that few members stand for the whole distribution, and as many are above its middle as below. The parts are handed
    out in the order of an additive recurrence (Kronecker's sequence; for two classes its step is the golden ratio),
    whose every n-th number is spread as well as all: each mirror image gets low and high levels. The seed says where
    it begins.

    Args:
        seed: of the ensemble.
        members: E.
        num_classes: K, at least 2.

    Returns:
        (E, K), float32, positive, rows of sum 1.
    """
    axes = num_classes - 1
    root = 2.0  # of x^(axes + 1) = x + 1, whose powers are the steps that are hardest to approximate by fractions
    for _ in range(64):
        root = (1 + root) ** (1 / num_classes)
    begin = torch.rand(axes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    steps = torch.tensor([root ** -(axis + 1) for axis in range(axes)], dtype=torch.float64)
    places = (begin + torch.arange(members)[:, None] * steps) % 1
    uniform = (places.argsort(dim=0).argsort(dim=0) + 0.5) / members
    # Breaking a stick: of what is left, the share of a class is the least of as many uniform numbers as classes follow.
    shares = 1 - (1 - uniform) ** (1 / torch.arange(axes, 0, -1))
    one = shares.new_ones(members, 1)
    left = torch.cat([one, (1 - shares).cumprod(dim=1)], dim=1)
    return (left * torch.cat([shares, one], dim=1)).float()


def level_mask(probabilities: Tensor, levels: Tensor) -> Tensor:
    """Masks drawn from the probabilities of one answer: in each voxel the class of highest probability / level.

    Levels that are uniform on the simplex give each voxel a class with just its probability: a race of exponential
    numbers, the same ones in the whole image ("perturb and map", Papandreou and Yuille 2011, with one perturbation for
    all voxels). Voxels therefore come and go together, the surest first: of two classes the masks are the level sets.

    Args:
        probabilities: (N, K, S).
        levels: (m, K), see `member_levels`.

    Returns:
        (N, m, K, S) one-hot in [-1, 1], of the type of the probabilities.
    """
    levels = levels.to(probabilities).reshape(1, *levels.shape, *[1] * (probabilities.ndim - 2))
    classes = (probabilities.unsqueeze(1) / levels).argmax(dim=2)
    chosen = F.one_hot(classes, probabilities.shape[1])
    return 2 * rearrange(chosen, "n m ... k -> n m k ...").to(probabilities.dtype) - 1


def level_regions(probabilities: Tensor, levels: Tensor) -> Tensor:
    """Masks of regions drawn from the probabilities of one answer: each where its probability is above the level.

    All regions share the member's level, so that a region that is nowhere more probable than another lies within it in
    each member, too. Of one region these are the masks that `level_mask` draws of two classes.

    Args:
        probabilities: (N, R, S).
        levels: of two classes, (m, 2), see `member_levels`.

    Returns:
        (N, m, R, S), -1 or 1, of the type of the probabilities.
    """
    threshold = levels.to(probabilities)[:, 1].reshape(1, -1, 1, *[1] * (probabilities.ndim - 2))
    return 2 * (probabilities.unsqueeze(1) > threshold).to(probabilities.dtype) - 1
