"""The train step: pure, the same on any number of devices, accumulation, averages."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pnoise_jax import evaluation, models, noise, training
from pnoise_jax.training.step.mixup import Mixing
from pnoise_jax.training.step.step import batch_sharding

KEY = jax.random.key(0)


def create(name="vit", injection=None, **options):
    if name == "vit":
        options = {
            "image_size": 8,
            "patch_size": 4,
            "dim": 16,
            "depth": 1,
            "num_heads": 2,
        } | options
        return models.create_model("vit_ti_16", num_classes=10, injection=injection, **options)
    options = {"stage_sizes": (1,), "width": 8, "stem": "small"} | options
    return models.create_model("resnet18", num_classes=10, injection=injection, **options)


class Norms(nn.Module):
    """Batch norms with and without a scale."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)
        for name in ("frozen", "unscaled", "trained"):
            norm = nn.BatchNorm(not train, use_scale=name != "unscaled", name=name)
            x = jnp.tanh(norm(x))
        return nn.Dense(self.num_classes, name="head")(x)


def setup(model, optimizer=None, with_ema=False, label_smoothing=0.0, mixing=None, **options):
    optimizer = optimizer or SGD
    task = training.Classification(model=model, label_smoothing=label_smoothing, mixing=mixing)
    state = jax.device_put(initial_state(model, optimizer, with_ema))  # a step may donate it
    return state, jax.jit(training.make_train_step(task, optimizer, **options))


SGD = optax.sgd(0.1)


@functools.cache
def initial_state(model, optimizer, with_ema):
    task = training.Classification(model=model)
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    init = jax.jit(lambda key: training.init_state(task, optimizer, key, images, with_ema=with_ema))
    return jax.device_get(init(jax.random.key(1, impl="rbg")))


@pytest.fixture(scope="module")
def batch(digits):
    return {"image": jnp.asarray(digits.images[:16]), "label": jnp.asarray(digits.labels[:16])}


INJECTIONS = {
    "none": None,
    "optimal": noise.Injection(noise.LinearTransform(noise.Optimal())),
    "cyclic": noise.Injection(noise.LinearTransform(noise.CyclicShift(0.3))),
    "gaussian": noise.Injection(noise.Gaussian(std=0.1)),
    "random": noise.Injection(noise.LinearTransform(noise.Optimal()), layer="random"),
}


def test_loss_is_the_smoothed_cross_entropy_of_the_training_mode_model(batch):
    model = create()
    state, step = setup(model, label_smoothing=0.1)
    _, metrics = step(state, batch, KEY)
    logits = jax.jit(model.apply)(
        {"params": state.params}, evaluation.normalise(batch["image"], (0.5,), (0.5,))
    )
    targets = 0.9 * jax.nn.one_hot(batch["label"], 10) + 0.01
    expected = -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()
    assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-5)
    top1 = 100 * np.mean(logits.argmax(-1) == batch["label"])
    assert float(metrics["top1"]) == pytest.approx(top1)


@pytest.mark.long
@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_mixup_mixes_a_micro_batch_and_its_smoothed_targets_before_noise(batch, accumulate):
    mixing = Mixing(alpha=1.0, cutmix_alpha=1.0)
    model = create(injection=INJECTIONS["cyclic"])
    options = {"label_smoothing": 0.1, "accumulate": accumulate}
    state, step = setup(model, mixing=mixing, **options)
    micro = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
    _, metrics = step(state, micro if accumulate > 1 else batch, KEY)
    expected = []
    for number in range(accumulate):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 0), number)
        images = evaluation.normalise(micro["image"][number], (0.5,), (0.5,))
        targets = optax.smooth_labels(jax.nn.one_hot(micro["label"][number], 10), 0.1)
        images, targets = jax.jit(mixing)(jax.random.fold_in(key, 2), images, targets)
        apply = jax.jit(functools.partial(model.apply, train=True))
        logits = apply({"params": state.params}, images)
        expected.append(optax.softmax_cross_entropy(logits, targets).mean())
    np.testing.assert_allclose(metrics["loss"], np.mean(expected), rtol=1e-5)
    _, plain = setup(model, **options)
    other = plain(state, micro if accumulate > 1 else batch, KEY)[1]
    assert abs(other["loss"] - metrics["loss"]) > 1e-4


