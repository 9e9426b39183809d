"""timm's names of our models, and the arguments with which timm builds the same models."""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from pnoise_jax import models
from pnoise_jax.models import MODELS

_SIZES = {
    "ti": "tiny",
    "t": "tiny",
    "s": "small",
    "m": "medium",
    "b": "base",
    "l": "large",
    "xl": "xlarge",
    "h": "huge",
    "g": "giant",
}
# timm's models that exist for images of 224 and of 384 pixels.
_ALSO_AT_384 = r"(vit|beit)_[a-z]+_patch(16|32)_224|deit_base_|deit3_(small|base|large)_"
_MAXVIT_SIZES = (224, 384, 512)  # the image sizes in timm's names
_SWIN_V2_WINDOWS = {  # by the suffix of our names
    "": "window8_256",
    "window16": "window16_256",
    "256": "window12to16_192to256",
    "384": "window12to24_192to384",
}
_ARGUMENTS = {  # our option: timm's argument
    "patch_size": "patch_size",
    "dim": "embed_dim",
    "depth": "depth",
    "num_heads": "num_heads",
    "class_token": "class_token",
    "register_tokens": "reg_tokens",
    "layer_scale": "init_values",
    "qkv_bias": "qkv_bias",
    "window_size": "window_size",
    "local_layers": "local_up_to_layer",
}


