"""The first transform of an image: from an encoded file or pixels to pixels of the wanted size.

Each is a frozen dataclass whose fields are its arguments in a config. It is called as
``crop(image, generator, size)`` with the (height, width) of the result as size.
"""

import dataclasses
import math
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from pnoise_jax.data.image.arguments import draw, require_choice, require_interval, require_number
from pnoise_jax.data.image.images import (
    INTERPOLATIONS,
    Box,
    Image,
    crop_and_resize,
    decode,
    image_size,
    resize_then_crop,
)

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class NoCrop:
    """Leaves an image of the wanted size unchanged, bit for bit; others as `resize_square`.

    The paper's ResNets are trained and tested this way: no augmentation, only normalisation.
    """

    random: ClassVar[bool] = False

    def __call__(self, image: Image, generator: Generator | None, size: Size) -> np.ndarray:
        """uint8 (*size, channels)."""
        if image_size(image) == size:
            return decode(image)
        return ResizeSquare()(image, generator, size)


@dataclasses.dataclass(frozen=True)
class ResizeSquare:
    """Resizes directly to the wanted size, without keeping the aspect ratio.

    The evaluation of the published code: torchvision's ``Resize((s, s))`` on PIL images, byte for
    byte.

    Attributes:
      interpolation: "bilinear" or "bicubic", antialiased.
    """

    interpolation: str = "bilinear"
    random: ClassVar[bool] = False

    def __post_init__(self):
        require_choice("interpolation", self.interpolation, INTERPOLATIONS)

    def __call__(self, image: Image, generator: Generator | None, size: Size) -> np.ndarray:
        """uint8 (*size, channels)."""
        del generator
        return crop_and_resize(image, None, size, antialias=True, interpolation=self.interpolation)


@dataclasses.dataclass(frozen=True)
class ResizeCrop:
    """Resizes so the wanted size is a given share of the short side, and crops the centre.

    timm's evaluation (``crop_mode="center"``), and torchvision's ``Resize(256)``,
    ``CenterCrop(224)`` on PIL images with the share 0.875, byte for byte.

    Attributes:
      crop_ratio: the share, in (0, 1].
      interpolation: "bilinear" or "bicubic", antialiased.
    """

    crop_ratio: float = 0.875
    interpolation: str = "bicubic"
    random: ClassVar[bool] = False

    def __post_init__(self):
        require_number("crop_ratio", self.crop_ratio, above=0, at_most=1)
        require_choice("interpolation", self.interpolation, INTERPOLATIONS)

    def __call__(self, image: Image, generator: Generator | None, size: Size) -> np.ndarray:
        """uint8 (*size, channels)."""
        del generator
        resized = self._resized_size(*image_size(image), size)
        # Halves are rounded to even numbers, as in torchvision's CenterCrop.
        top, left = (round((have - want) / 2) for have, want in zip(resized, size, strict=True))
        return resize_then_crop(
            image, resized, (top, left, *size), interpolation=self.interpolation
        )

    def _resized_size(self, height: int, width: int, size: Size) -> Size:
        short_height, short_width = (math.floor(side / self.crop_ratio) for side in size)
        if short_height != short_width:  # as timm's ResizeKeepRatio
            ratio = min(height / short_height, width / short_width)
            return round(height / ratio), round(width / ratio)
        if height <= width:  # as torchvision's Resize, which truncates
            return short_height, int(short_height * width / height)
        return int(short_height * height / width), short_height


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Resizes a random part of the image to the wanted size, by torchvision's rule.

    The area and the logarithm of the aspect ratio (width / height) are drawn uniformly, up to ten
    times until the crop fits into the image. If none fits, the crop is the largest central one with
    an allowed ratio.

    Attributes:
      scale: the smallest and the largest area, as a share of the image's area, in (0, 1].
      ratio: the smallest and the largest aspect ratio.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    random: ClassVar[bool] = True

    def __post_init__(self):
        require_interval("scale", self.scale, above=0, at_most=1)
        require_interval("ratio", self.ratio, above=0)

    def __call__(self, image: Image, generator: Generator, size: Size) -> np.ndarray:
        """uint8 (*size, channels)."""
        box = self.box(*image_size(image), generator)
        return crop_and_resize(image, box, size, antialias=False)

    def box(self, height: int, width: int, generator: Generator) -> Box:
        """Draws the crop (top, left, height, width) of an image."""
        for _ in range(10):
            area = height * width * draw(generator, *self.scale)
            ratio = math.exp(draw(generator, *map(math.log, self.ratio)))
            crop_height = round(math.sqrt(area / ratio))
            crop_width = round(math.sqrt(area * ratio))
            if 0 < crop_height <= height and 0 < crop_width <= width:
                top = int(draw(generator, 0, height - crop_height + 1))
                left = int(draw(generator, 0, width - crop_width + 1))
                return top, left, crop_height, crop_width
        crop_height = max(1, min(height, round(width / self.ratio[0])))
        crop_width = max(1, min(width, round(height * self.ratio[1])))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


