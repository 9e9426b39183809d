"""A small ResNet on characters of 200 or 1000 classes, tested on unseen typefaces.

    pnoise train --config glyphs_resnet:200 --workdir /tmp/glyphs_resnet
    pnoise train --config glyphs_resnet:1000 --workdir /tmp/glyphs_resnet_1000

Measured, seed 1, 200 classes: clean top-1 72.9 %, noisy shuffled 2.4 %, noisy class-sorted 79.5 %;
4 minutes on two busy cores, including evaluation. 1000 classes have not been measured on version
2.0.0 of the data. Preparing the data takes 9 (1000 classes: 52) seconds of CPU time, once. For more
see docs/results.md. For other noises see configs/digits_resnet.py.
"""

from pnoise_jax.training import default_config, model_config

DURATIONS = {"200": "6 epochs", "1000": "2 epochs"}  # of 16 000 and of 80 000 images


def get_config(classes: str = "200"):
    """3 residual blocks of 16 to 64 channels; `classes` is the text after the colon."""
    if classes not in DURATIONS:
        raise ValueError(f"glyphs_resnet.py:{classes}: give {' or '.join(DURATIONS)}")
    config = default_config()
    config.duration = DURATIONS[classes]
    config.batch_size = 64
    config.label_smoothing = 0.1
    config.model = model_config("resnet18", stage_sizes=(1, 1, 1), width=16, stem="small")
    config.noise.preset = "optimal_all_tokens"
    config.data.name = f"glyphs/{classes}"
    config.data.cache = True
    config.data.mean = (0.16,)
    config.data.std = (0.34,)
    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup = "16e3 examples"
    config.optimizer.weight_decay = 0.05
    config.checkpoint.every = "1 epochs"
    return config
