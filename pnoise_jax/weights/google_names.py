"""Google's names of a ViT's arrays, as ours: the original ViT, AugReg, and big_vision.

vision_transformer (https://github.com/google-research/vision_transformer) numbers the submodules of
a block differently from big_vision (https://github.com/google-research/big_vision), whose scanned
models also hold all blocks in one array. Their kernels have Flax's layout, as ours.
"""

import collections
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from pnoise_jax.weights.arrays import MOST_DIGITS, Entries, Entry, Shape, put

_PREFIX = r"(opt/target/|params/img/|params/|)"  # of checkpoints with more beside the model
_BLOCK = rf"Transformer/encoderblock(?:_([0-9]{{1,{MOST_DIGITS}}}))?/"
# The names in their blocks, as a regular expression.
BLOCKS = (
    rf"{_PREFIX}{_BLOCK}"
    r"(LayerNorm_\d|MlpBlock_\d/Dense_\d|MultiHeadDotProductAttention_\d/\w+)/(kernel|bias|scale)"
)
_MOST_BLOCKS = 10_000  # in one array of a scanned model
_TOP = {
    "cls": "cls_token",
    "embedding": "patch_embed",
    "pos_embedding": "pos_embed",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm": "norm",
}
_IN_BLOCK = {  # big_vision's number, or the original's
    r"LayerNorm_0": "norm1",
    r"LayerNorm_[12]": "norm2",
    r"MlpBlock_[03]/Dense_0": "mlp/fc1",
    r"MlpBlock_[03]/Dense_1": "mlp/fc2",
}
_ATTENTION = r"MultiHeadDotProductAttention_[01]/(query|key|value|out)/(kernel|bias)"


def vit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A ViT's arrays by our paths; those that are of no use to it keep a name of their own."""
    prefix = _prefix(shapes)
    found: Entries = {}
    attention: dict[str, dict[str, Entry]] = {}
    for name, shape in shapes.items():
        if not name.startswith(prefix):
            continue
        for block, rest, entry in _unstack(name, name.removeprefix(prefix), shape):
            projection = re.fullmatch(_ATTENTION, rest)
            if block is None or not projection:
                ours = "/".join(filter(None, ("params", block, _path(rest, block))))
                put(found, ours, entry)
            elif projection[1] == "out":
                put(found, f"params/{block}/attn/proj/{projection[2]}", _merge_out(entry))
            else:
                joined = attention.setdefault(f"params/{block}/attn/qkv/{projection[2]}", {})
                joined[projection[1]] = _merge_heads(entry)
    for path, parts in attention.items():
        parts = {part: parts[part] for part in ("query", "key", "value") if part in parts}
        if len({entry.shape[:-1] for entry in parts.values()}) == 1:
            put(found, path, _join(list(parts.values())))
        else:  # of different shapes, which the reader is to see
            found |= {f"{path}/{part}": entry for part, entry in parts.items()}
    return found


def num_heads(shapes: Mapping[str, Shape]) -> int | None:
    """Of the attention: the kernels of its projections end in (heads, head_dim)."""
    query = re.compile(rf"{re.escape(_prefix(shapes))}{_BLOCK}\w+/query/kernel")
    found = (s[-2] for name, s in shapes.items() if query.fullmatch(name) and len(s) >= 3)
    return next(found, None)


def _prefix(names: Iterable[str]) -> str:
    """What most of the blocks' names begin with."""
    found = collections.Counter(m[1] for name in names if (m := re.match(_PREFIX + _BLOCK, name)))
    return found.most_common(1)[0][0]


def _unstack(name: str, rest: str, shape: Shape) -> Iterator[tuple[str | None, str, Entry]]:
    """(block of ours, name within it, entry): one, or one for each block of a scanned model."""
    match = re.fullmatch(rf"{_BLOCK}(.+)", rest)
    if not match or not (match[1] or (shape and shape[0] <= _MOST_BLOCKS)):
        yield None, rest, Entry((name,), shape, lambda x: x)
    elif match[1]:
        yield f"block_{int(match[1]) + 1}", match[2], Entry((name,), shape, lambda x: x)
    else:
        for index in range(shape[0]):
            entry = Entry((name,), shape[1:], lambda x, index=index: x[index])
            yield f"block_{index + 1}", match[2], entry


def _path(rest: str, block: str | None) -> str:
    """Our path of a name; what is not known keeps its own."""
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
    """(…, heads, head_dim) to (…, dim); what has fewer axes gets one."""
    return _reshape(entry, (*entry.shape[:-2], math.prod(entry.shape[-2:])))


def _merge_out(entry: Entry) -> Entry:
    """A kernel (heads, head_dim, dim) to (dim, dim); what is none stays."""
    if len(entry.shape) != 3:
        return entry
    return _reshape(entry, (math.prod(entry.shape[:2]), entry.shape[2]))


def _reshape(entry: Entry, shape: Shape) -> Entry:
    return entry.then(shape, lambda x: x.reshape(shape))


def _join(parts: list[Entry]) -> Entry:
    """The projections for queries, keys and values side by side."""
    shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
    converts: list[Callable] = [part.convert for part in parts]

    def convert(*arrays: np.ndarray) -> np.ndarray:
        made = [convert(x) for convert, x in zip(converts, arrays, strict=True)]
        return np.concatenate(made, axis=-1)

    return Entry(tuple(name for part in parts for name in part.names), shape, convert)
