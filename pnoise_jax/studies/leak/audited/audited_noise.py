"""A noise under audit: its name, its words, and whether it mixes the examples of a batch."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from pnoise_jax import noise


@dataclasses.dataclass(frozen=True)
class AuditedNoise:
    """A noise under audit.

    Attributes:
      name: tells it from the others of the audit.
      words: the same in a sentence.
      quality: its quality matrix, or the noise's own name; None where it is not known.
      strength: its strength; None where it is not known.
      where: in words, where it enters.
      mixes_batch: whether it makes examples of a batch depend on one another.
      group_size: how many consecutive examples it mixes; None is the protocol's batch.
      draws_by_batch: whether what an example receives depends on the number of its batch.
      injection: of our own models; of several, those that do not act are there, too, because the
        random keys depend on the position of each.
    """

    name: str
    words: str
    quality: str | None = None
    strength: float | None = None
    where: str | None = None
    mixes_batch: bool = True
    group_size: int | None = None
    draws_by_batch: bool = False
    injection: noise.Injection | tuple[noise.Injection, ...] | None = None

    @classmethod
    def of(
        cls, injection: noise.Injection | tuple[noise.Injection, ...], num_layers: int
    ) -> "AuditedNoise":
        """Of one injection into a model of ``num_layers`` layers, or of several together.

        Raises:
          ValueError: one mixes views.
        """
        acting = [each for each in noise.switch_for_evaluation(injection) if each.inference]
        parts = [_describe(each, num_layers) for each in acting]
        if len(parts) == 1:
            return dataclasses.replace(parts[0], injection=injection)
        return cls(
            name=" + ".join(part.name for part in parts),
            words=" together with ".join(part.words for part in parts),
            quality=" + ".join(str(part.quality) for part in parts),
            where=" and ".join(str(part.where) for part in parts),
            mixes_batch=any(part.mixes_batch for part in parts),
            group_size=_common_group(parts),
            draws_by_batch=any(part.draws_by_batch for part in parts),
            injection=injection,
        )


def _describe(injection: noise.Injection, num_layers: int) -> AuditedNoise:
    """Of one injection, still without it."""
    kind = injection.noise
    if kind.mixes == "views":
        raise ValueError(
            f"{injection.section}.axis='views': an audit shows one view of each image, so there "
            "are no views to mix; launch.evaluate with evaluation.views compares them"
        )
    matrix = getattr(kind, "quality", kind)
    quality, words = _NAMES.get(type(matrix), (type(matrix).__name__,) * 2)
    settings = _unusual_settings(kind) | _unusual_settings(matrix)
    others = "".join(f", {field} {value}" for field, value in settings.items())
    where = _place(injection, num_layers)
    return AuditedNoise(
        name=f"{quality} {kind.strength:g}{others} at {where}",
        words=f"{words} (strength {kind.strength:g}{others})",
        quality=quality,
        strength=float(kind.strength),
        where=where,
        mixes_batch=kind.mixes_batch,
        group_size=_group_size(kind) if kind.mixes_batch else None,
        draws_by_batch=injection.draws_layer,
    )


def _common_group(parts: Sequence[AuditedNoise]) -> int | None:
    """How many consecutive examples noises mix, one after another; None is the whole batch."""
    sizes = [part.group_size for part in parts if part.mixes_batch]
    return None if None in sizes or not sizes else math.lcm(*filter(None, sizes))


_NAMES = {
    noise.CyclicShift: ("cyclic_shift", "the cyclic shift"),
    noise.Reverse: ("reverse", "the reversed batch"),
    noise.Optimal: ("optimal", "the optimal quality matrix"),
    noise.Dense: ("dense", "the given quality matrix"),
    noise.Gaussian: ("gaussian", "Gaussian noise"),
    noise.SaltAndPepper: ("salt_and_pepper", "salt-and-pepper noise"),
    noise.Erase: ("erase", "erasing the representation"),
}
_NO_SETTINGS = ("strength", "probability", "quality", "values", "implementation", "axis_name")


def _group_size(kind: Any) -> int | None:
    """Of a noise that mixes examples; a given matrix has a size of its own."""
    matrix = getattr(kind, "quality", None)
    return len(matrix.values) if isinstance(matrix, noise.Dense) else kind.group_size


def _unusual_settings(kind: Any) -> dict[str, Any]:
    """The fields of a noise or a quality matrix that are not at their defaults."""
    if not dataclasses.is_dataclass(kind):
        return {}
    return {
        field.name: getattr(kind, field.name)
        for field in dataclasses.fields(kind)
        if field.name not in _NO_SETTINGS and getattr(kind, field.name) != field.default
    }


def _place(injection: noise.Injection, num_layers: int) -> str:
    layers = injection.layers(num_layers)
    listed = f"layer {', '.join(map(str, layers))}"
    if injection.layer == "random":
        listed = f"one of layers 1 to {num_layers} at random"
    at = "image" if injection.point == "image" else f"{injection.point}, {listed}"
    return f"{at}, {injection.tokens} tokens"
