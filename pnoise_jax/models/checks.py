"""Checks of the options and the images of models."""

import math
from typing import Any

import jax


def require_positive(**options: Any) -> None:
    """Raises ValueError unless each option is a whole number of at least 1, or a tuple of them."""
    for name, value in options.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(type(number) is int and number >= 1 for number in numbers):
            raise ValueError(f"{name}={value!r}: give whole numbers of at least 1")


def require_count(**options: Any) -> None:
    """Raises ValueError unless each option is a whole number of at least 0."""
    for name, value in options.items():
        if type(value) is not int or value < 0:
            raise ValueError(f"{name}={value!r}: give a whole number of at least 0")


def require_finite(**options: Any) -> None:
    """Raises ValueError unless each option is a finite number."""
    for name, value in options.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name}={value!r}: give a number, such as 1e-5")


def require_rate(**options: Any) -> None:
    """Raises ValueError unless each option is a number in [0, 1)."""
    for name, value in options.items():
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise ValueError(f"{name}={value!r}: give a number in [0, 1)")


def require_whole_patches(image_size: Any, image_shape: tuple[int, int], patch_size: int) -> None:
    """Raises ValueError unless patches of `patch_size` pixels fill images of `image_shape`."""
    if any(side % patch_size for side in image_shape):
        raise ValueError(
            f"image_size={image_size} is not divisible by patch_size={patch_size}: "
            f"every side must be a multiple of {patch_size}"
        )


def require_equal_heads(dim: int, num_heads: int) -> None:
    """Raises ValueError unless `num_heads` divides the number of features of a token."""
    if dim % num_heads:
        raise ValueError(
            f"dim={dim} is not divisible by num_heads={num_heads}: every head takes "
            "an equal share of the features, so change one of them"
        )


def require_whole_heads(dim: int, head_dim: int) -> None:
    """Raises ValueError unless `head_dim` divides the number of features of a token."""
    if dim % head_dim:
        raise ValueError(
            f"dim={dim} is not divisible by head_dim={head_dim}: the heads share the features, so "
            "change one of them"
        )


def image_shape(image_size: Any) -> tuple[int, int]:
    """Height and width of images, in pixels, from a model's `image_size`.

    Raises:
      ValueError: `image_size` is neither a side nor (height, width).
    """
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if not isinstance(image_size, tuple) or len(image_size) != 2:
        raise ValueError(
            f"image_size={image_size!r}: give the images' side, or (height, width), in pixels"
        )
    require_positive(image_size=image_size)
    return image_size


def require_one_for_each(x: jax.Array, **arrays: Any) -> None:
    """Raises ValueError unless each array that is not None is (batch,), for x (batch, ...)."""
    for name, array in arrays.items():
        if array is not None and getattr(array, "shape", None) != x.shape[:1]:
            shape = getattr(array, "shape", None)
            got = f"type {type(array).__name__}" if shape is None else f"shape {shape}"
            raise ValueError(f"{name} has {got}; expected an array (batch,) = {x.shape[:1]}")


def require_images(images: jax.Array, image_shape: tuple[int, int] | None) -> None:
    """Raises ValueError unless images are (batch, height, width, channels) of the model's size."""
    if images.ndim == 4 and image_shape in (None, images.shape[1:3]):
        return
    height, width = image_shape or ("height", "width")
    fix = "resize them, or create the model with their image_size"
    raise ValueError(
        f"images have shape {images.shape}, expected (batch, {height}, {width}, channels): "
        f"{fix if images.ndim == 4 else 'add the missing axis, or reshape them'}"
    )
