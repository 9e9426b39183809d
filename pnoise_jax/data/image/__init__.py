"""Images: decoded, converted to the channels and the range wanted, cropped, and augmented."""

from pnoise_jax.data.image.arguments import require_statistics
from pnoise_jax.data.image.crops import RandomResizedCrop, ResizeCrop

__all__ = ["RandomResizedCrop", "ResizeCrop", "require_statistics"]