def test_an_idle_injection_trains_bitwise_like_none(batch):
    state, step = setup(create())
    idle = noise.Injection(noise.LinearTransform(noise.Optimal()), train=False, inference=True)
    other_state, other_step = setup(create(injection=idle))
    chex.assert_trees_all_equal(other_state, state)
    chex.assert_trees_all_equal(other_step(other_state, batch, KEY), step(state, batch, KEY))


def test_training_noise_changes_the_step(batch):
    state, step = setup(create())
    _, noisy_step = setup(create(injection=INJECTIONS["optimal"]))
    clean, noisy = step(state, batch, KEY)[1], noisy_step(state, batch, KEY)[1]
    assert abs(float(clean["loss"]) - float(noisy["loss"])) > 1e-4


def test_the_key_is_folded_with_the_step(batch):
    state, step = setup(create(injection=INJECTIONS["gaussian"]), optax.sgd(0.0))
    state, first = step(state, batch, KEY)
    _, second = step(state, batch, KEY)  # the same parameters, other noise
    assert float(first["loss"]) != float(second["loss"])
    assert int(state.step) == 1


def test_accumulation_equals_the_whole_batch_without_noise(batch):
    state, step = setup(create())
    _, in_parts = setup(create(), accumulate=4)
    micro = jax.tree.map(lambda x: x.reshape(4, 4, *x.shape[1:]), batch)
    chex.assert_trees_all_close(in_parts(state, micro, KEY), step(state, batch, KEY), atol=1e-5)


def test_accumulated_noise_mixes_a_micro_batch(batch):
    state, in_parts = setup(create(injection=INJECTIONS["optimal"]), accumulate=4)
    groups = noise.Injection(noise.LinearTransform(noise.Optimal(), group_size=4))
    _, in_groups = setup(create(injection=groups))
    micro = jax.tree.map(lambda x: x.reshape(4, 4, *x.shape[1:]), batch)
    chex.assert_trees_all_close(
        in_parts(state, micro, KEY), in_groups(state, batch, KEY), atol=1e-5
    )


def test_moving_average(batch):
    state, step = setup(create("resnet"), with_ema=True, ema_decay=0.9)
    start = {"params": state.params, "batch_stats": state.batch_stats}
    chex.assert_trees_all_equal(state.ema, start)
    state, _ = step(state, batch, KEY)
    now = {"params": state.params, "batch_stats": state.batch_stats}
    expected = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, start, now)  # step 0
    chex.assert_trees_all_close(state.ema, expected, atol=1e-6)
    chex.assert_trees_all_equal(state.variables(), state.ema)


def test_the_moving_average_forgets_the_first_weights_faster(batch):
    """Step t decays by at most (1 + t) / (10 + t): 1/10, 2/11, 3/12, and then 0.27."""
    state, step = setup(Norms(), with_ema=True, ema_decay=0.27)
    expected = state.ema
    for decay in (1 / 10, 2 / 11, 3 / 12, 0.27, 0.27):
        state, _ = step(state, batch, KEY)
        now = {"params": state.params, "batch_stats": state.batch_stats}
        expected = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, expected, now)
        chex.assert_trees_all_close(state.ema, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"accumulate": 2, "with_strength": True}, {"together": True}], ids=repr
)
def test_the_jitted_step_is_the_step_with_examples_split_over_devices(batch, options):
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    accumulate, together = options.get("accumulate", 1), "together" in options
    state, step = setup(create(injection=INJECTIONS["cyclic"]), accumulate=accumulate)
    if accumulate > 1:
        batch = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
    arguments = (state, batch, KEY) + (jnp.float32(0.1),) * ("with_strength" in options)
    expected = step(*arguments)
    if together:
        arguments = jax.tree.map(lambda x: jnp.stack([x, x]), arguments)
    after, metrics = training.jit_train_step(step, mesh, **options)(*arguments)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves((after, metrics)))
    assert all(x.is_deleted() for x in jax.tree.leaves(arguments[0].params))  # donated
    first = jax.tree.map(lambda x: x[0], (after, metrics)) if together else (after, metrics)
    chex.assert_trees_all_close(first, expected, atol=2e-5)


