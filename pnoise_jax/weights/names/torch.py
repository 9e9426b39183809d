"""Translates timm's and torchvision's names, and PyTorch's layouts, to ours and back."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping

import numpy as np

from pnoise_jax.weights.entries import MAX_DIGITS, Entries, Entry, add_entry
from pnoise_jax.weights.formats.array_file import Shape


@dataclasses.dataclass(frozen=True)
class Renaming:
    """Translates names by pairs of prefixes, theirs and ours, that end at a dot or the end.

    The first pair that matches applies; a name that no pair matches is the same in both. {+1} in
    their prefix represents a number that is larger by one in ours, where it is written {}:
    ("blocks.{+1}", "block_{}").

    Attributes:
      pairs: (theirs, ours).
    """

    pairs: tuple[tuple[str, str], ...]

    def ours(self, name: str) -> str:
        """Our name for theirs: "block_1.attn.qkv" for "blocks.0.attn.qkv"."""
        for theirs, ours in self.pairs:
            if match := _pattern(theirs).match(name):
                numbers = [
                    int(number) + offset
                    for number, offset in zip(match.groups(), _offsets(theirs), strict=True)
                ]
                return ours.format(*numbers) + name[match.end() :]
        return name

    def theirs(self, name: str) -> str:
        """Their name for ours."""
        for theirs, ours in self.pairs:
            if match := _pattern(ours).match(name):
                result = theirs
                for number, offset in zip(match.groups(), _offsets(theirs), strict=True):
                    result = result.replace(f"{{+{offset}}}", str(int(number) - offset), 1)
                return result + name[match.end() :]
        return name


@functools.cache
def _pattern(side: str) -> re.Pattern:
    parts = re.split(r"\{[^}]*\}", side)
    number = rf"([0-9]{{1,{MAX_DIGITS}}})"
    return re.compile(number.join(map(re.escape, parts)) + r"(?=\.|$)")


@functools.cache
def _offsets(theirs: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\{\+(\d+)\}", theirs))


BEIT = Renaming(  # and ConViT's
    (
        ("blocks.{+1}", "block_{}"),
        ("patch_embed.proj", "patch_embed"),
    )
)
VIT = Renaming(
    (
        ("blocks.{+1}.ls1.gamma", "block_{}.gamma_1"),
        ("blocks.{+1}.ls2.gamma", "block_{}.gamma_2"),
        *BEIT.pairs,
    )
)
PARALLEL_VIT = Renaming(
    (
        ("blocks.{+1}.q_norm", "block_{}.attn.q_norm"),
        ("blocks.{+1}.k_norm", "block_{}.attn.k_norm"),
        ("blocks.{+1}.attn_out_proj", "block_{}.attn.proj"),
        *BEIT.pairs,
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
_SWIN = (
    ("layers.{+1}.blocks.{+1}", "stage{}_block{}"),
    ("patch_embed.proj", "patch_embed"),
    ("patch_embed.norm", "patch_norm"),
    ("head.fc", "head"),
)
SWIN = Renaming((*_SWIN, ("layers.{+1}.downsample", "merge_{}")))
_SWIN_BY_ITS_AUTHORS = Renaming((*_SWIN, ("layers.{+2}.downsample", "merge_{}")))
_SWIN_V2 = (
    ("layers.{+1}.blocks.{+1}.attn.cpb_mlp.0", "stage{}_block{}.attn.cpb_fc1"),
    ("layers.{+1}.blocks.{+1}.attn.cpb_mlp.2", "stage{}_block{}.attn.cpb_fc2"),
)
SWIN_V2 = Renaming((*_SWIN_V2, *SWIN.pairs))
_SWIN_V2_BY_ITS_AUTHORS = Renaming((*_SWIN_V2, *_SWIN_BY_ITS_AUTHORS.pairs))


@dataclasses.dataclass(frozen=True)
class PairedRenaming(Renaming):
    """A renaming for models in which theirs number pairs of blocks, and ours number blocks.

    `pairs` use "blocks.2" for their "blocks.1.0", the first block of the second pair.
    """

    def ours(self, name: str) -> str:
        """Our name for theirs."""
        if match := re.match(rf"({_STAGE})\.([0-9]{{1,{MAX_DIGITS}}})\.([01])(?=\.)", name):
            name = f"{match[1]}.{2 * int(match[2]) + int(match[3])}{name[match.end() :]}"
        return super().ours(name)

    def theirs(self, name: str) -> str:
        """Their name for ours."""
        name = super().theirs(name)
        if match := re.match(rf"({_STAGE})\.([0-9]{{1,{MAX_DIGITS}}})(?=\.)", name):
            pair, which = divmod(int(match[2]), 2)
            name = f"{match[1]}.{pair}.{which}{name[match.end() :]}"
        return name


_STAGE = rf"stages\.[0-9]{{1,{MAX_DIGITS}}}\.blocks"
DAVIT = PairedRenaming(
    (
        ("stages.{+1}.blocks.{+1}", "stage{}_block{}"),
        ("stages.{+1}.downsample", "merge_{}"),
        ("stem.conv", "patch_embed"),
        ("stem.norm", "patch_norm"),
        ("head.norm", "fc_norm"),
        ("head.fc", "head"),
    )
)

_MAXVIT_BLOCK = ("stages.{+1}.blocks.{+1}", "stage{}_block{}")
_TABLE = "relative_position_bias_table"
MAXVIT = Renaming(
    (
        *(
            (
                f"{_MAXVIT_BLOCK[0]}.{part}.attn.rel_pos.{_TABLE}",
                f"{_MAXVIT_BLOCK[1]}.{part}.attn.{_TABLE}",
            )
            for part in ("attn_block", "attn_grid")
        ),
        (f"{_MAXVIT_BLOCK[0]}.conv.shortcut.expand", f"{_MAXVIT_BLOCK[1]}.conv.shortcut_expand"),
        _MAXVIT_BLOCK,
        ("stem.norm1", "bn1"),
        ("stem.conv1", "conv1"),
        ("stem.conv2", "conv2"),
        ("head.norm", "fc_norm"),
        ("head.pre_logits.fc", "pre_head"),
        ("head.fc", "head"),
    )
)

# Regular expressions for the names of the arrays in blocks, which distinguish the families.
_DENSE = r"(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])\.(weight|bias)"
VIT_BLOCKS = rf"blocks\.\d+\.({_DENSE}|ls[12]\.gamma)"
BEIT_BLOCKS = rf"blocks\.\d+\.({_DENSE}|gamma_[12]|attn\.([qv]_bias|relative_position_bias_table))"
CONVIT_BLOCKS = rf"blocks\.\d+\.({_DENSE}|attn\.((qk|v|pos_proj)\.(weight|bias)|gating_param))"
PARALLEL_VIT_BLOCKS = (
    r"blocks\.\d+\.((in_norm|in_proj|[qk]_norm|(attn|mlp)_out_proj)\.(weight|bias)|mlp_bias)"
)
SWIN_BLOCKS = rf"layers\.\d+\.blocks\.\d+\.({_DENSE}|attn\.relative_position_bias_table)"
SWIN_V2_BLOCKS = (
    rf"layers\.\d+\.blocks\.\d+\.({_DENSE}|"
    r"attn\.(logit_scale|[qv]_bias|cpb_mlp\.[02]\.(weight|bias)))"
)
DAVIT_BLOCKS = rf"stages\.\d+\.blocks\.\d+\.[01]\.({_DENSE}|cpe[12]\.proj\.(weight|bias))"
_NORM = r"(weight|bias|running_mean|running_var)"
MAXVIT_BLOCKS = (
    rf"stages\.\d+\.blocks\.\d+\.(conv\.((pre_norm|norm[12])\.{_NORM}|"
    r"(conv1_1x1|conv2_kxk|conv3_1x1|se\.fc[12]|shortcut\.expand)\.(weight|bias))|"
    rf"attn_(block|grid)\.({_DENSE}|attn\.rel_pos\.relative_position_bias_table))"
)
RESNET_BLOCKS = (
    r"layer\d+\.\d+\.((conv|bn)\d|downsample\.[01])\.(weight|bias|running_mean|running_var)"
)

_BUFFERS = (".relative_position_index", ".relative_coords_table", ".attn_mask")
_BUFFERS += (".num_batches_tracked",)


def vit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A ViT's or DeiT's arrays by our paths."""
    return entries(shapes, VIT)


