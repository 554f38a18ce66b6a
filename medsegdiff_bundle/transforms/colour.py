"""Random changes of pictures as other cameras, lights and hands make them; labels stay as they are.

All work on pictures (C, H, W), channels first, and pickle, so that processes that load data may be spawned.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor


class _RandPictured(RandomizableTransform, MapTransform):
    """A change that is drawn once for a case, and alike for all keys.

    Args:
        keys: of the pictures.
        prob: of a change.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.1, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change the pictures of each key, or leave all as they are."""
        d = dict(data)
        self.randomize(None)
        pictures = list(self.key_iterator(d))
        if not self._do_transform or not pictures:
            return d
        drawn = self.draw(len(d[pictures[0]]))
        for key in pictures:
            plain: Tensor = convert_to_tensor(d[key], track_meta=False)
            d[key] = convert_to_dst_type(self.changed(plain, drawn), d[key])[0]
        return d

    @abstractmethod
    def draw(self, channels: int) -> Any:
        """What is random, from `self.R`."""

    @abstractmethod
    def changed(self, picture: Tensor, drawn: Any) -> Tensor:
        """The picture with what was drawn."""

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.as_tensor(self.R.uniform(low, high, shape), dtype=torch.float32)

    def _normal(self, *shape: int) -> Tensor:
        return torch.as_tensor(self.R.normal(size=shape), dtype=torch.float32)


class RandSaturationd(_RandPictured):
    """Colours weaker or stronger than they are.

    Args:
        keys: of the pictures.
        prob: of a change.
        towards_grey: the share of the way to grey is drawn from this range: 1 is grey, 0 the picture, and what is below
            0 leads away from grey.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, H, W) -> the same
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        towards_grey: Sequence[float] = (-0.6, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, allow_missing_keys)
        self.towards_grey = towards_grey

    def draw(self, channels: int) -> Tensor:
        """The share of the way."""
        return self._uniform(self.towards_grey[0], self.towards_grey[1])

    def changed(self, picture: Tensor, drawn: Tensor) -> Tensor:
        """Nearer to the mean of the channels, or farther from it."""
        return picture + drawn * (picture.mean(dim=0, keepdim=True) - picture)


class RandExposured(_RandPictured):
    """Light of another strength and colour: each channel gets a factor, and what leaves the range is cut off.

    Args:
        keys: of the pictures.
        prob: of a change.
        factors: range of the factors.
        value_range: of the values of a picture; a file of 8 bits holds 0 to 255.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, H, W) -> the same
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        factors: Sequence[float] = (0.8, 1.4),
        value_range: Sequence[float] = (0, 255),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, allow_missing_keys)
        self.factors = factors
        self.value_range = value_range

    def draw(self, channels: int) -> Tensor:
        """A factor for each channel."""
        return self._uniform(self.factors[0], self.factors[1], channels, 1, 1)

    def changed(self, picture: Tensor, drawn: Tensor) -> Tensor:
        """Brighter or darker, within the range."""
        return (picture * drawn).clamp(*self.value_range)


class RandColourMixd(_RandPictured):
    """Colours of another camera: channels mix, and grey stays grey.

    Args:
        keys: of the pictures.
        prob: of a change.
        deviation: of the parts of other channels that come to each.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, H, W) -> the same
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.1, deviation: float = 0.2, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, prob, allow_missing_keys)
        self.deviation = deviation

    def draw(self, channels: int) -> Tensor:
        """A matrix (C, C) whose rows add up to 1."""
        mix = self.deviation * self._normal(channels, channels)
        return torch.eye(channels) + mix - mix.mean(dim=1, keepdim=True)

    def changed(self, picture: Tensor, drawn: Tensor) -> Tensor:
        """Each channel is a mean of all."""
        return torch.einsum("ij,jhw->ihw", drawn, picture)


class RandBorderDiscd(_RandPictured):
    """A disc of one colour that the border cuts, as a sticker or a gel bubble.

    Its centre lies on an ellipse, 0.55 of height and width around the middle of the picture.

    Args:
        keys: of the pictures.
        prob: of a disc.
        radius: of the largest, as a share of height and width.
        deviation: of its colour around 0, as pictures are normalised.
        allow_missing_keys: whether a missing key is passed over.

    Shapes:
        (C, H, W) -> the same
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        radius: float = 0.3,
        deviation: float = 2.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, allow_missing_keys)
        self.radius = radius
        self.deviation = deviation

    def draw(self, channels: int) -> tuple[Tensor, Tensor, Tensor]:
        """Direction of the centre in radians, radius, and colour (C, 1, 1)."""
        angle = self._uniform(0, 2 * torch.pi)
        return angle, self._uniform(0, self.radius), self.deviation * self._normal(channels, 1, 1)

    def changed(self, picture: Tensor, drawn: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The disc over the picture."""
        angle, radius, colour = drawn
        y = torch.linspace(0, 1, picture.shape[1])[:, None] - 0.5 - 0.55 * angle.sin()
        x = torch.linspace(0, 1, picture.shape[2]) - 0.5 - 0.55 * angle.cos()
        return torch.where(y**2 + x**2 < radius**2, colour, picture)  # (H, W) for all channels
