"""What images weights expect: how they were normalised, resized and cropped."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pnoise_jax import data
from pnoise_jax.data.image.arguments import require_statistics
from pnoise_jax.weights import runs
from pnoise_jax.weights.arrays import ArrayFile
from pnoise_jax.weights.descriptions import PREPROCESSING as METADATA


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done with images before the model gets them.

    Attributes:
      mean, std: per channel, of pixels in [0, 1]; None where it is not known.
      test_transform: as a config says it, data.test_transform; None where it is not known.
      source: what says so.

    Raises:
      ValueError: a mean or std that is not of pixels in [0, 1]; names the source.
    """

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    test_transform: str | None
    source: str

    def __post_init__(self):
        known = {name: getattr(self, name) for name in ("mean", "std")}
        known = {name: values for name, values in known.items() if values is not None}
        require_statistics(prefix=f"{self.source}: ", **known)

    def describe(self) -> str:
        """One line."""
        parts = [
            f"{name} {'unknown' if value is None else value}"
            for name, value in (
                ("mean", self.mean),
                ("std", self.std),
                ("test_transform", self.test_transform),
            )
        ]
        return f"the weights expect {', '.join(parts)} ({self.source})"


def of_file(file: ArrayFile, title: str) -> Preprocessing | None:
    """What weights expect, as their file, what lies beside it, or their format says; or None.

    Args:
      file: with the weights.
      title: whose names the arrays have.

    Raises:
      ValueError: what is said cannot be, or is of pixels from 0 to 255.
    """
    if file.kind == "run":
        return _of_run(file.path)
    for source, said in file.statements:
        if found := _of_timm(said.get(METADATA), source):
            return found
    if title.startswith("Google"):
        half = (0.5, 0.5, 0.5)
        return Preprocessing(half, half, None, "Google's ViTs see pixels in [-1, 1]")
    return None


def to_timm(section: Mapping[str, Any]) -> dict[str, Any]:
    """A config's data section in timm's words: mean, std, interpolation, crop_pct, crop_mode."""
    described = {"mean": list(section["mean"]), "std": list(section["std"])}
    crop = _create(section["test_transform"], section["mean"], section["std"]).crop
    share = getattr(crop, "crop_ratio", None)
    return described | {
        "interpolation": getattr(crop, "interpolation", "bilinear"),
        "crop_pct": 1.0 if share is None else share,
        "crop_mode": "squash" if share is None else "center",
    }


def _of_run(path: Path) -> Preprocessing | None:
    section = runs.read_config(path).get("data")
    if not isinstance(section, dict):
        return None
    mean, std, text = (section.get(name) for name in ("mean", "std", "test_transform"))
    return Preprocessing(_numbers(mean), _numbers(std), _possible(text), "the run's config")


def _of_timm(section: Any, source: str) -> Preprocessing | None:
    """From timm's `pretrained_cfg`; None where it says nothing."""
    if not isinstance(section, dict):
        return None
    interpolation, share = section.get("interpolation"), section.get("crop_pct")
    transform = {
        "center": f"resize_crop({share}, interpolation={interpolation!r})",
        "squash": f"resize_square(interpolation={interpolation!r})" if share == 1 else None,
    }.get(str(section.get("crop_mode", "center")))
    found = (_numbers(section.get("mean")), _numbers(section.get("std")), _possible(transform))
    return None if found == (None, None, None) else Preprocessing(*found, source)


def _possible(transform: Any) -> str | None:
    """The text of a transform, where there is such a one here."""
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
    with contextlib.suppress(OverflowError):  # an integer that no float is as large as
        return tuple(map(float, values)) or None
    return (math.inf,)
