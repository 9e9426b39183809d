"""Two tiny domains in memory: bright stripes, whose place depends on the class, and noise."""

import numpy as np

from pnoise_jax import data, training
from pnoise_jax.data.in_memory import DATASETS

CLASSES, SIDE = 4, 8


def stripes(seed, count, *, background):
    """Images of `CLASSES` classes with stripes, uint8 (count, side, side, 1), and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    images = generator.integers(0, 60, (count, SIDE, SIDE, 1)) + background
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 120
    return images.astype(np.uint8), labels


def domains(*, permuted=False):
    """The data sets of two domains by name; the target's training labels may be permuted."""

    def source():
        return data.InMemory({"train": stripes(0, 48, background=0)})

    def target():
        images, labels = stripes(1, 40, background=50)
        if permuted:
            labels = np.roll(labels, 7)
        return data.InMemory({"train": (images, labels), "test": stripes(2, 24, background=50)})

    return {"tiny_source": source, "tiny_target": target}


def register(**options):
    """Registers the domains, replacing those registered before."""
    for name, function in domains(**options).items():
        DATASETS._things.pop(name, None)
        data.register_dataset(name)(function)


def adaptation_config(task, *, model=None, **changes):
    """Two blocks of 16 features, batches of 8 per domain; changes such as {"noise.layer": 1}."""
    config = training.default_config()
    config.batch_size = 8
    config.duration = "12 steps"
    config.log_every = "4 steps"
    sizes = {"image_size": SIDE, "patch_size": 4, "dim": 16, "depth": 2, "num_heads": 2}
    config.model = training.model_config("vit_ti_16", **sizes | (model or {}))
    config.noise.preset = None
    config.data.name, config.data.cache = "tiny_target", True
    config.evaluation.batch_size = 8
    config.checkpoint.every = "100 steps"
    config.task = task
    config.update_from_flattened_dict(changes)
    return config
