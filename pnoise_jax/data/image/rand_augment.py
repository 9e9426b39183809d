"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719), on uint8 images."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from pnoise_jax.data.image import pixel_operations as operations
from pnoise_jax.data.image.arguments import draw, require_number
from pnoise_jax.data.image.augmentations import PixelStatistics

# Where an operation covers or moves, it does so in shares of an image of this side, in pixels.
_REFERENCE_SIDE = 224


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Operations drawn from sixteen, one after the other, all of one magnitude.

    The definition is big_vision's and AugReg's (Steiner et al. 2021), as the recipes of ViTs from
    the literature are stated in it: all sixteen operations equally likely, always applied, at
    magnitudes where 10 stands for the original's strongest and 15 is AugReg's. timm's "rand-m9"
    counts likewise to 10, but applies each with probability 0.5; torchvision's counts to 30.

    What differs from big_vision: what comes into view is filled with the data set's mean, not with
    gray 128; lengths (a translation's 100 pixels and a cutout's 80 at magnitude 10) are those of an
    image of 224 pixels, and in proportion for others; contrast is relative to the image's mean
    gray, as in Pillow; a solarize from magnitude 10 on leaves the image alone.

    Attributes:
      num_ops: how many operations, at least 1.
      magnitude: 0 to 30.
      magnitude_std: where above 0, every operation's magnitude is drawn from a normal distribution
        around it, cut off at 0 and 30 (timm's "mstd").
    """

    num_ops: int = 2
    magnitude: float = 15
    magnitude_std: float = 0
    random: ClassVar[bool] = True

    def __post_init__(self):
        require_number("num_ops", self.num_ops, at_least=1, whole=True)
        require_number("magnitude", self.magnitude, at_least=0, at_most=30)
        require_number("magnitude_std", self.magnitude_std, at_least=0)

    def __call__(
        self, pixels: np.ndarray, generator: Generator, statistics: PixelStatistics
    ) -> np.ndarray:
        """uint8, of the same shape.

        Raises:
          ValueError: pixels of other than 1 or 3 channels.
        """
        operations.require_colour(pixels)
        fill = statistics.fill(pixels.shape[2])
        names = list(OPERATIONS)
        for _ in range(self.num_ops):
            name = names[int(draw(generator, 0, len(names)))]
            magnitude = self.magnitude
            if self.magnitude_std:
                drawn = generator.normal(magnitude, self.magnitude_std)
                magnitude = min(30.0, max(0.0, drawn))
            pixels = OPERATIONS[name](pixels, magnitude / 10, generator, fill)
        return pixels


Fill = tuple[int, ...]

Operation = Callable[[np.ndarray, float, Generator, Fill], np.ndarray]
"""(pixels, level, generator, fill) -> pixels; level 1 is the original's strongest."""


def _sign(generator: Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


def _rotate(pixels: np.ndarray, level: float, generator: Generator, fill: Fill) -> np.ndarray:
    degrees = 30 * level * _sign(generator)
    return operations.warp(pixels, operations.rotation(degrees, *pixels.shape[:2]), fill)


def _shear_x(pixels: np.ndarray, level: float, generator: Generator, fill: Fill) -> np.ndarray:
    shear = 0.3 * level * _sign(generator)
    return operations.warp(pixels, np.array([[1, shear, 0], [0, 1, 0]]), fill)


def _shear_y(pixels: np.ndarray, level: float, generator: Generator, fill: Fill) -> np.ndarray:
    shear = 0.3 * level * _sign(generator)
    return operations.warp(pixels, np.array([[1, 0, 0], [shear, 1, 0]]), fill)


def _translate_x(pixels: np.ndarray, level: float, generator: Generator, fill: Fill) -> np.ndarray:
    shift = 100 / _REFERENCE_SIDE * pixels.shape[1] * level * _sign(generator)
    return operations.warp(pixels, np.array([[1, 0, shift], [0, 1, 0]]), fill)


def _translate_y(pixels: np.ndarray, level: float, generator: Generator, fill: Fill) -> np.ndarray:
    shift = 100 / _REFERENCE_SIDE * pixels.shape[0] * level * _sign(generator)
    return operations.warp(pixels, np.array([[1, 0, 0], [0, 1, shift]]), fill)


def _cutout(pixels: np.ndarray, level: float, generator: Generator, fill: Fill) -> np.ndarray:
    height, width = pixels.shape[:2]
    row, column = (int(draw(generator, 0, side)) for side in (height, width))
    tall, wide = (int(40 / _REFERENCE_SIDE * side * level) for side in (height, width))
    covered = pixels.copy()
    covered[max(0, row - tall) : row + tall, max(0, column - wide) : column + wide] = fill
    return covered


def _enhance(operation: Callable[[np.ndarray, float], np.ndarray]) -> Operation:
    return lambda pixels, level, generator, fill: operation(pixels, 1.8 * level + 0.1)


def _plain(operation: Callable[[np.ndarray], np.ndarray]) -> Operation:
    return lambda pixels, level, generator, fill: operation(pixels)


def _posterize(pixels: np.ndarray, level: float, generator: Generator, fill: Fill) -> np.ndarray:
    return operations.posterize(pixels, min(8, int(4 * level)))


def _solarize(pixels: np.ndarray, level: float, generator: Generator, fill: Fill) -> np.ndarray:
    return operations.solarize(pixels, int(256 * level))


def _solarize_add(pixels: np.ndarray, level: float, generator: Generator, fill: Fill) -> np.ndarray:
    return operations.solarize_add(pixels, int(110 * level))


OPERATIONS: Mapping[str, Operation] = {
    "auto_contrast": _plain(operations.auto_contrast),
    "equalize": _plain(operations.equalize),
    "invert": _plain(operations.invert),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _enhance(operations.saturation),
    "contrast": _enhance(operations.contrast),
    "brightness": _enhance(operations.brightness),
    "sharpness": _enhance(operations.sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "cutout": _cutout,
}
