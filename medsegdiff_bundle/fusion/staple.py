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
from einops import rearrange
from torch import Tensor

from .patterns import check_labels, distinct_patterns, look_up

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
    check_labels(members, num_classes)
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be positive, got {max_iterations}.")
    num_members, spatial_shape = members.shape[0], members.shape[1:]
    votes, counts, patterns, codes = distinct_patterns(members.reshape(num_members, -1), num_classes)
    pixels, theta, iterations = _expectation_maximisation(votes, counts, num_classes, max_iterations)
    performance = _performance(theta, pixels.sum(1))
    confusion, sensitivity, specificity = (torch.from_numpy(values).to(members.device) for values in performance)

    posterior = (pixels / counts).astype(np.float32)
    if num_classes == 2:
        posterior, sensitivity, specificity = posterior[1:], sensitivity[:, 1], specificity[:, 1]
    posterior_of_pixel = look_up(posterior.take(patterns, axis=1), codes)
    shape = spatial_shape if num_classes == 2 else (num_classes, *spatial_shape)
    return StapleResult(posterior_of_pixel.reshape(shape), confusion, sensitivity, specificity, iterations)


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
    one_hot = rearrange(one_hot, "member vote pattern -> (member vote) pattern")

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
    joint = (elected * counts) @ one_hot.T
    joint = rearrange(joint, "truth (member vote) -> truth member vote", vote=num_classes)
    joint[0, :, 1:] += joint[-1, :, :-1]
    joint = joint[:-1]
    return rearrange(joint / np.maximum(joint.sum(0), TINY), "truth member vote -> truth (member vote)")


def _performance(theta: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn theta (K, E*K) and pixels per class (K,) into confusion (E, K, K), sensitivity and specificity (E, K)."""
    num_classes = len(mass)
    identity = np.eye(num_classes)
    confusion = rearrange(theta, "truth (member vote) -> member truth vote", vote=num_classes)
    confusion = np.where((mass > TINY).reshape(-1, 1), confusion, identity)
    sensitivity = confusion.diagonal(axis1=1, axis2=2).copy()
    # Share of truth t among the pixels whose truth is not k: a specificity is a mean over the other classes.
    others = mass.reshape(-1, 1) * (1 - identity)  # (t, k)
    others = others / np.maximum(others.sum(0), TINY)
    specificity = 1 - (confusion * others).sum(1)
    return confusion, sensitivity, specificity
