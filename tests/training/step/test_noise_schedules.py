"""Schedules of the injections' strengths: what a step sees, evaluations, resuming, bad input."""

import contextlib
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pnoise_jax import noise, parallel, training
from pnoise_jax.training import noise_config
from pnoise_jax.training.loop import console
from pnoise_jax.training.step.gradient_noise import add_gradient_noise
from pnoise_jax.training.step.noise_schedules import make_scheduled
from pnoise_jax.training.step.program import create_program
from tests.training.runs import small_config

RISE = "linear 0 to 1 over 4 steps from 2 steps"


def scheduled_config(data_dir, schedule=RISE, **changes):
    return small_config(data_dir, **{"noise.schedule": schedule, "noise.train": True} | changes)


def losses_at(config, numbers, **options):
    """The losses of single steps from the initial state, with these step numbers."""
    experiment = training.build(config)
    program = create_program(experiment, parallel.data_mesh(), **options)
    with experiment.task.open_batches() as batches:
        batch = parallel.to_devices(next(batches), program.batches)
    constants = program.constants(experiment)
    losses = []
    for number in numbers:
        state = program.create(jax.random.key(0))
        state = state.replace(step=jax.device_put(jnp.int32(number), state.step.sharding))
        losses.append(float(program.step(state, batch, *constants)[1]["loss"]))
    assert program.step._cache_size() == 1  # another factor does not recompile
    return losses


@pytest.mark.parametrize("any_strength", [False, True])
def test_the_strength_of_a_step_follows_the_schedule(data_dir, any_strength):
    config = scheduled_config(
        data_dir, **{"noise.name": "gaussian", "noise.strength": 3.0, "model.depth": 1}
    )
    got = losses_at(config, (2, 4), any_strength=any_strength)
    config.noise.schedule = None
    expected = []
    for number, factor in ((2, 0), (4, 0.5)):
        config.noise.strength = 3.0 * factor
        expected += losses_at(config, (number,))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert abs(got[1] - got[0]) > 1e-3


def test_without_a_schedule_nothing_is_added(data_dir):
    experiment = training.build(small_config(data_dir))
    assert experiment.noise_schedules == (None,)
    assert make_scheduled(experiment.injections, (None,)) is None


def test_every_injection_has_its_own_schedule():
    gaussian = noise.Injection(noise.Gaussian(strength=2.0))
    optimal = noise.Injection(noise.LinearTransform(noise.Optimal(0.5)))
    half = lambda step: jnp.float32(0.5)  # noqa: E731
    both = make_scheduled((gaussian, optimal), (None, half))
    assert both(0, None) == (None, 0.25)
    np.testing.assert_allclose(both(0, jnp.array([3.0, 4.0])), [3, 2])
    several_runs = jnp.array([[3.0, 4.0], [1.0, 0.0]])
    got = jax.vmap(both, in_axes=(0, 0))(jnp.zeros(2), several_runs)
    np.testing.assert_allclose(got, [[3, 2], [1, 0]])
    single = make_scheduled((optimal,), (half,))
    assert float(single(0, None)) == 0.25
    assert float(single(0, jnp.float32(4))) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    "section",
    [
        {"name": "linear_transform", "quality": "cyclic_shift", "strength": 0.4},
        {"name": "linear_transform", "quality": "optimal"},
        {"name": "gaussian", "std": 0.5, "point": "image"},
        {"name": "salt_and_pepper", "probability": 0.5},
        {"name": "erase"},
    ],
)
def test_every_noise_with_factor_0_is_no_noise(data_dir, section):
    config = small_config(data_dir)
    off = losses_at(config, (0,))
    config.noise = noise_config(train=True, schedule="linear 0 to 1 over 9 steps", **section)
    np.testing.assert_allclose(losses_at(config, (0,)), off, rtol=1e-5)


def test_evaluations_have_the_full_strength(data_dir, tmp_path):
    config = scheduled_config(data_dir, "linear 0 to 0.001 over 1 steps", duration="2 steps")
    rows = training.train(config, tmp_path)
    config.noise.schedule, config.noise.train = None, False
    assert training.evaluate(config, tmp_path) == rows


