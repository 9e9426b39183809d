"""Characters as classes: selects those that are distinct in every face, and draws variations."""

import dataclasses
import functools
import unicodedata
from collections.abc import Sequence
from typing import Self

import numpy as np

from pnoise_jax.data.builtin import fonts

SIDE = 32  # side of every drawing, in pixels
_PLAIN_EXTENT = 26  # longer side of a character in the drawings that are compared, in pixels

# Cosines between such drawings.
MAX_SIMILARITY = 0.95  # for two classes, in any face
MAX_COPY_SIMILARITY = 0.99  # for the same class in a training face and a test face


@functools.cache
def distinct_codepoints(
    train_faces: tuple[str, ...],
    new_faces: tuple[str, ...],
    similar_faces: tuple[str, ...] = (),
) -> tuple[int, ...]:
    """The codepoints that are distinct in every face and new in the test faces; ascending.

    There are three rules, in this order. All faces draw the codepoint, and it is a letter, number,
    punctuation mark or symbol. No new face draws it like a training face (cosine >=
    MAX_COPY_SIMILARITY). In no face does it look like an earlier codepoint that was kept (cosine >=
    MAX_SIMILARITY). All arithmetic is exact in integers, up to correctly rounded square roots, so
    the result depends only on the fonts.

    Args:
      train_faces: the faces of the training split.
      new_faces: the faces of the test split that must differ from the training faces.
      similar_faces: faces of the test split that may draw a character like a training face.

    Raises:
      FileNotFoundError: the file of a face is missing.
    """
    codepoints, drawings = plain_drawings(train_faces + new_faces + similar_faces)
    pixels = drawings.astype(np.float64)  # products and sums of bytes are exact
    squares = (pixels**2).sum(axis=2)

    copied = np.zeros(len(codepoints), bool)
    for train in range(len(train_faces)):
        for test in range(len(train_faces), len(train_faces + new_faces)):
            dot = (pixels[train] * pixels[test]).sum(axis=1)
            copied |= dot >= MAX_COPY_SIMILARITY * np.sqrt(squares[train] * squares[test])

    alike = np.zeros((len(codepoints), len(codepoints)), bool)
    for face, square in zip(pixels, squares, strict=True):
        alike |= face @ face.T >= MAX_SIMILARITY * np.sqrt(square[:, None] * square)

    kept: list[int] = []
    for i in np.flatnonzero(~copied).tolist():
        if not alike[i, kept].any():
            kept.append(i)
    return tuple(codepoints[i] for i in kept)


def plain_drawings(faces: Sequence[str]) -> tuple[list[int], np.ndarray]:
    """Drawings of all candidate codepoints without variation, centred and scaled to one size.

    Returns:
      n codepoints, ascending, and their drawings, (faces, n, SIDE * SIDE) uint8.
    """
    opened = [fonts.open_face(name) for name in faces]
    canvas = fonts.Canvas(SIDE)
    codepoints, drawings = [], []
    for codepoint in fonts.common_codepoints(opened):
        if unicodedata.category(chr(codepoint))[0] not in "LNPS":
            continue  # blanks, controls and combining marks
        outlines = [o for face in opened if (o := fonts.outline(face, codepoint)) is not None]
        if len(outlines) < len(opened):
            continue
        plain = [canvas.draw(fonts.transform(o, extent=_PLAIN_EXTENT)) for o in outlines]
        codepoints.append(codepoint)
        drawings.append(np.stack(plain).reshape(len(opened), -1))
    return codepoints, np.stack(drawings, axis=1)


@dataclasses.dataclass(frozen=True)
class Jitter:
    """How a drawing differs from the plain character; it is never cut off.

    Attributes:
      rotation: degrees counterclockwise, -10 to 10.
      shear: shift to the right per unit of height, -0.15 to 0.15.
      stretch: factor of the width, 0.9 to 1.1; the height is divided by it.
      extent: the longer side of the bounding box in pixels, 20 to 28.
      right: shift from the centre of the image, in pixels, -2 to 2.
      up: the same, upwards.
    """

    rotation: float
    shear: float
    stretch: float
    extent: float
    right: float
    up: float

    @classmethod
    def from_digest(cls, digest: bytes) -> Self:
        """Uniform over the ranges, from at least 24 random bytes."""
        u = (np.frombuffer(digest, ">u4")[:6] / 2**31 - 1).tolist()  # in [-1, 1)
        return cls(10 * u[0], 0.15 * u[1], 1 + 0.1 * u[2], 24 + 4 * u[3], 2 * u[4], 2 * u[5])

    @property
    def matrix(self) -> np.ndarray:
        """Stretch, then shear, then rotation: (2, 2), for column vectors (x, y), y upwards."""
        turn = np.deg2rad(self.rotation)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        return rotation @ [[1, self.shear], [0, 1]] @ np.diag([self.stretch, 1 / self.stretch])


class Pen:
    """Draws characters with jitter; caches their outlines, as each is drawn several times."""

    def __init__(self, faces: Sequence[str]):
        self._faces = {name: fonts.open_face(name) for name in faces}
        self._canvas = fonts.Canvas(SIDE)
        self._outlines: dict[tuple[str, int], fonts.Contours] = {}

    def draw(self, codepoint: int, face: str, jitter: Jitter) -> np.ndarray:
        """A character, white on black: (SIDE, SIDE) uint8.

        Raises:
          ValueError: the face does not have the character.
        """
        if (face, codepoint) not in self._outlines:
            outline = fonts.outline(self._faces[face], codepoint)
            if outline is None:
                raise ValueError(f"the font {face} has no U+{codepoint:04X}")
            self._outlines[face, codepoint] = outline
        contours = fonts.transform(
            self._outlines[face, codepoint],
            extent=jitter.extent,
            matrix=jitter.matrix,
            shift=(jitter.right, jitter.up),
        )
        return self._canvas.draw(contours)
