"""Pure operations on uint8 pixels (height, width, channels) that release the interpreter lock.

They follow Pillow's ImageOps and ImageEnhance. If the new value of a pixel depends only on its old
value, it is looked up in a table of 256 entries. Colour operations are defined for three channels
(RGB), and for one (gray), where they have no effect.
"""

from collections.abc import Callable

import cv2
import numpy as np

_LEVELS = np.arange(256, dtype=np.float32)


def mirror(pixels: np.ndarray) -> np.ndarray:
    """Mirrors the image horizontally."""
    return cv2.flip(pixels, 1).reshape(pixels.shape)  # OpenCV drops a single channel's axis


# Brightness and colour


def require_colour(pixels: np.ndarray) -> None:
    """Raises ValueError unless there are three channels, or one."""
    if pixels.shape[2] not in (1, 3):
        raise ValueError(
            f"colour operations are defined for images with 3 channels (RGB) or 1; this one has "
            f"{pixels.shape[2]}: leave out color_jitter and rand_augment"
        )


def brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies the pixels by the factor: 0 is black, 1 the image itself."""
    return _look_up(pixels, _blend(0, factor))


def contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies distances from the mean gray by the factor: 0 is gray, 1 the image itself."""
    mean = int(cv2.mean(_gray(pixels))[0] + 0.5)
    return _look_up(pixels, _blend(mean, factor))


def saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies distances from each pixel's gray by the factor: 0 is gray, 1 the image itself."""
    gray = _gray(pixels)
    if pixels.shape[2] == 1:
        return pixels
    return cv2.addWeighted(pixels, factor, cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), 1 - factor, 0)


def hue(pixels: np.ndarray, shift: float) -> np.ndarray:
    """Shifts the hue by a fraction of the colour circle, in [-1, 1]."""
    require_colour(pixels)
    if pixels.shape[2] == 1:
        return pixels
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    # In HSV_FULL, the colour circle has 256 hues.
    table = np.stack([_LEVELS + round(shift * 256) % 256, _LEVELS, _LEVELS], axis=-1) % 256
    return cv2.cvtColor(_look_up(hsv, table), cv2.COLOR_HSV2RGB_FULL)


def sharpness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies distances from the smoothed image: 0 is smooth, 1 the image itself."""
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    smooth = cv2.filter2D(pixels, -1, kernel / kernel.sum()).reshape(pixels.shape)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):  # unchanged, as in Pillow
        smooth[edge] = pixels[edge]
    return cv2.addWeighted(pixels, factor, smooth, 1 - factor, 0).reshape(pixels.shape)


# Tables


def auto_contrast(pixels: np.ndarray) -> np.ndarray:
    """Stretches each channel: its darkest value becomes 0, and its brightest 255."""

    def table(counts: np.ndarray) -> np.ndarray:
        levels = np.flatnonzero(counts)
        low, high = int(levels[0]), int(levels[-1])
        return (_LEVELS - low) * (255 / (high - low)) if high > low else _LEVELS

    return _by_histogram(pixels, table)


def equalize(pixels: np.ndarray) -> np.ndarray:
    """Equalises the histogram of each channel: all values become about equally frequent."""

    def table(counts: np.ndarray) -> np.ndarray:
        step = int(counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        if not step:
            return _LEVELS
        before = np.concatenate([[0], np.cumsum(counts)[:-1]])
        return (before + step // 2) // step

    return _by_histogram(pixels, table)


def invert(pixels: np.ndarray) -> np.ndarray:
    """Inverts all values: x becomes 255 - x."""
    return cv2.bitwise_not(pixels).reshape(pixels.shape)


def posterize(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the `bits` highest bits of every value, 0 to 8."""
    return _look_up(pixels, np.arange(256) >> (8 - bits) << (8 - bits))


def solarize(pixels: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts the values from the threshold on; above 255, the image is unchanged."""
    values = np.arange(256)
    return _look_up(pixels, np.where(values < threshold, values, 255 - values))


def solarize_add(pixels: np.ndarray, addition: int) -> np.ndarray:
    """Adds a number to the values below 128."""
    return _look_up(pixels, np.where(_LEVELS < 128, _LEVELS + addition, _LEVELS))


# Geometry


def warp(pixels: np.ndarray, matrix: np.ndarray, fill: tuple[int, ...]) -> np.ndarray:
    """Applies an affine map, with the nearest pixel.

    Args:
      pixels: an image with at most 4 channels.
      matrix: (2, 3); the pixel at (x, y) is taken from matrix @ (x, y, 1).
      fill: the value of pixels from outside the image, one number per channel.
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
    """The matrix for `warp` that rotates an image around its centre."""
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
    """Applies a table (256,) or (256, channels), clipped to 0..255 and truncated to integers."""
    table = np.clip(table, 0, 255).astype(np.uint8)
    if table.ndim == 2:
        table = table[:, None]  # OpenCV expects an image of 256 pixels with channels
    return cv2.LUT(pixels, table).reshape(pixels.shape)


def _by_histogram(pixels: np.ndarray, table: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Maps the values of each channel by a table computed from the channel's histogram."""
    tables = [
        table(cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel())
        for channel in range(pixels.shape[2])
    ]
    return _look_up(pixels, np.stack(tables, axis=-1))


def _gray(pixels: np.ndarray) -> np.ndarray:
    require_colour(pixels)
    return pixels[..., 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
