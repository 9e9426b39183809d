"""Are characters that a denoising autoencoder has never seen harder for it to reconstruct?

    pnoise anomaly --config anomaly_glyphs --workdir DIR --held_out=0,1

One run for each held-out class. For the measurements see docs/denoising.md.
"""

import denoising_digits


def get_config():
    """A narrow ViT: each of 16 patches of 64 pixels becomes 32 numbers, decoded by a matrix."""
    config = denoising_digits.get_config("part=pretrain")
    config.data.name = "glyphs/200"
    config.data.mean = (0.16,)
    config.data.std = (0.34,)
    config.model.update({"image_size": 32, "patch_size": 8, "dim": 32, "num_heads": 2})
    config.model.depth = 2
    config.task.decoder_width = 32
    config.task.decoder_depth = 0
    config.noise.std = 0.3
    config.duration = "8 epochs"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup = "100 steps"
    config.log_every = "1 epochs"
    config.checkpoint.every = "8 epochs"
    return config
