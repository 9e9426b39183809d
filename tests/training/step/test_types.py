"""A run does not depend on JAX's global switches, and resumes under others."""

import contextlib
import shutil

import jax
import numpy as np
import optax
import pytest

from pnoise_jax import models, parallel, training
from pnoise_jax.training import Classification
from pnoise_jax.training.evaluating.restore import restore
from pnoise_jax.training.step.step import init_state, make_train_step
from tests.models.test_types import SMALL
from tests.training.runs import small_config

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def config(data_dir):
    """With everything that draws or has a dtype: dropout, mixing, EMA, clipping, decay."""
    changes = {
        "ema_decay": 0.9,
        "accumulate": 2,
        "duration": "8 steps",
        "mixup.alpha": 0.5,
        "mixup.cutmix_alpha": 0.5,
        "optimizer.clip_norm": 1.0,
        "optimizer.layer_decay": 0.9,
        "noise.preset": None,
        "noise.name": "gaussian",
        "noise.layer": "random",
    }
    config = small_config(data_dir, **changes)
    config.model.dropout = 0.1
    config.model.drop_path = 0.1
    return config


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run that was never interrupted, and its variables."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    training.train(config, path)
    return path, variables_of(path)


def variables_of(path):
    return jax.device_get(restore(path, mesh=parallel.data_mesh()).variables)


def test_resuming_under_other_switches_is_bitwise_exact(config, whole, tmp_path):
    """From its middle; what it saves is read without them."""
    path, expected = whole
    shutil.copytree(path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.numpy_dtype_promotion("strict"))
        stack.enter_context(jax.numpy_rank_promotion("raise"))
        training.train(config, tmp_path / "run")
        assert jax.config.jax_enable_x64  # as before
    jax.tree.map(np.testing.assert_array_equal, variables_of(tmp_path / "run"), expected)
    assert not (tmp_path / "run" / "unreadable").exists()


def test_64_bits_from_the_start_change_nothing(config, whole, tmp_path):
    with jax.enable_x64(True):
        training.train(config, tmp_path / "run")
        variables = variables_of(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, variables, whole[1])


@pytest.mark.parametrize("name", SMALL)
def test_the_state_of_every_family_keeps_its_dtypes(name):
    """In the pure step with 64 bits, which nothing there disables."""
    model = models.create_model(name, num_classes=10, **SMALL[name])
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 2, 10)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    sides = model.image_shape or (32, 32)
    images = jax.ShapeDtypeStruct((1, *sides, 3), np.float32)
    batch = {
        "image": jax.ShapeDtypeStruct((4, *sides, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((4,), np.int32),
    }
    task = Classification(model=model, label_smoothing=0.1)
    step = make_train_step(task, optimizer, ema_decay=0.9)

    def start(key):
        return init_state(task, optimizer, key, images, with_ema=True)

    with jax.enable_x64(True):
        state = jax.eval_shape(start, jax.random.key(0))
        after, metrics = jax.eval_shape(step, state, batch, jax.random.key(0))
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32", "int32"}
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)
    assert {x.dtype.name for x in metrics.values()} == {"float32"}
