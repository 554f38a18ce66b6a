"""The letters of the directions and the bar of the scale, around a picture."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .planes import Plane

MARGIN = 18  # pixels around a picture; twice as many below, for the letter and the bar
NARROWEST = 110  # pixels that a bar with its text needs
LETTERS = 14  # pixels


def with_marks(picture: Tensor, plane: Plane, pixels_per_mm: float) -> Tensor:
    """Picture (3, H, W) on black, with letters at its edges and a bar of a round length below; a picture as it is."""
    if plane.letters is None:
        return picture
    height, width = picture.shape[1:]
    beside = max(MARGIN, -(-(NARROWEST - width) // 2))
    canvas = Image.new("RGB", (width + 2 * beside, height + 3 * MARGIN))
    canvas.paste(as_image(picture), (beside, MARGIN))
    draw = ImageDraw.Draw(canvas)
    middle, right, bottom = beside + width / 2, beside + width, MARGIN + height
    places = [(beside / 2, MARGIN + height / 2), (right + beside / 2, MARGIN + height / 2)]
    places += [(middle, MARGIN / 2), (middle, bottom + MARGIN / 2)]
    for letter, place in zip(plane.letters, places, strict=False):
        draw.text(place, letter, fill="white", font=_font(), anchor="mm")
    length = _round_length(max(width, NARROWEST) / pixels_per_mm / 3)
    end, y = MARGIN + length * pixels_per_mm, bottom + 1.5 * MARGIN
    draw.line([(MARGIN, y), (end, y)], fill="white", width=2)
    for x in (MARGIN, end):
        draw.line([(x, y - 4), (x, y + 4)], fill="white", width=2)
    draw.text((end + 6, y), f"{length:g} mm", fill="white", font=_font(), anchor="lm")
    return torch.from_numpy(np.asarray(canvas, dtype=np.float32) / 255).permute(2, 0, 1)


def as_image(picture: Tensor) -> Image.Image:
    """Picture (3, H, W) in [0, 1] in 8 bits."""
    return Image.fromarray((picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


def _round_length(longest: float) -> float:
    """1, 2 or 5 times a power of ten, at most `longest`."""
    power = 10.0 ** math.floor(math.log10(longest))
    return next(step * power for step in (5, 2, 1) if step * power <= longest or step == 1)


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(LETTERS)
