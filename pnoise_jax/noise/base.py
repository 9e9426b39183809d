"""The base class of every noise, ours or your own."""

import dataclasses
import functools
import inspect
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax.noise import checks, rows

Mixes = Literal["batch", "views"] | None


class Noise:
    """A pure function of a key and an array x (batch, ...); base class of all noises.

    A noise of your own is a frozen dataclass with a number called ``strength`` and a method
    `noisy`; the rest has defaults::

        @dataclasses.dataclass(frozen=True)
        class Scale(noise.Noise):
            strength: float = 0.1

            def noisy(self, key, x, *, mask, strength, index):
                factor = noise.draw_per_example(jax.random.normal, key, x[:, :1], index)
                return x * (1 + strength * factor)

    Class attributes, or fields and properties of the same name, say what a noise is:

    Attributes:
      draws: whether it needs a key. True by default.
      mixes: "batch" where an example's noise depends on other examples, "views" where it depends
        on the other views of its image, which lie next to it; None where on neither, the default.
      group_size: how many consecutive examples a noise that mixes takes together; a field of such
        a noise. None is the whole batch.
      axis_name: the mapped axis over which the batch is spread, inside ``shard_map`` and ``pmap``.
      strength: what a strength given at call time replaces. Every noise has it.
    """

    # Noise is no dataclass itself, so these are not fields.
    draws: bool = True
    mixes: Mixes = None
    group_size: int | None = None
    axis_name: rows.AxisName | None = None
    strength: float
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def mixes_batch(self) -> bool:
        """Whether a row of the batch depends on others."""
        return self.mixes is not None

    @property
    def is_off(self) -> bool:
        """Whether it leaves everything as it is, because its strength is 0."""
        return self.strength == 0

    def with_strength(self, strength: float) -> Self:
        """The same noise of another strength."""
        return dataclasses.replace(self, strength=strength)

    def require_strength(self, strength: float) -> None:
        """Raises ValueError unless the noise can have this strength, which is not traced."""
        checks.require_finite("strength", strength)

    def noisy(
        self,
        key: jax.Array | None,
        x: jax.Array,
        *,
        mask: jax.Array | None,
        strength: jax.Array | float,
        index: jax.Array | None,
    ) -> jax.Array:
        """What a noise computes; `__call__` checks the arguments and keeps masked examples.

        Args:
          key: for noises that draw.
          x: (batch, ...), floats.
          mask: (batch,) bool, or None. Of a noise that mixes, the others must contribute nothing.
          strength: a number; may be traced.
          index: (batch,) int32, what each example draws from; None is its place in the batch.

        Returns:
          Of the shape of x; cast to its dtype.
        """
        raise NotImplementedError

    def __call__(
        self,
        key: jax.Array | None,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        strength: jax.Array | float | None = None,
        index: jax.Array | None = None,
    ) -> jax.Array:
        """Applies the noise.

        Args:
          key: for noises that draw; else it may be None.
          x: (batch, ...), floats.
          mask: (batch,) bool, True for real examples. The others contribute nothing, and come back
            as they were.
          strength: a number in place of the noise's own; may be traced.
          index: (batch,) int32, what each example draws from: by default its place in the batch.

        Returns:
          Like x in shape and dtype.

        Raises:
          ValueError: the noise draws and is not given one key, x is not a float array, the mask or
            the index does not fit the batch, the strength is not one number that the noise can
            have, or the batch does not split into groups.
        """
        checks.require_batch(x, mask)
        checks.require_index(x, index)
        if self.draws:
            checks.require_key(key)
        if strength is None:
            strength = self.strength
        else:
            self._require_given(strength)
        return rows.place_freely(self._keep_masked)(x, key, mask, strength, index)

    def _require_given(self, strength: Any) -> None:
        """Raises ValueError unless it is one number; of an array the value may not be known yet."""
        if isinstance(strength, np.generic):  # which has a shape, and is a number
            strength = strength.item()
        if hasattr(strength, "shape"):
            checks.require_scalar("strength", strength)
        else:
            self.require_strength(strength)

    def _keep_masked(self, x, key, mask, strength, index) -> jax.Array:
        strength = rows.as_factor(strength, np.promote_types(x.dtype, np.float32))
        noisy = self.noisy(key, x, mask=mask, strength=strength, index=index).astype(x.dtype)
        if noisy.shape != x.shape:
            raise ValueError(
                f"{type(self).__name__}.noisy returned shape {noisy.shape} for x of shape "
                f"{x.shape}: return an array of the shape of x"
            )
        return noisy if mask is None else jnp.where(rows.expand(mask, x), noisy, x)


def _is_frozen(kind: Any) -> bool:
    return kind.__dataclass_params__.frozen  # of Any: typeshed does not list it


_KEYWORDS = ("mask", "strength", "index")


def require_noise_class(kind: Any) -> None:
    """Raises ValueError unless ``kind`` is a class of noises, naming what it lacks."""
    name = getattr(kind, "__name__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, Noise)):
        raise ValueError(f"{name} is not a noise: make it a subclass of pnoise_jax.noise.Noise")
    if not dataclasses.is_dataclass(kind) or not _is_frozen(kind):
        raise ValueError(
            f"{name} must be a frozen dataclass, because models and compiled programs are looked "
            "up by their noise: put @dataclasses.dataclass(frozen=True) before it"
        )
    if kind.__call__ is Noise.__call__ and kind.noisy is Noise.noisy:
        raise ValueError(f"{name} has no method noisy(self, key, x, *, mask, strength, index)")
    method = "noisy" if kind.__call__ is Noise.__call__ else "__call__"
    parameters = inspect.signature(getattr(kind, method)).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = [word for word in _KEYWORDS if word not in parameters and not takes_any]
    if missing:
        raise ValueError(
            f"{name}.{method} does not take {', '.join(missing)}: make its signature "
            "(self, key, x, *, mask, strength, index)"
        )
    fields = {field.name for field in dataclasses.fields(kind)}
    if "strength" not in fields and not hasattr(kind, "strength"):
        raise ValueError(
            f"{name} has no strength: give it a field, strength: float = 1.0, which the strength "
            "given at call time replaces"
        )
    if getattr(kind, "mixes", None) is not None and "group_size" not in fields:
        raise ValueError(
            f"{name} mixes examples and has no group_size: give it a field, group_size: int | None "
            "= None, and mix within groups of that many examples"
        )


def require_noise(value: Any) -> None:
    """Raises ValueError unless ``value`` is a noise, naming what it lacks."""
    if isinstance(value, type) or not isinstance(value, Noise):
        raise ValueError(
            f"noise={value!r}: give a noise, such as LinearTransform(Optimal()); one of your own "
            "is a subclass of pnoise_jax.noise.Noise"
        )
    require_noise_class(type(value))
    try:
        hash(value)
    except TypeError as error:
        raise ValueError(
            f"noise={value!r} cannot be hashed ({error}): make its fields numbers, strings and "
            "tuples, not lists or arrays"
        ) from error
    if value.mixes is None and not type(value).__module__.startswith("pnoise_jax."):
        _require_unmixed(value)


@functools.cache
def _require_unmixed(noise: Noise) -> None:
    """Raises ValueError where an example's noise depends on others although `mixes` is None.

    Evaluations then choose their own batches. Tried on four tokens and on a map; a noise that takes
    neither is not tried.
    """
    for shape in ((4, 3, 8), (4, 3, 3, 8)):
        with jax.ensure_compile_time_eval():
            key, x = jax.random.key(0), jax.random.normal(jax.random.key(1), shape)
            try:
                first, other = (
                    np.asarray(noise(key, each))[0] for each in (x, x.at[1:].multiply(-3))
                )
            except Exception:  # of shapes that only its model has
                continue
        if not np.allclose(first, other, rtol=1e-4, atol=1e-5, equal_nan=True):
            name = type(noise).__name__
            raise ValueError(
                f"{name} changes an example with the others of its batch, but its mixes is None: "
                'give the class mixes = "batch" and a field, group_size: int | None = None, so '
                "that it is evaluated in the batches that are asked for"
            )
