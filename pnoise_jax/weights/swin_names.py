"""timm's names of a Swin Transformer's arrays, as ours."""

from collections.abc import Mapping

from pnoise_jax.weights import torch_names
from pnoise_jax.weights.arrays import Entries, Shape
from pnoise_jax.weights.renaming import Renaming

_PAIRS = (
    ("layers.{+1}.blocks.{+1}", "stage{}_block{}"),
    ("patch_embed.proj", "patch_embed"),
    ("patch_embed.norm", "patch_norm"),
    ("head.fc", "head"),
)
SWIN = Renaming((*_PAIRS, ("layers.{+1}.downsample", "merge_{}")))
_MERGES_AT_END = Renaming((*_PAIRS, ("layers.{+2}.downsample", "merge_{}")))


def is_swin(names: Mapping[str, Shape]) -> bool:
    """Whether these are the arrays of a Swin Transformer of timm or its authors."""
    return {"patch_embed.norm.weight", "layers.0.blocks.0.attn.qkv.weight"} <= names.keys()


def swin_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A Swin Transformer's arrays by our paths."""
    # timm merges at the start of a stage, so never in its first; the authors at the end of one.
    merges_at_end = any(name.startswith("layers.0.downsample.") for name in shapes)
    return torch_names.entries(shapes, _MERGES_AT_END if merges_at_end else SWIN)
