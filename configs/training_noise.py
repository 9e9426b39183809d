"""How does training with noise change the clean accuracy? On the digits.

    pnoise sweep --config training_noise:vit --workdir /tmp/training_noise_vit
    pnoise sweep --config training_noise:resnet --workdir /tmp/noise_resnet

The first cells are vanilla, the baseline. The others are compared with it, paired by seed: Gaussian
noise, salt-and-pepper, the cyclic shift and the optimal Q over the examples of a batch (50), and
both over the tokens of one image (for the ResNet: its pixels); in training, at the last layer, on
all tokens; 5 seeds. Every cell is evaluated clean, and with its noise in both orders.

Measured: 50 trainings by 7 programs, of 600 steps of 12 ms (ViT) or 180 of 5 ms (ResNet) on two
idle cores; the whole sweeps took 23 and 2.4 minutes on busy ones. summary.csv in the work directory
has the difference in clean accuracy from vanilla, its interval, and its p-value with Holm's
correction over the table's comparisons; the results are in docs/results.md.
"""

import digits_resnet
import digits_vit

from pnoise_jax.studies import product

SEEDS = range(5)
_CYCLIC = {"noise.name": ("linear_transform",), "noise.quality": ("cyclic_shift",)}
_OPTIMAL = {"noise.name": ("linear_transform",), "noise.quality": ("optimal",)}
_NOISES = (
    {"noise.name": ("gaussian",), "noise.strength": (0.3, 1.0)},
    {"noise.name": ("salt_and_pepper",), "noise.probability": (0.1, 0.3)},
    _CYCLIC | {"noise.strength": (0.1, 0.3)},
    _OPTIMAL,
    _CYCLIC | {"noise.strength": (0.3,), "noise.axis": ("tokens",)},
    _OPTIMAL | {"noise.axis": ("tokens",)},
)


def get_config(model="vit"):
    """configs/digits_vit.py or digits_resnet.py without noise; the cells add it."""
    configs = {"vit": digits_vit, "resnet": digits_resnet}
    if model not in configs:
        raise ValueError(f"training_noise.py:{model}: give {' or '.join(configs)}")
    config = configs[model].get_config()
    config.noise.preset = None
    return config


def sweep(model="vit"):
    """The same cells for both models; the first is the baseline."""
    del model
    vanilla = product({"noise.name": ("none",), "seed": SEEDS})
    noisy = [product({**noise, "noise.train": (True,), "seed": SEEDS}) for noise in _NOISES]
    return sum(noisy, start=vanilla)
