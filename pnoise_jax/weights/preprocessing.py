"""Which images weights expect: how they are normalised, resized and cropped."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pnoise_jax import data
from pnoise_jax.data.image import require_statistics
from pnoise_jax.weights.formats import run_weights
from pnoise_jax.weights.formats.array_file import ArrayFile, Format
from pnoise_jax.weights.names.naming import Naming


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done with images before the model gets them.

    Attributes:
      mean, std: per channel, of pixels in [0, 1]; None where it is not known.
      test_transform: as in a config's data.test_transform; None where it is not known.
      source: where this is stated.

    Raises:
      ValueError: mean or std are not those of pixels in [0, 1]; names the source.
    """

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    test_transform: str | None
    source: str

    def __post_init__(self):
        statistics = {"mean": self.mean, "std": self.std}
        known = {name: values for name, values in statistics.items() if values is not None}
        require_statistics(prefix=f"{self.source}: ", **known)

    def describe(self) -> str:
        """One line."""
        fields = {"mean": self.mean, "std": self.std, "test_transform": self.test_transform}
        parts = [
            f"{name} {'unknown' if value is None else value}" for name, value in fields.items()
        ]
        return f"the weights expect {', '.join(parts)} ({self.source})"


def expected_by(file: ArrayFile, naming: Naming | None) -> Preprocessing | None:
    """What the file, the config.json beside it, or its source say about images; None: nothing.

    Args:
      file: with the weights.
      naming: of its arrays; None for a run.

    Raises:
      ValueError: the description is impossible, or is for pixels from 0 to 255.
    """
    if file.format is Format.RUN:
        return _of_run(file.path)
    for info in file.model_info:
        if preprocessing := _from_timm(info.preprocessing, info.source):
            return preprocessing
    if naming is None or naming.mean is None:
        return None
    return Preprocessing(naming.mean, naming.std, None, f"as {naming.title} does")


def to_timm(section: Mapping[str, Any]) -> dict[str, Any]:
    """A config's data section in timm's words: mean, std, interpolation, crop_pct, crop_mode."""
    crop = _create(section["test_transform"], section["mean"], section["std"]).crop
    ratio = getattr(crop, "crop_ratio", None)
    return {
        "mean": list(section["mean"]),
        "std": list(section["std"]),
        "interpolation": getattr(crop, "interpolation", "bilinear"),
        "crop_pct": 1.0 if ratio is None else ratio,
        "crop_mode": "squash" if ratio is None else "center",
    }


def _of_run(path: Path) -> Preprocessing | None:
    section = run_weights.read_config(path).get("data")
    if not isinstance(section, dict):
        return None
    mean, std, text = (section.get(name) for name in ("mean", "std", "test_transform"))
    return Preprocessing(_numbers(mean), _numbers(std), _known(text), "the run's config")


def _from_timm(section: Mapping[str, Any], source: str) -> Preprocessing | None:
    """From timm's `pretrained_cfg`; None where it says nothing about images."""
    interpolation, ratio = section.get("interpolation"), section.get("crop_pct")
    transform = {
        "center": f"resize_crop({ratio}, interpolation={interpolation!r})",
        "squash": f"resize_square(interpolation={interpolation!r})" if ratio == 1 else None,
    }.get(str(section.get("crop_mode", "center")))
    values = (_numbers(section.get("mean")), _numbers(section.get("std")), _known(transform))
    return None if values == (None, None, None) else Preprocessing(*values, source)


def _known(transform: Any) -> str | None:
    """The text of a transform; None where this package has no such transform."""
    try:
        _create(transform)
    except (ValueError, TypeError):
        return None
    return transform


def _create(transform: str, mean: Sequence[float] = (0.5,), std: Sequence[float] = (0.5,)) -> Any:
    return data.create_transform(
        transform, size=(1, 1), mean=mean, std=std, train=False, field="data.test_transform"
    )


def _numbers(values: Any) -> tuple[float, ...] | None:
    if not isinstance(values, list) or not all(type(x) in (int, float) for x in values):
        return None
    with contextlib.suppress(OverflowError):  # an integer too large for a float
        return tuple(map(float, values)) or None
    return (math.inf,)
