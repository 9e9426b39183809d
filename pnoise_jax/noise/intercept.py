"""Noise in any Linen module, by the paths of its submodules, without a change to its code."""

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
from pnoise_jax.noise.checks import require_examples, require_own_draws
from pnoise_jax.noise.paths import matches, no_match
from pnoise_jax.noise.taps import noise_key

_NOISY = jax.make_user_context(None)
_TRACED: set[Hashable] = set()  # kinds of calls whose noise has entered inside another trace


@contextlib.contextmanager
def own_traces(*kind: Hashable) -> Iterator[Callable[[], None]]:
    """Within it, JAX uses no trace that it has made outside, nor outside one made within.

    What jax.jit or jax.checkpoint trace inside a model would otherwise keep one call's noise for
    others, or leave it out. Calls of one kind share theirs until noise enters in such a trace; from
    then on each has its own, which compiles all of it anew where the call is not itself compiled.

    Args:
      *kind: what tells calls apart that may not share traces without noise in them.

    Yields:
      What to call wherever noise enters.
    """
    trace = tracers.current_trace()

    def note() -> None:
        if tracers.current_trace() != trace:
            _TRACED.add(kind)

    with _NOISY(object() if kind in _TRACED else kind):
        yield note


@dataclasses.dataclass(frozen=True)
class Site:
    """A submodule whose input or output can take noise.

    Attributes:
      path: names from the outermost module inwards, joined by "/".
      kind: its class.
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
      *args: what its ``__call__`` takes.
      **kwargs: the keywords that it takes. Arrays in both may be stood for by their shapes, as
        `jax.ShapeDtypeStruct`; all else is handed on as it is.
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
        given = [arrays.get(n, leaf) for n, leaf in enumerate(leaves)]
        args, kwargs = jax.tree.unflatten(structure, given)
        with nn.intercept_methods(_only_calls(record)):
            rngs = {"params": rng, "dropout": rng, "noise": rng}
            enclosing.call(module.init, rngs, *args, **kwargs)

    with own_traces("list_sites", object()):
        jax.eval_shape(call, jax.random.key(0), arrays)
    return list(sites.values())


class InjectedModule(nn.Module):
    """``module`` with noise at the submodules whose path matches a pattern.

    Its parameters are those of ``module``, name for name. Call it as ``module`` is called, with
    three more keywords: ``inject``, ``noise_mask`` (batch,) and ``noise_strength``. Noise enters
    only where ``inject=True`` is given: by default a call is ``module``'s own, so that no
    prediction is noisy by accident, as by an `Injection`'s default. A noise that draws needs
    ``rngs={"noise": key}``. Nothing is injected while initialising.

    Under ``nn.scan`` all layers share one path, so the noise enters each of them; for a noise that
    draws, the scanned module must list "noise" in its ``split_rngs``. Modules that ``nn.jit``
    compiles are refused, as Flax would use the trace of one for others of its class. A noise
    that mixes takes the leading axis of what a site gets for the examples.

    Attributes:
      module: any Linen module.
      noise: what enters.
      at: pattern of the paths that `list_sites` lists, such as "Dense_0" or "encoder/block_*". A
        "*" stands for any part of a name, but not for "/", so submodules of a block are not meant.
      point: "input", the site's first argument; or "output", its result.
      stop_gradient: the noise is a constant to the gradient.

    Raises:
      ValueError: at the first call with inject=True, if no path matches: the error lists those
        that exist; or if a submodule that matches is only used by other methods than a call.
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
                "module is an InjectedModule already, and takes a single noise: give both sites by "
                "one pattern, or compose two noises by noise.Chain"
            )
        if not isinstance(self.module, nn.Module):
            raise ValueError(
                f"module={type(self.module).__name__}: InjectedModule takes a Linen module. For an "
                "NNX module there is noise.inject_nnx(model, noise, at=...); in Equinox, put the "
                "noise into the module by eqx.tree_at"
            )
        if "module" in {field.name for field in dataclasses.fields(self.module)}:
            raise ValueError(
                f"{type(self.module).__name__} has a field called 'module', which Flax would "
                "confuse with InjectedModule's: rename it, or wrap the module that it holds"
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
        otherwise: dict[str, str] = {}  # what matches and was used by a method, and its name
        base = self.module.path
        examples = count_examples((args, kwargs))

        def add_noise(x, site):
            note()
            return self._noisy(x, site, noise_mask, noise_strength, examples)

        def intercept(next_call, args, kwargs, context):
            _require_no_jit(type(context.module))
            # Flax leaves "module" in the paths of submodules that `module` was given ready-made.
            path = _path(context, base).removeprefix("module/")
            if not path or path in inside:
                return next_call(*args, **kwargs)
            if context.method_name != "__call__":
                if context.method_name != "setup" and matches(path, self.at):
                    otherwise[path] = context.method_name
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
        missed = {path: method for path, method in otherwise.items() if path not in paths}
        if missed:
            path, method = next(iter(missed.items()))
            raise ValueError(
                f"at={self.at!r} matches {path!r}, which was not called but used by its method "
                f"{method}, where no noise can enter: choose a pattern that leaves it out, or one "
                "for the module around it"
                + "; in a model of this package, all_tokens=True makes the last block call it"
                * path.endswith("/attn/qkv")
            )
        if not any(paths.values()):
            raise no_match(self.at, list(paths))
        return output

    @nn.nowrap  # as a wrapped method it would stand between the site and its own submodules
    def _noisy(self, x: Any, site: nn.Module, mask, strength, examples) -> jax.Array:
        if not isinstance(x, jax.Array | np.ndarray):
            raise ValueError(
                f"the {self.point} of {'/'.join(site.path)!r} is a {type(x).__name__}, not an "
                f"array (or it is passed by keyword); choose another site or point (at={self.at!r})"
            )
        x = jnp.asarray(x)
        if self.noise.mixes_batch and mask is None:
            require_examples(x, examples, site="/".join(site.path))
        if self.noise.draws:
            require_own_draws("/".join(site.path), lifted=False)
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
    """Raises ValueError where Flax traces a module for nn.jit.

    It would use the trace again within this call: for other modules of the class.
    """
    if enclosing.is_inside(enclosing.NN_JIT):
        raise ValueError(
            f"{kind.__name__} is compiled by nn.jit, so other modules would get its noise: "
            "leave nn.jit out, and compile the whole call by jax.jit"
        )


def _path(context: nn.module.InterceptorContext, base: tuple[str, ...] = ()) -> str:
    """A module's path in the one at ``base``; "" for this itself."""
    path = context.module.path
    path = path[len(base) :] if path[: len(base)] == base else path
    return "/".join(path)


def count_examples(call: Any) -> int | None:
    """The leading axis of the first array among a call's arguments; None where there is none."""
    shapes = (getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(call))
    return next((shape[0] for shape in shapes if shape), None)


def _describe(value: Any) -> str | None:
    return str(jax.typeof(value)) if isinstance(value, jax.Array) else None
