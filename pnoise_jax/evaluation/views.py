"""Views of an image: shifted copies, for test-time augmentation and for noise that mixes views."""

import jax
import jax.numpy as jnp

# Pixels down and to the right; the image itself comes first.
_SHIFTS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
MAX_VIEWS = len(_SHIFTS)


def shifted_views(images: jax.Array, count: int) -> jax.Array:
    """Views of each image: itself, then shifted by one pixel in up to eight directions.

    Args:
      images: (batch, height, width, channels).
      count: views of each image, 1 to `MAX_VIEWS`.

    Returns:
      (batch * count, height, width, channels), the views of an image next to one another. What a
      shift uncovers repeats the image's edge.

    Raises:
      ValueError: a count out of range.
    """
    if not 1 <= count <= MAX_VIEWS:
        raise ValueError(f"views={count}: give a whole number from 1 to {MAX_VIEWS}")
    if count == 1:
        return images
    batch, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    views = [
        jax.lax.slice(
            padded,
            (0, 1 - down, 1 - right, 0),
            (batch, 1 - down + height, 1 - right + width, channels),
        )
        for down, right in _SHIFTS[:count]
    ]
    return jnp.stack(views, axis=1).reshape(batch * count, height, width, channels)