@pytest.mark.long
def test_a_resumed_run_is_bitwise_the_same(data_dir, tmp_path, monkeypatch):
    config = scheduled_config(data_dir, "cosine 1 to 0 over 8 steps", **{"noise.strength": 0.5})
    config.noise.others.pixels = noise_config(
        name="gaussian", std=0.1, point="image", schedule="linear 0 to 2 over 12 steps"
    )
    whole = training.train(config, tmp_path / "whole")
    task = type(training.build(config).task)
    monkeypatch.setattr(task, "open_batches", fail_after(5, task.open_batches))
    with pytest.raises(InterruptedError):
        training.train(config, tmp_path / "resumed")  # it has saved step 4
    monkeypatch.undo()
    assert training.train(config, tmp_path / "resumed") == whole


def fail_after(count, open_batches):
    """An ``open_batches`` that fails after ``count`` batches."""

    @contextlib.contextmanager
    def open_failing(task, start=0):
        def failing(batches):
            yield from itertools.islice(batches, count)
            raise InterruptedError

        with open_batches(task, start) as batches:
            yield failing(batches)

    return open_failing


def test_the_header_describes_schedules(data_dir):
    config = scheduled_config(data_dir)
    config.noise.others.late = noise_config(name="gaussian")
    config.optimizer.gradient_noise_std = 0.1
    config.optimizer.gradient_noise_schedule = "cosine 1 to 0 over 9 steps"
    first, other, gradients = console.describe_noise(training.build(config)).splitlines()
    assert first.endswith(f"; its strength times {RISE} in training, full strength in evaluations")
    assert "times" not in other
    assert gradients.endswith("its standard deviation times cosine 1 to 0 over 9 steps")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise.schedule": "rise"}, r"noise\.schedule='rise': give a schedule such as"),
        ({"noise.train": False}, r"noise\.schedule=.* with noise\.train=False: it schedules"),
        ({"noise.name": "none"}, r"noise\.schedule=.* is set, but there is no noise"),
        (
            {
                "noise.name": "salt_and_pepper",
                "noise.probability": 0.5,
                "noise.schedule": "linear 3 to 0 over 2 steps",
            },
            r"noise\.schedule=.* multiplies the strength 0\.5 by 3: probability=1\.5: give a",
        ),
        (
            {"noise.schedule": "linear 0 to 1 over 1 steps from 20 epochs"},
            r"noise\.schedule=.* begins at step 250, but the run has only 12",
        ),
        (
            {"optimizer.gradient_noise_schedule": RISE},
            r"optimizer\.gradient_noise_schedule=.*, but optimizer\.gradient_noise_std is 0",
        ),
        (
            {
                "optimizer.gradient_noise_std": 0.1,
                "optimizer.gradient_noise_schedule": "linear 1 to 0 over 1 steps from 99 steps",
            },
            r"optimizer\.gradient_noise_schedule=.* begins at step 99",
        ),
        (
            {"optimizer.gradient_noise_std": 0.1, "optimizer.gradient_noise_schedule": "fall"},
            r"optimizer\.gradient_noise_schedule='fall': give a schedule",
        ),
    ],
)
def test_bad_schedules_are_named(data_dir, changes, message):
    with pytest.raises(ValueError, match=message):
        training.check_training(training.build(scheduled_config(data_dir, **changes)))


def test_the_schedule_of_others_is_named_by_its_section(data_dir):
    config = small_config(data_dir)
    config.noise.others.early = noise_config(name="gaussian", schedule="fall")
    with pytest.raises(ValueError, match=r"noise\.others\.early\.schedule='fall'"):
        training.build(config)


def test_gradient_noise_decays_times_its_schedule():
    gradients = {"w": jnp.zeros((40_000,))}
    transform = add_gradient_noise(0.5, 0.55, optax.linear_schedule(2.0, 0.0, 4))
    state = transform.init(gradients)
    for step, factor in enumerate((2, 1.5, 1, 0.5, 0)):
        updates, state = transform.update(gradients, state, noise_key=jax.random.key(step))
        expected = factor * 0.5 * (1 + step) ** -0.275
        assert float(updates["w"].std()) == pytest.approx(expected, rel=0.02)
    chex.assert_trees_all_equal(updates, gradients)
