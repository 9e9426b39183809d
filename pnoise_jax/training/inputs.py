"""The images that are input to a model: their size and how they are made from stored images."""

import flax.linen as nn
import ml_collections
import numpy as np

from pnoise_jax import data


def image_size(
    config: ml_collections.ConfigDict, model: nn.Module, stored: data.Dataset
) -> tuple[int, int]:
    """Height and width of the model's input images.

    Raises:
      ValueError: data.image_size contradicts the model's size, or nothing determines the size.
    """
    side, fixed = config.data.image_size, getattr(model, "image_shape", None)
    if fixed is not None and side is not None and fixed != (side, side):
        raise ValueError(
            f"data.image_size={side}: {config.model.name} takes images of {fixed[0]} x {fixed[1]} "
            "pixels; leave data.image_size=None, or set model.image_size to the same number"
        )
    if fixed is not None:
        return fixed
    if side is not None:
        return (side, side)
    if stored.image_shape is None:
        raise ValueError(
            f"data.image_size=None: the images of {stored.name} differ in size, and "
            f"{config.model.name} accepts any size; set data.image_size, such as 224"
        )
    return stored.image_shape[:2]


def transform(
    config: ml_collections.ConfigDict,
    stored: data.Dataset,
    size: tuple[int, int],
    *,
    train: bool,
    mean: data.PixelMean | None = None,
) -> data.Transform:
    """The transform from a stored image of a split to the model's input.

    Args:
      config: the config.
      stored: the split.
      size: height and width of the model's input.
      train: whether it is data.train_transform, or else data.test_transform.
      mean: what is subtracted from images; areas that a transform covers get its colour. By default
        data.mean.

    Raises:
      ValueError: data.train_transform or data.test_transform is bad, does not fit the number of
        channels, or is "none" though the stored images do not have the model's size.
    """
    field = f"data.{'train' if train else 'test'}_transform"
    text = config.data.train_transform if train else config.data.test_transform
    if text == "none" and stored.image_shape is not None:
        if stored.image_shape[:2] == size:
            return data.decode
        raise ValueError(
            f"{field}='none': {config.model.name} needs images of {size[0]} x {size[1]} pixels, "
            f"but {stored.name} has {stored.image_shape[0]} x {stored.image_shape[1]}; set "
            f"{'model' if 'image_size' in config.model else 'data'}.image_size to the latter, or "
            "resize with 'resize_square'"
        )
    is_image = isinstance(mean, data.MeanImage)
    created = data.create_transform(
        text,
        size=size,
        mean=mean.channel_means if is_image else tuple(config.data.mean),
        std=tuple(config.data.std),
        train=train,
        field=field,
    )
    try:  # otherwise the first image would show whether the transform fits the channels
        created(np.zeros((*size, stored.channels), np.uint8), np.random.default_rng(0))
    except ValueError as error:
        raise ValueError(f"{field}={text!r} does not fit {stored.name}: {error}") from error
    return created


def transformed(
    config: ml_collections.ConfigDict, stored: data.Dataset, size: tuple[int, int]
) -> data.Dataset:
    """The test split with its images transformed for the model; raises as `transform`."""
    read = transform(config, stored, size, train=False)
    if read is data.decode:
        return stored
    return stored.transformed(read, (*size, stored.channels))
