"""Counts the floating-point operations of a function before it is compiled."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

# Matrix products in cuDNN's attention; the backward pass recomputes the logits.
_ATTENTION = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}


def count_flops(function: Callable, *arguments: Any) -> int:
    """Counts the floating-point operations of all matrix products and convolutions of a function.

    See `flops_of` for what counts.

    Args:
      function: a function that JAX can trace.
      arguments: pytrees of arrays or `jax.ShapeDtypeStruct`.
    """
    return flops_of(jax.make_jaxpr(function)(*arguments).jaxpr)


def flops_of(jaxpr: Any) -> int:
    """Counts the operations of all matrix products and convolutions of a traced function.

    A multiplication and an addition count as two operations. Operations on padded zeros count too,
    as is usual. The body of a loop counts once per iteration if the length is known, else once. The
    operations of all devices are added up.

    Args:
      jaxpr: a jaxpr, such as ``traced.jaxpr.jaxpr`` for a `jax.stages.Traced`.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        outputs = (
            math.prod(getattr(equation.outvars[0].aval, "shape", ())) if equation.outvars else 0
        )
        shapes: list[Any] = [getattr(x.aval, "shape", ()) for x in equation.invars]
        if name == "dot_general":
            contracted, _ = params["dimension_numbers"][0]
            total += 2 * outputs * math.prod(shapes[0][axis] for axis in contracted)
        elif name == "conv_general_dilated":
            features = params["dimension_numbers"].rhs_spec[0]
            total += 2 * outputs * math.prod(shapes[1]) // shapes[1][features]
        elif name in _ATTENTION:  # queries and keys (batch, tokens, heads, dim / heads)
            total += _ATTENTION[name] * 2 * math.prod(shapes[0]) * shapes[1][1]
        inner = [flops_of(inside) for inside in jaxprs_in_params(params)]
        # Only one branch of a condition runs, such as one for each kind of device.
        each = max(inner, default=0) if name == "cond" else sum(inner)
        total += each * _times(name, params)
    return total


def _times(name: str, params: dict[str, Any]) -> int:
    """Returns how often an equation's inner functions run, over all devices."""
    if name == "scan":
        return params["length"]
    if name == "shard_map":
        mesh, axes = params["mesh"], params.get("manual_axes")
        return math.prod(mesh.shape[axis] for axis in (mesh.axis_names if axes is None else axes))
    return 1
