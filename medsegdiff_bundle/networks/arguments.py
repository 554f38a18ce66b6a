"""What the arguments of `MedSegDiff` must be; each function raises a ValueError that names what is not."""

from __future__ import annotations

from collections.abc import Sequence


def check_sizes(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    channels: Sequence[int],
    denoiser_channels: Sequence[int],
    num_res_blocks: int,
    multi_label: bool,
) -> None:
    """Refuse axes, channels and levels that there cannot be."""
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}.")
    if out_channels < (1 if multi_label else 2):
        counted = "regions and must be at least 1" if multi_label else "the background too and must be at least 2"
        raise ValueError(f"out_channels counts {counted}, got {out_channels}.")
    if not 2 <= len(denoiser_channels) <= len(channels):
        raise ValueError(
            f"denoiser_channels must have two or more levels, and no more than channels, "
            f"got {denoiser_channels} and {tuple(channels)}."
        )
    if min(*channels, *denoiser_channels) < 1:
        raise ValueError(f"channels must be positive, got {tuple(channels)} and {denoiser_channels}.")
    if num_res_blocks < 1:
        raise ValueError(f"num_res_blocks must be at least 1, got {num_res_blocks}.")


def check_parts(
    levels: int,
    prediction_type: str,
    num_anchor_levels: int,
    num_transformer_blocks: int,
    num_filter_blocks: int,
    image_concat: bool,
    anchor_residual: bool,
    denoiser_level: int,
) -> None:
    """Refuse parts that do not go together, or that leave the denoiser without the image."""
    if prediction_type not in ("epsilon", "sample", "v_prediction"):
        raise ValueError(f"prediction_type must be epsilon, sample or v_prediction, got {prediction_type!r}.")
    if not 0 <= num_anchor_levels < levels:
        raise ValueError(f"num_anchor_levels must be between 0 and {levels - 1}, got {num_anchor_levels}.")
    if num_transformer_blocks < 0 or num_filter_blocks < 0:
        raise ValueError(
            f"num_transformer_blocks and num_filter_blocks cannot be negative, "
            f"got {num_transformer_blocks} and {num_filter_blocks}."
        )
    if anchor_residual and prediction_type != "sample":
        raise ValueError(f"anchor_residual needs prediction_type 'sample', got {prediction_type!r}.")
    if denoiser_level > 0 and prediction_type != "sample":
        raise ValueError(
            f"A denoiser of {denoiser_level} levels less than the Condition Model sees no single voxel, so it needs "
            f"prediction_type 'sample', got {prediction_type!r}."
        )
    if not image_concat and num_anchor_levels == 0 and num_transformer_blocks == 0:
        raise ValueError(
            "Nothing tells the denoiser about the image: image_concat is false, num_anchor_levels and "
            "num_transformer_blocks are 0."
        )


def check_kernels(kernels: Sequence[Sequence[int]], given: object) -> None:
    """Refuse kernels that would shift what they convolve."""
    if any(edge % 2 == 0 for edges in kernels for edge in edges):
        raise ValueError(f"kernel_sizes must be odd, got {given}.")
