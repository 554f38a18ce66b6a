"""What makes a member: noise that belongs to a place in the image, not to a call, and a mask drawn from the anchor."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

BLOCK = 32  # voxels along each axis; part of the definition of the noise, so a change of it changes every sample


def member_noise(seed: int, member: int, step: int, start: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise as a function of seed, member, sampling step and position.

    The noise of a volume is laid out in blocks, each with a generator of its own. A window of the volume therefore gets
    the same values whatever the window's size, so overlapping windows share their noise, and a member depends on no
    other. It is drawn on the CPU: the same on every device.

    Args:
        seed: of the ensemble.
        member: index of the member.
        step: 0 for the first noise x_T, i + 1 for the noise that the i-th sampling step adds.
        start: position of the first voxel, one non-negative number per spatial axis.
        shape: (channels, S) of the result.

    Returns:
        (channels, S), float32, on the CPU.
    """
    channels, size = shape[0], shape[1:]
    noise = torch.empty(tuple(shape))
    ranges = [range(a // BLOCK, (a + n - 1) // BLOCK + 1) for a, n in zip(start, size, strict=True)]
    generator = torch.Generator()
    for block in itertools.product(*ranges):
        key = struct.pack(f"<{3 + len(block)}q", seed, member, step, *block)
        generator.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1)
        values = torch.randn((channels, *[BLOCK] * len(block)), generator=generator)
        here, there = [slice(None)], [slice(None)]
        for index, a, n in zip(block, start, size, strict=True):
            first, last = max(a, index * BLOCK), min(a + n, (index + 1) * BLOCK)
            here.append(slice(first - a, last - a))
            there.append(slice(first - index * BLOCK, last - index * BLOCK))
        noise[tuple(here)] = values[tuple(there)]
    return noise


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
