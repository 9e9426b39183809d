"""Outlines of the fonts that ship with matplotlib, and pictures of them.

FreeType gives the outlines unhinted and in the fonts' own units, where coordinates are whole
numbers; Agg fills them. Both are inside matplotlib, as the fonts are: nothing of the system's.
"""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import ft2font
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path as Contours
from matplotlib.transforms import IdentityTransform

_CHORDS = (
    4  # that approximate a curve; of 28 pixels, the worst is 0.3 off, the usual one below 0.05
)
_SUBPIXELS = 256  # of Agg


def open_face(name: str) -> ft2font.FT2Font:
    """A font face by its file's name without `.ttf`, such as `DejaVuSans-Bold`.

    Raises:
      FileNotFoundError: matplotlib as it is installed does not carry it.
    """
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: matplotlib {matplotlib.__version__} is installed without its "
            "fonts, as some distributions do. The package from PyPI has them: "
            "pip install --force-reinstall matplotlib."
        )
    face = ft2font.FT2Font(str(path))
    face.set_size(face.units_per_EM, 72)  # at 72 dots per inch coordinates are font units
    return face


def common_codepoints(faces: Iterable[ft2font.FT2Font]) -> list[int]:
    """The codepoints that every face has, ascending."""
    # Glyph 0 is the box drawn for whatever a font lacks.
    return sorted(set.intersection(*({c for c, g in f.get_charmap().items() if g} for f in faces)))


def outline(face: ft2font.FT2Font, codepoint: int) -> Contours | None:
    """The outline of a character as polygons, in font units, y upwards; None if it is blank."""
    face.load_char(codepoint, flags=ft2font.LoadFlags.NO_HINTING)
    vertices, codes = map(np.asarray, face.get_path())
    drawn = codes != Contours.CLOSEPOLY  # filling closes contours by itself
    vertices, codes = vertices[drawn].astype(np.float64), codes[drawn]
    if not len(vertices) or not np.ptp(vertices, axis=0).all():
        return None
    return _straighten(vertices, codes)


def _straighten(vertices: np.ndarray, codes: np.ndarray) -> Contours:
    """Puts chords in the place of quadratic curves; exact, where Agg's own would be rounded."""
    is_control = np.zeros(len(codes), bool)
    is_control[np.flatnonzero(codes == Contours.CURVE3)[::2]] = True  # control point, end, …
    curves = np.flatnonzero(is_control)
    start, control, end = (vertices[curves + i][:, None] for i in (-1, 0, 1))
    t = np.arange(1, _CHORDS)[:, None] / _CHORDS
    inner = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end

    # Each control point gives way to the inner ends of its chords.
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
    """Applies a matrix, scales to an extent, and puts the middle where it is asked for.

    Args:
      contours: an outline.
      extent: the longer side of the result's bounding box.
      matrix: (2, 2), for column vectors (x, y); None: the identity.
      shift: (x, y), the middle of the result's bounding box.
    """
    points = np.asarray(contours.vertices)
    if matrix is not None:
        points = points @ matrix.T
    low, high = points.min(axis=0), points.max(axis=0)
    scale = extent / (high - low).max()
    return Contours((points - (low + high) / 2) * scale + np.array(shift), contours.codes)


class Canvas:
    """A square of `side` pixels, on which one outline at a time is filled."""

    def __init__(self, side: int):
        self._side = side
        self._renderer = RendererAgg(side, side, 72)
        self._style = self._renderer.new_gc()
        self._style.set_linewidth(0)
        self._style.set_snap(False)  # else straight edges move to whole pixels

    def draw(self, contours: Contours) -> np.ndarray:
        """Ink of an outline around (0, 0), in pixels, y upwards: (side, side) uint8, 255 is full.

        Edges are smooth: a pixel is as bright as the share of it that is inside.
        """
        # On Agg's own grid, so that it computes in whole numbers: the same bytes everywhere.
        points = np.rint((np.asarray(contours.vertices) + self._side / 2) * _SUBPIXELS) / _SUBPIXELS
        self._renderer.clear()
        self._renderer.draw_path(
            self._style, Contours(points, contours.codes), IdentityTransform(), (1, 1, 1)
        )
        return np.asarray(self._renderer.buffer_rgba())[..., 3].copy()
