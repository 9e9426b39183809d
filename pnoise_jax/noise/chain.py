"""Several noises at one place, applied one after another."""

import dataclasses

import jax

from pnoise_jax.noise import checks, rows
from pnoise_jax.noise.base import Mixes, Noise, require_noise


@dataclasses.dataclass(frozen=True)
class Chain(Noise):
    """Applies noises in order, each to the output of the previous one.

    Attributes:
      noises: two or more; each noise that draws gets a separate key.
      strength: multiplies the strength of each noise.
      group_size: of the noises that mix examples; None keeps each noise's group size.
    """

    noises: tuple[Noise, ...]
    strength: float = 1.0
    group_size: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "noises", tuple(self.noises))
        if len(self.noises) < 2:
            raise ValueError(f"noises={self.noises!r}: give two or more")
        for noise in self.noises:
            require_noise(noise)
        self.require_strength(self.strength)
        checks.require_group_size(self.group_size)
        kinds = {noise.mixes for noise in self.noises} - {None}
        sizes = {noise.group_size for noise in self.noises if noise.mixes}
        if len(kinds) > 1 or len(sizes) > 1:
            raise ValueError(
                f"noises={self.noises!r}: the noises that mix examples mix over {kinds} in groups "
                f"of {sizes}; make them agree"
            )
        if self.group_size is None and sizes:
            object.__setattr__(self, "group_size", sizes.pop())

    @property
    def is_off(self) -> bool:
        """Whether the noise changes nothing: its strength is 0, or all of the noises are off."""
        return self.strength == 0 or all(noise.is_off for noise in self.noises)

    @property
    def draws(self) -> bool:
        """Whether any of the noises draws."""
        return any(noise.draws for noise in self.noises)

    @property
    def mixes(self) -> Mixes:
        """What the noises mix; None if none of them mixes."""
        return next((noise.mixes for noise in self.noises if noise.mixes), None)

    @property
    def axis_name(self) -> rows.AxisName | None:
        """The mapped axis of the noises; None if they have none."""
        return next((noise.axis_name for noise in self.noises if noise.axis_name), None)

    def require_strength(self, strength: float) -> None:
        """Raises ValueError unless each noise can have its own strength times this one."""
        super().require_strength(strength)
        for noise in self.noises:
            try:
                noise.require_strength(noise.strength * strength)
            except ValueError as error:
                raise ValueError(
                    f"strength={strength!r} multiplies the strength of {noise!r}: {error}"
                ) from error

    def noisy(self, key, x, *, mask, strength, index) -> jax.Array:
        """Applies each noise to the output of the previous one."""
        for number, noise in enumerate(self.noises):
            if noise.mixes and self.group_size is not None:
                noise = dataclasses.replace(noise, group_size=self.group_size)
            noise_key = jax.random.fold_in(checks.require_key(key), number) if noise.draws else None
            x = noise(noise_key, x, mask=mask, strength=noise.strength * strength, index=index)
        return x
