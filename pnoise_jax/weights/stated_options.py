"""Options of our models, as far as a file's description states them."""

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
    """A title for a safetensors file, for the reader."""
    name = info.architecture
    return f"safetensors, described as {printable_name(name)}" if name else "safetensors"


def stated_options(info: ModelInfo) -> dict[str, Any]:
    """The options that a description states; a pooling that we do not have keeps timm's name."""
    if info.options:
        return info.options
    options = {}
    if pooling := info.arguments.get("global_pool"):
        options["pooling"] = _POOLING[pooling] if pooling in list(_POOLING) else pooling
    heads = _num_heads(info)
    if isinstance(heads, int):  # Swin has a list, one number per stage, which its shapes show
        options["num_heads"] = heads
    options |= _davit_options(info) | _swin_v2_options(info)
    size = info.preprocessing.get("input_size")
    size = info.arguments.get("img_size", size[1:] if isinstance(size, list) else None)
    sides = image_sides(size)
    return options if sides is None else options | {"image_size": sides}


def with_last_norm(pooling: str) -> str:
    """The pooling of a ViT whose arrays show that its last norm comes after the pooling."""
    return "mean_then_norm" if pooling == "mean" else pooling


def _num_heads(info: ModelInfo) -> Any:
    if "num_heads" in info.arguments:
        heads = info.arguments["num_heads"]
    elif info.architecture.partition(".")[0] == "vit_base_patch16_gap_224":
        heads = 16  # our model of the same shapes has 12
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
    with contextlib.suppress(TypeError, ZeroDivisionError, ValueError):  # for arbitrary values
        sizes = {dim / number for dim, number in zip(dims, heads, strict=True)}
        sizes = {int(size) if size.is_integer() else size for size in sizes}
        return options | {"head_dim": sizes.pop() if len(sizes) == 1 else sorted(sizes)}
    return options | {"head_dim": f"num_heads={heads!r}"}


def _swin_v2_options(info: ModelInfo) -> dict[str, Any]:
    """The options of a Swin V2 that its arrays do not show; {} for other models."""
    model, arguments = model_called(info.architecture), info.arguments
    if not isinstance(model, models.SwinTransformerV2):
        return {}
    sizes = arguments.get("pretrained_window_sizes", model.pretrained_window_sizes)
    sizes = tuple(sizes) if isinstance(sizes, list | tuple) else sizes
    return {
        "window_size": arguments.get("window_size", model.window_size),
        "pretrained_window_sizes": () if sizes == (0,) * len(model.stage_sizes) else sizes,
    }


def options_beyond_arrays(model: Any) -> tuple[str, ...]:
    """The options that only this model's family has and that no array shows."""
    if isinstance(model, models.DaViT):
        return ("head_dim", "window_size")
    if isinstance(model, models.SwinTransformerV2):
        return ("window_size", "pretrained_window_sizes")
    return ()


def image_sides(size: Any) -> tuple[int, int] | None:
    """Height and width of images; a number means a square. None if `size` is not a size."""
    pair = [size, size] if isinstance(size, int) else size
    if not isinstance(pair, list | tuple) or [type(side) for side in pair] != [int, int]:
        return None
    height, width = pair
    return height, width


def model_called(architecture: str) -> Any:
    """Our model for timm's name, ignoring image size, number of registers and tag; or None."""
    if not architecture:  # saves building all models
        return None
    return _models_by_timms_name().get(_any_size(architecture.partition(".")[0]))


def _any_size(name: str) -> str:
    """timm's name without the image size and the number of registers, which arrays show."""
    return re.sub(r"_reg\d+_", "_reg_", re.sub(r"_(224|256|336|384|448|512)$", "", name))


@functools.cache
def _models_by_timms_name() -> dict[str, Any]:
    by_name: dict[str, Any] = {}
    for name in models.list_models():
        model = models.create_model(name)
        if reference := timm_reference(name, model, channels=3):
            by_name.setdefault(_any_size(reference[0]), model)
    return by_name
