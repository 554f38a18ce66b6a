"""From probabilities to labels, and how labels look."""

from __future__ import annotations

from torch import Tensor

from medsegdiff_bundle.visualization import PALETTE


def most_probable(probabilities: Tensor, dim: int) -> Tensor:
    """Class of the highest probability; in a tie the lowest.

    Args:
        probabilities: of the classes along one axis.
        dim: that axis.

    Returns:
        int64 labels.

    Raises:
        ValueError: a probability is NaN, which would pass for a sure class 0.
    """
    highest, labels = probabilities.max(dim)  # the indices of argmax, many times faster
    if highest.isnan().any():
        raise ValueError("The probabilities hold NaN: the weights are not finite, or the values of the image overflow.")
    return labels


def colour(label: int) -> tuple[float, float, float]:
    """Red, green and blue, 0 to 1, of a label from 1 on: the colours of all pictures and files, over and over."""
    red, green, blue = PALETTE[(label - 1) % len(PALETTE)].tolist()
    return red, green, blue
