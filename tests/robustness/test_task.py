"""Robust classification: if off, it is the plain step; its parts against direct computation."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pnoise_jax import evaluation, models, noise, parallel, training
from pnoise_jax.robustness import RobustClassification
from pnoise_jax.training import RandomStreams
from pnoise_jax.training.configuration.strength_schedule import StrengthSchedule
from pnoise_jax.training.loop import console
from tests.training.runs import small_config

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
NOISY = {
    "attack": "pgd",
    "attack_steps": 2,
    "attack_random_start": True,
    "weight_noise_std": 0.1,
    "update_noise_std": 0.01,
}


@functools.cache
def create_model(injection=None):
    return models.create_model(
        "vit_ti_16",
        num_classes=10,
        image_size=8,
        patch_size=4,
        dim=8,
        depth=1,
        num_heads=2,
        injection=injection,
    )


def make_step(kind=RobustClassification, injection=None, rate=0.1, **options):
    task = kind(model=create_model(injection), **options)
    optimizer = optax.sgd(rate)
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    init = jax.jit(lambda key: training.init_state(task, optimizer, key, images, with_ema=False))
    return task, init(jax.random.key(1)), jax.jit(training.make_train_step(task, optimizer))


@pytest.fixture(scope="module")
def batch(digits):
    return {"image": jnp.asarray(digits.images[:16]), "label": jnp.asarray(digits.labels[:16])}


def test_if_off_it_is_bitwise_the_plain_step(batch):
    _, state, step = make_step()
    _, plain_state, plain_step = make_step(training.Classification)
    chex.assert_trees_all_equal(step(state, batch, KEY), plain_step(plain_state, batch, KEY))


@pytest.mark.slow
def test_eight_devices_equal_one(batch):
    gaussian = noise.Injection(
        noise.Gaussian(std=0.1), point="image", pixels=noise.PixelScale((0.5,), (0.5,))
    )
    _, state, step = make_step(injection=gaussian, **NOISY)
    expected = step(state, batch, KEY)
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    everywhere = NamedSharding(mesh, P())
    got = step(
        jax.device_put(state, everywhere),
        jax.device_put(batch, NamedSharding(mesh, P("data"))),
        jax.device_put(KEY, everywhere),
    )
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(expected), atol=2e-5)


def test_an_attack_uses_the_loss_of_its_step_with_its_noise(batch):
    latent = noise.Injection(noise.Gaussian(std=0.3))
    task, state, step = make_step(injection=latent, attack="fgsm", attack_epsilon=0.1)
    head = {"kernel": jax.random.normal(KEY, (8, 10)), "bias": jnp.zeros(10)}
    state = state.replace(
        params={**state.params, "head": head}
    )  # near 0 it leaves nothing to attack
    _, metrics = step(state, batch, KEY)
    streams = RandomStreams(jax.random.fold_in(jax.random.fold_in(KEY, 0), 0))
    images = evaluation.normalise(batch["image"], (0.5,), (0.5,))
    rngs = {"noise": streams["noise"], "dropout": streams["dropout"]}

    @jax.jit
    def loss(images):
        logits = task.model.apply({"params": state.params}, images, train=True, rngs=rngs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    pixels = np.asarray(batch["image"], np.float32) / 255
    moved = np.clip(pixels + 0.1 * np.sign(jax.jit(jax.grad(loss))(images)), 0, 1)
    attacked = loss(jnp.asarray((moved - 0.5) / 0.5))
    assert float(metrics["loss"]) == pytest.approx(float(attacked), rel=1e-4)
    assert attacked > loss(images) + 0.004  # the tolerance above is 0.0005


def test_weight_noise_is_in_the_gradient_and_not_in_the_weights(batch):
    options = {"weight_noise_std": 0.2, "weight_noise_on": ("block_1/.*/kernel", "head/kernel")}
    _, state, still = make_step(rate=0.0, **options)
    chex.assert_trees_all_equal(still(state, batch, KEY)[0].params, state.params)

    task, _, step = make_step(**options)
    moved, metrics = step(state, batch, KEY)
    streams = RandomStreams(jax.random.fold_in(jax.random.fold_in(KEY, 0), 0))
    noisy = task.weight_noise.perturb(streams["weight_noise"], state.params)

    @jax.jit
    def loss(params):
        images = evaluation.normalise(batch["image"], (0.5,), (0.5,))
        logits = task.model.apply({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(noisy)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, state.params, gradient)
    chex.assert_trees_all_close(moved.params, expected, atol=1e-5)
    assert abs(float(value) - float(loss(state.params))) > 1e-3


def test_update_noise_stays_in_the_weights(batch):
    _, state, step = make_step(rate=0.0, update_noise_std=0.5)
    first, _ = step(state, batch, KEY)
    second, _ = step(first, batch, KEY)
    kernels = [s.params["block_1"]["mlp"]["fc1"]["kernel"] for s in (state, first, second)]
    for before, after in itertools.pairwise(kernels):
        assert np.std(after - before) == pytest.approx(0.5, rel=0.1)
    assert not np.allclose(kernels[1] - kernels[0], kernels[2] - kernels[1], atol=1e-3)


def robust_config(data_dir, changes=(), **options):
    config = small_config(data_dir)
    config.noise.preset = None
    config.model.dim = 8
    config.task = training.task_config("robust_classification", **options)
    config.update_from_flattened_dict(dict(changes))
    return config


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"attack": "pgd", "attack_steps": 0}, {}, r"task: attack_steps=0: give a whole number"),
        ({"attack": "fgsm", "attack_epsilon": 8.0}, {}, r"task: attack_epsilon=8\.0: pixels range"),
        ({"attack": "fgsm", "attack_steps": 3}, {}, "attack_steps=3: only pgd uses it"),
        ({"attack": "cw"}, {}, "attack='cw': choose one of none, fgsm, pgd"),
        ({"attack_random_start": True}, {}, "attack_random_start=True, but there is no attack"),
        ({"weight_noise_std": -1.0}, {}, r"task: weight_noise_std=-1\.0"),
        ({"update_noise_std": float("nan")}, {}, "task: update_noise_std=nan"),
        ({"attack_schedule": "linear 0 to 1 over 3"}, {}, "attack_schedule=.* is off"),
        (
            {"attack": "fgsm", "attack_schedule": "rise"},
            {},
            "attack_schedule='rise': give a schedule such as 'linear 0 to 1 over 10 epochs'",
        ),
        (
            {"weight_noise_std": 0.1, "weight_noise_on": ("heads/kernel",)},
            {},
            r"task: weight_noise_on: 'heads/kernel' matches none .* which include head/kernel",
        ),
        (
            {"weight_noise_std": 0.1},
            {"optimizer.freeze": ("patch_embed/.*",)},
            r"weight_noise_on=.* matches patch_embed/kernel, which optimizer\.freeze freezes",
        ),
        ({"attack_epsilon": 0.5}, {}, r"attack_epsilon=0\.5, but there is no attack"),
        ({"weight_noise_on": ("head/.*",)}, {}, "weight_noise_on=.*, but weight_noise_std is 0"),
        (
            {"attack": "fgsm", "attack_schedule": "linear 0 to 0 over 1 epochs"},
            {},
            "attack_schedule='linear 0 to 0 over 1 epochs' is always 0",
        ),
    ],
)
def test_bad_options_are_named(data_dir, options, changes, message):
    with pytest.raises(ValueError, match=message):
        training.build(robust_config(data_dir, changes, **options))


def test_a_schedule_that_never_begins_is_named(data_dir):
    late = "linear 0 to 1 over 1 steps from 900 epochs"
    experiment = training.build(robust_config(data_dir, attack="fgsm", attack_schedule=late))
    with pytest.raises(ValueError, match=r"task\.attack_schedule=.* begins at step .* raise"):
        experiment.task.check()


def test_the_header_describes_all_noise(data_dir):
    config = robust_config(
        data_dir,
        {"optimizer.gradient_noise_std": 0.5},
        attack="fgsm",
        weight_noise_std=0.25,
        update_noise_std=0.125,
    )
    lines = console.describe_noise(training.build(config)).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "every training image is attacked",
        "weights, in training passes",
        "weights, after each update",
        "gradients, in training",
    ]
    for line, number in zip(lines, ("0.03137", "0.25", "0.125", "0.5"), strict=True):
        assert number in line


def test_frozen_parameters_have_no_update_noise(data_dir):
    config = robust_config(
        data_dir, {"optimizer.freeze": ("patch_embed/.*",)}, update_noise_std=0.1
    )
    task = training.build(config).task
    state = jax.jit(training.build(config).initial_state)(KEY)
    context = training.StepContext(jnp.int32(0), RandomStreams(KEY))
    after = task.after_update(state, context)
    chex.assert_trees_all_equal(after.params["patch_embed"], state.params["patch_embed"])
    assert not np.array_equal(after.params["head"]["kernel"], state.params["head"]["kernel"])


def test_a_run_trains_and_reloads(data_dir, tmp_path):
    schedule = "linear 0 to 1 over 8 steps"
    options = NOISY | {"attack_schedule": schedule, "weight_noise_schedule": schedule}
    config = robust_config(data_dir, **options)
    rows = training.train(config, tmp_path)
    stored = training.read_config(tmp_path)
    assert not training.differing(stored, config)
    again = training.evaluate(stored, tmp_path)
    assert again[0]["nll"] == rows[0]["nll"]
    assert parallel.data_mesh().size == 8


@pytest.mark.parametrize("layer", [0, 1])
def test_a_run_with_mixup_ends_with_rows_of_noisy_weights(data_dir, layer):
    config = small_config(data_dir, **{"evaluation.draws": 3, "data.test_split": "test[:8]"})
    config.noise.preset = None
    config.task = training.task_config("robust_classification", weight_noise_std=0.05)
    config.mixup.alpha, config.mixup.layer = 0.3, layer
    experiment = training.build(config)
    params = jax.jit(experiment.initial_state)(KEY).params
    rows = experiment.task.evaluate(
        {"params": params}, parallel.data_mesh(), experiment.task.averaged_protocols
    )
    assert [row.get("draws", 1) for row in rows if row.get("weight_noise")] == [1, 3]


def test_a_schedule_multiplies_the_strength(batch, data_dir):
    config = robust_config(
        data_dir,
        weight_noise_std=0.2,
        weight_noise_schedule="linear 0 to 1 over 4 steps from 2 steps",
    )
    task = training.build(config).task
    factors = [
        float(task._factor("weight_noise_schedule", training.StepContext(step, RandomStreams(KEY))))
        for step in range(8)
    ]
    np.testing.assert_allclose(factors, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-6)


def test_a_cosine_is_flat_at_both_ends():
    schedule = StrengthSchedule.parse("cosine 1 to 0.2 over 2 epochs", field="f")
    factor = schedule.by_step(lambda duration: {"2 epochs": 10, "0 steps": 0}[duration])
    expected = 0.2 + 0.8 * (1 + np.cos(np.pi * np.arange(11) / 10)) / 2
    np.testing.assert_allclose([factor(n) for n in range(11)], expected, atol=1e-6)
    assert float(factor(99)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "text",
    ["", "linear", "linear -1 to 1 over 3 epochs", "linear 0 to nan over 3", "linear 0 to 1", 3,
     "square 0 to 1 over 3 epochs", "linear 0 to 1 over 3 weeks", "linear 0 to 1 over 3 from x",
     "linear 0 to 1e999 over 3 epochs"],
)  # fmt: skip
def test_a_bad_schedule_is_named(text):
    with pytest.raises(ValueError, match=r"noise_schedule=.*: give a"):
        StrengthSchedule.parse(text, field="noise_schedule")
