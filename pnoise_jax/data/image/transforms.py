"""Transforms of images by name, as a config says them.

Such as ``data.train_transform = "random_resized_crop(scale=(0.05, 1))|flip|rand_augment(2, 15)"``.
The first one decides which part of an image is brought to the wanted size, the others change
pixels and keep the size. They work on uint8, before normalisation.
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

# Their fields are the arguments, their docstrings say what they do.
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
    """All names: those that may come first, then those that may follow."""
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
    """The transform that a config names.

    Args:
      text: names with arguments, joined by "|".
      size: (height, width) of what comes out.
      mean, std: of the data set's pixels in [0, 1], for each channel or one for all; what is
        covered or moved out of sight is filled with them.
      train: whether random transforms are allowed.
      field: the config field that has the text, for errors.

    Returns:
      A function of an image and a generator (without random transforms, it is not used): the same
      image and generator give the same bytes. It never writes into its input.

    Raises:
      ValueError: a text that cannot be read, an unknown name or argument, an argument of a wrong
        type or out of range, a random transform where none is allowed, a wrong order; a mean or
        std that is not of pixels in [0, 1].
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
    """A crop, then augmentations. A class, and no closure, as worker processes get a copy."""

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
            f"{first.name!r} keeps the size, and the first transform decides it: begin with "
            f"{', '.join(_CROPS)}, such as 'none|{first.name}'"
        )
    for named in rest:
        if named.name in _CROPS:
            raise ValueError(f"{named.name!r} decides the size, so it can only come first")
    for named in (first, *rest):
        if named.step.random and not train:
            deterministic = [name for name, crop in _CROPS.items() if not crop.random]
            raise ValueError(
                f"{named.name!r} is random, which is for training; use one of "
                f"{', '.join(deterministic)}"
            )


# The text


def _parse(text: str) -> list[ast.expr]:
    """The calls and bare names that the text joins by "|"."""
    if not isinstance(text, str):
        raise ValueError("give a text, such as 'none'")
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(
            f"cannot be read ({error.msg}); write it such as 'random_resized_crop(scale=(0.05, 1))"
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
        raise ValueError(f"{name} takes {_listed(allowed)}, not {len(call.args)} arguments")
    arguments = dict(zip(allowed, map(_literal, call.args), strict=False))
    for keyword in call.keywords:
        if keyword.arg not in allowed:
            hint = did_you_mean(keyword.arg, allowed) if allowed else f": {name} takes none"
            raise ValueError(f"{name}: the argument {keyword.arg!r} is unknown{hint}")
        if keyword.arg in arguments:
            raise ValueError(f"{name} is given {keyword.arg} twice")
        arguments[keyword.arg] = _literal(keyword.value)
    try:
        return _Named(name, known[name](**arguments))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _literal(expression: ast.expr) -> Any:
    """A number, a fraction such as 3/4, a text, or a tuple of these."""
    if isinstance(expression, ast.Tuple | ast.List):
        return tuple(map(_literal, expression.elts))
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Div):
        over, under = _literal(expression.left), _literal(expression.right)
        if all(isinstance(number, int | float) for number in (over, under)) and under:
            return over / under
    try:
        return ast.literal_eval(expression)
    except ValueError:
        raise ValueError(
            f"{ast.unparse(expression)!r} is not a number, a text in quotes, or a tuple of these"
        ) from None


def _listed(arguments: Sequence[str]) -> str:
    return ", ".join(arguments) or "no arguments"
