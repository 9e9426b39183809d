"""Outlines of the fonts that ship with matplotlib, and images drawn from them.

FreeType reads the outlines without hinting and in font units, where coordinates are integers; Agg
fills them. Both are part of matplotlib, and so are the fonts: nothing depends on the system.
"""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import ft2font
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path as Contours
from matplotlib.transforms import IdentityTransform

# Chords per curve. At 28 pixels, the largest error is 0.3 pixels, and usual ones are below 0.05.
_CHORDS = 4
_SUBPIXELS = 256  # subpixels per pixel in Agg


def open_face(name: str) -> ft2font.FT2Font:
    """Opens a font face by its file name without `.ttf`, such as `DejaVuSans-Bold`.

    Raises:
      FileNotFoundError: the installed matplotlib does not include it.
    """
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: matplotlib {matplotlib.__version__} is installed without its "
            "fonts, as packaged by some distributions. The package from PyPI includes them: "
            "pip install --force-reinstall matplotlib."
        )
    face = ft2font.FT2Font(str(path))
    face.set_size(face.units_per_EM, 72)  # at 72 dots per inch, coordinates are font units
    return face


def common_codepoints(faces: Iterable[ft2font.FT2Font]) -> list[int]:
    """The codepoints that all faces have, ascending."""
    # Glyph 0 is the box that is drawn for missing characters.
    return sorted(set.intersection(*({c for c, g in f.get_charmap().items() if g} for f in faces)))


def outline(face: ft2font.FT2Font, codepoint: int) -> Contours | None:
    """The outline of a character as polygons, in font units, y upwards; None if it is blank."""
    face.load_char(codepoint, flags=ft2font.LoadFlags.NO_HINTING)
    vertices, codes = map(np.asarray, face.get_path())
    drawn = codes != Contours.CLOSEPOLY  # filling closes contours implicitly
    vertices, codes = vertices[drawn].astype(np.float64), codes[drawn]
    if not len(vertices) or not np.ptp(vertices, axis=0).all():
        return None
    return _straighten(vertices, codes)


def _straighten(vertices: np.ndarray, codes: np.ndarray) -> Contours:
    """Replaces quadratic curves by chords, without the rounding of Agg's own approximation."""
    is_control = np.zeros(len(codes), bool)
    is_control[np.flatnonzero(codes == Contours.CURVE3)[::2]] = True  # control point, end, …
    curves = np.flatnonzero(is_control)
    start, control, end = (vertices[curves + i][:, None] for i in (-1, 0, 1))
    t = np.arange(1, _CHORDS)[:, None] / _CHORDS
    inner = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end

    # Replace each control point by the inner ends of its chords.
    repeats = np.where(is_control, _CHORDS - 1, 1)
    points = np.repeat(vertices, repeats, axis=0)
    points[np.repeat(is_control, repeats)] = inner.reshape(-1, 2)
    codes = np.where(codes == Contours.MOVETO, Contours.MOVETO, Contours.LINETO)
    return Contours(points, np.repeat(codes, repeats).astype(Contours.code_type))


def transform(
    contours: Contours,
    *,
    extent: float,
    matrix: np.ndarray | None = None,
    shift: tuple[float, float] = (0, 0),
) -> Contours:
    """Applies a matrix, scales to an extent, and moves the centre.

    Args:
      contours: an outline.
      extent: the longer side of the bounding box of the result.
      matrix: (2, 2), for column vectors (x, y); None: the identity.
      shift: (x, y), the centre of the bounding box of the result.
    """
    points = np.asarray(contours.vertices)
    if matrix is not None:
        points = points @ matrix.T
    low, high = points.min(axis=0), points.max(axis=0)
    scale = extent / (high - low).max()
    return Contours((points - (low + high) / 2) * scale + np.array(shift), contours.codes)


class Canvas:
    """A square canvas of `side` x `side` pixels, on which one outline at a time is filled."""

    def __init__(self, side: int):
        self._side = side
        self._renderer = RendererAgg(side, side, 72)
        self._style = self._renderer.new_gc()
        self._style.set_linewidth(0)
        self._style.set_snap(False)  # else straight edges would snap to whole pixels

    def draw(self, contours: Contours) -> np.ndarray:
        """Fills an outline centred at (0, 0), in pixels, y upwards.

        Returns:
          (side, side) uint8; 255 is full coverage. Edges are antialiased: the value of a pixel is
          proportional to the share of it that is inside the outline.
        """
        # Rounded to Agg's grid, so Agg computes with integers: the same bytes everywhere.
        points = np.rint((np.asarray(contours.vertices) + self._side / 2) * _SUBPIXELS) / _SUBPIXELS
        self._renderer.clear()
        self._renderer.draw_path(
            self._style, Contours(points, contours.codes), IdentityTransform(), (1, 1, 1)
        )
        return np.asarray(self._renderer.buffer_rgba())[..., 3].copy()
