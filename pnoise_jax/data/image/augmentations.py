"""Random changes of pixels that keep the size of an image; for RandAugment, see rand_augment.py.

Each is a frozen dataclass whose fields are its arguments in a config. It is called as
``augmentation(pixels, generator, statistics)`` with uint8 pixels (height, width, channels), which
it never modifies.
"""

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np

from pnoise_jax.data.image import pixel_operations as operations
from pnoise_jax.data.image.arguments import (
    draw,
    require_choice,
    require_interval,
    require_number,
    require_statistics,
)
from pnoise_jax.data.image.images import Box


@dataclasses.dataclass(frozen=True)
class PixelStatistics:
    """The mean and standard deviation of the data set's pixels in [0, 1].

    Attributes:
      mean: one number per channel, or one for all.
      std: as `mean`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        require_statistics(mean=self.mean, std=self.std)

    def fill(self, channels: int) -> tuple[int, ...]:
        """The mean as a pixel: one number in 0..255 per channel.

        Raises:
          ValueError: the image has another number of channels than the mean.
        """
        return tuple(round(255 * mean) for mean in self._each(self.mean, channels))

    def noise(self, shape: tuple[int, int, int], generator: np.random.Generator) -> np.ndarray:
        """Normal noise around the mean, uint8; standard normal after normalisation."""
        mean, std = (
            np.array(self._each(values, shape[2]), np.float32) for values in (self.mean, self.std)
        )
        normal = generator.standard_normal(shape, np.float32)
        return np.rint(255 * (mean + std * normal)).clip(0, 255).astype(np.uint8)

    def _each(self, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
        if len(values) not in (1, channels):
            raise ValueError(
                f"the image has {channels} channels, but data.mean and data.std have {len(values)}"
            )
        return values * channels if len(values) == 1 else values


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirrors the image horizontally.

    Attributes:
      probability: the probability of mirroring.
    """

    probability: float = 0.5
    random: ClassVar[bool] = True

    def __post_init__(self):
        require_number("probability", self.probability, at_least=0, at_most=1)

    def __call__(
        self, pixels: np.ndarray, generator: np.random.Generator, statistics: PixelStatistics
    ) -> np.ndarray:
        """uint8, of the same shape."""
        del statistics
        return operations.mirror(pixels) if generator.random() < self.probability else pixels


@dataclasses.dataclass(frozen=True)
class RandomShift:
    """Shifts the image vertically and horizontally by whole numbers of pixels, drawn uniformly.

    The uncovered strip repeats the edge of the image, as in the views of an evaluation.

    Attributes:
      pixels: the largest shift in each of the four directions.
    """

    pixels: int = 4
    random: ClassVar[bool] = True

    def __post_init__(self):
        if type(self.pixels) is not int or self.pixels < 1:
            raise ValueError(f"pixels={self.pixels!r}: give a whole number of at least 1")

    def __call__(
        self, pixels: np.ndarray, generator: np.random.Generator, statistics: PixelStatistics
    ) -> np.ndarray:
        """uint8, of the same shape."""
        del statistics
        top, left = generator.integers(0, 2 * self.pixels, size=2, endpoint=True)
        both = (self.pixels, self.pixels)
        padded = np.pad(pixels, (both, both, (0, 0)), mode="edge")
        return padded[top : top + pixels.shape[0], left : left + pixels.shape[1]]


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue in random order, as torchvision on PIL.

    The first three are multiplied by a factor drawn from [max(0, 1 - x), 1 + x]. For images with
    one channel, only brightness and contrast change.

    Attributes:
      brightness, contrast, saturation: x, at least 0; 0: no change.
      hue: in [0, 0.5]; hue is shifted by a fraction of the colour circle drawn from [-hue, hue].
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0
    random: ClassVar[bool] = True

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation"):
            require_number(name, getattr(self, name), at_least=0)
        require_number("hue", self.hue, at_least=0, at_most=0.5)

    def __call__(
        self, pixels: np.ndarray, generator: np.random.Generator, statistics: PixelStatistics
    ) -> np.ndarray:
        """uint8, of the same shape."""
        del statistics
        change_by = {
            operations.brightness: self.brightness,
            operations.contrast: self.contrast,
            operations.saturation: self.saturation,
        }
        steps = [
            functools.partial(operation, factor=draw(generator, max(0, 1 - x), 1 + x))
            for operation, x in change_by.items()
            if x
        ]
        if self.hue:
            shift = draw(generator, -self.hue, self.hue)
            steps.append(functools.partial(operations.hue, shift=shift))
        for i in generator.permutation(len(steps)):
            pixels = steps[i](pixels)
        return pixels


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Covers a random rectangle, by timm's rule.

    The area and the logarithm of the aspect ratio (height / width) are drawn uniformly, up to ten
    times until the rectangle fits into the image. If none fits, nothing is covered.

    Attributes:
      probability: the probability of covering a rectangle.
      scale: the smallest and the largest area, as a share of the image's area.
      ratio: the smallest and the largest aspect ratio.
      fill: "mean", the data set's mean pixel (zero after normalisation; timm's "const"); or
        "noise", standard normal after normalisation (timm's "pixel", clipped at black and white).
    """

    probability: float = 0.25
    scale: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 3.3)
    fill: str = "mean"
    random: ClassVar[bool] = True

    def __post_init__(self):
        require_number("probability", self.probability, at_least=0, at_most=1)
        require_interval("scale", self.scale, above=0, at_most=1)
        require_interval("ratio", self.ratio, above=0)
        require_choice("fill", self.fill, ("mean", "noise"))

    def __call__(
        self, pixels: np.ndarray, generator: np.random.Generator, statistics: PixelStatistics
    ) -> np.ndarray:
        """uint8, of the same shape."""
        if generator.random() >= self.probability:
            return pixels
        rectangle = self._rectangle(pixels.shape[0], pixels.shape[1], generator)
        if rectangle is None:
            return pixels
        top, left, height, width = rectangle
        shape = (height, width, pixels.shape[2])
        cover = (
            statistics.fill(pixels.shape[2])
            if self.fill == "mean"
            else statistics.noise(shape, generator)
        )
        erased = pixels.copy()
        erased[top : top + height, left : left + width] = cover
        return erased

    def _rectangle(self, height: int, width: int, generator: np.random.Generator) -> Box | None:
        for _ in range(10):
            area = height * width * draw(generator, *self.scale)
            ratio = math.exp(draw(generator, *map(math.log, self.ratio)))
            tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < tall < height and 0 < wide < width:
                top = int(draw(generator, 0, height - tall + 1))
                left = int(draw(generator, 0, width - wide + 1))
                return top, left, tall, wide
        return None
