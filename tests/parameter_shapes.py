"""Remembers the shapes that Flax asks initialisers for: a quarter of the tracing of a model.

Whenever a model is applied, Flax traces the initialiser of each parameter for the shape that it
should have. Initialisers are pure, and there are few: here each is traced once for its arguments.
"""

import functools
import types

import flax.core.scope
import jax

_NAMES = {"init_fn", "init_args", "init_kwargs"}  # what Flax's question is made of


class _Jax(types.ModuleType):
    """JAX as Flax sees it: with another `eval_shape`."""

    def __getattr__(self, name):
        return getattr(jax, name)

    @staticmethod
    def eval_shape(function, *arguments, **keywords):
        """As JAX's, but it remembers the answers to that question."""
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        asked = {name: cell.cell_contents for name, cell in cells}
        if asked.keys() != _NAMES or arguments or keywords:
            return jax.eval_shape(function, *arguments, **keywords)
        try:
            return _shapes(
                asked["init_fn"],
                asked["init_args"],
                tuple(asked["init_kwargs"].items()),
                jax.config.jax_enable_x64,
            )
        except TypeError:  # not hashable
            return jax.eval_shape(function)


@functools.lru_cache(maxsize=10_000)
def _shapes(init_fn, arguments, keywords, x64):
    del x64  # on which the default dtype depends
    return jax.eval_shape(lambda: init_fn(jax.random.key(0), *arguments, **dict(keywords)))


def remember() -> None:
    """From now on, in this process."""
    flax.core.scope.jax = _Jax("jax")
