"""Sequences of the images of a prepared data set: encoded, or decoded at every access."""

from collections.abc import Sequence

import numpy as np

from pnoise_jax.data.image import images
from pnoise_jax.data.image.conversion import ChannelsError
from pnoise_jax.data.image.images import Encoded


class Files(Sequence):
    """Encoded images, checked against the declared height and width (None: any size)."""

    def __init__(self, encoded: Sequence[bytes], declared: tuple[int | None, int | None, int]):
        self._encoded, self._declared = encoded, declared

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, i: int) -> Encoded:
        image = Encoded(self._encoded[i], self._declared[2])
        sides = self._declared[:2]
        if sides != (None, None):
            size = images.image_size(image)
            if any(side not in (None, x) for side, x in zip(sides, size, strict=True)):
                raise ValueError(
                    f"the file has {size[0]} x {size[1]} pixels, but the data set declares images "
                    f"of shape {self._declared}: correct the shape in its features.json, or "
                    "prepare it from files of that shape"
                )
        return image


class Decoded(Sequence):
    """Images that all have the same shape, decoded at every access."""

    def __init__(self, encoded: Sequence[bytes], shape: tuple[int, int, int]):
        self._files, self._shape = Files(encoded, (None, None, shape[2])), shape

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> np.ndarray:
        pixels = images.decode(self._files[i])
        if pixels.shape != self._shape:
            raise ChannelsError(f"the file has {pixels.shape[0]} x {pixels.shape[1]} pixels")
        return pixels
