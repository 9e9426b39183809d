"""Noise in any NNX module, by the paths of its submodules, without a change to its code.

NNX has no interceptors (flax issue 4666). As Flax's own ``nnx.capture`` does, the classes of the
submodules are wrapped for the length of one call.
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
from pnoise_jax.noise.checks import require_examples, require_own_draws
from pnoise_jax.noise.intercept import count_examples, own_traces
from pnoise_jax.noise.paths import matches, no_match

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

    Call the result as the model is called, inside the function that is jitted, with four more
    keywords: ``inject``, ``noise_key``, ``noise_mask`` (batch,) and ``noise_strength``. Noise
    enters only where ``inject=True`` is given, as in `InjectedModule`. The model is not changed,
    and other threads that call it meanwhile get no noise.

    Args:
      model: any NNX module.
      noise: what enters.
      at: pattern of the paths of the submodules, joined by "/", such as ``layers/0`` or
        ``blocks/*``. A "*" stands for any part of a name, but not for "/".
      point: "input", the submodule's first argument; or "output", its result.
      stop_gradient: the noise is a constant to the gradient.

    Raises:
      ValueError: no path matches: the error lists those that exist; or, at a call, a submodule that
        matches was not called, as under ``nnx.scan`` and ``nnx.vmap``, which call copies of it.
    """
    from flax import nnx  # it takes most of a second to import

    require_noise(noise)
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"model={type(model).__name__}: give an nnx.Module; for Linen there is InjectedModule"
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

    _sites(model, at)  # so that a pattern that matches nothing fails now
    return injected


@dataclasses.dataclass(frozen=True)
class _Call:
    """One call of a model with noise.

    Attributes:
      noise, at, point, stop_gradient: as `inject_nnx` has them.
      sites: paths of the modules that match, by the module's id.
      note: called where noise enters, see `own_traces`.
      key, mask, strength: handed to the noise.
      examples: in the call, None where no argument is an array.
      reached: paths of the sites that were called, in order.
    """

    noise: Noise
    at: str
    point: Literal["input", "output"]
    stop_gradient: bool
    sites: dict[int, str]
    note: Callable[[], None]
    key: jax.Array | None
    mask: jax.Array | None
    strength: jax.Array | float | None
    examples: int | None
    reached: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, original: Callable, module: Any, args: tuple, kwargs: dict) -> Any:
        """What a site returns, with noise at its input or output."""
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
        if self.noise.mixes_batch and self.mask is None:
            require_examples(x, self.examples, site=path)
        key = None
        if self.noise.draws:
            if self.key is None:
                raise ValueError("this noise is random: give noise_key=jax.random.key(seed)")
            require_own_draws(path, lifted=True)
            key = jax.random.fold_in(self.key, len(self.reached))
        self.reached.append(path)
        self.note()
        noisy = self.noise(key, x, mask=self.mask, strength=self.strength)
        return x + lax.stop_gradient(noisy - x) if self.stop_gradient else noisy

    def require_all_reached(self) -> None:
        """Raises ValueError where the model has not called a module that matches."""
        missed = sorted(set(self.sites.values()) - set(self.reached))
        if missed:
            raise ValueError(
                f"at={self.at!r} matches {', '.join(missed)}, which this call did not call as "
                "themselves: nnx.scan, nnx.vmap and nnx.remat call copies of a module. Match "
                "the module around them, or give Linen's InjectedModule the Linen model"
            )


def _named(model: Any) -> list[tuple[str, Any]]:
    """The submodules that can be called, by path."""
    from flax import nnx

    return [
        ("/".join(map(str, path)), module)
        for path, module in nnx.iter_modules(model)
        if path and callable(module)
    ]


def _sites(model: Any, at: str) -> dict[int, str]:
    """Paths of the modules that match, by the module's id."""
    named = _named(model)
    sites = {id(module): path for path, module in named if matches(path, at)}
    if not sites:
        raise no_match(at, [path for path, _ in named])
    return sites


@contextlib.contextmanager
def _wrapped(classes: set[type], sites: dict[int, str], call: Callable) -> Iterator[None]:
    """Sends calls of the sites, from this thread, to ``call(original, module, args, kwargs)``."""
    thread = threading.get_ident()
    inside: set[int] = set()  # a subclass's __call__ may call that of its base class

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
