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
    """The base class of all noises: pure functions of a key and an array x (batch, ...).

    To write your own noise, make it a frozen dataclass with a number called ``strength`` and a
    method `noisy`; everything else has a default::

        @dataclasses.dataclass(frozen=True)
        class Scale(noise.Noise):
            strength: float = 0.1

            def noisy(self, key, x, *, mask, strength, index):
                factor = noise.draw_per_example(jax.random.normal, key, x[:, :1], index)
                return x * (1 + strength * factor)

    These class attributes describe a noise. A subclass can also define them as fields or
    properties.

    Attributes:
      draws: whether the noise needs a key. True by default.
      mixes: "batch" if an example's noise depends on other examples; "views" if it depends on the
        other views of its image, which are adjacent along the batch axis; None, the default, if it
        depends on neither.
      group_size: how many consecutive examples are mixed with each other; must be a field of a
        noise that mixes. None is the whole batch.
      axis_name: the mapped axis over which the batch is spread, inside ``shard_map`` and ``pmap``.
      strength: how strong the noise is; a strength given at call time replaces it. Every noise has
        one.
    """

    # Noise itself is not a dataclass, so these are not fields.
    draws: bool = True
    mixes: Mixes = None
    group_size: int | None = None
    axis_name: rows.AxisName | None = None
    strength: float
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def mixes_batch(self) -> bool:
        """Whether a row of the batch depends on other rows."""
        return self.mixes is not None

    @property
    def is_off(self) -> bool:
        """Whether the noise changes nothing, because its strength is 0."""
        return self.strength == 0

    def with_strength(self, strength: float) -> Self:
        """The same noise with another strength."""
        return dataclasses.replace(self, strength=strength)

    def require_strength(self, strength: float) -> None:
        """Raises ValueError unless this strength, which is not traced, is valid for the noise."""
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
        """Computes x with noise; `__call__` checks the arguments and restores masked examples.

        Args:
          key: a random key, for noises that draw.
          x: (batch, ...), floats.
          mask: (batch,) bool, or None. In a noise that mixes, examples where it is False must not
            contribute to others.
          strength: a number; may be traced.
          index: (batch,) int32, the number that seeds each example's draws; None is its place in
            the batch.

        Returns:
          An array with the shape of x; `__call__` casts it to the dtype of x.
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
          key: a random key; can be None if the noise does not draw.
          x: (batch, ...), floats.
          mask: (batch,) bool, True for real examples. The other examples contribute nothing and are
            returned unchanged.
          strength: a number that replaces the noise's own strength; may be traced.
          index: (batch,) int32, the number that seeds each example's draws; by default its place in
            the batch.

        Returns:
          An array with the shape and dtype of x.

        Raises:
          ValueError: the noise draws and key is not exactly one key, x is not a float array, the
            mask or the index does not fit the batch, the strength is not one number that is valid
            for the noise, or the batch does not split into groups.
        """
        checks.require_batch(x, mask)
        checks.require_index(x, index)
        if self.draws:
            checks.require_key(key)
        if strength is None:
            strength = self.strength
        else:
            self._require_call_strength(strength)
        return rows.place_freely(self._keep_masked)(x, key, mask, strength, index)

    def _require_call_strength(self, strength: Any) -> None:
        """Raises ValueError unless strength is one valid number; an array's value is not checked.

        An array may be traced, so its value may not be known yet.
        """
        if isinstance(strength, np.generic):  # a NumPy scalar is a number, although it has a shape
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
    return kind.__dataclass_params__.frozen  # typeshed does not list it, hence Any


_KEYWORDS = ("mask", "strength", "index")


def require_noise_class(kind: Any) -> None:
    """Raises ValueError, naming what is missing, unless ``kind`` is a valid noise class."""
    name = getattr(kind, "__name__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, Noise)):
        raise ValueError(f"{name} is not a noise: make it a subclass of pnoise_jax.noise.Noise")
    if not dataclasses.is_dataclass(kind) or not _is_frozen(kind):
        raise ValueError(
            f"{name} must be a frozen dataclass, because models and compiled programs are cached "
            "by their noise: decorate it with @dataclasses.dataclass(frozen=True)"
        )
    if kind.__call__ is Noise.__call__ and kind.noisy is Noise.noisy:
        raise ValueError(f"{name} has no method noisy(self, key, x, *, mask, strength, index)")
    method = "noisy" if kind.__call__ is Noise.__call__ else "__call__"
    parameters = inspect.signature(getattr(kind, method)).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = [word for word in _KEYWORDS if word not in parameters and not takes_any]
    if missing:
        raise ValueError(
            f"{name}.{method} does not accept {', '.join(missing)}: change its signature to "
            "(self, key, x, *, mask, strength, index)"
        )
    fields = {field.name for field in dataclasses.fields(kind)}
    if "strength" not in fields and not hasattr(kind, "strength"):
        raise ValueError(
            f"{name} has no strength: add a field, strength: float = 1.0, which a strength given "
            "at call time replaces"
        )
    if getattr(kind, "mixes", None) is not None and "group_size" not in fields:
        raise ValueError(
            f"{name} mixes examples but has no group_size: add a field, group_size: int | None = "
            "None, and mix within groups of that many examples"
        )


def require_noise(value: Any) -> None:
    """Raises ValueError, naming what is missing, unless ``value`` is a valid noise."""
    if isinstance(value, type) or not isinstance(value, Noise):
        raise ValueError(
            f"noise={value!r}: give a noise, such as LinearTransform(Optimal()), or an instance of "
            "your own subclass of pnoise_jax.noise.Noise"
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
    """Raises ValueError if an example's noise depends on others although `mixes` is None.

    Evaluations choose their own batch size for noises that do not mix. The check tries a batch of
    token sequences and a batch of feature maps, and skips shapes on which the noise fails.
    """
    for shape in ((4, 3, 8), (4, 3, 3, 8)):
        with jax.ensure_compile_time_eval():
            key, x = jax.random.key(0), jax.random.normal(jax.random.key(1), shape)
            try:
                first, other = (
                    np.asarray(noise(key, each))[0] for each in (x, x.at[1:].multiply(-3))
                )
            except Exception:  # the noise may need shapes that only its model has
                continue
        if not np.allclose(first, other, rtol=1e-4, atol=1e-5, equal_nan=True):
            name = type(noise).__name__
            raise ValueError(
                f"{name} makes an example depend on others in its batch, but its mixes is None: "
                'set mixes = "batch" on the class and add a field, group_size: int | None = None, '
                "so that it is evaluated with the requested batch size"
            )
