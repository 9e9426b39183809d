"""The names of the built-in models: a family adds its lines to `BUILT_IN`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pnoise_jax.models.beit import Beit
from pnoise_jax.models.classifier import Classifier
from pnoise_jax.models.convit import ConViT
from pnoise_jax.models.davit import DaViT
from pnoise_jax.models.maxvit import MaxVit
from pnoise_jax.models.parallel_vit import ParallelViT
from pnoise_jax.models.resnet import ResNet
from pnoise_jax.models.swin import SwinTransformer
from pnoise_jax.models.swin_v2 import SwinTransformerV2
from pnoise_jax.models.vit import VisionTransformer

# The class, and the options in which the named model differs from the class's defaults.
Entry = tuple[type[Classifier], Mapping[str, Any]]


def _entry(kind: type[Classifier], **options: Any) -> Entry:
    return kind, MappingProxyType(options)


# The options that ViT, DeiT and BEiT of the same size share.
_TINY = {"patch_size": 16, "dim": 192, "depth": 12, "num_heads": 3}
_SMALL = {"patch_size": 16, "dim": 384, "depth": 12, "num_heads": 6}
_BASE = {"patch_size": 16, "dim": 768, "depth": 12, "num_heads": 12}
_LARGE = {"patch_size": 16, "dim": 1024, "depth": 24, "num_heads": 16}
_HUGE = {"patch_size": 14, "dim": 1280, "depth": 32, "num_heads": 16}
_VIT_SIZES = {
    "ti": _entry(VisionTransformer, **_TINY),
    "s": _entry(VisionTransformer, **_SMALL),
    "b": _entry(VisionTransformer, **_BASE),
}
_MEDIUM = {"patch_size": 16, "dim": 512, "depth": 12, "num_heads": 8}
_DEIT3 = {"prefix_positions": False, "layer_scale": 1e-6}
# timm's own models for 256 pixels, whose head reads the mean of the patch tokens.
_REGISTERS = {"patch_size": 16, "image_size": 256, "class_token": False, "register_tokens": 4}
_REG_GAP = {**_REGISTERS, **_DEIT3, "layer_scale": 1e-5, "pooling": "mean_then_norm"}
_SO150M = {"dim": 896, "depth": 18, "num_heads": 14, "mlp_dim": 2304}
_SO150M2 = {"dim": 832, "depth": 21, "num_heads": 13, "mlp_dim": 2176, "qkv_bias": False}
_SWIN_384 = {"window_size": 12, "image_size": 384}
_SWIN_V2_SIZES = {
    "t": {"dim": 96, "stage_sizes": (2, 2, 6, 2)},
    "s": {"dim": 96, "stage_sizes": (2, 2, 18, 2)},
    "b": {"dim": 128, "stage_sizes": (2, 2, 18, 2)},
    "l": {"dim": 192, "stage_sizes": (2, 2, 18, 2)},
}
# Trained in windows of 12 tokens at 192 pixels, and then in larger ones.
_FROM_192 = {"pretrained_window_sizes": (12, 12, 12, 6)}
_SWIN_V2_256 = {"window_size": 16, "image_size": 256, **_FROM_192}
_SWIN_V2_384 = {"window_size": 24, "image_size": 384, **_FROM_192}

BUILT_IN: Mapping[str, Entry] = {
    # DeiT is a ViT that was trained differently; its distilled form has a second token.
    **{f"vit_{size}_16": entry for size, entry in _VIT_SIZES.items()},
    "vit_l_16": _entry(VisionTransformer, **_LARGE),
    "vit_b_8": _entry(VisionTransformer, **{**_BASE, "patch_size": 8}),
    "vit_b_32": _entry(VisionTransformer, **{**_BASE, "patch_size": 32}),
    "vit_h_14": _entry(VisionTransformer, **_HUGE),
    "vit_wee_16_reg1": _entry(
        VisionTransformer,
        **{**_REG_GAP, "register_tokens": 1, "dim": 256, "depth": 14, "num_heads": 4},
        mlp_dim=1280,
    ),
    "vit_little_16_reg4": _entry(
        VisionTransformer, **_REG_GAP, dim=320, depth=14, num_heads=5, mlp_dim=1792
    ),
    "vit_medium_16_reg4": _entry(VisionTransformer, **{**_REG_GAP, **_MEDIUM}),
    "vit_mediumd_16_reg4": _entry(VisionTransformer, **{**_REG_GAP, **_MEDIUM, "depth": 20}),
    "vit_betwixt_16_reg4": _entry(VisionTransformer, **_REG_GAP, dim=640, depth=12, num_heads=10),
    "vit_so150m_16_reg4": _entry(VisionTransformer, **_REGISTERS, **_SO150M, pooling="mean"),
    "vit_so150m2_16_reg1": _entry(
        VisionTransformer,
        **{**_REG_GAP, **_SO150M2, "register_tokens": 1, "prefix_positions": True},
    ),
    # CLIP's image encoders, fine-tuned.
    "vit_b_32_clip": _entry(VisionTransformer, **{**_BASE, "patch_size": 32}, pre_norm=True),
    "vit_b_16_clip": _entry(VisionTransformer, **_BASE, pre_norm=True),
    "vit_l_14_clip": _entry(VisionTransformer, **{**_LARGE, "patch_size": 14}, pre_norm=True),
    "vit_h_14_clip": _entry(VisionTransformer, **_HUGE, pre_norm=True),
    # ViT-22B, and its blocks in the sizes of ViT-S and ViT-g.
    "vit_22b": _entry(ParallelViT, dim=6144, depth=48, num_heads=48),
    "vit_parallel_s_14": _entry(ParallelViT, dim=384, depth=12, num_heads=6),
    "vit_parallel_g_14": _entry(ParallelViT, dim=1408, depth=40, num_heads=16, mlp_dim=6144),
    **{f"deit_{size}_16": entry for size, entry in _VIT_SIZES.items()},
    **{
        f"deit_{size}_16_distilled": _entry(kind, **options, distilled=True)
        for size, (kind, options) in _VIT_SIZES.items()
    },
    "deit3_s_16": _entry(VisionTransformer, **_SMALL, **_DEIT3),
    "deit3_m_16": _entry(VisionTransformer, **_MEDIUM, **_DEIT3),
    "deit3_b_16": _entry(VisionTransformer, **_BASE, **_DEIT3),
    "deit3_l_16": _entry(VisionTransformer, **_LARGE, **_DEIT3),
    "deit3_h_14": _entry(VisionTransformer, **_HUGE, **_DEIT3),
    "beit_b_16": _entry(Beit, **_BASE, layer_scale=0.1),
    "beit_l_16": _entry(Beit, **_LARGE, layer_scale=1e-5),
    "swin_t": _entry(SwinTransformer, dim=96, stage_sizes=(2, 2, 6, 2)),
    "swin_s": _entry(SwinTransformer, dim=96, stage_sizes=(2, 2, 18, 2)),
    "swin_b": _entry(SwinTransformer, dim=128, stage_sizes=(2, 2, 18, 2)),
    "swin_l": _entry(SwinTransformer, dim=192, stage_sizes=(2, 2, 18, 2)),
    "swin_b_384": _entry(SwinTransformer, dim=128, stage_sizes=(2, 2, 18, 2), **_SWIN_384),
    "swin_l_384": _entry(SwinTransformer, dim=192, stage_sizes=(2, 2, 18, 2), **_SWIN_384),
    **{
        f"swinv2_{size}{window}": _entry(SwinTransformerV2, **_SWIN_V2_SIZES[size], **options)
        for size in ("t", "s", "b")
        for window, options in (("", {}), ("_window16", {"window_size": 16}))
    },
    **{
        f"swinv2_{size}_{options['image_size']}": _entry(
            SwinTransformerV2, **_SWIN_V2_SIZES[size], **options
        )
        for size in ("b", "l")
        for options in (_SWIN_V2_256, _SWIN_V2_384)
    },
    "convit_ti": _entry(ConViT, dim=192, depth=12, num_heads=4),
    "convit_s": _entry(ConViT, dim=432, depth=12, num_heads=9),
    "convit_b": _entry(ConViT, dim=768, depth=12, num_heads=16),
    "davit_t": _entry(DaViT, dim=96, stage_sizes=(2, 2, 6, 2)),
    "davit_s": _entry(DaViT, dim=96, stage_sizes=(2, 2, 18, 2)),
    "davit_b": _entry(DaViT, dim=128, stage_sizes=(2, 2, 18, 2)),
    "davit_l": _entry(DaViT, dim=192, stage_sizes=(2, 2, 18, 2)),
    "davit_h": _entry(DaViT, dim=256, stage_sizes=(2, 2, 18, 2)),
    "davit_g": _entry(DaViT, dim=384, stage_sizes=(2, 2, 24, 6)),
    "maxvit_t": _entry(MaxVit, dim=64, stage_sizes=(2, 2, 5, 2)),
    "maxvit_s": _entry(MaxVit, dim=96, stage_sizes=(2, 2, 5, 2)),
    "maxvit_b": _entry(MaxVit, dim=96, stage_sizes=(2, 6, 14, 2)),
    "maxvit_l": _entry(MaxVit, dim=128, stem_dim=128, stage_sizes=(2, 6, 14, 2)),
    "maxvit_xl": _entry(MaxVit, dim=192, stem_dim=192, stage_sizes=(2, 6, 14, 2)),
    "resnet18": _entry(ResNet, stage_sizes=(2, 2, 2, 2), block="basic"),
    "resnet34": _entry(ResNet, stage_sizes=(3, 4, 6, 3), block="basic"),
    "resnet50": _entry(ResNet, stage_sizes=(3, 4, 6, 3), block="bottleneck"),
    "resnet101": _entry(ResNet, stage_sizes=(3, 4, 23, 3), block="bottleneck"),
}