def test_the_split_axis_comes_after_those_of_runs_and_micro_batches():
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    assert batch_sharding(mesh).spec == P("data")
    assert batch_sharding(mesh, accumulate=2).spec == P(None, "data")
    assert batch_sharding(mesh, together=True).spec == P(None, "data")
    assert batch_sharding(mesh, accumulate=2, together=True).spec == P(None, None, "data")


def test_batch_statistics_move(batch):
    state, step = setup(create("resnet"))
    after, _ = step(state, batch, KEY)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.batch_stats, after.batch_stats)
    assert all(jax.tree.leaves(moved))


def test_frozen_parameters_and_the_statistics_of_their_norms_stay(batch):
    """Those of a norm without a scale move: nothing marks it as frozen."""

    def frozen(params):
        return {**jax.tree.map(lambda _: False, params), "frozen": {"scale": True, "bias": True}}

    state, step = setup(Norms(), frozen=frozen)
    _, plain = setup(Norms())
    (after, metrics), (other, other_metrics) = step(state, batch, KEY), plain(state, batch, KEY)
    chex.assert_trees_all_equal(after.params["frozen"], state.params["frozen"])
    chex.assert_trees_all_equal(after.batch_stats["frozen"], state.batch_stats["frozen"])
    for name in ("unscaled", "trained", "head"):
        chex.assert_trees_all_close(after.params[name], other.params[name], rtol=1e-6)
        assert not np.array_equal(after.params[name]["bias"], state.params[name]["bias"])
    for name in ("unscaled", "trained"):
        chex.assert_trees_all_equal(after.batch_stats[name], other.batch_stats[name])
        assert not np.array_equal(after.batch_stats[name]["mean"], state.batch_stats[name]["mean"])
    moved = jax.tree.map(lambda a, b: (a - b) / 0.1, state.params, other.params)  # the gradient
    trained = {name: moved[name] for name in ("unscaled", "trained", "head")}
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(trained)), rel=1e-4)
    assert float(other_metrics["grad_norm"]) == pytest.approx(
        float(optax.tree.norm(moved)), rel=1e-4
    )


@pytest.mark.flax_promotes
def test_bfloat16_keeps_parameters_in_float32_and_learns(batch):
    state, step = setup(create(dtype=jnp.bfloat16), optax.adam(1e-2))
    _, reference = setup(create(), optax.adam(1e-2))
    losses = []
    for _ in range(15):
        state, metrics = step(state, batch, KEY)
        losses.append(float(metrics["loss"]))
    chex.assert_tree_all_finite(state)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert losses[-1] < 0.7 * losses[0]
    first = setup(create(), optax.adam(1e-2))[0]
    assert losses[0] == pytest.approx(float(reference(first, batch, KEY)[1]["loss"]), rel=2e-2)


@pytest.mark.parametrize("kind", INJECTIONS)
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_eight_devices_equal_one(batch, name, kind):
    state, step = setup(create(name, INJECTIONS[kind]))
    expected = step(state, batch, KEY)
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    split = jax.device_put(batch, NamedSharding(mesh, P("data")))
    everywhere = NamedSharding(mesh, P())
    got = step(jax.device_put(state, everywhere), split, jax.device_put(KEY, everywhere))
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(expected), atol=2e-5)
