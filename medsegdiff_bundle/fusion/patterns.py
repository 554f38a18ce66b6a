"""Patterns of votes: what all members say of a pixel. Pixels of one pattern are alike for every fusion of votes.

Letters in shape comments: E members, K classes, P pixels, N distinct patterns of votes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def check_labels(members: Tensor, num_classes: int) -> None:
    """Refuse members (E, ...) that are no labels from 0 to K - 1."""
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
    if members.is_floating_point() or members.is_complex():
        raise ValueError(f"members must be integer or bool labels, got {members.dtype}.")
    if members.ndim < 2 or members.numel() == 0:
        raise ValueError(f"members must be (E, ...) with at least one member and pixel, got {tuple(members.shape)}.")
    if members.dtype != torch.bool:
        lowest, highest = (int(label) for label in members.aminmax())
        if lowest < 0 or highest >= num_classes:
            raise ValueError(f"labels must be in 0..{num_classes - 1}, got {lowest}..{highest}.")


def distinct_patterns(members: Tensor, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """Find the patterns of votes that occur in `members` (E, P).

    Returns:
        Votes of each pattern (E, N), number of its pixels (N,), pattern of each code (C,), and code of each pixel (P,).
    """
    num_members, num_pixels = members.shape
    num_codes = num_classes**num_members
    if num_members > 1 and num_codes > 2**62:
        # Too many for one code: patterns of the first half, of the second half, and the pairs of the two that occur.
        half = num_members // 2
        first_votes, _, first, first_codes = distinct_patterns(members[:half], num_classes)
        second_votes, _, second, second_codes = distinct_patterns(members[half:], num_classes)
        pairs = look_up(first, first_codes) * num_pixels + look_up(second, second_codes)
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


def look_up(table: np.ndarray, index: Tensor) -> Tensor:
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