@dataclasses.dataclass(frozen=True)
class _Square:
    """The fields of crops that first resize the image without keeping its aspect ratio.

    Attributes:
      crop_ratio: the wanted size as a share of the size resized to, in (0, 1].
      interpolation: "bilinear" or "bicubic", antialiased.
    """

    crop_ratio: float = 0.875
    interpolation: str = "bilinear"

    def __post_init__(self):
        require_number("crop_ratio", self.crop_ratio, above=0, at_most=1)
        require_choice("interpolation", self.interpolation, INTERPOLATIONS)

    def _resized_size(self, size: Size) -> Size:
        height, width = (round(side / self.crop_ratio) for side in size)
        return height, width


@dataclasses.dataclass(frozen=True)
class SquareCrop(_Square):
    """Resizes to a square, without keeping the aspect ratio, and crops the centre.

    The evaluation of SSRT and CDTrans: torchvision's ``Resize((256, 256))``, ``CenterCrop(224)`` on
    PIL images, byte for byte.
    """

    random: ClassVar[bool] = False

    def __call__(self, image: Image, generator: Generator | None, size: Size) -> np.ndarray:
        """uint8 (*size, channels)."""
        del generator
        resized = self._resized_size(size)
        top, left = (round((have - want) / 2) for have, want in zip(resized, size, strict=True))
        return resize_then_crop(
            image, resized, (top, left, *size), interpolation=self.interpolation
        )


@dataclasses.dataclass(frozen=True)
class SquareRandomCrop(_Square):
    """Resizes to a square, without keeping the aspect ratio, and crops at a random position.

    The training of TVT (``Resize((288, 288))``, ``RandomCrop(256)``) with the ratio 256/288, and of
    CDTrans (256 and 224) with 0.875.
    """

    random: ClassVar[bool] = True

    def __call__(self, image: Image, generator: Generator, size: Size) -> np.ndarray:
        """uint8 (*size, channels)."""
        resized = self._resized_size(size)
        top, left = (
            int(draw(generator, 0, have - want + 1))
            for have, want in zip(resized, size, strict=True)
        )
        return resize_then_crop(
            image, resized, (top, left, *size), interpolation=self.interpolation
        )


@dataclasses.dataclass(frozen=True)
class SquareRandomResizedCrop(_Square):
    """Resizes to a square, without keeping the aspect ratio; then as `random_resized_crop`.

    The training of SSRT: ``Resize((256, 256))``, ``RandomResizedCrop(224)``, antialiased.

    Attributes, in addition to crop_ratio and interpolation:
      scale, ratio: as in `random_resized_crop`, relative to the square.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    random: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        RandomResizedCrop(self.scale, self.ratio)  # checks them

    def __call__(self, image: Image, generator: Generator, size: Size) -> np.ndarray:
        """uint8 (*size, channels)."""
        resized, how = self._resized_size(size), {"interpolation": self.interpolation}
        square = crop_and_resize(image, None, resized, antialias=True, **how)
        box = RandomResizedCrop(self.scale, self.ratio).box(*resized, generator)
        return crop_and_resize(square, box, size, antialias=True, **how)