def timm_reference(
    name: str, model: nn.Module, *, channels: int
) -> tuple[str, dict[str, Any]] | None:
    """timm's name of a model and the other arguments of timm's `create_model`, ready for JSON.

    Args:
      name: the name of our model for `create_model`.
      model: the model created by this name, with any options.
      channels: the number of image channels.

    Returns:
      None if timm has no such model: ResNets with another stem, width, kind of block or number of
      stages; ConViTs for images that are not square; ViTs whose `pre_norm`, and therefore the
      epsilon of their norms, differs from the named model's; and models that a user has registered.
    """
    if MODELS.origin(name) is not None:
        return None
    if getattr(model, "pre_norm", False) != models.default_options(name).get("pre_norm", False):
        return None
    if isinstance(model, models.ParallelViT):
        return _parallel_reference(model, channels)
    theirs = _name(name)
    defaults = models.default_options(name)
    changed = {k: getattr(model, k) for k, v in defaults.items() if getattr(model, k) != v}
    arguments: dict[str, Any] = {"num_classes": model.num_classes}
    if channels != 3:
        arguments["in_chans"] = channels
    if isinstance(model, models.MaxVit):
        return _maxvit_reference(theirs, model, changed, arguments)
    if isinstance(model, models.DaViT):
        return theirs, arguments | _davit_arguments(model, changed)
    if name.startswith("resnet"):
        if {"stem", "width", "block"} & changed.keys() or len(model.stage_sizes) != 4:
            return None
        sizes = {"layers": list(model.stage_sizes)} if "stage_sizes" in changed else {}
        return theirs, arguments | sizes
    arguments |= {there: changed[ours] for ours, there in _ARGUMENTS.items() if ours in changed}
    if isinstance(model, models.IsotropicTransformer):
        arguments |= _mlp_argument(model, defaults, changed)
    if isinstance(model, models.VisionTransformer):
        arguments |= _vit_arguments(changed)
    if name.startswith("swin") and {"dim", "head_dim", "stage_sizes"} & changed.keys():
        heads = [model.dim * 2**stage // model.head_dim for stage in range(len(model.stage_sizes))]
        arguments |= {"depths": list(model.stage_sizes), "num_heads": heads}
    if isinstance(model, models.SwinTransformerV2) and changed:
        sizes = model.pretrained_window_sizes or (0,) * len(model.stage_sizes)
        arguments |= {"pretrained_window_sizes": list(sizes)}
    if name.startswith("convit") and model.grid[0] != model.grid[1]:
        return None
    if name.startswith("convit") and {"dim", "num_heads"} & changed.keys():
        arguments["embed_dim"] = model.dim // model.num_heads  # timm's is per head
    side = defaults["image_size"]
    if model.image_shape == (384, 384) != (side, side) and re.match(_ALSO_AT_384, theirs):
        theirs, side = theirs.replace("224", "384"), 384
    if model.image_shape != (side, side):
        arguments["img_size"] = list(model.image_shape)
    return theirs, arguments


def _mlp_argument(
    model: models.IsotropicTransformer, defaults: Mapping[str, Any], changed: Mapping[str, Any]
) -> dict[str, Any]:
    """timm's ratio of the MLP's features, if it is not the named model's."""
    is_usual = model.mlp_features == 4 * model.dim and defaults["mlp_dim"] is None
    if is_usual or not {"dim", "mlp_dim"} & changed.keys():
        return {}
    return {"mlp_ratio": _ratio(model.mlp_features, model.dim)}


def _vit_arguments(changed: Mapping[str, Any]) -> dict[str, Any]:
    """timm's arguments for the options of a ViT that differ from the named model's."""
    arguments: dict[str, Any] = {}
    if "prefix_positions" in changed:
        arguments["no_embed_class"] = not changed["prefix_positions"]
    if "pooling" in changed:
        is_token = changed["pooling"] == "token"
        arguments["global_pool"] = "token" if is_token else "avg"
        arguments["fc_norm"] = changed["pooling"] == "mean_then_norm"
    return arguments


def _davit_arguments(model: models.DaViT, changed: Mapping[str, Any]) -> dict[str, Any]:
    """timm's arguments for the options of a DaViT that differ from the named model's."""
    arguments = {"window_size": model.window_size} if "window_size" in changed else {}
    if not {"dim", "head_dim", "stage_sizes"} & changed.keys():
        return arguments
    dims = [model.dim * 2**stage for stage in range(len(model.stage_sizes))]
    return arguments | {
        "embed_dims": dims,
        "depths": [number // 2 for number in model.stage_sizes],
        "num_heads": [dim // model.head_dim for dim in dims],
    }


def _parallel_reference(model: models.ParallelViT, channels: int) -> tuple[str, dict[str, Any]]:
    """timm's name of a model with parallel blocks, and the arguments in which ours differs."""
    arguments: dict[str, Any] = {
        "num_classes": model.num_classes,
        "embed_dim": model.dim,
        "depth": model.depth,
        "num_heads": model.num_heads,
        "global_pool": "map",
        "class_token": False,
        "pre_norm": False,
    }
    if channels != 3:
        arguments["in_chans"] = channels
    if model.patch_size != 14:
        arguments["patch_size"] = model.patch_size
    if model.mlp_features != 4 * model.dim:
        arguments["mlp_ratio"] = _ratio(model.mlp_features, model.dim)
    if model.image_shape != (224, 224):
        arguments["img_size"] = list(model.image_shape)
    return "vit_huge_patch14_xp_224", arguments


def _maxvit_reference(
    theirs: str, model: models.MaxVit, changed: Mapping[str, Any], arguments: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """timm's name and arguments of a MaxViT whose options may differ from the named model's."""
    height, width = model.image_shape
    if height == width and height in _MAXVIT_SIZES:
        theirs = theirs.replace("224", str(height))
    else:
        arguments["img_size"] = [height, width]
    if not {"dim", "stem_dim", "head_dim", "stage_sizes"} & changed.keys():
        return theirs, arguments
    dims = [model.dim * 2**stage for stage in range(len(model.stage_sizes))]
    return theirs, arguments | {
        "embed_dim": dims,
        "depths": list(model.stage_sizes),
        "block_type": ["M"] * len(dims),
        "stem_width": model.stem_dim,
        "head_hidden_size": dims[-1],
        "transformer_dim_head": model.head_dim,
    }


def _ratio(mlp_dim: int, dim: int) -> float:
    """The ratio for which `int(dim * ratio)`, timm's number of hidden features, equals mlp_dim."""
    ratio = mlp_dim / dim
    return ratio if int(dim * ratio) == mlp_dim else (mlp_dim + 0.5) / dim


def _name(name: str) -> str:
    """timm's name of the model for the named model's image size."""
    family, *rest = name.split("_")
    if family.startswith("resnet"):
        return name
    size = _SIZES.get(rest[0], rest[0])
    if family in ("convit", "davit"):
        return f"{family}_{size}"
    if family == "maxvit":
        return f"maxvit_{size}_tf_224"
    if family == "swinv2":
        return f"swinv2_{size}_{_SWIN_V2_WINDOWS['_'.join(rest[1:])]}"
    if family == "swin":
        return f"swin_{size}_patch4_window{'12_384' if rest[1:] else '7_224'}"
    if rest[2:] and rest[2].startswith("reg"):
        return f"vit_{size}_patch{rest[1]}_{rest[2]}_gap_256"
    if rest[2:] == ["clip"]:
        return f"vit_{size}_patch{rest[1]}_clip_224"
    distilled = "_distilled" if "distilled" in rest else ""
    return f"{family}_{size}{distilled}_patch{rest[1]}_224"
