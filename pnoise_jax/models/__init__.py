"""Image classifiers in Flax Linen, equal to their timm references, with visible taps for noise.

All models are called in the same way::

    model = create_model("vit_s_16", num_classes=10, injection=injection)
    variables = model.init(key, images)
    logits = model.apply(variables, images, train=False)    # (batch, classes), float32
"""

from pnoise_jax.models.beit import Beit
from pnoise_jax.models.classifier import Classifier
from pnoise_jax.models.convit import ConViT
from pnoise_jax.models.davit import DaViT
from pnoise_jax.models.maxvit import MaxVit
from pnoise_jax.models.parallel_vit import ParallelViT
from pnoise_jax.models.parts.attention_kernels import KERNELS as ATTENTION_KERNELS
from pnoise_jax.models.parts.convolutions import of_images as convolve_images
from pnoise_jax.models.parts.device import compiling_for
from pnoise_jax.models.parts.layers import stage_and_number
from pnoise_jax.models.registry import (
    MODELS,
    create_model,
    default_options,
    explain_absent_option,
    list_models,
    register_model,
)
from pnoise_jax.models.resnet import ResNet
from pnoise_jax.models.swin import SwinTransformer
from pnoise_jax.models.swin_v2 import SwinTransformerV2
from pnoise_jax.models.transformer import IsotropicTransformer, Transformer
from pnoise_jax.models.vit import VisionTransformer

__all__ = [
    "ATTENTION_KERNELS",
    "MODELS",
    "Beit",
    "Classifier",
    "ConViT",
    "DaViT",
    "IsotropicTransformer",
    "MaxVit",
    "ParallelViT",
    "ResNet",
    "SwinTransformer",
    "SwinTransformerV2",
    "Transformer",
    "VisionTransformer",
    "compiling_for",
    "convolve_images",
    "create_model",
    "default_options",
    "explain_absent_option",
    "list_models",
    "register_model",
    "stage_and_number",
]
