"""The kernels that compute attention: XLA's operations, or cuDNN's flash attention on GPUs."""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pnoise_jax.models.parts.device import device_here, on_cpu, on_one_device
from pnoise_jax.registry import did_you_mean

KERNELS = ("xla", "auto", "cudnn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """The properties that decide whether cuDNN can compute an attention.

    Attributes:
      platform: platform of the devices: "cpu", "cuda", "rocm", "tpu".
      capability: compute capability of the GPU, such as (9, 0); () if there is none.
      dtype: dtype of queries, keys and values.
      tokens: number of tokens that attend to each other.
      head_dim: features of a head.
      bias: whether something is added to the logits; a mask counts as a bias.
      weighted: whether attention weights are changed after the softmax, which cuDNN never shows.
      training: whether it is differentiated.
    """

    platform: str
    capability: tuple[int, ...] = ()
    dtype: str
    tokens: int
    head_dim: int
    bias: bool = False
    weighted: bool = False
    training: bool = True


def refusal(case: Case) -> str | None:
    """Why cuDNN cannot compute this, in words; None if it can. The rules are JAX's."""
    if case.platform != "cuda":
        return f"it runs only on NVIDIA GPUs, but this is {case.platform}"
    if case.dtype not in ("bfloat16", "float16"):
        return f"it supports bfloat16 and float16, but the computation is in {case.dtype}"
    if case.weighted:
        return "it cannot change the weights after the softmax"
    if case.capability < (8, 0):
        shown = ".".join(map(str, case.capability)) or "unknown"
        return f"it needs compute capability 8.0, but the GPU has {shown}"
    largest = 256 if case.capability >= (9, 0) else 128
    if case.head_dim > largest or case.head_dim % 8:
        return f"head_dim={case.head_dim}: it supports multiples of 8 up to {largest}"
    if case.training and case.bias and case.tokens % 2:
        return f"{case.tokens} tokens: in training, with a bias, their number must be even"
    return None


def require_kernel(name: str) -> None:
    """Raises ValueError unless attention_kernel is one of `KERNELS`."""
    if name not in KERNELS:
        raise ValueError(
            f"attention_kernel={name!r}{did_you_mean(name, KERNELS)}; choose one of "
            f"{', '.join(KERNELS)}"
        )


def choose(name: str, case: Case) -> str:
    """Chooses the kernel for `attend`: "xla" or "cudnn".

    Args:
      name: one of `KERNELS`. "auto" uses cuDNN if it can compute the attention and there is no
        bias, with which it has not been tested; if not, on an NVIDIA GPU, it prints why, once.
      case: the attention, which may belong to one layer of many.

    Raises:
      ValueError: the name is unknown, or it is "cudnn" and cuDNN cannot compute the attention.
    """
    require_kernel(name)
    if name == "xla":
        return "xla"
    reason = refusal(case)
    if reason is None and name == "auto" and case.bias:
        reason = "it has not been tested with a bias or a mask"
    if reason is None:
        return "cudnn"
    if name == "cudnn":
        raise ValueError(
            f"attention_kernel='cudnn': {reason}; set attention_kernel='auto', which then uses "
            "XLA's kernel, or 'xla'"
        )
    if case.platform == "cuda":
        _say_once(f"attention_kernel='auto' uses XLA's kernel instead of cuDNN's: {reason}")
    return "xla"


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None, *, kernel: str
) -> jax.Array:
    """Softmax attention, (batch, tokens, heads, dim / heads), by the kernel that `choose` returned.

    For cuDNN, an odd number of tokens is padded with one token that nothing attends to: JAX rejects
    odd numbers in training, although cuDNN does so only with a bias. On CPUs, "xla" uses
    `attend_on_cpu`.

    Args:
      query: (batch, tokens, heads, dim / heads); for "xla", it can have fewer tokens than the keys.
      key, value: (batch, tokens, heads, dim / heads).
      bias: added to the logits, (batch or 1, heads or 1, tokens, tokens), or None.
      kernel: "xla" or "cudnn".
    """
    if kernel == "xla" and on_cpu():
        return attend_on_cpu(query, key, value, bias)
    implementation: Any = kernel
    attention = functools.partial(jax.nn.dot_product_attention, implementation=implementation)
    if kernel == "cudnn" and query.shape[1] % 2 and bias is None:
        return attend_padded(attention, query, key, value)
    return attention(query, key, value, bias)


def attend_on_cpu(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """Attention of (batch, tokens, heads, dim / heads), in a form fast in XLA's CPU backend.

    For `jax.nn.dot_product_attention`, that backend scales the logits, writes out the divisors of
    the weights, and transposes the weights: three more passes over one number for each pair of
    tokens. Here the queries are scaled, and the results are divided by the sum of their weights.
    Without a bias, examples and heads are merged into one axis: with two axes, the gradients of
    keys and values take up to twice as long. 16-bit inputs are computed in float32, in which the
    backend multiplies them in any case.
    """
    dtype = value.dtype
    wide = dtype if dtype.itemsize >= 4 else jnp.float32
    query, key, value = (x.astype(wide).swapaxes(1, 2) for x in (query, key, value))
    shape = query.shape
    if bias is None and on_one_device():
        query, key, value = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
    logits = jnp.einsum("...td,...sd->...ts", query * query.shape[-1] ** -0.5, key)
    if bias is not None:
        logits += bias.astype(wide)
    # The result does not depend on the maximum, so it needs no gradient.
    largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    weights = jnp.exp(logits - largest)
    total = weights.sum(axis=-1, keepdims=True)
    x = jnp.einsum("...ts,...sd->...td", weights, value) / total
    return x.reshape(shape).astype(dtype).swapaxes(1, 2)


def attend_padded(
    attention: Callable[..., jax.Array], query: jax.Array, key: jax.Array, value: jax.Array
) -> jax.Array:
    """Attention of (batch, tokens, heads, dim / heads), computed with one more token.

    Args:
      attention: accepts the same arrays and the numbers of real tokens, (batch,) each, as
        `jax.nn.dot_product_attention` does.
    """
    tokens = query.shape[1]
    # Under vmap, JAX's rule for cuDNN requires lengths that are mapped too, so they depend on the
    # queries. No number is smaller than itself, so this adds 0.
    first = jax.lax.stop_gradient(query[:, 0, 0, 0])
    lengths = tokens + (first < first).astype(jnp.int32)
    padded = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
    x = attention(*padded, query_seq_lengths=lengths, key_value_seq_lengths=lengths)
    return x[:, :tokens]


def case_here(query: jax.Array, *, bias: bool, weighted: bool, training: bool) -> Case:
    """The case of queries (batch, tokens, heads, dim / heads) on the devices of this process.

    Within `device.compiling_for`, on the device given there.
    """
    device = device_here()
    capability = str(getattr(device, "compute_capability", ""))
    platform = device.platform
    if platform == "gpu":
        platform = "cuda" if re.fullmatch(r"\d+\.\d+", capability) else "rocm"
    return Case(
        platform=platform,
        capability=tuple(map(int, capability.split("."))) if platform == "cuda" else (),
        dtype=jnp.dtype(query.dtype).name,
        tokens=query.shape[1],
        head_dim=query.shape[-1],
        bias=bias,
        weighted=weighted,
        training=training,
    )


@functools.cache
def _say_once(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
