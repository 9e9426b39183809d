"""A config's noise at the image: in pixels, with latent noise, on any number of devices."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from pnoise_jax import evaluation, noise, parallel, training
from pnoise_jax.training import noise_config
from pnoise_jax.training.loop import console
from pnoise_jax.training.step.program import advance
from tests.training.runs import small_config

GAUSSIAN = {"name": "gaussian", "std": 0.25, "point": "image"}


def config_of(data_dir, **changes):
    """A cyclic shift at the block, and Gaussian noise on the pixels."""
    config = small_config(data_dir, **{"noise.preset": "paper_vit", "data.mean": (0.3,)})
    config.noise.others.pixels = noise_config(**GAUSSIAN)
    config.update_from_flattened_dict(changes)
    return config


def first_step(experiment, devices=8):
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    program = training.create_program(experiment, mesh)
    state = program.create(jax.random.key(0))
    with experiment.task.open_batches() as batches:
        return jax.device_get(next(advance(program, state, batches, program.constants(experiment))))


def test_the_pixel_scale_comes_from_the_config(data_dir):
    built = training.build(config_of(data_dir))
    assert [each.pixels for each in built.injections] == [None, noise.PixelScale((0.3,), (0.5,))]
    assert "at image, pixels from 0 to 1; on" in console.describe_noise(built).splitlines()[1]
    only_image = small_config(
        data_dir, **{f"noise.{key}": value for key, value in GAUSSIAN.items()}
    )
    only_image.noise.preset = None
    assert training.build(only_image).model.injection.pixels == noise.PixelScale()


def test_one_device_equals_eight(data_dir):
    experiment = training.build(config_of(data_dir))
    (state, metrics), (expected, expected_metrics) = (first_step(experiment, n) for n in (8, 1))
    for name, value in metrics.items():
        assert value == pytest.approx(expected_metrics[name], rel=1e-5), name
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), state.params, expected.params
    )


def test_image_noise_changes_the_step_unless_it_is_off(data_dir):
    config = config_of(data_dir)
    noisy = first_step(training.build(config))[1]
    config.noise.others.pixels.train = False
    off = first_step(training.build(config))
    del config.noise.others.pixels
    plain = first_step(training.build(config))
    jax.tree.map(np.testing.assert_array_equal, off, plain)
    assert abs(noisy["loss"] - plain[1]["loss"]) > 1e-4


def test_image_noise_acts_in_noisy_evaluations(data_dir):
    """On the pixels of the test images; draws depend on the image's index."""
    changes = {"noise.inference": False, "noise.others.pixels.inference": True}
    experiment = training.build(config_of(data_dir, **changes))
    mesh, task = parallel.data_mesh(), experiment.task
    variables = experiment.initial_state(jax.random.key(0)).variables()
    rows = task.evaluate(variables, mesh, experiment.protocols)
    assert rows[1]["nll"] != rows[0]["nll"]
    # Each example's noise is its own: neither the order nor the batch matters.
    assert rows[1]["nll"] == pytest.approx(rows[2]["nll"], rel=1e-6)
    stronger = dataclasses.replace(
        experiment.model.injection[1], noise=noise.Gaussian(std=0.25, strength=4.0)
    )
    protocol = evaluation.Protocol(noise=True, order="shuffled", batch_size=10)
    options = {"mesh": mesh, "mean": (0.3,), "std": (0.5,)}
    scores = [
        evaluation.predict(
            experiment.model.clone(injection=injection),
            variables,
            experiment.test_data,
            protocol,
            strength=strength,
            **options,
        ).nll
        for injection, strength in (
            (experiment.model.injection[1], 4.0),
            (stronger, None),
        )
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": float("nan")}, r"noise\.others\.pixels\.std=nan: give a finite number"),
        ({"std": -0.1}, r"noise\.others\.pixels\.std=-0\.1: a standard deviation is at least 0"),
        ({"point": "images"}, r"noise\.others\.pixels\.point='images'"),
    ],
)
def test_bad_fields_are_named(data_dir, changes, message):
    config = config_of(data_dir)
    config.noise.others.pixels = noise_config(**(GAUSSIAN | changes))
    with pytest.raises(ValueError, match=message):
        training.build(config)
