"""Which model weights belong to, as their shapes tell."""

import re
from collections.abc import Mapping
from typing import Any

from pnoise_jax import models
from pnoise_jax.weights.arrays import Shape


def describe(shapes: Mapping[str, Shape]) -> str:
    """The likely model of arrays by our paths, such as "vit_b_16 with class_token=False"; or "".

    What no shape tells, such as the number of heads, is not said.
    """
    options = _vit(shapes) if "params/patch_embed/kernel" in shapes else _resnet(shapes)
    if not options:
        return ""
    fitting = {}
    for name in models.list_models():
        defaults = models.default_options(name)
        if options.keys() <= defaults.keys():
            fitting[name] = {k: v for k, v in options.items() if defaults[k] != v}
    name = min(fitting, key=lambda name: len(fitting[name]))
    changed = ", ".join(f"{option}={value!r}" for option, value in fitting[name].items())
    return f"{name} with {changed}" if changed else name


def _vit(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    kernel = shapes["params/patch_embed/kernel"]
    if len(kernel) != 4:
        return {}
    hidden = shapes.get("params/block_1/mlp/fc1/bias", (4 * kernel[-1],))[0]
    return {
        "patch_size": kernel[0],
        "dim": kernel[-1],
        "depth": len(_numbers(shapes, r"params/block_(\d+)/")),
        "mlp_dim": None if hidden == 4 * kernel[-1] else hidden,
        "class_token": "params/cls_token" in shapes,
    }


def _resnet(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    stages = _numbers(shapes, r"params/stage(\d+)_block\d+/")
    stem = shapes.get("params/conv1/kernel", ())
    if not stages or len(stem) != 4:
        return {}
    sizes = [len(_numbers(shapes, rf"params/stage{stage}_block(\d+)/")) for stage in stages]
    bottleneck = "params/stage1_block1/conv3/kernel" in shapes
    return {
        "stage_sizes": tuple(sizes),
        "block": "bottleneck" if bottleneck else "basic",
        "width": stem[-1],
        "stem": "imagenet" if stem[0] == 7 else "small",
    }


def _numbers(shapes: Mapping[str, Shape], pattern: str) -> list[int]:
    """The different numbers that a pattern captures in the paths."""
    return sorted({int(match[1]) for path in shapes if (match := re.match(pattern, path))})
