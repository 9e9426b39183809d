"""What the published code reads: class folders of images, and weights for three channels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

KERNEL, BIAS = "patch_embed.proj.weight", "patch_embed.proj.bias"
HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def in_colour(images: np.ndarray) -> np.ndarray:
    """Grey images (n, height, width, 1) as (n, height, width, 3), the same in all channels."""
    return np.repeat(images, 3, axis=-1)


def write_class_folders(root: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes `root/<label>/<position in the data set>.png`, as torchvision's ImageFolder reads.

    Sorted by class and file name, as ImageFolder sorts them, they come in our class order.

    Args:
      root: the folder of the split.
      images: (n, height, width, 3) uint8.
      labels: (n,) integers of one digit.
    """
    for label in np.unique(labels):
        (root / str(label)).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(root / str(label) / f"{i:06d}.png")


def three_channels(
    state: Mapping[str, np.ndarray], mean: Sequence[float], std: Sequence[float]
) -> dict[str, np.ndarray]:
    """Weights of a model for grey images, such that a model for coloured ones computes the same.

    Our grey model takes ``(p - 0.5) / 0.5`` of a pixel p in [0, 1]; the coloured one takes
    ``y_c = (p - mean_c) / std_c`` in each channel c. Each channel gets a third of the kernel,
    scaled so that the change of normalisation cancels; the bias takes the constant part.

    Args:
      state: in timm's names; the kernel of the patch embedding is (dim, 1, size, size).
      mean, std: of the three channels.
    """
    kernel = state[KERNEL].astype(np.float64) / 3
    scale = np.divide(std, 0.5)[:, None, None]
    shift = np.sum((np.asarray(mean) - 0.5) / 0.5)
    adapted = {
        KERNEL: kernel * scale,
        BIAS: state[BIAS] + shift * kernel.sum(axis=(1, 2, 3)),
    }
    return dict(state) | {name: array.astype(np.float32) for name, array in adapted.items()}
