"""Is the noise a useful regulariser? Compared with its label-mixed twin and the usual ones.

    pnoise regularisers --config regularisers --workdir /tmp/regularisers

The noise is the paper's cyclic shift over the examples of a batch, at all tokens of the first
block, in training; all models are evaluated without noise. Its twin mixes the targets as the noise
mixes the examples. Because a ViT's patch embedding is affine, the twin is mixup of the images with
a fixed share, and mixup at the first layer is mixup of the images. Manifold Mixup is therefore at
the second layer here, and so is a second arm of the noise, for comparison.

Every arm has 4 candidates, each trained with 2 seeds and scored on held-out training examples; the
chosen one is trained with 10 other seeds and tested once. An arm "... + noise" keeps the settings
chosen for its partner, and its 4 candidates are strengths of the noise. Two contrasts are fixed
beforehand: the noise minus its twin, and mixup + noise minus mixup, both tuned.

mnist_5k needs the extra mnist5k. docs/regularisers.md explains the design.

1620 trainings, 324 per setting, of 600 steps for the glyphs and 400 for the others. Measured on
cores that other programs also used: mnist_5k took 37 minutes of CPU time, the last 250 trainings of
digits_300 took 36, and the other three settings together took 2 hours and 26 minutes on one core.
From these figures, two processes with one core each need about two hours for everything: one with
--settings=digits_300,mnist_5k,glyphs_200, the other with --settings=digits_100,digits_797.
"""

from pnoise_jax.studies import product
from pnoise_jax.studies.regularisers import Arm, Setting
from pnoise_jax.training import default_config, model_config

_RATES = {"optimizer.learning_rate": (1e-3, 3e-3)}
_NOISE = {
    "noise.name": ("linear_transform",),
    "noise.quality": ("cyclic_shift",),
    "noise.train": (True,),
}
_TUNED_NOISE = _NOISE | {"noise.strength": (0.3, 0.45)} | _RATES
_FIRST, _SECOND = ({"noise.layer": (layer,)} for layer in ("1", "2"))
_ON_TOP = {"noise.strength": (0.1, 0.2, 0.3, 0.45)}
_TWIN = {"mixup.labels_follow_noise": (True,)}
_SHIFTS = {"data.train_transform": ("none|random_shift(1)", "none|random_shift(2)")}
_OTHERS = {
    "mixup": {"mixup.alpha": (0.5, 2.0)},
    "manifold mixup": {"mixup.layer": (2,), "mixup.alpha": (0.5, 2.0)},
    "label smoothing": {"label_smoothing": (0.1, 0.3)},
    "dropout": {"model.dropout": (0.1, 0.3)},
    "weight decay": {"optimizer.weight_decay": (0.3, 2.0)},
    "EMA": {"ema_decay": (0.98, 0.995)},
    "shifts": _SHIFTS,
}


def get_config():
    """The ViT of configs/digits_vit.py, 4 blocks of dim 64, without any regulariser."""
    config = default_config()
    config.duration = "400 steps"
    config.batch_size = 50
    config.log_every = "400 steps"
    config.model = model_config(
        "vit_ti_16", image_size=8, patch_size=2, dim=64, depth=4, num_heads=4
    )
    config.data.cache = True
    config.optimizer.warmup = "40 steps"
    config.optimizer.weight_decay = 0.0
    config.writers = ()
    return config


def settings():
    """The data sets by name, in the order in which they run."""
    digits = {
        "train[:300]": "train[:300]",
        "train[:100]": "train[:100]",
        "train": "train[:597]",  # without the held-out digits
    }
    of_digits = {
        f"digits_{count}": Setting(
            train=train, tune_on=tune_on, held_out="train[597:]", test="test"
        )
        for count, (train, tune_on) in zip((300, 100, 797), digits.items(), strict=True)
    }
    return of_digits | {
        "mnist_5k": Setting(
            train="train[:1000]",
            held_out="train[3500:]",
            test="test",
            fields={"data.name": "mnist_5k", "model": _model(image_size=28, patch_size=7)},
        ),
        # Each of the 8 typefaces once: 8 images per class, and 8 of its 40 test images.
        "glyphs_200": Setting(
            train="train[:1600]",
            held_out="train[14400:]",
            test="test[:1600]",
            fields={
                "duration": "600 steps",
                "data.name": "glyphs/200",
                "data.mean": (0.16,),
                "data.std": (0.34,),
                "model": _model(image_size=32, patch_size=8),
            },
        ),
    }


def _model(**options):
    return model_config("vit_ti_16", dim=64, depth=2, num_heads=4, **options)


def arms():
    """The arms by name: each regulariser alone, then each of `_OTHERS` combined with the noise."""
    single = {
        "none": Arm(product({"optimizer.learning_rate": (1e-3, 2e-3, 3e-3, 5e-3)})),
        "noise": Arm(product(_TUNED_NOISE | _FIRST)),
        "noise, mixed labels": Arm(product(_TUNED_NOISE | _FIRST | _TWIN)),
        "noise at layer 2": Arm(product(_TUNED_NOISE | _SECOND)),
    }
    for name, fields in _OTHERS.items():
        single[name] = Arm(product(fields | _RATES), views=5 if name == "shifts" else 1)
    combined = {
        f"{name} + noise": Arm(
            product(_NOISE | _FIRST | _ON_TOP), on_top_of=name, views=single[name].views
        )
        for name in _OTHERS
    }
    return single | combined


def contrasts():
    """The contrasts that are fixed beforehand: the first arm minus the second."""
    return [("noise", "noise, mixed labels"), ("mixup + noise", "mixup")]
