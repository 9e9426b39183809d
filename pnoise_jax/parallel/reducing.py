"""The dtype in which gradients of kernels are summed over devices.

By default, the compiler sums the devices' shares of a gradient in the dtype in which they were
computed. If another dtype is given, each device computes its share, and the shares are summed in
that dtype.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import dtypes
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike

# Modules that have kernels, the field with the operation on input and kernel, and its default.
_OPERATIONS = {
    nn.Dense: ("dot_general", lax.dot_general),
    nn.DenseGeneral: ("dot_general", lax.dot_general),
    nn.Conv: ("conv_general_dilated", lax.conv_general_dilated),
}


_REDUCING = contextvars.ContextVar("reducing", default=False)


def reduces_kernels() -> bool:
    """Whether a step is traced in `reduce_kernels_in`, which only sees calls of whole modules.

    Code that multiplies by parts of a kernel in another way should then call the module instead.
    """
    return _REDUCING.get()


@contextlib.contextmanager
def reduce_kernels_in(dtype: DTypeLike | None, mesh: Mesh) -> Iterator[None]:
    """While a step is traced, sums gradients of kernels over devices in ``dtype``.

    This applies to `nn.Dense`, `nn.DenseGeneral` and `nn.Conv` in any model, and to subclasses that
    keep their ``__call__``, if the devices divide the first axis of the input. Gradients of other
    classes of modules are summed in the dtype in which they are computed. With None, all are, and
    the program does not change.
    """
    if dtype is None or mesh.size == 1:
        yield
        return

    def interceptor(
        call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        name, operation = _operation_of(type(module))
        if context.method_name != "__call__" or operation is None:
            return call(*args, **kwargs)
        operation = getattr(module, name) or operation
        reducing = functools.partial(_apply, operation, jnp.dtype(dtype), mesh)
        with replaced_fields(module, promote_dtype=_promote_all_but_kernel, **{name: reducing}):
            return call(*args, **kwargs)

    before = _REDUCING.set(True)
    try:
        with nn.intercept_methods(interceptor):
            yield
    finally:
        _REDUCING.reset(before)


def _operation_of(kind: type[nn.Module]) -> tuple[str, Callable | None]:
    """The field with a module class's operation, and its default; ("", None) for other classes."""
    for base, field_and_default in _OPERATIONS.items():
        # A class of convolutions with a different operation shares the __call__ of nn.Conv.
        if issubclass(kind, base) and kind.__call__ is base.__call__:
            return field_and_default
    return "", None


@contextlib.contextmanager
def replaced_fields(module: nn.Module, **fields: Any) -> Iterator[None]:
    """Replaces fields of a module for one call.

    A clone would have different parameters, and a direct method call would skip the interceptors
    that inject noise.
    """
    before = {name: getattr(module, name) for name in fields}
    for name, value in fields.items():
        object.__setattr__(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(module, name, value)


def _promote_all_but_kernel(inputs: Any, kernel: Any, bias: Any, *, dtype: Any) -> tuple:
    """Promotes like Flax, but keeps the kernel's dtype, so that its gradient is not rounded."""
    dtype = dtypes.canonicalize_dtype(inputs, kernel, bias, dtype=dtype)
    inputs, bias = dtypes.promote_dtype(inputs, bias, dtype=dtype)
    return inputs, kernel, bias


def _apply(
    operation: Callable,
    dtype: Any,
    mesh: Mesh,
    x: jax.Array,
    kernel: jax.Array,
    *arguments: Any,
    **options: Any,
) -> jax.Array:
    """The operation on x: (batch, ...) and a kernel; the kernel's gradient is summed in `dtype`."""

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return operation(x, kernel.astype(x.dtype), *arguments, **options)

    if x.ndim < 2 or x.shape[0] % mesh.size or _mixes_batch(operation, arguments):
        return plain(x, kernel)
    axes = mesh.axis_names

    def sum_of_shares(x: jax.Array, g: jax.Array) -> jax.Array:
        anything = jnp.zeros(kernel.shape, x.dtype)  # any value: the operation is linear in it
        (share,) = jax.vjp(lambda kernel: plain(x, kernel), anything)[1](g)
        return lax.psum(share.astype(dtype), axes)

    def backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = saved
        (dx,) = jax.vjp(lambda x: plain(x, kernel), x)[1](g)
        split = PartitionSpec(axes)
        total = jax.shard_map(
            sum_of_shares,
            mesh=mesh,
            in_specs=(split, split),
            out_specs=PartitionSpec(),
            check_vma=False,  # it would sum the shares itself, in the dtype that they have
        )(x, g)
        return dx, total.astype(kernel.dtype)

    reduced = jax.custom_vjp(plain)
    reduced.defvjp(lambda x, kernel: (plain(x, kernel), (x, kernel)), backward)
    return reduced(x, kernel)


def _mixes_batch(operation: Callable, arguments: tuple) -> bool:
    """Whether a product contracts the first axis of x, or has batch dimensions."""
    if operation is not lax.dot_general:
        return False
    (contracted, _), (batched, _) = arguments[0]
    return 0 in contracted or bool(batched)
