"""Image transforms by name, as specified in a config.

E.g. ``data.train_transform = "random_resized_crop(scale=(0.05, 1))|flip|rand_augment(2, 15)"``.
The first transform determines which part of an image is resized to the wanted size; the others
change pixels and keep the size. All work on uint8, before normalisation.
"""

import ast
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pnoise_jax.data.image import augmentations, crops
from pnoise_jax.data.image.augmentations import PixelStatistics
from pnoise_jax.data.image.images import Image
from pnoise_jax.data.image.rand_augment import RandAugment
from pnoise_jax.registry import did_you_mean

Transform = Callable[[Image, np.random.Generator | None], np.ndarray]
"""(encoded image or pixels, generator) -> uint8 (height, width, channels) of the wanted size."""

# The fields of these classes are the arguments in a config.
_CROPS: Mapping[str, type] = {
    "none": crops.NoCrop,
    "resize_square": crops.ResizeSquare,
    "resize_crop": crops.ResizeCrop,
    "random_resized_crop": crops.RandomResizedCrop,
    "square_crop": crops.SquareCrop,
    "square_random_crop": crops.SquareRandomCrop,
    "square_random_resized_crop": crops.SquareRandomResizedCrop,
}
_AUGMENTATIONS: Mapping[str, type] = {
    "flip": augmentations.Flip,
    "random_shift": augmentations.RandomShift,
    "color_jitter": augmentations.ColorJitter,
    "random_erasing": augmentations.RandomErasing,
    "rand_augment": RandAugment,
}


def list_transforms() -> list[str]:
    """The names of all transforms: first those that can come first, then those that can follow."""
    return [*_CROPS, *_AUGMENTATIONS]


def create_transform(
    text: str,
    *,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    train: bool,
    field: str,
) -> Transform:
    """Creates the transform that a config specifies.

    Args:
      text: names with arguments, joined by "|".
      size: the (height, width) of the result.
      mean, std: the statistics of the data set's pixels in [0, 1], one per channel or one for all;
        used to fill areas that a transform covers or uncovers.
      train: whether random transforms are allowed.
      field: the config field that contains the text, for error messages.

    Returns:
      A function of an image and a generator. The same image and generator give the same bytes.
      Without random transforms, the generator is not used. The input is never modified.

    Raises:
      ValueError: the text cannot be parsed; a name or an argument is unknown; an argument has the
        wrong type or is out of range; a random transform is used where none is allowed; the order
        is wrong; or the mean or std does not belong to pixels in [0, 1].
    """
    statistics = PixelStatistics(tuple(mean), tuple(std))
    try:
        first, *rest = [_create(call) for call in _parse(text)]
        _check_order(first, rest, train)
    except ValueError as error:
        raise ValueError(f"{field}={text!r}: {error}") from None
    height, width = size
    return _Chain(first.step, tuple(named.step for named in rest), (height, width), statistics)


@dataclasses.dataclass(frozen=True)
class _Chain:
    """A crop, then augmentations. Not a closure, as worker processes need a pickled copy."""

    crop: Callable
    augmentations: tuple[Callable, ...]
    size: tuple[int, int]
    statistics: PixelStatistics

    def __call__(self, image: Image, generator: np.random.Generator | None = None) -> np.ndarray:
        pixels = self.crop(image, generator, self.size)
        for augmentation in self.augmentations:
            pixels = augmentation(pixels, generator, self.statistics)
        return pixels


@dataclasses.dataclass(frozen=True)
class _Named:
    name: str
    step: Any


def _check_order(first: _Named, rest: Sequence[_Named], train: bool) -> None:
    if first.name not in _CROPS:
        raise ValueError(
            f"{first.name!r} keeps the size, but the first transform must set it: begin with one "
            f"of {', '.join(_CROPS)}, such as 'none|{first.name}'"
        )
    for named in rest:
        if named.name in _CROPS:
            raise ValueError(f"{named.name!r} sets the size, so it can only come first")
    for named in (first, *rest):
        if named.step.random and not train:
            deterministic = [name for name, crop in _CROPS.items() if not crop.random]
            raise ValueError(
                f"{named.name!r} is random, which is only allowed for training; use one of "
                f"{', '.join(deterministic)}"
            )


# Parsing


def _parse(text: str) -> list[ast.expr]:
    """The calls and bare names that are joined by "|" in the text."""
    if not isinstance(text, str):
        raise ValueError("give a string, such as 'none'")
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(
            f"cannot be parsed ({error.msg}); write it like 'random_resized_crop(scale=(0.05, 1))"
            "|flip'"
        ) from None
    calls = []
    while isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.BitOr):
        calls.insert(0, expression.right)
        expression = expression.left
    return [expression, *calls]


def _create(expression: ast.expr) -> _Named:
    call = expression if isinstance(expression, ast.Call) else None
    named = call.func if call else expression
    if not isinstance(named, ast.Name):
        raise ValueError(f"{ast.unparse(expression)!r} is not the name of a transform")
    name, known = named.id, {**_CROPS, **_AUGMENTATIONS}
    if name not in known:
        raise ValueError(f"{name!r} is unknown{did_you_mean(name, known)}")
    if not call:
        return _Named(name, known[name]())
    allowed = list(inspect.signature(known[name]).parameters)
    if len(call.args) > len(allowed):
        raise ValueError(f"{name} accepts {_listed(allowed)}, not {len(call.args)} arguments")
    arguments = dict(zip(allowed, map(_literal, call.args), strict=False))
    for keyword in call.keywords:
        if keyword.arg not in allowed:
            hint = did_you_mean(keyword.arg, allowed) if allowed else f": {name} accepts none"
            raise ValueError(f"{name}: the argument {keyword.arg!r} is unknown{hint}")
        if keyword.arg in arguments:
            raise ValueError(f"{name} is passed {keyword.arg} twice")
        arguments[keyword.arg] = _literal(keyword.value)
    try:
        return _Named(name, known[name](**arguments))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _literal(expression: ast.expr) -> Any:
    """A number, a fraction such as 3/4, a string, or a tuple of these."""
    if isinstance(expression, ast.Tuple | ast.List):
        return tuple(map(_literal, expression.elts))
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Div):
        above, below = _literal(expression.left), _literal(expression.right)
        if all(isinstance(number, int | float) for number in (above, below)) and below:
            return above / below
    try:
        return ast.literal_eval(expression)
    except ValueError:
        raise ValueError(
            f"{ast.unparse(expression)!r} is not a number, a quoted string, or a tuple of these"
        ) from None


def _listed(arguments: Sequence[str]) -> str:
    return ", ".join(arguments) or "no arguments"
