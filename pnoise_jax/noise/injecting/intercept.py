"""Noise in any Linen module, by the paths of its submodules, without changing its code."""

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import tracers
from jax import lax

from pnoise_jax.noise import enclosing
from pnoise_jax.noise.base import Noise, require_noise
from pnoise_jax.noise.checks import (
    require_examples,
    require_kept_by_gradients,
    require_own_draws,
)
from pnoise_jax.noise.injecting.paths import matches, no_match
from pnoise_jax.noise.injecting.taps import noise_key

_NOISY = jax.make_user_context(None)
_TRACED: set[Hashable] = set()  # kinds of calls in which noise was added inside another trace


@contextlib.contextmanager
def own_traces(*kind: Hashable) -> Iterator[Callable[[bool], None]]:
    """Within this context, JAX reuses no trace from outside; outside, none from within.

    Otherwise the traces that jax.jit or jax.checkpoint make inside a model would carry one call's
    noise into other calls, or leave noise out. Calls of the same kind share their traces until
    noise is added inside such a trace; from then on each call has its own traces, so a call that
    is not itself compiled compiles them again every time. If that noise is random, no trace is used
    twice even within the call, so that no two parts of the model draw the same.

    Args:
      *kind: identifies the calls that can share traces as long as no noise is added inside them.

    Yields:
      A function to call wherever noise is added; its argument is whether the noise is random.
    """
    trace = tracers.current_trace()
    with contextlib.ExitStack() as contexts:

        def note(draws: bool) -> None:
            if tracers.current_trace() == trace:
                return
            _TRACED.add(kind)
            if draws:
                contexts.enter_context(_NOISY(object()))

        contexts.enter_context(_NOISY(object() if kind in _TRACED else kind))
        yield note


@dataclasses.dataclass(frozen=True)
class Site:
    """A submodule at whose input or output noise can be added.

    Attributes:
      path: names from the outermost module inwards, joined by "/".
      kind: the name of its class.
      input, output: shape and dtype of its first argument and of its result; None if not an array.
    """

    path: str
    kind: str
    input: str | None
    output: str | None


def list_sites(module: nn.Module, *args, **kwargs) -> list[Site]:
    """The sites of ``module``, in the order in which a call with these arguments reaches them.

    Nothing is computed: the call is traced with the arguments' shapes.

    Args:
      module: a Linen module.
      *args: the positional arguments of its ``__call__``.
      **kwargs: the keyword arguments. In both, you can pass a `jax.ShapeDtypeStruct` instead of an
        array; everything else is passed on unchanged.
    """
    sites: dict[str, Site] = {}
    leaves, structure = jax.tree.flatten((args, kwargs))
    arrays = {n: leaf for n, leaf in enumerate(leaves) if hasattr(leaf, "dtype")}

    def record(next_call, args, kwargs, context):
        path, kind = _path(context), type(context.module).__name__
        new = path and path not in sites
        if new:
            sites[path] = Site(path, kind, _describe(args[0] if args else None), None)
        output = next_call(*args, **kwargs)
        if new:
            sites[path] = dataclasses.replace(sites[path], output=_describe(output))
        return output

    def call(rng, arrays):
        traced = [arrays.get(n, leaf) for n, leaf in enumerate(leaves)]
        args, kwargs = jax.tree.unflatten(structure, traced)
        with nn.intercept_methods(_only_calls(record)):
            rngs = {"params": rng, "dropout": rng, "noise": rng}
            enclosing.call(module.init, rngs, *args, **kwargs)

    with own_traces("list_sites", object()):
        jax.eval_shape(call, jax.random.key(0), arrays)
    return list(sites.values())


