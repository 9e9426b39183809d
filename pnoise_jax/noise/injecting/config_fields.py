"""The keys of a config's noise section, from which an injection is built."""

from typing import NamedTuple


class ConfigField(NamedTuple):
    """A key of a config's noise section: the type of its values, and what it means."""

    kind: type
    meaning: str


CONFIG_FIELDS: dict[str, ConfigField] = {
    "preset": ConfigField(str, "one of `noise.PRESETS`; other fields that are set override it"),
    "name": ConfigField(
        str, 'linear_transform, gaussian, salt_and_pepper, erase, none, or "module:Name"'
    ),
    "quality": ConfigField(str, "for linear_transform: cyclic_shift, reverse or optimal"),
    "strength": ConfigField(
        float, "for linear_transform, gaussian and erase: the strength of the noise"
    ),
    "shift": ConfigField(int, "for cyclic_shift: the distance between the examples to mix"),
    "implementation": ConfigField(str, "for linear_transform: structured or matmul"),
    "axis": ConfigField(str, "for linear_transform: the axis to mix: batch, tokens or views"),
    "group_size": ConfigField(
        int,
        "for linear_transform and salt_and_pepper: how many examples to mix; by default the batch",
    ),
    "mean": ConfigField(float, "for gaussian: the mean; for images on a scale from 0 to 1"),
    "std": ConfigField(
        float, "for gaussian: the standard deviation; for images on a scale from 0 to 1"
    ),
    "probability": ConfigField(
        float, "for salt_and_pepper: the probability of replacing each number"
    ),
    "extremes": ConfigField(
        str, "for salt_and_pepper: use the extremes of each image or of the batch: image or batch"
    ),
    "options": ConfigField(dict, "for a noise of your own: its other fields"),
    "layer": ConfigField(
        str, 'the layers: 3, (6, 8, 10, 12), "last" or "random"; as a string "3" or "6,8,10,12"'
    ),
    "point": ConfigField(
        str,
        "where in the layer: block_input or attention_input; or image, for the pixels from 0 to 1, "
        "clipped to that range afterwards",
    ),
    "tokens": ConfigField(str, "the tokens that get noise: all or patch"),
    "train": ConfigField(bool, "whether the noise acts in training"),
    "inference": ConfigField(
        bool,
        "whether the noise acts at inference when the model is used as a library; reports show "
        "both. Of several injections, only those with inference set act in noisy evaluations, or "
        "all if none has it",
    ),
    "schedule": ConfigField(
        str,
        'factor for the strength in training, such as "linear 0 to 1 over 10 epochs" or "cosine 1 '
        'to 0 over 90 epochs from 10 epochs"; evaluations use the full strength',
    ),
    "stop_gradient": ConfigField(bool, "whether the gradient treats the noise as a constant"),
    "others": ConfigField(
        dict, "more injections by name, each a section from `training.noise_config`"
    ),
}
