"""The types of a run: those of its config, whatever JAX's global switches say."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def config_types() -> Iterator[None]:
    """What is computed within has the same bits whatever JAX_ENABLE_X64 and its like say.

    Our own models, noises and steps name their dtypes. Optax and Flax take some from JAX's
    switches: with 64 bits Adam computes its bias correction, and dropout its uniform numbers, in
    float64, and a run that goes on under another switch would not be the same run. The switches
    belong to the thread, and are as before afterwards. Also a decorator: ``@config_types()``; not
    of a generator, whose caller would compute within it too.
    """
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield
