"""Images: decoding, conversion to the wanted channels and range, cropping and augmentation."""

from pnoise_jax.data.image.arguments import require_statistics
from pnoise_jax.data.image.crops import RandomResizedCrop, ResizeCrop

__all__ = ["RandomResizedCrop", "ResizeCrop", "require_statistics"]
