"""timm's and torchvision's names of arrays, and PyTorch's layouts, as ours."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from pnoise_jax.weights.arrays import Entries, Entry, Shape, put


def vit_module(name: str) -> str:
    """Ours for timm's name of a module: blocks.0.attn.qkv is block_1/attn/qkv."""
    name = re.sub(r"^blocks\.(\d+)", lambda match: f"block_{int(match[1]) + 1}", name)
    return name.replace("patch_embed.proj", "patch_embed").replace(".", "/")


def resnet_module(name: str) -> str:
    """Ours for timm's name of a module: layer1.0.downsample.1 is stage1_block1/downsample_bn."""
    block = r"^layer(\d+)\.(\d+)"
    name = re.sub(block, lambda match: f"stage{match[1]}_block{int(match[2]) + 1}", name)
    name = name.replace("downsample.0", "downsample_conv").replace("downsample.1", "downsample_bn")
    return re.sub(r"^fc$", "head", name).replace(".", "/")


def is_vit(names: Mapping[str, Shape]) -> bool:
    """Whether these are the arrays of a ViT of timm."""
    return {"patch_embed.proj.weight", "pos_embed"} <= names.keys()


def is_resnet(names: Mapping[str, Shape]) -> bool:
    """Whether these are the arrays of a ResNet of timm or torchvision."""
    return "conv1.weight" in names and "layer1.0.conv1.weight" in names


def vit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A ViT's arrays by our paths."""
    return _entries(shapes, vit_module)


def resnet_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A ResNet's arrays by our paths; PyTorch's counters of batches have no use here."""
    counted = {k: s for k, s in shapes.items() if not k.endswith("num_batches_tracked")}
    return _entries(counted, resnet_module)


def _entries(shapes: Mapping[str, Shape], module: Callable[[str], str]) -> Entries:
    found: Entries = {}
    for key, shape in shapes.items():
        owner, _, name = key.rpartition(".")
        collection, leaf, axes = _leaf(name, len(shape))
        path = "/".join(filter(None, (collection, module(owner), leaf)))
        ours = tuple(shape[axis] for axis in axes)
        put(found, path, Entry((key,), ours, lambda x, axes=axes: np.transpose(x, axes)))
    return found


def _leaf(name: str, ndim: int) -> tuple[str, str, tuple[int, ...]]:
    """Collection, name and order of axes in Flax of one array of a PyTorch module."""
    if name.startswith("running_"):
        return "batch_stats", name.removeprefix("running_"), tuple(range(ndim))
    if name == "weight" and ndim == 4:  # (out, in, height, width)
        return "params", "kernel", (2, 3, 1, 0)
    if name == "weight" and ndim == 2:  # (out, in)
        return "params", "kernel", (1, 0)
    return "params", "scale" if name == "weight" else name, tuple(range(ndim))
