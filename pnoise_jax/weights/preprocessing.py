"""The images that weights expect: how they are normalised, resized and cropped."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pnoise_jax import data
from pnoise_jax.data.image import ResizeCrop, require_statistics
from pnoise_jax.weights.formats import run_weights
from pnoise_jax.weights.formats.array_file import ArrayFile, Format
from pnoise_jax.weights.names.naming import Naming
from pnoise_jax.weights.stated_options import image_sides


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How images are preprocessed before the model receives them.

    Attributes:
      mean, std: per channel, of pixels in [0, 1]; None if unknown.
      test_transform: as in a config's data.test_transform; None if unknown.
      source: where this is stated.
      mean_image: the file of a mean image that is subtracted instead of a mean per channel, as in
        a config's data.mean_image; None if there is none.

    Raises:
      ValueError: mean or std are not for pixels in [0, 1]; the message names the source.
    """

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    test_transform: str | None
    source: str
    mean_image: str | None = None

    def __post_init__(self):
        statistics = {"mean": self.mean, "std": self.std}
        known = {name: values for name, values in statistics.items() if values is not None}
        require_statistics(prefix=f"{self.source}: ", **known)

    def describe(self) -> str:
        """One line."""
        fields = {"mean": self.mean, "std": self.std, "test_transform": self.test_transform}
        if self.mean_image is not None:
            fields["mean"] = f"image {self.mean_image!r} to be subtracted"
        parts = [
            f"{name} {'unknown' if value is None else value}" for name, value in fields.items()
        ]
        return f"the weights expect {', '.join(parts)} ({self.source})"


def expected_by(file: ArrayFile, naming: Naming | None) -> Preprocessing | None:
    """The preprocessing that the file, the config.json beside it, or its source states; else None.

    Args:
      file: the file with the weights.
      naming: the naming of its arrays; None for a run.

    Raises:
      ValueError: the stated values are impossible, or are for pixels from 0 to 255.
    """
    if file.format is Format.RUN:
        return _of_run(file.path)
    for info in file.model_info:
        if preprocessing := _from_timm(info.preprocessing, info.source):
            return preprocessing
    if naming is None or naming.mean is None:
        return None
    return Preprocessing(naming.mean, naming.std, None, f"as {naming.title} does")


def to_timm(section: Mapping[str, Any], *, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """A config's data section in timm's fields: mean, std, interpolation, crop_pct, crop_mode.

    timm has no field for a mean image. If one is subtracted, its file name is the value of
    "mean_image", and there is no "mean".

    Args:
      section: the data section.
      size: (height, width) of the model's images; None if it accepts any size.
    """
    crop = _create(section["test_transform"], section["mean"], section["std"]).crop
    ratio, is_squashed = getattr(crop, "crop_ratio", 1.0), not isinstance(crop, ResizeCrop)
    if is_squashed and size is not None:
        ratio = _timm_ratio(ratio, size)
    mean: dict[str, Any] = {"mean": list(section["mean"])}
    if section.get("mean_image") is not None:
        mean = {"mean_image": Path(section["mean_image"]).name}
    return mean | {
        "std": list(section["std"]),
        "interpolation": getattr(crop, "interpolation", "bilinear"),
        "crop_pct": ratio,
        "crop_mode": "squash" if is_squashed else "center",
    }


def _timm_ratio(ratio: float, size: tuple[int, int]) -> float:
    """The ratio with which timm, which rounds down, resizes to the same size as `SquareCrop`.

    If the sides differ, there may be no such ratio: one side is then a pixel longer.
    """
    resized = [round(side / ratio) for side in size]
    if [math.floor(side / ratio) for side in size] == resized:
        return ratio
    exact = min(side / length for side, length in zip(size, resized, strict=True))
    return math.nextafter(exact, 0)  # otherwise the division may end just below the length


def _of_run(path: Path) -> Preprocessing | None:
    section = run_weights.read_config(path).get("data")
    if not isinstance(section, dict):
        return None
    return _stated(section, section.get("test_transform"), "the run's config")


def _from_timm(section: Mapping[str, Any], source: str) -> Preprocessing | None:
    """The preprocessing in timm's `pretrained_cfg`; None if it says nothing about images."""
    interpolation, ratio = section.get("interpolation"), section.get("crop_pct")
    squashed = f"square_crop({_square_ratio(section)}, interpolation={interpolation!r})"
    transform = {
        "center": f"resize_crop({ratio}, interpolation={interpolation!r})",
        "squash": f"resize_square(interpolation={interpolation!r})" if ratio == 1 else squashed,
    }.get(str(section.get("crop_mode", "center")))
    stated = _stated(section, transform, source)
    return None if stated == Preprocessing(None, None, None, source) else stated


def _square_ratio(section: Mapping[str, Any]) -> str:
    """The ratio with which `square_crop` resizes to timm's size, though they round differently."""
    ratio, size = section.get("crop_pct"), section.get("input_size")
    sides = image_sides(size[1:] if isinstance(size, list) else None)
    if type(ratio) is not float or not 0 < ratio < 1 or sides is None:
        return str(ratio)
    if min(sides) < 1 or max(sides) > 2**16 * ratio:  # not the size of an image
        return str(ratio)
    resized = [math.floor(side / ratio) for side in sides]
    if [round(side / ratio) for side in sides] == resized:
        return str(ratio)
    return "{}/{}".format(
        *min(zip(sides, resized, strict=True), key=lambda pair: pair[0] / pair[1])
    )


def _stated(section: Mapping[str, Any], transform: Any, source: str) -> Preprocessing:
    """The preprocessing in a section with mean and std; a mean_image replaces the mean."""
    mean, std = _numbers(section.get("mean")), _numbers(section.get("std"))
    mean_image = section.get("mean_image")
    if not isinstance(mean_image, str):
        return Preprocessing(mean, std, _known(transform), source)
    return Preprocessing(None, std, _known(transform), source, mean_image)


def _known(transform: Any) -> str | None:
    """The text of a transform; None if this package has no such transform."""
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