class InjectedModule(nn.Module):
    """``module`` with noise at the submodules whose path matches a pattern.

    It has the same parameters as ``module``, under the same names. Call it like ``module``, with
    three more keywords: ``inject``, ``noise_mask`` (batch,) and ``noise_strength``. Noise is added
    only with ``inject=True``. By default, a call is a plain call of ``module``, so no prediction is
    noisy by accident; an `Injection`, too, is off at inference by default. A noise that draws needs
    ``rngs={"noise": key}``. No noise is added during initialisation.

    Under ``nn.scan``, all layers share one path, so the noise enters each of them; if it draws, the
    scanned module must list "noise" in its ``split_rngs``. Modules compiled by ``nn.jit`` are
    rejected, because Flax would reuse the trace of one module for others of its class. A noise that
    mixes treats the leading axis of the array at a site as the examples.

    Attributes:
      module: any Linen module.
      noise: the noise to add.
      at: pattern for the paths that `list_sites` lists, such as "Dense_0" or "encoder/block_*". "*"
        matches any part of a name, but not "/", so that pattern does not match submodules of a
        block.
      point: "input", the site's first argument; or "output", its result.
      stop_gradient: whether gradients treat the noise as a constant.

    Raises:
      ValueError: at the first call with inject=True, if no path matches (the error lists the paths
        that exist), or if a matching submodule is used only by methods other than ``__call__``.
    """

    module: nn.Module
    noise: Noise
    at: str
    point: Literal["input", "output"] = "input"
    stop_gradient: bool = False

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.module, InjectedModule):
            raise ValueError(
                "module is already an InjectedModule, which accepts a single noise: match both "
                "sites with one pattern, or combine two noises with noise.Chain"
            )
        if not isinstance(self.module, nn.Module):
            raise ValueError(
                f"module={type(self.module).__name__}: InjectedModule needs a Linen module. For an "
                "NNX module, use noise.inject_nnx(model, noise, at=...); in Equinox, insert the "
                "noise into the module with eqx.tree_at"
            )
        if "module" in {field.name for field in dataclasses.fields(self.module)}:
            raise ValueError(
                f"{type(self.module).__name__} has a field called 'module', which Flax would "
                "confuse with InjectedModule's: rename it, or wrap the module in that field"
            )

    def setup(self):
        require_noise(self.noise)
        if self.point not in ("input", "output"):
            raise ValueError(f"point={self.point!r}: choose 'input' or 'output'")
        nn.share_scope(self, self.module)

    def __call__(self, *args, inject=False, noise_mask=None, noise_strength=None, **kwargs):
        if not inject or self.is_initializing():
            return self.module(*args, **kwargs)
        paths: dict[str, bool] = {}  # every path reached, and whether it matched
        inside: list[str] = []  # a remat or scan wrapper and its module are one site
        by_method: dict[str, str] = {}  # matching paths used by another method, and its name
        base = self.module.path
        examples = count_examples((args, kwargs))

        def add_noise(x, site):
            note(self.noise.draws)
            return self._noisy(x, site, noise_mask, noise_strength, examples)

        def intercept(next_call, args, kwargs, context):
            _require_no_jit(type(context.module))
            # Flax keeps "module" in the paths of submodules that were passed to `module` built.
            path = _path(context, base).removeprefix("module/")
            if not path or path in inside:
                return next_call(*args, **kwargs)
            if context.method_name != "__call__":
                if context.method_name != "setup" and matches(path, self.at):
                    by_method[path] = context.method_name
                return next_call(*args, **kwargs)
            paths[path] = matches(path, self.at)
            if not paths[path]:
                return next_call(*args, **kwargs)
            inside.append(path)
            try:
                if self.point == "output":
                    return add_noise(next_call(*args, **kwargs), context.module)
                first = add_noise(args[0] if args else None, context.module)
                return next_call(first, *args[1:], **kwargs)
            finally:
                inside.pop()

        kind = type(self.module), self.at, self.point
        with own_traces(*kind) as note, nn.intercept_methods(intercept):
            output = enclosing.call(self.module, *args, **kwargs)
        missed = {path: method for path, method in by_method.items() if path not in paths}
        if missed:
            path, method = next(iter(missed.items()))
            raise ValueError(
                f"at={self.at!r} matches {path!r}, which was not called but used by its method "
                f"{method}, where noise cannot enter: choose a pattern that does not match it, or "
                "one for the module around it"
                + "; in a model of this package, all_tokens=True makes the last block call it"
                * path.endswith("/attn/qkv")
            )
        if not any(paths.values()):
            raise no_match(self.at, list(paths))
        return output

    @nn.nowrap  # a wrapped method would come between the site and the site's submodules
    def _noisy(self, x: Any, site: nn.Module, mask, strength, examples) -> jax.Array:
        if not isinstance(x, jax.Array | np.ndarray):
            raise ValueError(
                f"the {self.point} of {'/'.join(site.path)!r} is a {type(x).__name__}, not an "
                f"array (or it is passed by keyword); choose another site or point (at={self.at!r})"
            )
        x, path = jnp.asarray(x), "/".join(site.path)
        require_kept_by_gradients(path)
        if self.noise.mixes_batch and mask is None:
            require_examples(x, examples, self.noise.axis_name, site=path)
        if self.noise.draws:
            require_own_draws(path, lifted=False)
            if self.has_rng("noise") and not site.has_rng("noise"):
                raise ValueError(
                    f"{path!r} is called inside nn.scan, nn.RNN or another of Flax's transforms, "
                    "which does not pass the key for noise on: add 'noise': True to its split_rngs"
                )
        key = noise_key(site) if self.noise.draws else None
        noisy = self.noise(key, x, mask=mask, strength=strength)
        return x + lax.stop_gradient(noisy - x) if self.stop_gradient else noisy


def _only_calls(interceptor: Callable) -> Callable:
    def filtered(next_call, args, kwargs, context):
        _require_no_jit(type(context.module))
        if context.method_name != "__call__":
            return next_call(*args, **kwargs)
        return interceptor(next_call, args, kwargs, context)

    return filtered


def _require_no_jit(kind: type) -> None:
    """Raises ValueError if Flax is tracing a module for nn.jit.

    Within this call, Flax would reuse the trace for other modules of the class.
    """
    if enclosing.is_inside(enclosing.NN_JIT):
        raise ValueError(
            f"{kind.__name__} is compiled by nn.jit, so other modules would get its noise: "
            "remove nn.jit, and compile the whole call with jax.jit"
        )


def _path(context: nn.module.InterceptorContext, base: tuple[str, ...] = ()) -> str:
    """A module's path relative to the module at ``base``; "" for that module itself."""
    path = context.module.path
    path = path[len(base) :] if path[: len(base)] == base else path
    return "/".join(path)


def count_examples(call: Any) -> int | None:
    """The length of the leading axis of the first array among a call's arguments, or None."""
    shapes = (getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(call))
    return next((shape[0] for shape in shapes if shape), None)


def _describe(value: Any) -> str | None:
    return str(jax.typeof(value)) if isinstance(value, jax.Array) else None
