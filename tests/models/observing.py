"""What happens within a model while it is called."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import pytest
from flax import traverse_util

from pnoise_jax import noise

Shape = tuple[int, ...]


def outputs(model: nn.Module, variables: dict, images: jax.Array, **call: Any) -> dict[str, Any]:
    """Shape and dtype of each submodule's output, by its path; "" is the model itself."""
    _, state = jax.eval_shape(
        lambda v: model.apply(v, images, capture_intermediates=True, mutable=True, **call),
        variables,
    )
    captured = traverse_util.flatten_dict(state["intermediates"], sep="/")
    return {path.removesuffix("__call__").rstrip("/"): x for path, (x,) in captured.items()}


@dataclasses.dataclass(frozen=True)
class _Taps:
    tapped: list[tuple]
    prefix_tokens: int

    def __call__(self, x: jax.Array, *, point: str, layer: int | None = None) -> jax.Array:
        self.tapped.append((layer, point, x.shape))
        return x

    def require_passed(self, layer: int, *, model: str) -> None:
        pass  # the tests look at `tapped`


def taps(
    model: nn.Module, variables: dict, images: jax.Array, **call: Any
) -> tuple[list[dict], list[tuple]]:
    """The options of each `open_taps`, and where taps were: (layer, point, shape)."""
    calls, tapped = [], []

    def open_taps(module, injection, **options):
        calls.append(options | {"injection": injection})
        return _Taps(tapped, options["prefix_tokens"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "open_taps", open_taps)
        jax.eval_shape(lambda v: model.apply(v, images, mutable=["batch_stats"], **call), variables)
    return calls, tapped


def block_shapes(dim: int, attention: Mapping[str, Shape] | None = None) -> dict[str, Shape]:
    """Shapes of an encoder block's parameters; `attention` has those before its projection."""
    before_projection = attention or {"qkv/kernel": (dim, 3 * dim), "qkv/bias": (3 * dim,)}
    return {f"attn/{name}": shape for name, shape in before_projection.items()} | {
        "norm1/scale": (dim,),
        "norm1/bias": (dim,),
        "attn/proj/kernel": (dim, dim),
        "attn/proj/bias": (dim,),
        "norm2/scale": (dim,),
        "norm2/bias": (dim,),
        "mlp/fc1/kernel": (dim, 4 * dim),
        "mlp/fc1/bias": (4 * dim,),
        "mlp/fc2/kernel": (4 * dim, dim),
        "mlp/fc2/bias": (dim,),
    }
