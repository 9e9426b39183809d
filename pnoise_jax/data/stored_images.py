"""The images of a prepared data set as sequences: encoded, or decoded at every access."""

from collections.abc import Sequence

import numpy as np

from pnoise_jax.data.image import images
from pnoise_jax.data.image.conversion import ChannelsError
from pnoise_jax.data.image.images import Encoded


class Files(Sequence):
    """Encoded images, with the height, width (either may be open) and channels as declared."""

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
                    f"the file has {size[0]} x {size[1]} pixels, and the data set declares images "
                    f"of shape {self._declared}: correct the shape in its features.json, or "
                    "prepare it from files that agree"
                )
        return image


class Decoded(Sequence):
    """Images of one shape, decoded at every access."""

    def __init__(self, encoded: Sequence[bytes], shape: tuple[int, int, int]):
        self._files, self._shape = Files(encoded, (None, None, shape[2])), shape

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> np.ndarray:
        pixels = images.decode(self._files[i])
        if pixels.shape != self._shape:
            raise ChannelsError(f"the file has {pixels.shape[0]} x {pixels.shape[1]} pixels")
        return pixels
