"""From probabilities to labels."""

from __future__ import annotations

from torch import Tensor


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
