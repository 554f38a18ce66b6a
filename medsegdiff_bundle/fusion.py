"""STAPLE: one segmentation out of many, weighing each member by how well it agrees with the estimate.

Two classes: S. K. Warfield, K. H. Zou and W. M. Wells, "Simultaneous truth and performance level estimation (STAPLE)",
IEEE Transactions on Medical Imaging 23(7), 2004. More classes: T. Rohlfing, D. B. Russakoff and C. R. Maurer,
"Performance-based classifier combination in atlas-based image segmentation using expectation-maximization parameter
estimation", IEEE Transactions on Medical Imaging 23(8), 2004.

Letters in shape comments: E members, K classes, P pixels, N distinct patterns of votes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Largest change of any performance parameter at which EM stops: the values of ITK, so that results can be compared.
BINARY_TOLERANCE = 1e-7
MULTI_CLASS_TOLERANCE = 1e-5

# Stands for the logarithm of the probability zero. Its exponential is still a normal number, beyond which NumPy's takes
# four times as long.
LOG_ZERO = -700.0

# Pixels of a vote and a truth below this are none: any number of pixels times the exponential above. It also keeps the
# division by an empty class finite.
TINY = 1e-290


class StapleResult(NamedTuple):
    """What STAPLE found out about the pixels and about the members.

    Attributes:
        posterior: probability of class 1, `(...)`, for two classes; of every class, `(K, ...)`, for more. Float32.
        confusion: `(E, K, K)`, `confusion[e, t, v]` = probability that member e votes v where the truth is t. Float64.
        sensitivity: probability that a member finds a class where it is; `(E,)` for two classes (of class 1), `(E, K)`
            for more. Float64.
        specificity: probability that a member does not vote for a class where it is not; shaped like `sensitivity`.
        iterations: number of EM steps made.
    """

    posterior: Tensor
    confusion: Tensor
    sensitivity: Tensor
    specificity: Tensor
    iterations: int


def staple(members: Tensor, num_classes: int = 2, max_iterations: int = 10_000) -> StapleResult:
    """Fuse the segmentations of several members by STAPLE.

    Pixels on which all members vote alike are alike for EM: it runs, in float64, on the distinct patterns of votes and
    their counts, not on the pixels. Pixels stay on the device of the members; patterns, mostly a few thousand, go to
    the processor. The class prior is the share of votes, and stays.

    Two classes follow ITK's `STAPLEImageFilter` step by step, from the mean of the votes; more classes follow its
    `MultiLabelSTAPLEImageFilter`, from the majority vote. With one or two members more classes start from the mean of
    the votes too: between two members every disagreement is a tie, and ITK's start counts ties for a wrong label. Where
    ITK says "undecided" there is a tie of posteriors.

    Always finite, also where ITK is not:
        - Unanimous members, a single member, all empty, all full: the posterior is exactly the votes, and every member
          is perfect.
        - A class without weight in the posterior (nobody votes for it, or its votes are explained as errors) leaves its
          row of the confusion matrices open: it is reported as perfect, sensitivity 1. So is the specificity of a class
          that is everywhere.
        - Disjoint members: those of equal size, about which nothing is known but that they contradict each other, are
          worth nothing to EM, and the posterior becomes the prior in every pixel; otherwise it favours the larger.

    Args:
        members: labels 0 to K-1, `(E, ...)`, any number of spatial axes, integer or bool.
        num_classes: K, background included.
        max_iterations: where EM stops if it has not converged; only votes without a common truth (noise) come near it.

    Returns:
        Posterior, performance of the members, and number of iterations; shapes in `StapleResult`.

    Raises:
        ValueError: if members are not integers, none are given, a label is outside 0 to K-1, or K is below two.
    """
    members = members.as_subclass(torch.Tensor)
    _check(members, num_classes, max_iterations)
    num_members, spatial_shape = members.shape[0], members.shape[1:]
    votes, counts, patterns, codes = _distinct_patterns(members.reshape(num_members, -1), num_classes)
    pixels, theta, iterations = _expectation_maximisation(votes, counts, num_classes, max_iterations)
    performance = _performance(theta, pixels.sum(1))
    confusion, sensitivity, specificity = (torch.from_numpy(values).to(members.device) for values in performance)

    posterior = (pixels / counts).astype(np.float32)
    if num_classes == 2:
        posterior, sensitivity, specificity = posterior[1:], sensitivity[:, 1], specificity[:, 1]
    posterior_of_pixel = _look_up(posterior.take(patterns, axis=1), codes)
    shape = spatial_shape if num_classes == 2 else (num_classes, *spatial_shape)
    return StapleResult(posterior_of_pixel.reshape(shape), confusion, sensitivity, specificity, iterations)


def _check(members: Tensor, num_classes: int, max_iterations: int) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be positive, got {max_iterations}.")
    if members.is_floating_point() or members.is_complex():
        raise ValueError(f"members must be integer or bool labels, got {members.dtype}.")
    if members.ndim < 2 or members.numel() == 0:
        raise ValueError(f"members must be (E, ...) with at least one member and pixel, got {tuple(members.shape)}.")
    if members.dtype != torch.bool:
        lowest, highest = (int(label) for label in members.aminmax())
        if lowest < 0 or highest >= num_classes:
            raise ValueError(f"labels must be in 0..{num_classes - 1}, got {lowest}..{highest}.")


def _distinct_patterns(members: Tensor, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """Find the patterns of votes that occur in `members` (E, P).

    Returns:
        Votes of each pattern (E, N), number of its pixels (N,), pattern of each code (C,), and code of each pixel (P,).
    """
    num_members, num_pixels = members.shape
    num_codes = num_classes**num_members
    if num_members > 1 and num_codes > 2**62:
        # Too many for one code: patterns of the first half, of the second half, and the pairs of the two that occur.
        half = num_members // 2
        first_votes, _, first, first_codes = _distinct_patterns(members[:half], num_classes)
        second_votes, _, second, second_codes = _distinct_patterns(members[half:], num_classes)
        pairs = _look_up(first, first_codes) * num_pixels + _look_up(second, second_codes)
        values, counts, patterns, codes = _distinct(pairs)
        votes = np.concatenate([first_votes[:, values // num_pixels], second_votes[:, values % num_pixels]])
        return votes, counts, patterns, codes

    codes = _encode(members, num_classes)
    if num_codes <= num_pixels:  # a table of all codes is no longer than the image, and much faster than sorting
        table = torch.bincount(codes, minlength=num_codes).cpu().numpy()
        values = table.nonzero()[0]
        counts = table[values]
        patterns = np.zeros_like(table)
        patterns[values] = np.arange(len(values))
    else:
        values, counts, patterns, codes = _distinct(codes)
    # Digit e of a pattern, in base K, is the vote of member e.
    weights = num_classes ** np.arange(num_members, dtype=values.dtype).reshape(-1, 1)
    return values // weights % num_classes, counts, patterns, codes


def _distinct(numbers: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """Find the distinct values in `numbers` (P,), none of them negative, by way of their runs of equal numbers.

    Neighbours mostly vote alike, so there are far fewer runs than pixels. By 16 bits at a time NumPy sorts them without
    comparing, in a quarter of the time.

    Returns:
        Values (N,), ascending, how many numbers have each (N,), the place of each run's number among the values (R,),
        and the run of each number (P,).
    """
    runs, run_of_number, lengths = torch.unique_consecutive(numbers, return_inverse=True, return_counts=True)
    values = runs.cpu().numpy()
    low_bits_first = values.astype(values.dtype.newbyteorder("<"), copy=False).view("<u2").reshape(len(values), -1)
    order = np.lexsort(low_bits_first.T)
    values = values[order]
    starts = np.concatenate([[True], values[1:] != values[:-1]])
    places = np.empty_like(order)
    places[order] = starts.cumsum() - 1
    counts = np.add.reduceat(lengths.cpu().numpy()[order], starts.nonzero()[0])
    return values[starts], counts, places, run_of_number


def _look_up(table: np.ndarray, index: Tensor) -> Tensor:
    """Entries (..., P) of a table (..., C) on the processor, on the device of the index (P,)."""
    return torch.from_numpy(table).to(index.device).index_select(-1, index)


def _encode(members: Tensor, num_classes: int) -> Tensor:
    """Write the votes of each pixel as one number in base K, member 0 the lowest digit: (E, P) -> (P,)."""
    num_members = len(members)
    dtype = torch.int32 if num_classes**num_members < 2**31 else torch.int64
    # Adding bytes is several times faster than adding wide integers, so digits are gathered in a byte while they fit.
    narrow, digits = (torch.uint8, 1) if num_classes <= 256 else (dtype, num_members)
    while num_classes ** (digits + 1) <= 256:
        digits += 1
    codes = members.new_zeros(members.shape[1], dtype=dtype)
    for start in range(0, num_members, digits):
        packed = members[start].to(narrow, copy=True)
        for e, member in enumerate(members[start + 1 : start + digits], start=1):
            packed.add_(member.to(narrow), alpha=num_classes**e)
        codes.add_(packed.to(dtype), alpha=num_classes**start)
    return codes


def _expectation_maximisation(
    votes: np.ndarray, counts: np.ndarray, num_classes: int, max_iterations: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Run EM on patterns of votes (E, N) and the pixels of each (N,), in NumPy.

    Its matrices have few rows, which NumPy multiplies twice as fast as PyTorch, and its steps are too small for a GPU.

    Returns:
        Pixels of each class in each pattern (K, N), theta (K, E*K), the probability of each vote given each truth, and
        number of steps made.
    """
    num_members = len(votes)
    counts = counts.astype(np.float64)
    narrow = np.min_scalar_type(num_classes)
    classes = np.arange(num_classes, dtype=narrow).reshape(-1, 1)
    one_hot = (votes.astype(narrow)[:, np.newaxis] == classes).astype(np.float64)  # (E, K, N)
    ballots = one_hot.sum(0)  # (K, N)
    one_hot = one_hot.reshape(num_members * num_classes, -1)

    def expectation(theta: np.ndarray) -> np.ndarray:
        pixels = (np.maximum(np.log(theta), LOG_ZERO) + log_prior_of_vote) @ one_hot
        pixels -= pixels.max(0)
        np.exp(np.maximum(pixels, LOG_ZERO, out=pixels), out=pixels)
        pixels *= counts / pixels.sum(0)
        return pixels

    def maximisation(pixels: np.ndarray) -> np.ndarray:
        joint = pixels @ one_hot.T
        joint[joint < TINY] = 0
        # Every member votes once per pixel, so the votes of any one member add up to the pixels of each class.
        return joint / np.maximum(joint[:, :num_classes].sum(1, keepdims=True), TINY)

    with np.errstate(divide="ignore"):  # the logarithm of a vote that never comes
        # Each pattern has E votes, so with its share in each of them the prior is counted once. A class without votes
        # loses against every other, also where no class explains the pattern.
        log_prior = np.log(ballots @ counts / (num_members * counts.sum())).reshape(-1, 1)  # (K, 1)
        log_prior_of_vote = np.maximum(log_prior / num_members, 2 * LOG_ZERO)
        if num_classes == 2 or num_members <= 2:
            theta = maximisation(ballots * counts / num_members)
        else:
            theta = _majority_start(ballots, counts, one_hot)
        tolerance = BINARY_TOLERANCE if num_classes == 2 else MULTI_CLASS_TOLERANCE
        for iterations in range(1, max_iterations + 1):  # noqa: B007
            previous, theta = theta, maximisation(expectation(theta))
            if np.abs(theta - previous).max() <= tolerance:
                break
        return expectation(theta), theta, iterations


