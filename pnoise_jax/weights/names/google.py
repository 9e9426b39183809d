"""Translates Google's names of a ViT's arrays (original ViT, AugReg, big_vision) to ours.

vision_transformer (https://github.com/google-research/vision_transformer) numbers the submodules of
a block differently from big_vision (https://github.com/google-research/big_vision), whose scanned
models also store all blocks in one array. Their kernels have Flax's layout, like ours.
"""

import collections
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from pnoise_jax.weights.entries import MAX_DIGITS, Entries, Entry, add_entry
from pnoise_jax.weights.formats.array_file import Shape

_PREFIX = r"(opt/target/|params/img/|params/|)"  # in checkpoints that contain more than the model
_BLOCK = rf"Transformer/encoderblock(?:_([0-9]{{1,{MAX_DIGITS}}}))?/"
# The names of the arrays in blocks, as a regular expression.
BLOCKS = (
    rf"{_PREFIX}{_BLOCK}"
    r"(LayerNorm_\d|MlpBlock_\d/Dense_\d|MultiHeadDotProductAttention_\d/\w+)/(kernel|bias|scale)"
)
_MAX_BLOCKS = 10_000  # in one array of a scanned model
_TOP = {
    "cls": "cls_token",
    "embedding": "patch_embed",
    "pos_embedding": "pos_embed",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm": "norm",
}
_IN_BLOCK = {  # as numbered in big_vision or in vision_transformer
    r"LayerNorm_0": "norm1",
    r"LayerNorm_[12]": "norm2",
    r"MlpBlock_[03]/Dense_0": "mlp/fc1",
    r"MlpBlock_[03]/Dense_1": "mlp/fc2",
}
_ATTENTION = r"MultiHeadDotProductAttention_[01]/(query|key|value|out)/(kernel|bias)"


def vit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A ViT's arrays by our paths; arrays that our model lacks keep a distinct name."""
    prefix = _prefix(shapes)
    entries: Entries = {}
    projections: dict[str, dict[str, Entry]] = {}  # to be joined, by our path
    for name, shape in shapes.items():
        if not name.startswith(prefix):
            continue
        for block, rest, entry in _unstack(name, name.removeprefix(prefix), shape):
            projection = re.fullmatch(_ATTENTION, rest)
            if block is None or not projection:
                ours = "/".join(filter(None, ("params", block, _path(rest, block))))
                add_entry(entries, ours, entry)
            elif projection[1] == "out":
                add_entry(entries, f"params/{block}/attn/proj/{projection[2]}", _merge_out(entry))
            else:
                parts = projections.setdefault(f"params/{block}/attn/qkv/{projection[2]}", {})
                parts[projection[1]] = _merge_heads(entry)
    for path, parts in projections.items():
        parts = {part: parts[part] for part in ("query", "key", "value") if part in parts}
        if len({entry.shape[:-1] for entry in parts.values()}) == 1:
            add_entry(entries, path, _join(list(parts.values())))
        else:  # they cannot be joined; the report on mismatches will show it
            entries |= {f"{path}/{part}": entry for part, entry in parts.items()}
    return entries


def num_heads(shapes: Mapping[str, Shape]) -> int | None:
    """The number of attention heads, from a projection's kernel, (…, heads, head_dim)."""
    query = re.compile(rf"{re.escape(_prefix(shapes))}{_BLOCK}\w+/query/kernel")
    heads = (s[-2] for name, s in shapes.items() if query.fullmatch(name) and len(s) >= 3)
    return next(heads, None)


def _prefix(names: Iterable[str]) -> str:
    """The prefix that most names of arrays in blocks start with."""
    counted = collections.Counter(
        match[1] for name in names if (match := re.match(_PREFIX + _BLOCK, name))
    )
    return counted.most_common(1)[0][0]


def _unstack(name: str, rest: str, shape: Shape) -> Iterator[tuple[str | None, str, Entry]]:
    """Yields (our block, name within it, entry), once for each block of a scanned model."""
    match = re.fullmatch(rf"{_BLOCK}(.+)", rest)
    if not match or not (match[1] or (shape and shape[0] <= _MAX_BLOCKS)):
        yield None, rest, Entry((name,), shape, lambda x: x)
    elif match[1]:
        yield f"block_{int(match[1]) + 1}", match[2], Entry((name,), shape, lambda x: x)
    else:
        for index in range(shape[0]):
            entry = Entry((name,), shape[1:], lambda x, index=index: x[index])
            yield f"block_{index + 1}", match[2], entry


def _path(rest: str, block: str | None) -> str:
    """Our path for a name; an unknown name is returned unchanged."""
    if rest in _TOP:
        return _TOP[rest]
    owner, _, leaf = rest.rpartition("/")
    if block is None:
        return f"{_TOP.get(owner, owner)}/{leaf}"
    for pattern, ours in _IN_BLOCK.items():
        if re.fullmatch(pattern, owner):
            return f"{ours}/{leaf}"
    return rest


def _merge_heads(entry: Entry) -> Entry:
    """Reshapes (…, heads, head_dim) to (…, dim); an array with fewer axes gets one axis."""
    return _reshape(entry, (*entry.shape[:-2], math.prod(entry.shape[-2:])))


def _merge_out(entry: Entry) -> Entry:
    """Reshapes a kernel (heads, head_dim, dim) to (dim, dim); any other array is unchanged."""
    if len(entry.shape) != 3:
        return entry
    return _reshape(entry, (math.prod(entry.shape[:2]), entry.shape[2]))


def _reshape(entry: Entry, shape: Shape) -> Entry:
    return entry.then(shape, lambda x: x.reshape(shape))


def _join(parts: list[Entry]) -> Entry:
    """Concatenates the projections to queries, keys and values."""
    shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
    converts: list[Callable] = [part.convert for part in parts]

    def convert(*arrays: np.ndarray) -> np.ndarray:
        converted = [convert(x) for convert, x in zip(converts, arrays, strict=True)]
        return np.concatenate(converted, axis=-1)

    return Entry(tuple(name for part in parts for name in part.names), shape, convert)
