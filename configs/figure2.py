"""Figure 2 of the paper for a small ViT or ResNet on the digits: accuracy by strength and layer.

    pnoise sweep --config figure2:vit --workdir /tmp/figure2_vit
    pnoise sweep --config figure2:resnet --workdir /tmp/figure2_resnet

The cyclic shift (eq. 17) on all tokens at a block's input, batches of 10 at inference, 5 seeds:
strengths 0.1 to 0.5 at the last block, and blocks 1 to 4 at strength 0.3; trained without the noise
(and only evaluated with it), and with it, as in the paper: 45 trainings for 80 cells. Note that
with an even number of examples I+Q is singular at 0.5. The paper leaves out the clean line.

Measured on two CPU cores that other programs also used: 14 minutes (ViT), 5 (ResNet). The results
are in docs/results.md.
"""

import digits_resnet
import digits_vit

from pnoise_jax import studies

STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5)
SEEDS = range(5)


def get_config(model="vit"):
    """configs/digits_vit.py or digits_resnet.py with the paper's noise."""
    configs = {"vit": digits_vit, "resnet": digits_resnet}
    if model not in configs:
        raise ValueError(f"figure2.py:{model}: give {' or '.join(configs)}")
    config = configs[model].get_config()
    config.noise.preset = f"paper_{model}"
    return config


def sweep(model="vit"):
    """Two panels, strengths and layers, for both ways to train; both models have 4 blocks."""
    del model
    last = {"noise.strength": STRENGTHS, "noise.layer": ("4",)}
    others = {"noise.strength": (0.3,), "noise.layer": ("1", "2", "3")}
    return [
        cell
        for train in (False, True)
        for where in (last, others)
        for cell in studies.product({"noise.train": (train,), **where, "seed": SEEDS})
    ]
