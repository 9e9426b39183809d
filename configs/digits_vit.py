"""A small ViT on scikit-learn's handwritten digits, trained clean, evaluated three ways.

    pnoise train --config digits_vit --workdir /tmp/digits_vit

Other noises and sites: --config.noise.preset=paper_vit (or optimal_published, …),
--config.noise.layer=2, --config.noise.point=attention_input, --config.noise.tokens=patch. Noise in
training as well: --config.noise.train=True.
"""

from pnoise_jax.training import default_config, model_config


def get_config():
    """4 blocks, dim 64, on 300 training digits: few enough for accuracy to rise and fall."""
    config = default_config()
    config.duration = "100 epochs"
    config.batch_size = 50
    config.label_smoothing = 0.1
    config.model = model_config(
        "vit_ti_16", image_size=8, patch_size=2, dim=64, depth=4, num_heads=4
    )
    config.noise.preset = "optimal_all_tokens"
    config.data.train_split = "train[:300]"
    config.data.cache = True
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = "10 epochs"
    config.optimizer.weight_decay = 0.05
    config.checkpoint.every = "25 epochs"
    return config
