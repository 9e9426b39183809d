"""The images that a model gets: their size, and what makes them from a data set's."""

import flax.linen as nn
import ml_collections

from pnoise_jax import data


def image_size(
    config: ml_collections.ConfigDict, model: nn.Module, stored: data.Dataset
) -> tuple[int, int]:
    """Height and width of the images that the model gets.

    Raises:
      ValueError: data.image_size and the model's contradict each other, or nothing says it.
    """
    asked, own = config.data.image_size, getattr(model, "image_shape", None)
    if own is not None and asked is not None and own != (asked, asked):
        raise ValueError(
            f"data.image_size={asked}: {config.model.name} takes images of {own[0]} x {own[1]} "
            "pixels; leave data.image_size=None, or set model.image_size to the same number"
        )
    if own is not None:
        return own
    if asked is not None:
        return (asked, asked)
    if stored.image_shape is None:
        raise ValueError(
            f"data.image_size=None: the images of {stored.name} differ in size, and "
            f"{config.model.name} takes any; set data.image_size, such as 224"
        )
    return stored.image_shape[:2]


def transform(
    config: ml_collections.ConfigDict, stored: data.Dataset, size: tuple[int, int], *, train: bool
) -> data.Transform:
    """What makes an image of a split, as it is stored, what the model gets.

    Raises:
      ValueError: data.train_transform or data.test_transform cannot do it.
    """
    field = f"data.{'train' if train else 'test'}_transform"
    text = config.data.train_transform if train else config.data.test_transform
    if text == "none" and stored.image_shape is not None:
        if stored.image_shape[:2] == size:
            return data.decode
        raise ValueError(
            f"{field}='none': {config.model.name} gets images of {size[0]} x {size[1]} pixels, and "
            f"{stored.name} has {stored.image_shape[0]} x {stored.image_shape[1]}; set "
            f"{'model' if 'image_size' in config.model else 'data'}.image_size to these, or resize "
            "with 'resize_square'"
        )
    return data.create_transform(
        text,
        size=size,
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        train=train,
        field=field,
    )


def transformed(
    config: ml_collections.ConfigDict, stored: data.Dataset, size: tuple[int, int]
) -> data.Dataset:
    """The test split with images as the model gets them; raises as `transform`."""
    read = transform(config, stored, size, train=False)
    if read is data.decode:
        return stored
    return stored.transformed(read, (*size, stored.channels))
