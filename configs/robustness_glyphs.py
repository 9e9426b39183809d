"""How robust are small ViTs on unseen typefaces, each trained with one kind of perturbation?

    pnoise robustness --config robustness_glyphs --workdir DIR --seeds=0,1,2

For the measurements see docs/robustness.md.
"""

import glyphs_vit

from pnoise_jax.training import noise_config, task_config

IMAGE = {"noise.point": "image"}


def get_config():
    """configs/glyphs_vit.py:200, smaller and without noise, which the arms add.

    The test images contain each of the 8 unseen typefaces once for each of the 200 classes.
    """
    config = glyphs_vit.get_config("200")
    config.model.dim = 64
    config.model.depth = 2
    config.duration = "8 epochs"
    config.data.test_split = "test[:1600]"
    config.log_every = "1 epochs"
    config.checkpoint.every = "8 epochs"
    config.noise = noise_config()
    config.task = task_config("robust_classification")
    return config


def arms():
    """Plain training, noise on the images, and adversarial training."""
    return {
        "plain": {},
        "gaussian": {"noise.name": "gaussian", "noise.std": 0.1, **IMAGE},
        "salt_and_pepper": {"noise.name": "salt_and_pepper", "noise.probability": 0.05, **IMAGE},
        "fgsm": {"task.attack": "fgsm", "task.attack_epsilon": 8 / 255},
        "pgd": {"task.attack": "pgd", "task.attack_epsilon": 8 / 255, "task.attack_steps": 3},
    }


def strengths():
    """Strengths up to twice those in training."""
    return {
        "gaussian": (0.05, 0.1, 0.2),
        "salt_and_pepper": (0.02, 0.05, 0.1),
        "fgsm": (4 / 255, 8 / 255, 16 / 255),
        "pgd": (4 / 255, 8 / 255, 16 / 255),
    }
