"""timm's and torchvision's names of arrays, and PyTorch's layouts, as ours."""

from collections.abc import Mapping

import numpy as np

from pnoise_jax.weights.arrays import Entries, Entry, Shape, put
from pnoise_jax.weights.renaming import Renaming

VIT = Renaming(
    (
        ("blocks.{+1}", "block_{}"),
        ("patch_embed.proj", "patch_embed"),
    )
)
RESNET = Renaming(
    (
        ("layer{+0}.{+1}.downsample.0", "stage{}_block{}.downsample_conv"),
        ("layer{+0}.{+1}.downsample.1", "stage{}_block{}.downsample_bn"),
        ("layer{+0}.{+1}", "stage{}_block{}"),
        ("fc", "head"),
    )
)
_BUFFERS = (".relative_position_index", ".attn_mask", ".num_batches_tracked")


def is_vit(names: Mapping[str, Shape]) -> bool:
    """Whether these are the arrays of a ViT of timm."""
    return {"patch_embed.proj.weight", "pos_embed"} <= names.keys()


def is_beit(names: Mapping[str, Shape]) -> bool:
    """Whether these are the arrays of a BEiT of timm, without absolute positions."""
    return {"blocks.0.attn.q_bias", "blocks.0.attn.relative_position_bias_table"} <= names.keys()


def is_convit(names: Mapping[str, Shape]) -> bool:
    """Whether these are the arrays of a ConViT of timm; its entries are named as a ViT's."""
    return "blocks.0.attn.gating_param" in names


def is_resnet(names: Mapping[str, Shape]) -> bool:
    """Whether these are the arrays of a ResNet of timm or torchvision."""
    return "conv1.weight" in names and "layer1.0.conv1.weight" in names


def vit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A ViT's, DeiT's, BEiT's or ConViT's arrays by our paths."""
    return entries(shapes, VIT)


def resnet_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A ResNet's arrays by our paths."""
    return entries(shapes, RESNET)


def entries(shapes: Mapping[str, Shape], renaming: Renaming) -> Entries:
    """The arrays of a PyTorch model by our paths.

    What it stores beside its weights, and is computed here, is left out: positions, masks, and
    counters of batches.
    """
    found: Entries = {}
    for key, shape in shapes.items():
        if key.endswith(_BUFFERS):
            continue
        owner, _, name = renaming.ours(key).rpartition(".")
        collection, leaf, axes = _leaf(name, len(shape))
        path = "/".join(filter(None, (collection, owner.replace(".", "/"), leaf)))
        ours = tuple(shape[axis] for axis in axes)
        put(found, path, Entry((key,), ours, lambda x, axes=axes: np.transpose(x, axes)))
    return found


def exported(path: str, ndim: int, renaming: Renaming) -> tuple[str, tuple[int, ...]]:
    """The way back: a PyTorch model's name of an array of ours, and the order of its axes there.

    Args:
      path: ours, such as "params/block_1/attn/qkv/kernel".
      ndim: of the array.
      renaming: of the model's family.
    """
    collection, _, rest = path.partition("/")
    owner, _, leaf = rest.replace("/", ".").rpartition(".")
    name = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
    if collection == "batch_stats":
        name = f"running_{leaf}"
    _, _, axes = _leaf(name, ndim)
    name = renaming.theirs(".".join(filter(None, (owner, name))))
    return name, tuple(int(axis) for axis in np.argsort(axes))


def _leaf(name: str, ndim: int) -> tuple[str, str, tuple[int, ...]]:
    """Collection, name and order of axes in Flax of one array of a PyTorch module."""
    if name.startswith("running_"):
        return "batch_stats", name.removeprefix("running_"), tuple(range(ndim))
    if name == "weight" and ndim == 4:  # (out, in, height, width)
        return "params", "kernel", (2, 3, 1, 0)
    if name == "weight" and ndim == 2:  # (out, in)
        return "params", "kernel", (1, 0)
    return "params", "scale" if name == "weight" else name, tuple(range(ndim))
