"""Operations on pixels, uint8 (height, width, channels): pure, and without the interpreter lock.

They follow Pillow's ImageOps and ImageEnhance. Where a pixel's new value depends on its old one
only, it is looked up in a table of 256. Colour is defined for three channels, RGB, and for one,
gray, which has none: changing it changes nothing.
"""

from collections.abc import Callable

import cv2
import numpy as np

_LEVELS = np.arange(256, dtype=np.float32)


def mirror(pixels: np.ndarray) -> np.ndarray:
    """Left becomes right."""
    return cv2.flip(pixels, 1).reshape(pixels.shape)  # OpenCV drops a single channel's axis


# Brightness and colour


def require_colour(pixels: np.ndarray) -> None:
    """Raises ValueError unless there are three channels, or one."""
    if pixels.shape[2] not in (1, 3):
        raise ValueError(
            f"colour is defined for images of 3 channels, RGB, or of 1; this one has "
            f"{pixels.shape[2]}: leave out color_jitter and rand_augment"
        )


def brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiplied by the factor: 0 is black, 1 the image itself."""
    return _look_up(pixels, _blend(0, factor))


def contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Distances from the mean gray multiplied by the factor: 0 is gray, 1 the image itself."""
    mean = int(cv2.mean(_gray(pixels))[0] + 0.5)
    return _look_up(pixels, _blend(mean, factor))


def saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Distances of a pixel's channels from its gray multiplied: 0 is gray, 1 the image itself."""
    gray = _gray(pixels)
    if pixels.shape[2] == 1:
        return pixels
    return cv2.addWeighted(pixels, factor, cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), 1 - factor, 0)


def hue(pixels: np.ndarray, shift: float) -> np.ndarray:
    """Hue shifted by a share of the colour circle, in [-1, 1]."""
    require_colour(pixels)
    if pixels.shape[2] == 1:
        return pixels
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    # Hues are a circle of 256, as a byte is.
    table = np.stack([_LEVELS + round(shift * 256) % 256, _LEVELS, _LEVELS], axis=-1) % 256
    return cv2.cvtColor(_look_up(hsv, table), cv2.COLOR_HSV2RGB_FULL)


def sharpness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Distances from the smoothed image multiplied: 0 is smooth, 1 the image itself."""
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    smooth = cv2.filter2D(pixels, -1, kernel / kernel.sum()).reshape(pixels.shape)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):  # as Pillow leaves them
        smooth[edge] = pixels[edge]
    return cv2.addWeighted(pixels, factor, smooth, 1 - factor, 0).reshape(pixels.shape)


# Tables


def auto_contrast(pixels: np.ndarray) -> np.ndarray:
    """Stretches each channel, so that its darkest value becomes 0 and its brightest 255."""

    def table(counts: np.ndarray) -> np.ndarray:
        levels = np.flatnonzero(counts)
        low, high = int(levels[0]), int(levels[-1])
        return (_LEVELS - low) * (255 / (high - low)) if high > low else _LEVELS

    return _by_histogram(pixels, table)


def equalize(pixels: np.ndarray) -> np.ndarray:
    """Spreads each channel's values, so that all are about as frequent."""

    def table(counts: np.ndarray) -> np.ndarray:
        step = int(counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        if not step:
            return _LEVELS
        before = np.concatenate([[0], np.cumsum(counts)[:-1]])
        return (before + step // 2) // step

    return _by_histogram(pixels, table)


def invert(pixels: np.ndarray) -> np.ndarray:
    """The negative."""
    return cv2.bitwise_not(pixels).reshape(pixels.shape)


def posterize(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the highest bits, 0 to 8."""
    return _look_up(pixels, np.arange(256) >> (8 - bits) << (8 - bits))


def solarize(pixels: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts the values from the threshold on; beyond 255 there is none."""
    values = np.arange(256)
    return _look_up(pixels, np.where(values < threshold, values, 255 - values))


def solarize_add(pixels: np.ndarray, addition: int) -> np.ndarray:
    """Adds to the values below 128."""
    return _look_up(pixels, np.where(_LEVELS < 128, _LEVELS + addition, _LEVELS))


# Geometry


def warp(pixels: np.ndarray, matrix: np.ndarray, fill: tuple[int, ...]) -> np.ndarray:
    """Takes every pixel from another place, the nearest pixel there.

    Args:
      pixels: of at most 4 channels.
      matrix: (2, 3); the pixel at (x, y) comes from matrix @ (x, y, 1).
      fill: for each channel, what comes from outside the image.
    """
    height, width = pixels.shape[:2]
    return cv2.warpAffine(
        pixels,
        np.asarray(matrix, np.float64),
        (width, height),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    ).reshape(pixels.shape)


def rotation(degrees: float, height: int, width: int) -> np.ndarray:
    """The matrix of `warp` that turns an image around its centre."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x, y = (width - 1) / 2, (height - 1) / 2
    return np.array(
        [
            [cosine, -sine, x - cosine * x + sine * y],
            [sine, cosine, y - sine * x - cosine * y],
        ]
    )


def _blend(start: float, factor: float) -> np.ndarray:
    """The table of start + factor * (value - start), which Pillow computes in float32."""
    return start + np.float32(factor) * (_LEVELS - start)


def _look_up(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A table (256,), or (256, channels): clipped to 0..255, fractions cut off."""
    table = np.clip(table, 0, 255).astype(np.uint8)
    if table.ndim == 2:
        table = table[:, None]  # OpenCV's image of 256 pixels, with its channels
    return cv2.LUT(pixels, table).reshape(pixels.shape)


def _by_histogram(pixels: np.ndarray, table: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Each channel's values by a table that its histogram decides."""
    tables = [
        table(cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel())
        for channel in range(pixels.shape[2])
    ]
    return _look_up(pixels, np.stack(tables, axis=-1))


def _gray(pixels: np.ndarray) -> np.ndarray:
    require_colour(pixels)
    return pixels[..., 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