def beit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A BEiT's or ConViT's arrays by our paths."""
    return entries(shapes, BEIT)


def parallel_vit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """The arrays of a ViT with parallel blocks by our paths."""
    return entries(shapes, PARALLEL_VIT)


def resnet_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A ResNet's arrays by our paths."""
    return entries(shapes, RESNET)


def davit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A DaViT's arrays by our paths."""
    return entries(shapes, DAVIT)


def maxvit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A MaxViT's arrays by our paths."""
    return entries(shapes, MAXVIT)


def swin_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A Swin Transformer's arrays by our paths."""
    return entries(shapes, _SWIN_BY_ITS_AUTHORS if _is_by_authors(shapes) else SWIN)


def swin_v2_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A Swin Transformer V2's arrays by our paths."""
    return entries(shapes, _SWIN_V2_BY_ITS_AUTHORS if _is_by_authors(shapes) else SWIN_V2)


def _is_by_authors(names: Iterable[str]) -> bool:
    """Whether a Swin is the authors': they merge at the end of a stage, and timm at the start.

    timm's first stage therefore never merges.
    """
    return any(name.startswith("layers.0.downsample.") for name in names)


def entries(shapes: Mapping[str, Shape], renaming: Renaming) -> Entries:
    """The arrays of a PyTorch model by our paths.

    Buffers that our models compute or do not need are left out: relative positions, masks and
    counters of batches.
    """
    by_path: Entries = {}
    for key, shape in shapes.items():
        if key.endswith(_BUFFERS):
            continue
        owner, _, name = renaming.ours(key).rpartition(".")
        collection, leaf, axes = _leaf(name, len(shape))
        path = "/".join(filter(None, (collection, owner.replace(".", "/"), leaf)))
        ours = tuple(shape[axis] for axis in axes)
        add_entry(by_path, path, Entry((key,), ours, lambda x, axes=axes: np.transpose(x, axes)))
    return by_path


def torch_name(path: str, ndim: int, renaming: Renaming) -> tuple[str, tuple[int, ...]]:
    """The PyTorch name of one of our arrays, and the order of our axes in the PyTorch array.

    Args:
      path: our path, such as "params/block_1/attn/qkv/kernel".
      ndim: the number of axes of the array.
      renaming: the renaming of the model's family.
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
    """The Flax collection, name and order of axes for an array of a PyTorch module."""
    if name.startswith("running_"):
        return "batch_stats", name.removeprefix("running_"), tuple(range(ndim))
    if name == "weight" and ndim == 4:  # (out, in, height, width)
        return "params", "kernel", (2, 3, 1, 0)
    if name == "weight" and ndim == 2:  # (out, in)
        return "params", "kernel", (1, 0)
    return "params", "scale" if name == "weight" else name, tuple(range(ndim))
