"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719), on uint8 images."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from pnoise_jax.data.image import pixel_operations as operations
from pnoise_jax.data.image.arguments import draw, require_number
from pnoise_jax.data.image.augmentations import PixelStatistics

# The lengths of cutouts and translations are defined for images of this size in pixels, and are
# proportional for others.
_REFERENCE_SIDE = 224


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies operations drawn from sixteen, one after the other, with the same magnitude.

    The definition follows big_vision and AugReg (Steiner et al. 2021), in whose terms published ViT
    recipes are stated: all sixteen operations are equally likely and always applied; magnitude 10
    is the maximum of the original paper, and AugReg uses 15. timm's "rand-m9" also has a scale up
    to 10, but applies each operation with probability 0.5; torchvision's scale goes up to 30.

    Differences from big_vision: uncovered areas are filled with the data set's mean, not with gray
    128; lengths (100 pixels for a translation and 80 for a cutout at magnitude 10) apply to images
    of 224 pixels, and are proportional for others; contrast is relative to the image's mean gray,
    as in Pillow; solarize leaves the image unchanged from magnitude 10 on.

    Attributes:
      num_ops: the number of operations, at least 1.
      magnitude: 0 to 30.
      magnitude_std: if above 0, the magnitude of every operation is drawn from a normal
        distribution around `magnitude`, clipped to 0 and 30 (timm's "mstd").
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
          ValueError: the pixels have neither 1 nor 3 channels.
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
"""(pixels, level, generator, fill) -> pixels; level 1 is the maximum of the original paper."""


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
