"""draft --config configs/denoising_digits.py"""

import digits_vit

from pnoise_jax.studies import product
from pnoise_jax.training import parse_arguments, task_config


def get_config(arguments=None):
    """A ViT of 4 blocks whose head reads the mean of all tokens: "part=pretrain" or finetune."""
    part = parse_arguments("denoising_digits.py", arguments, part=("pretrain", "finetune")).part
    config = digits_vit.get_config()
    config.model.pooling = "mean"
    config.model.class_token = False
    config.noise.preset = None
    config.checkpoint.every = "1000 epochs"
    if part == "finetune":
        config.duration = "600 steps"
        config.weights_head = "fresh"
        return config
    config.task = task_config("denoising", decoder_width=32, decoder_depth=1)
    config.noise.name = "gaussian"
    config.noise.std = 0.5
    config.noise.point = "image"
    config.noise.train = True
    config.data.train_split = "train"
    config.duration = "60 epochs"
    config.label_smoothing = 0.0
    return config


def sweep(arguments=None):
    """The fine-tuning with few labels, over seeds."""
    del arguments
    return product({"data.train_split": ("train[:100]", "train[:300]"), "seed": range(5)})
