"""Fields that have no effect because of others: the notes, and that they are true."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from pnoise_jax import training
from pnoise_jax.training.step.mixup import Mixing
from pnoise_jax.training.step.optimizer import create_optimizer, learning_rate_schedule
from pnoise_jax.training.unused_fields import CONDITIONAL, describe_unused, find_unused
from tests.training.runs import small_config

# For each field: another value than its default, settings with an effect, and without.
CASES = {
    "weights_head": ("fresh", {"weights": "weights.npz"}, {"weights": None}),
    "data.mean": ((0.4,), {"data.mean_image": None}, {"data.mean_image": "mean.npy"}),
    "optimizer.beta1": (0.5, {"optimizer.name": "adamw"}, {"optimizer.name": "sgd"}),
    "optimizer.beta2": (0.5, {"optimizer.name": "adamw"}, {"optimizer.name": "sgd"}),
    "optimizer.momentum": (0.5, {"optimizer.name": "sgd"}, {"optimizer.name": "adamw"}),
    "optimizer.final_learning_rate": (
        1e-4,
        {"optimizer.schedule": "cosine"},
        {"optimizer.schedule": "constant"},
    ),
    "optimizer.gradient_noise_decay": (
        0.1,
        {"optimizer.gradient_noise_std": 0.1},
        {"optimizer.gradient_noise_std": 0.0},
    ),
    "optimizer.weight_decay_on": (
        "all",
        {"optimizer.weight_decay": 0.1},
        {"optimizer.weight_decay": 0.0},
    ),
    "mixup.alpha": (0.5, {"mixup.probability": 1.0}, {"mixup.probability": 0.0}),
    "mixup.cutmix_alpha": (0.5, {"mixup.probability": 1.0}, {"mixup.probability": 0.0}),
    "mixup.probability": (0.0, {"mixup.alpha": 0.5}, {"mixup.alpha": 0.0}),
    "mixup.switch_probability": (
        0.0,
        {"mixup.alpha": 0.5, "mixup.cutmix_alpha": 0.5},
        {"mixup.alpha": 0.5, "mixup.cutmix_alpha": 0.0},
    ),
    "checkpoint.at_most": (
        "5 minutes",
        {"checkpoint.every": "10 steps"},
        {"checkpoint.every": "3 minutes"},
    ),
}


def make_config(fields):
    config = training.default_config()
    config.update_from_flattened_dict(fields)
    return config


def train_and_mix(config: ml_collections.ConfigDict):
    """What optimiser and mixup do with the same gradients and images."""
    schedule = learning_rate_schedule(config.optimizer, warmup_steps=0, total_steps=4)
    optimizer = create_optimizer(config.optimizer, schedule)
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    state, states = optimizer.init(params), []
    for step in range(4):
        gradients = jax.tree.map(lambda x, step=step: jnp.sin(x + step), params)
        updates, state = optimizer.update(gradients, state, params, noise_key=jax.random.key(step))
        params = optax.apply_updates(params, updates)
        states.append(params)
    section = {k: v for k, v in config.mixup.items() if k != "labels_follow_noise"}
    images, targets = jnp.arange(4.0 * 8 * 8).reshape(4, 8, 8, 1), jnp.eye(4)
    mixed = [Mixing(**section)(jax.random.key(n), images, targets) for n in range(3)]
    return states, mixed


def equal(ours, theirs):
    return all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(theirs)))


def test_every_conditional_field_is_tried():
    assert CASES.keys() == CONDITIONAL


@pytest.mark.parametrize("field", CASES)
def test_fields_have_an_effect_unless_they_are_found_unused(field):
    value, with_effect, without = CASES[field]
    assert field in find_unused(make_config(without | {field: value}))
    assert field not in find_unused(make_config(without))
    assert field not in find_unused(make_config(with_effect | {field: value}))
    if not field.startswith(("optimizer.", "mixup.")):
        return  # `train_and_mix` does not use it
    assert equal(
        train_and_mix(make_config(without)), train_and_mix(make_config(without | {field: value}))
    )
    assert not equal(
        train_and_mix(make_config(with_effect)),
        train_and_mix(make_config(with_effect | {field: value})),
    )


def test_unused_fields_of_a_run_are_described(data_dir):
    config = small_config(
        data_dir,
        **{
            "optimizer.momentum": 0.5,
            "optimizer.freeze": ("head/.*", "block_1/.*"),
            "optimizer.head_learning_rate_multiplier": 10.0,
            "optimizer.rates": ("block_1/mlp.*=2", "patch_embed/.*=3"),
            "evaluation.every": "1000 epochs",
            "profile": "100000:3",
        },
    )
    sentences = describe_unused(training.build(config))
    assert len(sentences) == 5
    for sentence, start in zip(
        sentences,
        (
            "optimizer.momentum=0.5 has no effect: it needs optimizer.name='sgd'",
            "optimizer.head_learning_rate_multiplier=10.0 has no effect: no parameter of 'head'",
            "optimizer.rates: 'block_1/mlp.*=2' has no effect",
            "evaluation.every='1000 epochs' is",
            "profile='100000:3' begins after",
        ),
        strict=True,
    ):
        assert sentence.startswith(start)


def test_nothing_is_described_if_every_field_is_used(data_dir):
    assert describe_unused(training.build(small_config(data_dir))) == []
