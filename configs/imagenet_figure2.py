"""Figure 2 of the paper on ImageNet: accuracy against the strength and the layer of the noise.

    pnoise sweep --config imagenet_figure2:model=b16 \
        --config.weights=B_16.npz --workdir /tmp/figure2_b16

Arguments: model=b16|ti16|s16|l16|18|34|50|101, seeds=1|2|3|5, train=yes|no.

The cyclic shift (eq. 17): strengths 0.1 to 0.5 at the last layer (parts a and c); and strength 0.3
at layers 6, 8, 10, 12 of a ViT (part d; at the same fractions of l16's 24 layers), or at the last
block of each of a ResNet's four stages (part b). train=yes trains every cell with its noise, as the
paper does; train=no trains once and evaluates with each noise. Every cell is evaluated clean, noisy
shuffled and noisy class-sorted; the paper shows only the last.

train=yes costs eight runs per seed, and train=no costs one; configs/imagenet_vit.py and
imagenet_resnet.py state the cost of a run. NOT measured here; configs/figure2.py does the same on
the digits, and was measured.
"""

import imagenet_resnet
import imagenet_vit

from pnoise_jax import models, studies
from pnoise_jax.training import parse_arguments

STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5)
VITS = ("b16", "ti16", "s16", "l16")


def _parse(arguments):
    return parse_arguments(
        "imagenet_figure2.py",
        arguments,
        model=(*VITS, "18", "34", "50", "101"),
        seeds=(1, 2, 3, 5),
        train=("yes", "no"),
    )


def get_config(arguments=None):
    """The recipe of the tables; `arguments` is the text after the colon."""
    args = _parse(arguments)
    recipe = imagenet_vit if args.model in VITS else imagenet_resnet
    return recipe.get_config(f"model={args.model},noise=cyclic")


def sweep(arguments=None):
    """Strengths at the last layer, then the other layers at strength 0.3."""
    args = _parse(arguments)
    *others, last = _layers(args.model)
    panels = (
        {"noise.strength": STRENGTHS, "noise.layer": (last,)},
        {"noise.strength": (0.3,), "noise.layer": tuple(others)},
    )
    common = {"noise.train": (args.train == "yes",)}
    seeds = {"seed": tuple(range(args.seeds))}
    return [cell for panel in panels for cell in studies.product({**common, **panel, **seeds})]


def _layers(model: str) -> list[str]:
    if model in VITS:
        depth = models.create_model(f"vit_{model.replace('16', '_16')}").depth
        return [str(depth * number // 12) for number in (6, 8, 10, 12)]
    sizes = models.create_model(f"resnet{model}").stage_sizes
    return [str(sum(sizes[:stage])) for stage in range(1, 5)]
