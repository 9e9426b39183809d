"""A small ResNet on scikit-learn's handwritten digits, trained clean, evaluated three ways.

    pnoise train --config digits_resnet --workdir /tmp/digits_resnet

Other noises and sites: --config.noise.preset=published_resnet (or published_resnet_gaussian,
published_resnet_impulse, paper_resnet), --config.noise.layer=2 (residual blocks, counted over all
stages). Noise in training as well: --config.noise.train=True.
"""

from pnoise_jax.training import default_config, model_config


def get_config():
    """4 residual blocks of 16 to 32 channels, on 300 training digits."""
    config = default_config()
    config.duration = "30 epochs"
    config.batch_size = 50
    config.label_smoothing = 0.1
    config.model = model_config("resnet18", stage_sizes=(2, 2), width=16, stem="small")
    config.noise.preset = "optimal_all_tokens"
    config.data.train_split = "train[:300]"
    config.data.cache = True
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = "3 epochs"
    config.optimizer.weight_decay = 0.05
    config.checkpoint.every = "10 epochs"
    return config