def _majority_start(ballots: np.ndarray, counts: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    """Start EM for several classes from the majority vote, exactly as ITK's `MultiLabelSTAPLEImageFilter` does.

    ITK gives a tied vote the label K, which is one beyond the last column of the confusion matrix and so falls on the
    first column of the next row: label v there counts as a vote v + 1 for class 0. From three members on this is only a
    start, and keeping it makes every later step equal to ITK's. ITK also normalises the start by vote, not by truth.

    Args:
        ballots: number of members for each class in each pattern, (K, N).
        counts: pixels of each pattern, (N,).
        one_hot: votes of each member in each pattern, (E*K, N).

    Returns:
        (K, E*K), weight of each vote for each truth.
    """
    num_classes = len(ballots)
    leads = ballots == ballots.max(0)  # (K, N)
    tied = leads.sum(0, keepdims=True) > 1  # (1, N)
    elected = np.concatenate([leads & ~tied, tied])  # (K + 1, N), the last is the label K
    joint = ((elected * counts) @ one_hot.T).reshape(num_classes + 1, -1, num_classes)  # truth, member, vote
    joint[0, :, 1:] += joint[-1, :, :-1]
    joint = joint[:-1]
    return (joint / np.maximum(joint.sum(0), TINY)).reshape(num_classes, -1)


def _performance(theta: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn theta (K, E*K) and pixels per class (K,) into confusion (E, K, K), sensitivity and specificity (E, K)."""
    num_classes = len(mass)
    identity = np.eye(num_classes)
    confusion = theta.reshape(num_classes, -1, num_classes).transpose(1, 0, 2)  # rows: truth, columns: vote
    confusion = np.where((mass > TINY).reshape(-1, 1), confusion, identity)
    sensitivity = confusion.diagonal(axis1=1, axis2=2).copy()
    # Share of truth t among the pixels whose truth is not k: a specificity is a mean over the other classes.
    others = mass.reshape(-1, 1) * (1 - identity)  # (t, k)
    others = others / np.maximum(others.sum(0), TINY)
    specificity = 1 - (confusion * others).sum(1)
    return confusion, sensitivity, specificity
