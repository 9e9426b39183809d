"""A small ViT on characters of 200 or 1000 classes, tested on unseen typefaces.

    pnoise train --config glyphs_vit:200 --workdir /tmp/glyphs_vit
    pnoise train --config glyphs_vit:1000 --workdir /tmp/glyphs_vit_1000

Measured, seed 1, 200 classes: clean top-1 55.0 %, noisy shuffled 4.1 %, noisy class-sorted 82.2 %;
6.5 minutes on two busy cores, including evaluation. 1000 classes have not been measured on version
2.0.0 of the data. Preparing the data takes 9 (1000 classes: 52) seconds of CPU time, once. For more
see docs/results.md. For other noises see configs/digits_vit.py.
"""

from pnoise_jax.training import default_config, model_config

DURATIONS = {"200": "8 epochs", "1000": "3 epochs"}  # of 16 000 and of 80 000 images


def get_config(classes: str = "200"):
    """4 blocks, dim 128, 16 patches; `classes` is the text after the colon."""
    if classes not in DURATIONS:
        raise ValueError(f"glyphs_vit.py:{classes}: give {' or '.join(DURATIONS)}")
    config = default_config()
    config.duration = DURATIONS[classes]
    config.batch_size = 32
    config.label_smoothing = 0.1
    config.model = model_config(
        "vit_ti_16", image_size=32, patch_size=8, dim=128, depth=4, num_heads=4, pooling="mean"
    )
    config.noise.preset = "optimal_all_tokens"
    config.data.name = f"glyphs/{classes}"
    config.data.cache = True
    config.data.mean = (0.16,)
    config.data.std = (0.34,)
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.warmup = "16e3 examples"
    config.optimizer.weight_decay = 0.05
    config.checkpoint.every = "1 epochs"
    return config
