"""How robust are small ViTs on the digits, each trained with one kind of perturbation?

pnoise robustness --config robustness_digits --workdir DIR
"""

import digits_vit

from pnoise_jax.training import noise_config, task_config

IMAGE = {"noise.point": "image"}


def get_config():
    """configs/digits_vit.py with 2 blocks, without noise; the arms add it."""
    config = digits_vit.get_config()
    config.model.depth = 2
    config.noise = noise_config()
    config.task = task_config("robust_classification")
    config.log_every = "20 epochs"
    return config


def arms():
    """Plain training, noise on the images, and adversarial training."""
    return {
        "plain": {},
        "gaussian": {"noise.name": "gaussian", "noise.std": 0.2, **IMAGE},
        "salt_and_pepper": {"noise.name": "salt_and_pepper", "noise.probability": 0.1, **IMAGE},
        "fgsm": {"task.attack": "fgsm", "task.attack_epsilon": 0.1},
        "pgd": {"task.attack": "pgd", "task.attack_epsilon": 0.1, "task.attack_steps": 5},
    }


def strengths():
    """Strengths up to two or three times those in training."""
    return {
        "gaussian": (0.1, 0.2, 0.3, 0.4, 0.5),
        "salt_and_pepper": (0.05, 0.1, 0.2, 0.3),
        "fgsm": (0.025, 0.05, 0.1, 0.2),
        "pgd": (0.025, 0.05, 0.1, 0.2),
    }
