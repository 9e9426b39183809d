"""How much must a ViT rely on the published site to leak as the paper's ViT-B would have to?

    pnoise sweep --config bridge:digits --workdir /tmp/bridge_digits
    pnoise sweep --config bridge:glyphs --workdir /tmp/bridge_glyphs
    pnoise bridge --sweeps=/tmp/bridge_digits,/tmp/bridge_glyphs --out=/tmp/bridge

Every model is trained without noise and evaluated twice at the published site (the last block's
attention input, patch tokens only), in batches of 10: with the optimal Q, shuffled and in class
order, and with the patch tokens erased there (zeros, no mixing), which shows how much the decision
depends on the site. The cells vary depth, width, pooling and training length; pnoise bridge pairs
each training's two evaluations and draws leak against the accuracy that erasing costs.

Measured on one of two busy CPU cores: 92 minutes for the digits (128 trainings), 23 for the glyphs
(24 trainings, version 1.0.0 of the data). With a head on the class token, cells with one block gain
9 points or more over clean on the digits, and no cell with 2 to 8 blocks does; with a head on the
mean, most do. For more see docs/bridge.md.
"""

import digits_vit
import glyphs_vit

from pnoise_jax import studies

SEEDS = (0, 1)
DEPTHS = (1, 2, 4, 8)
POOLINGS = ("token", "mean")
EVALUATED = ({}, {"noise.name": ("erase",)})  # the optimal Q, and the knock-out at the same site

# Width 128 with 300 epochs is left out only because it costs half as much as the whole grid.
DIGITS = (
    {"duration": ("30 epochs", "100 epochs"), "model.dim": (32, 64, 128), "model.depth": DEPTHS},
    {"duration": ("300 epochs",), "model.dim": (32, 64), "model.depth": DEPTHS},
)
# Sized for an hour on one core: one width, and the 8 epochs of glyphs_vit.py at two depths.
GLYPHS = (
    {"duration": ("4 epochs",), "model.dim": (64,), "model.depth": DEPTHS},
    {"duration": ("8 epochs",), "model.dim": (64,), "model.depth": (2, 4)},
)


def get_config(dataset="digits"):
    """configs/digits_vit.py or glyphs_vit.py:200 with the noise of the published 95 % command."""
    configs = {"digits": digits_vit.get_config, "glyphs": glyphs_vit.get_config}
    if dataset not in configs:
        raise ValueError(f"bridge.py:{dataset}: give {' or '.join(configs)}")
    config = configs[dataset]()
    config.noise.preset = "optimal_published"
    return config


def sweep(dataset="digits"):
    """Each model of the grid, evaluated with the optimal Q and with the patch tokens erased."""
    return [
        cell
        for shapes in {"digits": DIGITS, "glyphs": GLYPHS}[dataset]
        for evaluated in EVALUATED
        for cell in studies.product(
            {**shapes, "model.pooling": POOLINGS, **evaluated, "seed": SEEDS}
        )
    ]
