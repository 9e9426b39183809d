"""The keys of a config's noise section, from which an injection is built."""

from typing import NamedTuple


class ConfigField(NamedTuple):
    """A key of a config's noise section: the type of its values, and what it means."""

    kind: type
    meaning: str


CONFIG_FIELDS: dict[str, ConfigField] = {
    "preset": ConfigField(str, "one of `noise.PRESETS`; the other keys, where set, override it"),
    "name": ConfigField(
        str, 'linear_transform, gaussian, salt_and_pepper, erase, none, or "module:Name"'
    ),
    "quality": ConfigField(str, "of linear_transform: cyclic_shift, optimal"),
    "strength": ConfigField(float, "of linear_transform, gaussian and erase"),
    "shift": ConfigField(int, "of cyclic_shift: the distance between the examples that are mixed"),
    "implementation": ConfigField(str, "of linear_transform: structured, matmul"),
    "axis": ConfigField(str, "of linear_transform, what is mixed: batch, tokens, views"),
    "group_size": ConfigField(
        int, "of linear_transform and salt_and_pepper: examples that are mixed; by default a batch"
    ),
    "mean": ConfigField(float, "of gaussian"),
    "std": ConfigField(float, "of gaussian"),
    "probability": ConfigField(float, "of salt_and_pepper, that a number is replaced"),
    "extremes": ConfigField(
        str, "of salt_and_pepper, whether over an image or a batch: image, batch"
    ),
    "options": ConfigField(dict, "of a noise of your own: its other fields"),
    "layer": ConfigField(str, 'where: "3", "6,8,10,12", "last", "random"'),
    "point": ConfigField(str, "where in the layer: block_input, attention_input; or image"),
    "tokens": ConfigField(str, "all, patch"),
    "train": ConfigField(bool, "whether the noise acts in training"),
    "inference": ConfigField(
        bool, "the same at inference, where the model is used as a library; reports show both"
    ),
    "stop_gradient": ConfigField(bool, "whether the noise is a constant to the gradient"),
}
