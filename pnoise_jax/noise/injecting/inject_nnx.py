"""Noise in any NNX module, by the paths of its submodules, without changing its code.

NNX has no interceptors (flax issue 4666). Instead, as in Flax's own ``nnx.capture``, the classes of
the submodules are wrapped for the duration of one call.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pnoise_jax.noise import enclosing
from pnoise_jax.noise.base import Noise, require_noise
from pnoise_jax.noise.checks import (
    require_examples,
    require_kept_by_gradients,
    require_own_draws,
)
from pnoise_jax.noise.injecting.intercept import count_examples, own_traces
from pnoise_jax.noise.injecting.paths import matches, no_match

_WRAPPING = threading.RLock()  # classes are shared by all threads


def inject_nnx(
    model: Any,
    noise: Noise,
    *,
    at: str,
    point: Literal["input", "output"] = "input",
    stop_gradient: bool = False,
) -> Callable[..., Any]:
    """``model`` with noise at the submodules whose path matches a pattern.

    Call the result like the model, inside the jitted function, with four more keywords:
    ``inject``, ``noise_key``, ``noise_mask`` (batch,) and ``noise_strength``. Noise is added only
    with ``inject=True``, as in `InjectedModule`. The model is not changed, and other threads that
    call it at the same time get no noise.

    Args:
      model: any NNX module.
      noise: the noise to add.
      at: pattern for the submodules' paths, whose names are joined by "/", such as ``layers/0`` or
        ``blocks/*``. "*" matches any part of a name, but not "/".
      point: "input", the submodule's first argument; or "output", its result.
      stop_gradient: whether gradients treat the noise as a constant.

    Raises:
      ValueError: no path matches (the error lists the paths that exist); or, at a call, a matching
        submodule was not called, as under ``nnx.scan`` and ``nnx.vmap``, which call copies of it.
    """
    from flax import nnx  # importing it takes most of a second

    require_noise(noise)
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"model={type(model).__name__}: give an nnx.Module; for Linen, use InjectedModule"
        )
    if point not in ("input", "output"):
        raise ValueError(f"point={point!r}: choose 'input' or 'output'")

    def injected(
        *args, inject=False, noise_key=None, noise_mask=None, noise_strength=None, **kwargs
    ):
        sites = _sites(model, at)
        if not inject:
            return model(*args, **kwargs)
        classes = {type(m) for _, m in _named(model) if id(m) in sites}
        arguments = noise_key, noise_mask, noise_strength, count_examples((args, kwargs))
        with own_traces(type(model), at, point) as note:
            call = _Call(noise, at, point, stop_gradient, sites, note, *arguments)
            with _wrapped(classes, sites, call):
                output = enclosing.call(model, *args, **kwargs)
        call.require_all_reached()
        return output

    _sites(model, at)  # a pattern that matches nothing must fail now, not at the first call
    return injected


@dataclasses.dataclass(frozen=True)
class _Call:
    """One call of a model with noise.

    Attributes:
      noise, at, point, stop_gradient: as in `inject_nnx`.
      sites: paths of the matching modules, by the module's id.
      note: called wherever noise is added; see `own_traces`.
      key, mask, strength: passed to the noise.
      examples: the number of examples in the call; None if no argument is an array.
      reached: paths of the sites that were called, in order.
    """

    noise: Noise
    at: str
    point: Literal["input", "output"]
    stop_gradient: bool
    sites: dict[int, str]
    note: Callable[[bool], None]
    key: jax.Array | None
    mask: jax.Array | None
    strength: jax.Array | float | None
    examples: int | None
    reached: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, original: Callable, module: Any, args: tuple, kwargs: dict) -> Any:
        """Calls the site with noise at its input or output."""
        path = self.sites[id(module)]
        if self.point == "output":
            return self._add_noise(original(module, *args, **kwargs), path)
        first = self._add_noise(args[0] if args else None, path)
        return original(module, first, *args[1:], **kwargs)

    def _add_noise(self, x: Any, path: str) -> jax.Array:
        if not isinstance(x, jax.Array | np.ndarray):
            raise ValueError(
                f"the {self.point} of {path!r} is a {type(x).__name__}, not an array (or it is "
                f"passed by keyword); choose another site or point (at={self.at!r})"
            )
        x = jnp.asarray(x)
        require_kept_by_gradients(path)
        if self.noise.mixes_batch and self.mask is None:
            require_examples(x, self.examples, self.noise.axis_name, site=path)
        key = None
        if self.noise.draws:
            if self.key is None:
                raise ValueError("this noise is random: give noise_key=jax.random.key(seed)")
            require_own_draws(path, lifted=True)
            key = jax.random.fold_in(self.key, len(self.reached))
        self.reached.append(path)
        self.note(self.noise.draws)
        noisy = self.noise(key, x, mask=self.mask, strength=self.strength)
        return x + lax.stop_gradient(noisy - x) if self.stop_gradient else noisy

    def require_all_reached(self) -> None:
        """Raises ValueError if the model has not called a matching module."""
        missed = sorted(set(self.sites.values()) - set(self.reached))
        if missed:
            raise ValueError(
                f"at={self.at!r} matches {', '.join(missed)}, which this call did not call: "
                "nnx.scan, nnx.vmap and nnx.remat call copies of a module. Match the module around "
                "them, or use InjectedModule with a Linen model"
            )


def _named(model: Any) -> list[tuple[str, Any]]:
    """The callable submodules with their paths."""
    from flax import nnx

    return [
        ("/".join(map(str, path)), module)
        for path, module in nnx.iter_modules(model)
        if path and callable(module)
    ]


def _sites(model: Any, at: str) -> dict[int, str]:
    """Paths of the matching modules, by the module's id."""
    named = _named(model)
    sites = {id(module): path for path, module in named if matches(path, at)}
    if not sites:
        raise no_match(at, [path for path, _ in named])
    return sites


@contextlib.contextmanager
def _wrapped(classes: set[type], sites: dict[int, str], call: Callable) -> Iterator[None]:
    """Sends calls of the sites, from this thread, to ``call(original, module, args, kwargs)``."""
    thread = threading.get_ident()
    inside: set[int] = set()  # a subclass's __call__ may call its base class's

    def wrap(original: Callable) -> Callable:
        @functools.wraps(original)
        def wrapper(module, *args, **kwargs):
            site = id(module)
            if site not in sites or site in inside or threading.get_ident() != thread:
                return original(module, *args, **kwargs)
            inside.add(site)
            try:
                return call(original, module, args, kwargs)
            finally:
                inside.discard(site)

        return wrapper

    with _WRAPPING, contextlib.ExitStack() as undo:
        for kind in classes:
            if "__call__" in vars(kind):
                undo.callback(setattr, kind, "__call__", vars(kind)["__call__"])
            else:
                undo.callback(delattr, kind, "__call__")
        originals = {kind: kind.__call__ for kind in classes}
        for kind, original in originals.items():
            kind.__call__ = wrap(original)
        yield
