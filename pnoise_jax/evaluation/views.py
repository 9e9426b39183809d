"""Views of an image: shifted copies, for test-time augmentation and for noise that mixes views."""

import jax
import jax.numpy as jnp

# Steps (down, right); the first is the image itself.
_SHIFTS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
MAX_VIEWS = len(_SHIFTS)


def shifted_views(images: jax.Array, count: int) -> jax.Array:
    """Returns views of each image: the image, and shifts by one step in up to eight directions.

    A step is a 32nd of the shorter side, and at least one pixel: 1 pixel for 8 or 32, 7 for 224.

    Args:
      images: (batch, height, width, channels).
      count: number of views of each image, 1 to `MAX_VIEWS`.

    Returns:
      (batch * count, height, width, channels), in which the views of an image are adjacent. The
      strip that a shift uncovers repeats the edge of the image.

    Raises:
      ValueError: count is out of range.
    """
    if not 1 <= count <= MAX_VIEWS:
        raise ValueError(f"views={count}: give a whole number from 1 to {MAX_VIEWS}")
    if count == 1:
        return images
    batch, height, width, channels = images.shape
    step = max(1, min(height, width) // 32)
    padded = jnp.pad(images, ((0, 0), (step, step), (step, step), (0, 0)), mode="edge")
    corners = [(step * (1 - down), step * (1 - right)) for down, right in _SHIFTS[:count]]
    views = [
        jax.lax.slice(padded, (0, top, left, 0), (batch, top + height, left + width, channels))
        for top, left in corners
    ]
    return jnp.stack(views, axis=1).reshape(batch * count, height, width, channels)
