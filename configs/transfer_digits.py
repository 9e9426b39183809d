"""From printed digits to 100 handwritten ones: fine-tuning with and without noise.

    pnoise train --config digits_resnet --workdir /tmp/printed \
        --config.data.name=font_digits --config.data.train_split=train --config.noise.preset=None
    pnoise sweep --config transfer_digits --workdir /tmp/transfer \
        --config.weights=/tmp/printed
    pnoise sweep --config transfer_digits --workdir /tmp/from_scratch \
        --config.weights_required=False

The first command trains on printed digits, the second fine-tunes on 100 handwritten ones, and the
third trains only on the handwritten ones. Measured: clean accuracy in percent, means of 5 seeds
from one training on printed digits, with 95 % intervals over the seeds. Without noise 93.4 (93.3 to
93.5), with Gaussian noise on pixels 92.2 (91.8 to 92.5), with the cyclic shift 93.8 (93.6 to 93.9);
from scratch 82.3, 75.2 and 80.4. Nothing was tuned. All three commands take about 2 minutes on two
CPU cores.
"""

import digits_resnet

from pnoise_jax.studies import product

SEEDS = range(5)
_PLACES = ("noise.std", "noise.point", "noise.strength", "noise.quality", "noise.layer")


def get_config():
    """configs/digits_resnet.py on 100 digits; the cells add the noise, only in training."""
    config = digits_resnet.get_config()
    config.duration = "200 steps"
    config.noise.preset = None
    config.data.train_split = "train[:100]"
    config.weights_head = "auto"  # kept: printed digits have the same ten classes
    config.weights_required = True
    config.optimizer.warmup = "20 steps"
    config.checkpoint.every = "200 steps"
    return config


def sweep():
    """The baseline without noise; Gaussian noise on pixels; the cyclic shift at the first block."""
    noises = (
        {"noise.name": "none", "noise.train": None},
        {"noise.name": "gaussian", "noise.train": True, "noise.std": 0.2, "noise.point": "image"},
        {"noise.name": "linear_transform", "noise.train": True, "noise.quality": "cyclic_shift",
         "noise.strength": 0.3, "noise.layer": "1"},
    )  # fmt: skip
    unset = dict.fromkeys(_PLACES)
    return [
        cell
        for noise in noises
        for cell in product({**{k: (v,) for k, v in (unset | noise).items()}, "seed": SEEDS})
    ]
