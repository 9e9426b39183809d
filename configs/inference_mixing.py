"""Does honest mixing, among views of one image or its tokens, help at inference? On the digits.

    pnoise sweep --config inference_mixing:vit --workdir /tmp/mixing_vit
    pnoise sweep --config inference_mixing:resnet --workdir /tmp/mixing_resnet

All models are trained without noise, with 5 seeds. The first cells are plain. The next have 5 and 9
views of each test image, the image itself and its shifts by a pixel: clean is the mean of the
views' logits, the usual test-time augmentation; noisy also mixes the views at the last layer's
input. The last cells mix the tokens of one image (for the ResNet: its pixels) there. None of these
depend on another image, so the order cannot matter: the shuffled and the class-sorted columns
agree.
"""

import digits_resnet
import digits_vit

from pnoise_jax import studies

SEEDS = range(5)
_CYCLIC = {
    "noise.name": ("linear_transform",),
    "noise.quality": ("cyclic_shift",),
    "noise.strength": (0.3,),
}
_OPTIMAL = {"noise.name": ("linear_transform",), "noise.quality": ("optimal",)}


def get_config(model="vit"):
    """configs/digits_vit.py or digits_resnet.py without noise; the cells add it."""
    configs = {"vit": digits_vit, "resnet": digits_resnet}
    if model not in configs:
        raise ValueError(f"inference_mixing.py:{model}: give {' or '.join(configs)}")
    config = configs[model].get_config()
    config.noise.preset = None
    return config


def sweep(model="vit"):
    """The same cells for both models; the first is the baseline."""
    del model
    cells = studies.product({"noise.name": ("none",), "seed": SEEDS})
    for quality in (_CYCLIC, _OPTIMAL):
        inference_only = quality | {"noise.train": (False,), "seed": SEEDS}
        for views in (5, 9):
            among_views = {"noise.axis": ("views",), "noise.group_size": (views,)}
            among_views |= {"evaluation.views": (views,)}
            cells += studies.product(inference_only | among_views)
        cells += studies.product(inference_only | {"noise.axis": ("tokens",)})
    return cells
