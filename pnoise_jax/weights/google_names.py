"""Google's names of a ViT's arrays, as ours: the original ViT, AugReg, and big_vision.

vision_transformer (https://github.com/google-research/vision_transformer) numbers the submodules of
a block differently from big_vision (https://github.com/google-research/big_vision), whose scanned
models also hold all blocks in one array. Their kernels have Flax's layout, as ours.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from pnoise_jax.weights.arrays import Entries, Entry, Shape, put

_PREFIXES = ("opt/target/", "params/img/", "params/", "")  # checkpoints with more beside the model
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


def is_vit(names: Mapping[str, Shape]) -> bool:
    """Whether these are the arrays of a ViT of Google's."""
    return _prefix(names) is not None


def vit_entries(shapes: Mapping[str, Shape]) -> Entries:
    """A ViT's arrays by our paths."""
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
        found[path] = _join([parts[part] for part in ("query", "key", "value") if part in parts])
    return found


def num_heads(shapes: Mapping[str, Shape]) -> int | None:
    """Of the attention: the kernels of its projections end in (heads, head_dim)."""
    found = (shape[-2] for name, shape in shapes.items() if name.endswith("/query/kernel"))
    return next(found, None)


def _prefix(names: Mapping[str, Shape]) -> str | None:
    return next((p for p in _PREFIXES if f"{p}embedding/kernel" in names), None)


def _unstack(name: str, rest: str, shape: Shape) -> Iterator[tuple[str | None, str, Entry]]:
    """(block of ours, name within it, entry): one, or one for each block of a scanned model."""
    match = re.fullmatch(r"Transformer/encoderblock(?:_(\d+))?/(.+)", rest)
    if not match:
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
    """(…, heads, head_dim) to (…, dim)."""
    return _reshape(entry, (*entry.shape[:-2], math.prod(entry.shape[-2:])))


def _merge_out(entry: Entry) -> Entry:
    """A kernel (heads, head_dim, dim) to (dim, dim); a bias stays."""
    if len(entry.shape) < 3:
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
