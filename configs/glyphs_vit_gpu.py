"""A ViT for a GPU on characters of 1000 (or 200) classes, tested on unseen typefaces.

    pnoise train --config glyphs_vit_gpu:1000 --workdir /tmp/glyphs_vit_gpu

NOT MEASURED: its accuracy and its cost are unknown, and its settings are not tuned. Counted, not
timed: 22 million parameters; 4 million images at about 9 GFLOP each, for 1000 classes.
"""

from pnoise_jax.training import default_config, model_config

DURATIONS = {"200": "100 epochs", "1000": "50 epochs"}  # of 16 000 and of 80 000 images


def get_config(classes: str = "1000"):
    """12 blocks, dim 384, 64 patches, bfloat16; `classes` is the text after the colon."""
    if classes not in DURATIONS:
        raise ValueError(f"glyphs_vit_gpu.py:{classes}: give {' or '.join(DURATIONS)}")
    config = default_config()
    config.duration = DURATIONS[classes]
    config.batch_size = 512
    config.dtype = "bfloat16"
    config.label_smoothing = 0.1
    config.model = model_config("vit_s_16", image_size=32, patch_size=4, pooling="mean")
    config.noise.preset = "optimal_all_tokens"
    config.data.name = f"glyphs/{classes}"
    config.data.cache = True
    config.data.num_threads = 8
    config.data.mean = (0.16,)
    config.data.std = (0.34,)
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = "5 epochs"
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.checkpoint.every = "10 epochs"
    return config
