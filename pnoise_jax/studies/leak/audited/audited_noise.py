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
      name: identifies it among the noises of the audit.
      words: its name in a sentence.
      quality: its quality matrix, or the name of the noise if it has none; None if unknown.
      strength: its strength; None if unknown.
      where: where it enters, in words.
      mixes_batch: whether it makes the examples of a batch depend on one another.
      group_size: how many consecutive examples it mixes; None for the protocol's batch.
      draws_by_batch: whether an example's noise depends on the number of its batch.
      injection: the injection, or injections, into a model of this project. Injections that do not
        act are included, because the random keys depend on the position of each.
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
        """Describes one injection into a model of ``num_layers`` layers, or several as one noise.

        Raises:
          ValueError: an injection mixes views.
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
    """Describes one injection; the field `injection` is left None."""
    kind = injection.noise
    if kind.mixes == "views":
        raise ValueError(
            f"{injection.section}.axis='views': an audit evaluates one view of each image, so "
            "there are no views to mix; use pnoise evaluate with evaluation.views instead"
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
    """How many consecutive examples several noises mix in sequence; None for the whole batch."""
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
    """The group size of a noise that mixes examples; a dense matrix determines it."""
    matrix = getattr(kind, "quality", None)
    return len(matrix.values) if isinstance(matrix, noise.Dense) else kind.group_size


def _unusual_settings(kind: Any) -> dict[str, Any]:
    """The fields of a noise or a quality matrix that differ from their defaults."""
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
