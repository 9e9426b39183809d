"""VisDA-2017, renderings to photographs, with positive noise (the paper's table 6).

    pnoise prepare --dataset=visda2017 --manual_dir=DOWNLOADS

    pnoise adapt --config uda_visda2017 --workdir /tmp/uda_visda2017 \
        --config.weights=ViT-B_16.npz

The source is the training split with labels; the target is the validation split without labels,
which is also the test split. The metric is the official one, the mean of the accuracies of the 12
classes. The settings are TVT's: 20000 steps of 64 + 64 images, weights 1 (images), 0.01 (patches)
and 1 (information maximisation); otherwise as in configs/uda_office_home.py, which also says what
differs from the published code. CDTrans' epochs are over the target's training split here.

Calculated cost, at an assumed 150 TFLOP/s (bfloat16, one H100): 40 minutes for a TVT run of
ViT-B/16; about 25 hours for a study of 3 seeds and 12 rows. NOT measured here.

Expected, NOT measured here: means per class of 67.1 (ViT), 83.9 (TVT, the best of 199 evaluations
by target labels), 88.4 (CDTrans, from DeiT) and 88.8 (SSRT) are published; the paper reports 90.0
with noise. In the list's order, practically every batch of 16 contains one class (99.7 %), so
"noisy, listed order" says nothing about adaptation.
"""

import uda_office_home

from pnoise_jax.training import task_config


def get_config():
    """TVT, train to validation, with the optimal Q."""
    config = uda_office_home.get_config()
    config.duration = "20000 steps"
    config.task = task_config(
        "tvt",
        source="visda2017",
        source_split="train",
        domain_weight=1.0,
        patch_weight=0.01,
        information_weight=1.0,
    )
    config.data.name = "visda2017"
    config.data.train_split = config.data.test_split = "validation"
    config.evaluation.every = "2000 steps"
    config.checkpoint.every = "2000 steps"
    return config


def methods():
    """Rates and weights for VisDA that differ from Office-Home's."""
    methods = uda_office_home.methods()
    methods["dann"] = {"task.domain_weight": 1.0, "task.information_weight": 1.0}
    methods["ssrt"] |= {"task.bottleneck_dim": 1024, "optimizer.learning_rate": 0.0002}
    methods["cdtrans"] |= {
        "task.source_duration": "20 epochs",
        "duration": "60 epochs",
        "optimizer.learning_rate": 5e-5,
        "optimizer.final_learning_rate": 5e-5 * 0.002,
    }
    return methods
