"""The figure of noisy images: a row for each noise, a column for each strength."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnoise_jax.studies.reporting import style
from pnoise_jax.studies.showing.measuring import NoisyImages
from pnoise_jax.studies.showing.study import Shown
from pnoise_jax.studies.showing.wording import note_on, shorten

WIDTH = 1.25 * style.WIDTH
MARGIN = 0.15  # inches, like all sizes here
_GAP, _TITLE, _HEAD = 0.14, 0.3, 0.86
_TALLEST = 1.3
_PIXELS = 96  # the most pixels drawn along a side, to keep the SVG small


@style.styled
def image_figure(shown: Shown) -> Figure:
    """Draws the images, then each noise on the same images in the same arrangement."""
    strengths = shown.settings.strengths
    width = (WIDTH - 2 * MARGIN - _GAP * (len(strengths) - 1)) / len(strengths)
    tiles = [_tile(image) for image in shown.images]
    cell = min(_height(tiles, width), _TALLEST)
    strips = _strips(tiles)
    strip = (WIDTH - 2 * MARGIN) / len(strips[0]) * tiles[0].shape[0] / tiles[0].shape[1]
    strip = min(strip, 0.95)
    clean = len(strips) * (strip + 0.28)
    figure = Figure(
        figsize=(WIDTH, _HEAD + clean + 0.34 + len(shown.noises) * (_TITLE + cell + _GAP))
    )
    _write(figure, MARGIN, 0.12, f"What noise does to images of {shown.data}", size=12)
    _write(figure, MARGIN, 0.38, _explanation(shown), size=9, color=style.MUTED)
    _draw_clean(figure, shown, strips, strip)
    top = _HEAD + clean
    for column, strength in enumerate(strengths):
        left = MARGIN + column * (width + _GAP)
        named = "strength " if column == 0 or width > 1.2 else ""
        _write(figure, left, top + 0.04, f"{named}{strength:g}", size=10.5)
    top += 0.34
    for row in range(len(shown.noises)):
        measured = shown.noisy_images[row * len(strengths) : (row + 1) * len(strengths)]
        _write_title(figure, top, measured[0])
        for column, noisy in enumerate(measured):
            left = MARGIN + column * (width + _GAP)
            _draw_cell(_add_axes(figure, left, top + _TITLE, width, cell), noisy)
        top += _TITLE + cell + _GAP
    return figure


def _explanation(shown: Shown) -> str:
    n, (height, width, _) = len(shown.images), shown.images.shape[1:]
    lines = (
        f"Noise acts on pixels from 0 to 1, and what leaves this range is clipped. "
        f"{n} image{'s' * (n > 1)} of {width} × {height} pixels, seed {shown.settings.seed}.",
        "Noise that mixes examples mixes these: in each cell they are in the order of the top row."
        + f" One pixel in {_step(shown.images[0])} is drawn." * (_step(shown.images[0]) > 1),
    )
    return "\n".join(lines)


def _write_title(figure: Figure, top: float, noisy: NoisyImages) -> None:
    """Writes the noise's name, followed by what it does."""
    shown = noisy.shown
    title = shorten(shown.title, 60)
    text = _write(figure, MARGIN, top + 0.02, title, size=10.5, weight="bold")
    end = text.get_window_extent().x1 / figure.dpi
    room = int((WIDTH - MARGIN - end) * 15.5)
    _write(figure, end + 0.1, top + 0.035, shorten(note_on(noisy), room), 9, color=style.MUTED)


def _draw_clean(figure: Figure, shown: Shown, strips: list[list[np.ndarray]], size: float) -> None:
    """Draws all images with their labels below."""
    columns, number, top = len(strips[0]), 0, _HEAD
    aspect = strips[0][0].shape[1] / strips[0][0].shape[0]
    width = min((WIDTH - 2 * MARGIN) / columns, size * aspect + 0.06)
    letters = max(3, int(width * 12))
    for strip in strips:
        for column, tile in enumerate(strip):
            left = MARGIN + column * width
            ax = _add_axes(figure, left, top, width - 0.06, size)
            _draw(ax, tile)
            label = shorten(shown.labels[number], letters)
            middle = left + (width - 0.06) / 2
            text = _write(figure, middle, top + size + 0.04, label, 9, color=style.INK)
            text.set_horizontalalignment("center")
            number += 1
        top += size + 0.28


def _draw_cell(ax: Axes, noisy: NoisyImages) -> None:
    if noisy.images is None:
        ax.set_axis_off()
        letters = max(8, int(12 * ax.get_window_extent().width / ax.figure.dpi))
        text = f"none: {noisy.missing}" if letters > 20 else "not allowed"
        wrapped = "\n".join(textwrap.wrap(text, letters))
        ax.text(0, 1, wrapped, va="top", fontsize=8, color=style.MUTED, transform=ax.transAxes)
        return
    tiles = [_tile(image) for image in noisy.images.round().astype(np.uint8)]
    _draw(ax, _montage(tiles))


def _draw(ax: Axes, image: np.ndarray) -> None:
    ax.set_axis_off()
    ax.imshow(image, interpolation="none")
    ax.set_anchor("NW")


def _columns(count: int) -> int:
    """Returns the number of columns of images in a cell: about twice the number of rows."""
    return min(count, math.ceil(math.sqrt(2 * count)))


def _height(tiles: Sequence[np.ndarray], width: float) -> float:
    height, length, _ = _montage(tiles).shape
    return width * height / length


def _strips(tiles: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Splits the images into rows of at most 10."""
    columns = math.ceil(len(tiles) / math.ceil(len(tiles) / 10))
    return [list(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]


def _step(image: np.ndarray) -> int:
    """Returns n if every n-th pixel along each side is drawn."""
    return math.ceil(max(image.shape[:2]) / _PIXELS)


def _tile(image: np.ndarray) -> np.ndarray:
    """Returns an image as RGBA; small images are enlarged, as viewers smooth what they scale."""
    step = _step(image)
    image = image[::step, ::step]
    repeat = max(1, _PIXELS // max(image.shape[:2]))
    image = image.repeat(repeat, axis=0).repeat(repeat, axis=1)
    color = image if image.shape[2] == 3 else image.repeat(3, axis=2)
    return np.concatenate([color, np.full_like(color[..., :1], 255)], axis=2)


def _montage(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Combines all images into one, with transparent gaps."""
    height, width, _ = tiles[0].shape
    gap, columns = max(1, width // 16), _columns(len(tiles))
    rows = math.ceil(len(tiles) / columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 4)
    montage = np.zeros(shape, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        montage[top : top + height, left : left + width] = tile
    return montage


def _add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds axes at a position in inches from the upper left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))


def _write(figure: Figure, left: float, top: float, text: str, size: float, **options):
    """Writes text whose upper left corner is at a position in inches."""
    w, h = figure.get_size_inches()
    return figure.text(left / w, 1 - top / h, text, fontsize=size, va="top", **options)
