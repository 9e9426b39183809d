"""Writes golden/evaluation.npz: small JPEGs, and the results of torchvision and timm.

Run by hand, in an environment with PyTorch, torchvision and timm (last run: torchvision 0.28, timm
1.0.31, Pillow 13.0)::

    python tests/data/image/make_golden.py

The file holds the JPEGs' bytes under "jpeg/<number>" and, for each case, the uint8 result
(height, width, channels) under "<transform>/<height>x<width>/<number>", with the transform as in a
config of this project.
"""

import io
from pathlib import Path

import numpy as np
import PIL.Image
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision import transforms

GOLDEN = Path(__file__).parent / "golden"

# (height, width): wide, tall, square, long, and smaller than the result. Odd numbers, so that a
# central crop cuts off different amounts on both sides.
IMAGE_SIZES = ((60, 81), (83, 53), (47, 47), (37, 140), (13, 18))
SIZES = ((16, 16), (21, 21), (14, 23))
CROPS = ((0.875, "bicubic"), (0.9, "bilinear"), (1.0, "bicubic"))
SQUARES = ("bilinear", "bicubic")


def jpeg(generator: np.random.Generator, height: int, width: int) -> bytes:
    """A blurred picture of noise with sharp edges."""
    noise = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    image = PIL.Image.fromarray(noise).resize((width, height), PIL.Image.Resampling.BICUBIC)
    pixels = np.array(image)
    pixels[height // 3 : height // 2, width // 4 :] = (250, 30, 5)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    generator = np.random.default_rng(0)
    modes = {mode.value: mode for mode in transforms.InterpolationMode}
    golden = {}
    for number, (height, width) in enumerate(IMAGE_SIZES):
        encoded = jpeg(generator, height, width)
        golden[f"jpeg/{number}"] = np.frombuffer(encoded, np.uint8)
        image = PIL.Image.open(io.BytesIO(encoded)).convert("RGB")
        for size in SIZES:
            where = f"{size[0]}x{size[1]}/{number}"
            for ratio, interpolation in CROPS:
                # uint8 (channels, height, width), as for a loader that normalises on the device.
                transform = transforms_imagenet_eval(
                    size, ratio, interpolation=interpolation, use_prefetcher=True
                )
                name = f"resize_crop({ratio}, {interpolation!r})"
                golden[f"{name}/{where}"] = transform(image).numpy().transpose(1, 2, 0)
            for interpolation in SQUARES:
                transform = transforms.Resize(size, modes[interpolation])
                name = f"resize_square({interpolation!r})"
                golden[f"{name}/{where}"] = np.asarray(transform(image))
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN / "evaluation.npz", **golden)
    print(f"{len(golden)} arrays")


if __name__ == "__main__":
    main()
