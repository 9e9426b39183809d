"""Generated JPEGs of ImageNet's sizes, as a stand-in where speed is measured."""

from pathlib import Path

import cv2
import numpy as np
import PIL.Image

CLASSES = ("brick", "cloth", "grass", "water")

# (height, width): ImageNet's most frequent ones, and some larger and smaller ones.
_SIZES = ((375, 500), (375, 500), (375, 500), (333, 500), (500, 375), (480, 640), (300, 400))
_QUALITY = 95


def write_folders(directory: Path, images: int) -> None:
    """Writes so many JPEGs as ``<directory>/<class>/<number>.jpg``, the same ones every time."""
    for name in CLASSES:
        (directory / name).mkdir(parents=True)
    for number in range(images):
        texture = _texture(np.random.default_rng(number), *_SIZES[number % len(_SIZES)])
        file = directory / CLASSES[number % len(CLASSES)] / f"{number:06}.jpg"
        PIL.Image.fromarray(texture).save(file, quality=_QUALITY)


def _texture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise at every scale, stronger at the coarse ones as in photographs; little in colour."""
    pixels = np.zeros((height, width, 3), np.float32)
    for step in (1, 2, 4, 8, 16, 32, 64, 128):
        shape = (height // step + 2, width // step + 2)
        gray = generator.standard_normal((*shape, 1), np.float32)
        colour = generator.standard_normal((*shape, 3), np.float32)
        noise = gray + 0.4 * colour
        pixels += step**0.3 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    mean = generator.uniform(90, 160, 3)
    return np.clip(mean + 50 / pixels.std() * pixels, 0, 255).astype(np.uint8)
