"""Which model weights are of, as their shapes tell."""

import math
import re
from collections.abc import Mapping
from typing import Any

from pnoise_jax import models
from pnoise_jax.weights.arrays import MOST_DIGITS, Shape


def guess_channels(shapes: Mapping[str, Shape]) -> int | None:
    """Of the images, as the first convolution has them; None where there is none."""
    stems = (shapes.get(f"params/{stem}/kernel", ()) for stem in ("patch_embed", "conv1"))
    return next((shape[2] for shape in stems if len(shape) == 4), None)


def guess_model(shapes: Mapping[str, Shape]) -> str:
    """The likely model of arrays by our paths, such as "vit_b_16 with class_token=False"; or "".

    What no shape tells, such as the number of heads, is not said.
    """
    family, options = _guess(shapes)
    if not options:
        return ""
    changed = {
        name: {k: v for k, v in options.items() if models.default_options(name)[k] != v}
        for name in models.list_models(family)
    }
    name = min(changed, key=lambda name: len(changed[name]))
    given = ", ".join(f"{option}={value!r}" for option, value in changed[name].items())
    return f"{name} with {given}" if given else name


def guess_options(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The options of the likely model of arrays by our paths, as far as shapes tell."""
    return _guess(shapes)[1]


def _guess(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]]:
    shapes = {path: shape for path, shape in shapes.items() if shape and all(shape)}
    return _transformer(shapes) or _swin(shapes) or _resnet(shapes)


def _transformer(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    """The names of a family with equal blocks of equal tokens, and the options of its model."""
    kernel = shapes.get("params/patch_embed/kernel", ())
    depth = len(_numbers(shapes, r"params/block_(\d+)/"))
    if len(kernel) != 4 or not depth:
        return None
    hidden = shapes.get("params/block_1/mlp/fc1/bias", (4 * kernel[-1],))[0]
    options = {
        "patch_size": kernel[0],
        "dim": kernel[-1],
        "depth": depth,
        "mlp_dim": None if hidden == 4 * kernel[-1] else hidden,
    }
    if _numbers(shapes, r"params/block_(\d+)/attn/q_bias"):
        return "beit_*", options | _heads(shapes, "attn/relative_position_bias_table")
    if gated := _numbers(shapes, r"params/block_(\d+)/attn/(gating_param|pos_proj/)"):
        heads = _heads(shapes, "attn/gating_param")
        return "convit_*", options | heads | {"local_layers": len(gated)}
    if "params/dist_token" in shapes:
        return "deit_*_distilled", options
    return "vit_*", options | {"class_token": "params/cls_token" in shapes}


def _heads(shapes: Mapping[str, Shape], name: str) -> dict[str, int]:
    """The number of heads, which is the last axis of all arrays of a name, as an option."""
    heads = {shape[-1] for path, shape in shapes.items() if path.endswith(name)}
    return {"num_heads": heads.pop()} if len(heads) == 1 else {}


def _swin(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
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


def _resnet(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]]:
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
    """The different numbers that a pattern captures in the paths."""
    found = {match[1] for path in shapes if (match := re.match(pattern, path))}
    return sorted(int(number) for number in found if len(number) <= MOST_DIGITS)
