"""Infers the model that arrays belong to from their shapes."""

import math
import re
from collections.abc import Mapping
from typing import Any

from pnoise_jax import models
from pnoise_jax.models import MODELS
from pnoise_jax.weights.entries import MAX_DIGITS
from pnoise_jax.weights.formats.array_file import Shape


def infer_channels(shapes: Mapping[str, Shape]) -> int | None:
    """The number of image channels, from the first convolution; None if there is none."""
    stems = (shapes.get(f"params/{stem}/kernel", ()) for stem in ("patch_embed", "conv1"))
    return next((shape[2] for shape in stems if len(shape) == 4), None)


def infer_model(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    """The likely model of arrays by our paths: its name and the options to change; or None.

    Options that no shape shows, such as the number of heads, are left out.
    """
    family, options = _infer(shapes)
    if not options:
        return None
    changed = {
        name: {k: v for k, v in options.items() if models.default_options(name)[k] != v}
        for name in models.list_models(family)
        if MODELS.origin(name) is None  # user-defined models have other options
        and options.keys() <= models.default_options(name).keys()
    }
    name = min(changed, key=lambda name: len(changed[name]))
    return name, changed[name]


def infer_options(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The options of the likely model of arrays by our paths, as far as the shapes show them."""
    return _infer(shapes)[1]


def _infer(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]]:
    shapes = {path: shape for path, shape in shapes.items() if shape and all(shape)}
    infer = (_infer_transformer, _infer_swin, _infer_swin_v2, _infer_davit, _infer_maxvit)
    return next(filter(None, (each(shapes) for each in infer)), None) or _infer_resnet(shapes)


def _infer_transformer(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    """A pattern of model names, and the options, for a model whose blocks are all alike."""
    kernel = shapes.get("params/patch_embed/kernel", ())
    depth = len(_numbers(shapes, r"params/block_(\d+)/"))
    if len(kernel) != 4 or not depth:
        return None
    biases = (shapes.get(f"params/block_1/{name}") for name in ("mlp/fc1/bias", "mlp_bias"))
    hidden = next(filter(None, biases), (4 * kernel[-1],))[0]
    options = {
        "patch_size": kernel[0],
        "dim": kernel[-1],
        "depth": depth,
        "mlp_dim": None if hidden == 4 * kernel[-1] else hidden,
    }
    if _numbers(shapes, r"params/block_(\d+)/in_proj/"):
        norm = shapes.get("params/block_1/attn/q_norm/scale", ())
        whole = len(norm) == 1 and norm[0] > 0 and kernel[-1] % norm[0] == 0
        return "vit_[2p]*", options | ({"num_heads": kernel[-1] // norm[0]} if whole else {})
    if _numbers(shapes, r"params/block_(\d+)/attn/q_bias"):
        return "beit_*", options | _infer_heads(shapes, "attn/relative_position_bias_table")
    if gated := _numbers(shapes, r"params/block_(\d+)/attn/(gating_param|pos_proj/)"):
        heads = _infer_heads(shapes, "attn/gating_param")
        return "convit_*", options | heads | {"local_layers": len(gated)}
    if "params/dist_token" in shapes:
        return "deit_*_distilled", options
    return _infer_vit(shapes, options)


def _infer_vit(shapes: Mapping[str, Shape], options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A pattern of the names of plain ViTs that fit, and the completed options."""
    tokens = count_tokens(shapes)
    options |= {"class_token": tokens["cls"] > 0, "register_tokens": tokens["reg"]}
    kernel, bias = (f"params/block_1/attn/qkv/{leaf}" in shapes for leaf in ("kernel", "bias"))
    options["qkv_bias"] = bias or not kernel
    options["pre_norm"] = "params/norm_pre/scale" in shapes
    if "params/fc_norm/scale" in shapes:
        options["pooling"] = "mean_then_norm"
    elif not options["class_token"]:
        options["pooling"] = "mean"
    positions = shapes.get("params/pos_embed", ())
    if len(positions) == 3 and (in_front := sum(tokens.values())):
        squares = [_is_square(positions[1] - number) for number in (0, in_front)]
        if any(squares):
            options["prefix_positions"] = squares[1]
    is_scaled = "params/block_1/gamma_1" in shapes
    if is_scaled and options["class_token"]:
        return "deit3_*", options | {"layer_scale": 1e-6}
    return "vit_*", options | {"layer_scale": 1e-5 if is_scaled else 0.0}


def count_tokens(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """The number of learned tokens of each kind in front of the patches."""
    kinds = {kind: shapes.get(f"params/{kind}_token", ()) for kind in ("cls", "dist", "reg")}
    return {kind: shape[1] if len(shape) == 3 else 0 for kind, shape in kinds.items()}


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def _infer_heads(shapes: Mapping[str, Shape], name: str) -> dict[str, int]:
    """The number of heads as an option: the last axis of all arrays with this ending."""
    heads = {shape[-1] for path, shape in shapes.items() if path.endswith(name)}
    return {"num_heads": heads.pop()} if len(heads) == 1 else {}


def _infer_swin(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    kernel = shapes.get("params/patch_embed/kernel", ())
    table = shapes.get("params/stage1_block1/attn/relative_position_bias_table", ())
    if len(kernel) != 4 or len(table) != 2:
        return None
    return "swin_*", {
        "patch_size": kernel[0],
        "dim": kernel[-1],
        "stage_sizes": _stage_sizes(shapes),
        "head_dim": kernel[-1] // table[1],
        "window_size": (math.isqrt(table[0]) + 1) // 2,
    }


def _infer_swin_v2(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    kernel = shapes.get("params/patch_embed/kernel", ())
    scale = shapes.get("params/stage1_block1/attn/logit_scale", ())
    if len(kernel) != 4 or len(scale) != 3:
        return None
    options = {"patch_size": kernel[0], "dim": kernel[-1], "stage_sizes": _stage_sizes(shapes)}
    return "swinv2_*", options | {"head_dim": kernel[-1] // scale[0]}


def _infer_davit(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    stem = shapes.get("params/patch_embed/kernel", ())
    if len(stem) != 4 or "params/stage1_block1/cpe1/proj/kernel" not in shapes:
        return None
    return "davit_*", {"dim": stem[-1], "stage_sizes": _stage_sizes(shapes)}


def _infer_maxvit(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    stem = shapes.get("params/conv2/kernel", ())
    out = shapes.get("params/stage1_block1/conv/conv3_1x1/kernel", ())
    if len(stem) != 4 or len(out) != 4:
        return None
    options = {"dim": out[-1], "stem_dim": stem[-1], "stage_sizes": _stage_sizes(shapes)}
    table = shapes.get("params/stage1_block1/attn_block/attn/relative_position_bias_table", ())
    if len(table) == 3 and out[-1] % table[0] == 0:
        options["head_dim"] = out[-1] // table[0]
    return "maxvit_*", options


def _infer_resnet(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]]:
    stem = shapes.get("params/conv1/kernel", ())
    if not _stage_sizes(shapes) or len(stem) != 4:
        return "resnet*", {}
    bottleneck = "params/stage1_block1/conv3/kernel" in shapes
    return "resnet*", {
        "stage_sizes": _stage_sizes(shapes),
        "block": "bottleneck" if bottleneck else "basic",
        "width": stem[-1],
        "stem": "imagenet" if stem[0] == 7 else "small",
    }


def _stage_sizes(shapes: Mapping[str, Shape]) -> tuple[int, ...]:
    """The number of blocks of each stage."""
    stages = _numbers(shapes, r"params/stage(\d+)_block\d+/")
    return tuple(len(_numbers(shapes, rf"params/stage{stage}_block(\d+)/")) for stage in stages)


def _numbers(shapes: Mapping[str, Shape], pattern: str) -> list[int]:
    """The distinct numbers that a pattern captures in the paths, sorted."""
    numbers = {match[1] for path in shapes if (match := re.match(pattern, path))}
    return sorted(int(number) for number in numbers if len(number) <= MAX_DIGITS)
