"""Options of our models, as far as the description of a file states them."""

import contextlib
import functools
import re
from typing import Any

from pnoise_jax import models
from pnoise_jax.weights.errors import printable_name
from pnoise_jax.weights.formats.model_info import ModelInfo
from pnoise_jax.weights.names.timm_models import timm_reference

_POOLING = {"token": "token", "avg": "mean"}  # timm's name: ours


def title(info: ModelInfo) -> str:
    """What a safetensors file is, for the reader."""
    name = info.architecture
    return f"safetensors, described as {printable_name(name)}" if name else "safetensors"


def stated_options(info: ModelInfo) -> dict[str, Any]:
    """The options that a description states; a way of pooling that we lack keeps timm's name."""
    if info.options:
        return info.options
    options = {}
    if pooling := info.arguments.get("global_pool"):
        options["pooling"] = _POOLING[pooling] if pooling in list(_POOLING) else pooling
    heads = _num_heads(info)
    if isinstance(heads, int):  # Swin has a list, one per stage, and its shapes show it
        options["num_heads"] = heads
    options |= _davit_options(info)
    size = info.preprocessing.get("input_size")
    size = info.arguments.get("img_size", size[1:] if isinstance(size, list) else None)
    sides = image_sides(size)
    return options if sides is None else options | {"image_size": sides}


def _num_heads(info: ModelInfo) -> Any:
    if "num_heads" in info.arguments:
        heads = info.arguments["num_heads"]
    elif info.architecture.partition(".")[0] == "vit_base_patch16_gap_224":
        heads = 16  # with the shapes of a model that has 12 here
    else:
        heads = getattr(model_called(info.architecture), "num_heads", None)
    return int(heads) if isinstance(heads, float) and heads.is_integer() else heads


def _davit_options(info: ModelInfo) -> dict[str, Any]:
    """The options of a DaViT that its arrays do not show; {} for other models."""
    model, arguments = model_called(info.architecture), info.arguments
    if not isinstance(model, models.DaViT):
        return {}
    options = {"window_size": arguments.get("window_size", model.window_size)}
    heads, dims = arguments.get("num_heads"), arguments.get("embed_dims")
    if heads is None and dims is None:
        return options | {"head_dim": model.head_dim}
    if heads is None:
        heads = [model.dim // model.head_dim * 2**stage for stage in range(len(model.stage_sizes))]
    if dims is None:
        dims = [model.dim * 2**stage for stage in range(len(model.stage_sizes))]
    with contextlib.suppress(TypeError, ZeroDivisionError, ValueError):  # as anybody wrote it
        of_heads = {dim / number for dim, number in zip(dims, heads, strict=True)}
        of_heads = {int(size) if size.is_integer() else size for size in of_heads}
        return options | {"head_dim": of_heads.pop() if len(of_heads) == 1 else sorted(of_heads)}
    return options | {"head_dim": f"num_heads={heads!r}"}


def image_sides(size: Any) -> tuple[int, int] | None:
    """Height and width of images; a number stands for a square. None where it is not a size."""
    pair = [size, size] if isinstance(size, int) else size
    if not isinstance(pair, list | tuple) or [type(side) for side in pair] != [int, int]:
        return None
    height, width = pair
    return height, width


def model_called(architecture: str) -> Any:
    """Our model that timm calls so, or None, ignoring "…_384", "…_512" and tags as ".in1k"."""
    if not architecture:  # saves building all models
        return None
    name = architecture.partition(".")[0]
    by_name = _models_by_timms_name()
    return by_name.get(re.sub(r"_(384|512)$", "_224", name)) or by_name.get(name)


@functools.cache
def _models_by_timms_name() -> dict[str, Any]:
    by_name: dict[str, Any] = {}
    for name in models.list_models():
        model = models.create_model(name)
        if reference := timm_reference(name, model, channels=3):
            by_name.setdefault(reference[0], model)
    return by_name
