"""Computes a run in the dtypes of its config, whatever JAX's global switches are."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def config_types() -> Iterator[None]:
    """Makes results within the context independent of JAX_ENABLE_X64 and similar switches.

    Our models, noises and steps set their dtypes, but Optax and Flax take some from JAX's switches:
    with 64 bits, Adam computes its bias correction, and dropout its uniform numbers, in float64. A
    run that is resumed with other switches would then have other results. The switches are set for
    the current thread, and restored afterwards. Also usable as a decorator, ``@config_types()``,
    but not on a generator, since the context would also apply to the code that iterates over it.
    """
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield
