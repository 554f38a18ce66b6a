"""STAPLE: one segmentation out of many, weighing each member by how well it agrees with the estimate.

Two classes: S. K. Warfield, K. H. Zou and W. M. Wells, "Simultaneous truth and performance level estimation (STAPLE)",
IEEE Transactions on Medical Imaging 23(7), 2004. More classes: T. Rohlfing, D. B. Russakoff and C. R. Maurer,
"Performance-based classifier combination in atlas-based image segmentation using expectation-maximization parameter
estimation", IEEE Transactions on Medical Imaging 23(8), 2004.

Letters in shape comments: E members, K classes, P pixels, N distinct patterns of votes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Largest change of any performance parameter at which EM stops: the values of ITK, so that results can be compared.
BINARY_TOLERANCE = 1e-7
MULTI_CLASS_TOLERANCE = 1e-5

# Stands for the logarithm of the probability zero: finite, so that a pattern that no class explains still gets an
# answer, and below that of any float64, so that its exponential is exactly zero.
LOG_ZERO = -1000.0

# Keeps the division by an empty class finite: 0 / 1e-300 = 0.
TINY = 1e-300


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
    their counts, not on the pixels. The class prior is the share of votes, and stays.

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
    votes, counts, present, codes = _distinct_patterns(members.reshape(num_members, -1), num_classes)

    one_hot = votes.new_empty(num_members, num_classes, len(counts), dtype=torch.float64)
    classes = torch.arange(num_classes, dtype=torch.float64, device=members.device).view(-1, 1)
    torch.eq(votes.double().unsqueeze(1), classes, out=one_hot)  # several times faster than by way of bool
    ballots = one_hot.sum(0)  # (K, N)
    one_hot = one_hot.flatten(0, 1)  # (E*K, N)
    counts = counts.double()
    weighted = (one_hot * counts).T  # (N, E*K)
    log_prior = ((one_hot @ counts).view(num_members, num_classes).mean(0) / counts.sum()).log().unsqueeze(1)  # (K, 1)

    def expectation(theta: Tensor) -> Tensor:
        """Posterior (K, N) of the patterns, from theta (K, E*K), probability of each vote given each truth."""
        return (theta.log().clamp_min(LOG_ZERO) @ one_hot).add_(log_prior).softmax(0)

    def maximisation(posterior: Tensor) -> Tensor:
        """Theta (K, E*K) from the posterior (K, N) of the patterns."""
        joint = posterior @ weighted
        # Every member votes once per pixel, so the votes of any one member add up to the pixels of each class.
        return joint / joint[:, :num_classes].sum(1, keepdim=True).clamp_min(TINY)

    if num_classes == 2 or num_members <= 2:
        theta = maximisation(ballots / num_members)
    else:
        theta = _majority_start(ballots, weighted)
    tolerance = BINARY_TOLERANCE if num_classes == 2 else MULTI_CLASS_TOLERANCE
    for iterations in range(1, max_iterations + 1):  # noqa: B007
        previous, theta = theta, maximisation(expectation(theta))
        if torch.dist(theta, previous, float("inf")).item() <= tolerance:
            break
    posterior = expectation(theta)  # (K, N)

    confusion, sensitivity, specificity = _performance(theta, posterior @ counts)
    table = torch.zeros(num_classes, int(present[-1]) + 1, device=members.device)
    table[:, present] = posterior.float()
    if num_classes == 2:
        pixels = table[1].index_select(0, codes).reshape(spatial_shape)
        return StapleResult(pixels, confusion, sensitivity[:, 1], specificity[:, 1], iterations)
    pixels = table.index_select(1, codes).reshape(num_classes, *spatial_shape)
    return StapleResult(pixels, confusion, sensitivity, specificity, iterations)


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


def _distinct_patterns(members: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the patterns of votes that occur in `members` (E, P), and give each a code below P.

    Returns:
        Votes of each pattern (E, N), number of its pixels (N,), its code (N,), ascending, and code of each pixel (P,).
    """
    num_members, num_pixels = members.shape
    num_codes = num_classes**num_members
    if num_members > 1 and num_codes > 2**62:
        # Too many for one code: patterns of the first half, of the second half, and the pairs of the two that occur.
        half = num_members // 2
        first_votes, _, first, first_codes = _distinct_patterns(members[:half], num_classes)
        second_votes, _, second, second_codes = _distinct_patterns(members[half:], num_classes)
        pairs, codes, counts = _distinct(first_codes.long() * num_pixels + second_codes)
        votes = [
            first_votes[:, torch.searchsorted(first, pairs // num_pixels)],
            second_votes[:, torch.searchsorted(second, pairs % num_pixels)],
        ]
        return torch.cat(votes), counts, torch.arange(len(pairs), device=codes.device), codes

    codes = _encode(members, num_classes)
    if num_codes <= num_pixels:  # a table of all codes is no longer than the image, and much faster than sorting
        table = torch.bincount(codes, minlength=num_codes)
        present = patterns = table.nonzero().squeeze(1)
        counts = table[present]
    else:
        patterns, codes, counts = _distinct(codes)
        present = torch.arange(len(patterns), device=codes.device)
    # Digit e of a pattern, in base K, is the vote of member e.
    weights = torch.tensor([[num_classes**e] for e in range(num_members)], dtype=torch.int64, device=codes.device)
    return patterns // weights % num_classes, counts, present, codes


def _distinct(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct codes (N,), ascending, the place among them of each pixel's code (P,), and pixels of each (N,).

    Neighbours mostly vote alike, so sorting runs of equal codes takes half the time of sorting the pixels.
    """
    runs, run_of_pixel, lengths = torch.unique_consecutive(codes, return_inverse=True, return_counts=True)
    values, value_of_run = torch.unique(runs, return_inverse=True)
    counts = torch.zeros_like(values, dtype=torch.int64).scatter_add_(0, value_of_run, lengths)
    return values, value_of_run.index_select(0, run_of_pixel), counts


def _encode(members: Tensor, num_classes: int) -> Tensor:
    """Write the votes of each pixel as one number in base K, member 0 the lowest digit: (E, P) -> (P,)."""
    num_members = len(members)
    dtype = torch.int32 if num_classes**num_members < 2**31 else torch.int64
    # Adding bytes is several times faster than adding wide integers, so digits are gathered in a byte while they fit.
    narrow, digits = (torch.uint8, 1) if num_classes <= 256 else (dtype, num_members)
    while num_classes ** (digits + 1) <= 256:
        digits += 1
    codes = torch.zeros(members.shape[1], dtype=dtype, device=members.device)
    for start in range(0, num_members, digits):
        packed = members[start].to(narrow, copy=True)
        for e, member in enumerate(members[start + 1 : start + digits], start=1):
            packed.add_(member.to(narrow), alpha=num_classes**e)
        codes.add_(packed.to(dtype), alpha=num_classes**start)
    return codes


def _majority_start(ballots: Tensor, weighted: Tensor) -> Tensor:
    """Start EM for several classes from the majority vote, exactly as ITK's `MultiLabelSTAPLEImageFilter` does.

    ITK gives a tied vote the label K, which is one beyond the last column of the confusion matrix and so falls on the
    first column of the next row: label v there counts as a vote v + 1 for class 0. From three members on this is only a
    start, and keeping it makes every later step equal to ITK's. ITK also normalises the start by vote, not by truth.

    Args:
        ballots: number of members for each class in each pattern, (K, N).
        weighted: votes of each member in each pattern, times the pattern's pixels, (N, E*K).

    Returns:
        (K, E*K), weight of each vote for each truth.
    """
    num_classes = len(ballots)
    leads = (ballots == ballots.amax(0)).double()  # (K, N)
    tied = (leads.sum(0, keepdim=True) > 1).double()  # (1, N)
    elected = torch.cat([leads * (1 - tied), tied])  # (K + 1, N), the last is the label K
    joint = (elected @ weighted).view(num_classes + 1, -1, num_classes)  # truth, member, vote
    joint[0, :, 1:] += joint[-1, :, :-1]
    joint = joint[:-1]
    return (joint / joint.sum(0).clamp_min(TINY)).flatten(1)


def _performance(theta: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn theta (K, E*K) and pixels per class (K,) into confusion (E, K, K), sensitivity and specificity (E, K)."""
    num_classes = len(mass)
    identity = torch.eye(num_classes, dtype=theta.dtype, device=theta.device)
    confusion = theta.view(num_classes, -1, num_classes).transpose(0, 1)  # rows: truth, columns: vote
    confusion = torch.where((mass > 0).unsqueeze(1), confusion, identity)
    sensitivity = confusion.diagonal(dim1=1, dim2=2)
    # Share of truth t among the pixels whose truth is not k: a specificity is a mean over the other classes.
    others = mass.unsqueeze(1) * (1 - identity)  # (t, k)
    others = others / others.sum(0).clamp_min(TINY)
    specificity = 1 - (confusion * others).sum(1)
    return confusion, sensitivity, specificity
