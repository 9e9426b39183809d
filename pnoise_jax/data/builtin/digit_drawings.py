"""Draws digits from fonts as bitmaps, with variations, and reduces them like `digits`."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Self

import cv2
import numpy as np

from pnoise_jax.data.builtin import fonts

SIDE = 32  # side of a bitmap, in pixels
_BLOCK = 4  # side of a block that becomes one pixel, in pixels
_FINE = 4  # each pixel of a bitmap is drawn as 4 x 4 fine pixels
_MOST_SHIFT = 1.5


@dataclasses.dataclass(frozen=True)
class Variation:
    """How a drawing differs from the plain digit; it is never cut off.

    Attributes:
      rotation: degrees counterclockwise, -10 to 10.
      slant: shift to the right per unit of height, -0.15 to 0.15.
      stretch: factor of the width, 0.9 to 1.1; the height is divided by it.
      extent: the longer side of the outline's bounding box in pixels of the bitmap, 26 to 30.
      boldness: pixels by which every stroke grows on each side, 0 to 1.
      right: shift from the centre of the bitmap in pixels, at most 1.5, and limited so the drawing
        stays inside the bitmap.
      up: the same, upwards.
    """

    rotation: float
    slant: float
    stretch: float
    extent: float
    boldness: float
    right: float
    up: float

    @classmethod
    def from_digest(cls, digest: bytes) -> Self:
        """Uniform over the ranges, from at least 28 random bytes."""
        u = (np.frombuffer(digest, ">u4")[:7] / 2**31 - 1).tolist()  # in [-1, 1)
        extent, boldness = 28 + 2 * u[3], 0.5 + 0.5 * u[4]
        room = min(_MOST_SHIFT, SIDE / 2 - extent / 2 - boldness)
        return cls(
            10 * u[0], 0.15 * u[1], 1 + 0.1 * u[2], extent, boldness, room * u[5], room * u[6]
        )

    @property
    def matrix(self) -> np.ndarray:
        """Stretch, then slant, then rotation: (2, 2), for column vectors (x, y), y upwards."""
        turn = np.deg2rad(self.rotation)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        return rotation @ [[1, self.slant], [0, 1]] @ np.diag([self.stretch, 1 / self.stretch])


class Pen:
    """Draws digits in some faces; caches their outlines, as each is drawn several times."""

    def __init__(self, faces: Sequence[str]):
        opened = {name: fonts.open_face(name) for name in faces}
        self._canvas = fonts.Canvas(SIDE * _FINE)
        self._outlines = {
            (name, digit): fonts.outline(face, ord(str(digit)))
            for name, face in opened.items()
            for digit in range(10)
        }

    def draw(self, digit: int, face: str, variation: Variation) -> np.ndarray:
        """The bitmap of a digit, (SIDE, SIDE) bool: a pixel is on if at least half is covered."""
        outline = self._outlines[face, digit]
        assert outline is not None, "all listed faces contain the ten digits"
        contours = fonts.transform(
            outline,
            extent=variation.extent * _FINE,
            matrix=variation.matrix,
            shift=(variation.right * _FINE, variation.up * _FINE),
        )
        # Made bolder in fine pixels: integer arithmetic, which is the same on every machine.
        inked = (self._canvas.draw(contours) >= 128).astype(np.uint8)
        inked = cv2.dilate(inked, _disc(variation.boldness * _FINE))
        return _sums_of_blocks(inked, _FINE) >= _FINE**2 // 2


def block_counts(bitmap: np.ndarray) -> np.ndarray:
    """Counts the pixels that are on in each 4x4 block: (SIDE, SIDE) bool to (8, 8), 0..16.

    The bitmaps of the UCI optical recognition of handwritten digits data set, which includes
    scikit-learn's digits, were reduced in the same way.
    """
    return _sums_of_blocks(bitmap, _BLOCK)


def outlines_digest(faces: Sequence[str]) -> str:
    """SHA-256 of the outlines of the ten digits in these faces; depends only on the fonts."""
    sha = hashlib.sha256()
    for name in faces:
        face = fonts.open_face(name)
        for digit in range(10):
            contours = fonts.outline(face, ord(str(digit)))
            if contours is not None:
                codes = np.asarray(contours.codes, np.uint8)
                sha.update(f"{name}/{digit}/{len(codes)}".encode())
                sha.update(np.asarray(contours.vertices).astype("<f8").tobytes())
                sha.update(codes.tobytes())
    return sha.hexdigest()


def _sums_of_blocks(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape
    return pixels.reshape(height // side, side, width // side, side).sum(axis=(1, 3))


def _disc(radius: float) -> np.ndarray:
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)
