"""SSRT: each term against NumPy, the perturbation against its formula, and whole steps."""

import dataclasses
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pnoise_jax import models, noise, parallel, training
from pnoise_jax.adaptation.losses import confident_divergence
from pnoise_jax.adaptation.ssrt.perturbation import perturb
from pnoise_jax.adaptation.ssrt.ssrt import Ssrt
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training import optimizer, run_config
from pnoise_jax.training.checks import check_training
from pnoise_jax.training.step.random_streams import RandomStreams
from pnoise_jax.training.task import StepContext
from tests.training.runs import small_config

CLASSES, SIZE, DIM = 4, 8, 6
OPTIONS = {"bottleneck_dim": DIM, "check_every": 4, "scales": 1}
IMAGES = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)


def vit(depth=3, injection=None, **options):
    return models.create_model(
        "vit_ti_16",
        num_classes=CLASSES,
        injection=injection,
        **{"image_size": 8, "patch_size": 4, "dim": 8, "depth": depth, "num_heads": 2} | options,
    )


def ssrt(model=None, **options):
    options = OPTIONS | options
    return Ssrt(model=Ssrt.prepare_model(model or vit(), **options), **options)


@functools.cache
def batch():
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, SIZE, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(SIZE, dtype=np.int32) % CLASSES
    return {"image": pixels[0], "target_image": pixels[1], "label": labels}


def start(task):
    """Parameters far enough from initial ones that predictions differ, and the state."""
    generator = np.random.default_rng(2)

    def init(key):
        return training.init_state(task, optax.sgd(0.1), key, IMAGES, with_ema=False)

    def draw(path, x):
        around = path[-1].key in ("scale", "var")
        return around + generator.normal(size=x.shape).astype(np.float32)

    def without_parameters(key):  # which take long to compile
        state = init(key)
        kept = {name: part for name, part in state.task.items() if name != "snapshot"}
        return {"batch_stats": state.batch_stats, **kept}

    shapes = jax.eval_shape(init, jax.random.key(0))
    state = jax.jit(without_parameters)(jax.random.key(0))
    if "snapshot" in shapes.task:
        state["snapshot"] = jax.tree_util.tree_map_with_path(draw, shapes.task["snapshot"])
    return jax.tree_util.tree_map_with_path(draw, shapes.params), state


def context(step=500, seed=0):
    return StepContext(jnp.int32(step), RandomStreams(jax.random.key(seed)))


def evaluate(task, params, state, ctx=None):
    ctx = ctx or context()
    return jax.device_get(loss_of(task, params, state, ctx.step, ctx.keys.key))


@functools.partial(jax.jit, static_argnums=0)
def loss_of(task, params, state, step, key):
    return task.loss(params, state, batch(), StepContext(step, RandomStreams(key)))


# ---- in NumPy --


def dense(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def bottleneck(head, features):
    x = dense(head["bottleneck"], np.asarray(features, np.float64))
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    x = x * np.asarray(head["norm"]["scale"]) + np.asarray(head["norm"]["bias"])
    return np.maximum(x, 0)


def two_layers(params, x):
    return dense(params["out"], np.maximum(dense(params["hidden"], x), 0))


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def divergence(logits, others, threshold):
    """KL(p || q) over confident p, row by row."""
    kept = []
    for log_p, log_q in zip(log_softmax(logits), log_softmax(others), strict=True):
        if np.exp(log_p).max() > threshold:
            kept.append(sum(np.exp(log_p) * (log_p - log_q)))
    return np.mean(kept) if kept else 0.0


def model_part(task, params, x, **part):
    model = {name: value for name, value in params.items() if name != "task"}
    return np.asarray(apply_part(task.model, {"params": model}, x, **part))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("start", "end"))
def apply_part(model, variables, x, **part):
    return model.apply(variables, x, train=False, method="forward", **part)


def in_numpy(task, params, place, strength):
    """Rows of the bottleneck and logits of source, target and copies perturbed at a place."""
    images, target = (
        (batch()[name].astype(np.float32) / 255 - 0.5) / 0.5 for name in ("image", "target_image")
    )
    features = functools.partial(model_part, task, params, end="features")
    x = target if place == 0 else model_part(task, params, target, end=place)
    copy = np.stack([x[i] + strength * (x[SIZE - 1 - i] - x[i]) for i in range(SIZE)])
    rows = np.concatenate([features(images), features(target), features(copy, start=place)])
    hidden = bottleneck(params["head"], rows)
    return hidden, two_layers(params["head"]["classifier"], hidden)


def test_every_term_equals_that_of_numpy():
    task = ssrt(dropout=0.0, information_weight=0.7, safe_training=False, layers=("image", 2))
    params, state = start(task)
    by_place = {place: in_numpy(task, params, place, strength=0.3) for place in (0, 2)}
    self_losses = []
    for place, (_, logits) in by_place.items():
        _, target, copy = np.split(logits, 3)
        self_losses += [
            (place, divergence(target, copy, 0.4)),
            (place, divergence(copy, target, 0.4)),
        ]
    drawn = set()
    for seed in range(6):
        loss, (_, metrics) = evaluate(task, params, state, context(seed=seed))
        (place, self_loss), *_ = (
            each for each in self_losses if each[1] == pytest.approx(metrics["self_loss"], rel=1e-4)
        )
        assert self_loss > 0.01
        drawn.add((place, self_loss))
        hidden, logits = by_place[place]
        source, target, copy = np.split(logits, 3)
        class_loss = -log_softmax(source)[np.arange(SIZE), batch()["label"]].mean()
        scores = two_layers(params["task"]["discriminator"], hidden[: 2 * SIZE])[:, 0]
        p = 1 / (1 + np.exp(-scores))
        domain_loss = -np.concatenate([np.log(p[:SIZE]), np.log(1 - p[SIZE:])]).mean()
        probabilities = np.exp(log_softmax(target))
        entropy = lambda p: -(p * np.log2(p)).sum(-1)  # noqa: E731
        information = entropy(probabilities).mean() - entropy(probabilities.mean(0))
        assert metrics["class_loss"] == pytest.approx(class_loss, rel=1e-4)
        assert metrics["domain_loss"] == pytest.approx(domain_loss, rel=1e-4)
        assert metrics["information"] == pytest.approx(information, rel=1e-4)
        accuracy = 100 * np.mean((scores > 0) == (np.arange(2 * SIZE) < SIZE))
        assert metrics["domain_accuracy"] == pytest.approx(accuracy)
        total = class_loss + 2 * domain_loss + 0.2 * self_loss + 0.7 * information
        assert loss == pytest.approx(total, rel=1e-4)
    assert len(drawn) >= 3  # both places, both directions


def test_the_divergence_counts_only_confident_rows():
    rng = np.random.default_rng(0)
    logits, others = rng.normal(size=(2, 20, CLASSES)) * 2
    for threshold in (0.4, 0.9):
        expected = divergence(logits, others, threshold)
        assert expected > 0
        actual = confident_divergence(
            logits.astype(np.float32), others.astype(np.float32), threshold=threshold
        )
        assert float(actual) == pytest.approx(expected, rel=1e-5)
    flat = np.zeros((3, CLASSES), np.float32)
    value, gradients = jax.value_and_grad(
        functools.partial(confident_divergence, threshold=0.4), argnums=(0, 1)
    )(flat, flat + 1)
    assert float(value) == 0
    chex.assert_trees_all_equal(gradients, (flat, flat))


def test_both_sides_of_the_divergence_have_a_gradient():
    logits, others = 3 * np.eye(3, dtype=np.float32), np.ones((3, 3), np.float32)
    gradients = jax.grad(functools.partial(confident_divergence, threshold=0.4), argnums=(0, 1))
    assert all(np.abs(g).max() > 0.01 for g in gradients(logits, others))


def test_the_coefficient_is_the_published_one():
    steps = np.array([0, 1, 700, 20_000])
    expected = 0.2 / (1 + np.exp(-steps / 1000)) - 0.1
    np.testing.assert_allclose(ssrt().coefficient(jnp.asarray(steps)), expected, atol=1e-7)
    slow = ssrt(reversal_max=1.0, reversal_steps=10.0)
    assert float(slow.coefficient(jnp.int32(10))) == pytest.approx(2 / (1 + np.exp(-1)) - 1)


def test_the_reversed_gradient_is_minus_the_coefficient_times_the_discriminators():
    def gradients(**options):
        task = ssrt(vit(1), dropout=0.0, self_weight=0.0, **options)
        params, state = start(task)
        gradient = jax.jit(jax.grad(lambda p: task.loss(p, state, batch(), context())[0]))
        return task, params, jax.device_get(gradient(params))

    _, _, without = gradients(domain_weight=0.0)
    _, _, ahead = gradients(reversal_max=0.0)  # the discriminator only watches
    task, params, full = gradients()
    chex.assert_trees_all_close(ahead["head"], without["head"], atol=1e-6)
    assert not any(np.abs(x).any() for x in jax.tree.leaves(without["task"]))
    chex.assert_trees_all_close(full["task"], ahead["task"], atol=1e-6)
    names = ("head", "bottleneck", "kernel")
    value = lambda tree: functools.reduce(dict.__getitem__, names, tree)  # noqa: E731
    reversed_part = value(full) - value(without)

    def domain_loss(kernel):  # in NumPy, for finite differences
        moved = jax.tree.map(np.asarray, params)
        moved["head"]["bottleneck"] = moved["head"]["bottleneck"] | {"kernel": kernel}
        hidden = bottleneck(moved["head"], rows)
        scores = two_layers(moved["task"]["discriminator"], hidden)[:, 0]
        return np.logaddexp(0, np.where(np.arange(2 * SIZE) < SIZE, -scores, scores)).mean()

    images = [(batch()[n].astype(np.float32) / 127.5 - 1) for n in ("image", "target_image")]
    rows = np.concatenate([model_part(task, params, x, end="features") for x in images])
    coefficient = float(task.coefficient(jnp.int32(500)))
    for index in ((0, 0), (3, 2), (7, 5)):
        step = np.zeros_like(value(params))
        step[index] = 1e-4
        slope = (domain_loss(value(params) + step) - domain_loss(value(params) - step)) / 2e-4
        assert reversed_part[index] == pytest.approx(-coefficient * 2 * slope, rel=0.02, abs=1e-6)


# ---- the perturbation --


@pytest.mark.parametrize("size", [4, 5])
def test_the_perturbation_is_the_published_formula_and_a_constant_to_the_gradient(size):
    x = np.random.default_rng(0).normal(size=(size, 3, 2)).astype(np.float32)
    expected = np.stack([x[i] + 0.12 * (x[size - 1 - i] - x[i]) for i in range(size)])
    perturbed, pullback = jax.vjp(lambda x: perturb(x, jnp.float32(0.12)), x)
    np.testing.assert_allclose(perturbed, expected, atol=1e-6)
    cotangent = np.arange(x.size, dtype=np.float32).reshape(x.shape)
    np.testing.assert_array_equal(pullback(cotangent)[0], cotangent)
    np.testing.assert_array_equal(perturb(x, 0.0), x)


def test_the_default_layers_are_a_third_of_the_depth_apart():
    for depth, places in (
        (12, (1, 5, 9)),
        (24, (1, 9, 17)),
        (4, (1, 2, 3)),
        (2, (1, 2)),
        (1, (1,)),
    ):
        assert ssrt(vit(depth)).places == places
    assert ssrt(layers=(3, "image")).places == (0, 3)


@pytest.mark.long
@pytest.mark.parametrize("layers", [(1, 2, 3), (3, "image")], ids=str)
def test_copies_start_at_the_drawn_layer_and_do_not_affect_originals(layers):
    """With noise and dropout in the model, the originals equal those of one whole pass."""
    everywhere = noise.Injection(noise.Gaussian(std=0.1), layer="random")
    task = ssrt(vit(injection=everywhere, dropout=0.1), layers=layers)
    params, state = start(task)
    images = task.normalise(batch()["target_image"])

    @jax.jit
    def both(key):
        ctx = StepContext(jnp.int32(0), RandomStreams(key))
        whole, _, _ = task.features(params, state, images, ctx, domain="target")
        x, copy, _ = task.perturbed_features(params, state, images, ctx, jnp.float32(0.3))
        return whole, x, copy

    for seed in range(4):
        whole, x, copy = both(jax.random.key(seed))
        np.testing.assert_allclose(x, whole, atol=1e-5)
        assert np.abs(copy - x).max() > 1e-3


def test_every_layer_is_drawn():
    task = ssrt(layers=(1, 2, 3))
    params, state = start(task)
    images = task.normalise(batch()["target_image"])
    expected = []
    for place in (1, 2, 3):
        x = model_part(task, params, images, end=place)
        x = 0.6 * x + 0.4 * x[::-1]
        expected.append(model_part(task, params, x, start=place, end="features"))
    draw = jax.jit(
        lambda seed: task.perturbed_features(
            params, state, images, StepContext(0, RandomStreams(jax.random.key(seed))), 0.4
        )[1]
    )
    drawn = [
        int(np.argmin([np.abs(copy - each).max() for each in expected]))
        for copy in map(draw, range(20))
    ]
    assert set(drawn) == {0, 1, 2}
    for seed, number in enumerate(drawn):
        np.testing.assert_allclose(draw(seed), expected[number], atol=1e-5)


def test_a_model_whose_layers_change_their_shape_has_copies_too():
    model = models.create_model(
        "resnet18", num_classes=CLASSES, stage_sizes=(1, 1, 1), width=4, stem="small"
    )
    task = ssrt(model)
    assert task.places == (1, 2, 3)
    params, state = start(task)
    loss, (after, metrics) = evaluate(task, params, state)
    assert np.isfinite(loss)
    assert metrics["diversity"] >= 1
    chex.assert_trees_all_equal_shapes_and_dtypes(after, jax.device_get(state))
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), after["batch_stats"], state["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))


# ---- terms that are off --


def test_a_weight_of_zero_turns_a_term_off():
    task = ssrt(self_weight=0.0, domain_weight=0.0)
    params, state = start(task)
    assert set(state) == {"batch_stats"}  # and there is no safe training
    loss, (_, metrics) = evaluate(task, params, state)
    assert loss == metrics["class_loss"]
    assert not {"self_loss", "information", "ramp"} & set(metrics)
    assert {"domain_loss", "domain_accuracy"} <= set(metrics)


def test_the_ramp_multiplies_weight_and_strength():
    task = ssrt(dropout=0.0, domain_weight=0.0)
    params, state = start(task)
    loss, (_, metrics) = evaluate(task, params, state, context(step=0))
    assert metrics["ramp"] == 0
    assert metrics["self_loss"] == pytest.approx(0, abs=1e-6)
    assert loss == pytest.approx(metrics["class_loss"], abs=1e-6)
    loss, (_, metrics) = evaluate(task, params, state, context(step=2))
    assert metrics["ramp"] == pytest.approx(np.sqrt(0.5))
    expected = metrics["class_loss"] + 0.2 * np.sqrt(0.5) * metrics["self_loss"]
    assert loss == pytest.approx(expected, rel=1e-5)
    assert metrics["self_loss"] > 0


def test_an_evaluated_image_depends_on_no_other():
    task = ssrt()
    params, state = start(task)
    variables = {
        "params": {name: x for name, x in params.items() if name != "task"},
        "batch_stats": state["batch_stats"],
    }
    images = task.normalise(batch()["target_image"])
    apply = jax.jit(task.model.apply)
    logits = apply(variables, images)
    np.testing.assert_allclose(apply(variables, images[:2]), logits[:2], atol=1e-5)


# ---- whole steps --


def make_step(task):
    sgd = optax.sgd(0.1)
    init = jax.jit(lambda key: training.init_state(task, sgd, key, IMAGES, with_ema=False))
    return init(jax.random.key(0)), jax.jit(training.make_train_step(task, sgd))


@pytest.mark.long
@pytest.mark.parametrize("published", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_fall_restores_the_snapshot_bitwise(published):
    """If the period before was much more diverse, the end of the first is a fall."""
    task = ssrt(vit(1), check_every=3, scales=0, published_restore=published)
    state, step = make_step(task)
    first = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    assert ("snapshot" in state.task) is not published
    for _ in range(2):
        state, _ = step(state, batch(), jax.random.key(2))
    high = state.task["safe_training"] | {"last_means": jnp.full(1, 100.0)}
    fallen = state.replace(task=state.task | {"safe_training": high})
    undisturbed, _ = step(state, batch(), jax.random.key(2))
    state, _ = step(fallen, batch(), jax.random.key(2))
    safe = jax.device_get(state.task["safe_training"])
    assert (int(safe["restores"]), int(safe["ramp_start"]), int(safe["ramp_length"])) == (1, 3, 6)
    assert int(state.step) == 3
    current = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    expected = first
    if published:
        expected = jax.device_get(
            {"params": undisturbed.params, "batch_stats": undisturbed.batch_stats}
        )
    chex.assert_trees_all_equal(current, expected)
    chex.assert_trees_all_equal(state.opt_state, undisturbed.opt_state)  # not restored
    assert int(undisturbed.task["safe_training"]["restores"]) == 0
    if not published:
        chex.assert_trees_all_equal(
            undisturbed.task["snapshot"],
            {"params": undisturbed.params, "batch_stats": undisturbed.batch_stats},
        )
        assert any(
            (a != b).any()
            for a, b in zip(
                jax.tree.leaves(first["params"]), jax.tree.leaves(undisturbed.params), strict=True
            )
        )


def test_the_first_snapshot_is_of_the_pretrained_weights():
    task = ssrt()
    imported = {"params/cls_token": jnp.full((1, 1, 8), 7.0)}
    state = jax.jit(
        lambda key: training.init_state(
            task, optax.sgd(0.1), key, IMAGES, with_ema=False, imported=imported
        )
    )(jax.random.key(0))
    np.testing.assert_array_equal(state.task["snapshot"]["params"]["cls_token"], 7.0)


def test_without_safe_training_nothing_is_kept():
    task = ssrt(vit(1), safe_training=False)
    _, state = start(task)
    assert set(state) == {"batch_stats"}
    loss, (_, metrics) = jax.eval_shape(
        lambda params: task.loss(params, state, batch(), context()), start(task)[0]
    )
    assert loss.shape == ()
    assert "self_loss" in metrics
    assert "ramp" not in metrics


@pytest.mark.slow
def test_eight_devices_equal_one():
    task = ssrt(vit(2), dropout=0.0, layers=("image", 2))
    state, step = make_step(task)
    params, _ = start(task)
    state = state.replace(params=params, step=jnp.int32(1))
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    split = jax.device_put(batch(), NamedSharding(mesh, P("data")))
    everywhere = NamedSharding(mesh, P())
    for seed in (0, 1):
        key = jax.random.key(seed)
        expected = step(state, batch(), key)
        got = step(jax.device_put(state, everywhere), split, jax.device_put(key, everywhere))
        chex.assert_trees_all_close(jax.device_get(got), jax.device_get(expected), atol=5e-5)


def test_micro_batches_are_counted_together():
    task = ssrt(vit(1), dropout=0.0)
    state, _ = make_step(task)
    step = jax.jit(training.make_train_step(task, optax.sgd(0.1), accumulate=2))
    halves = jax.tree.map(lambda x: x.reshape(2, SIZE // 2, *x.shape[1:]), batch())
    state, metrics = step(state, halves, jax.random.key(0))
    diversity = int(state.task["safe_training"]["diversities"][0])
    assert diversity >= metrics["diversity"] >= 1


def test_the_state_keeps_its_dtypes_under_64_bits():
    task = ssrt(information_weight=0.1)
    inverse = training.default_config().optimizer
    inverse.schedule = "inverse"
    schedule = optimizer.learning_rate_schedule(
        inverse,
        warmup_steps=2,
        total_steps=9,
    )
    sgd = optax.sgd(schedule, momentum=0.9)
    with jax.enable_x64(True):
        state = jax.eval_shape(
            lambda key: training.init_state(task, sgd, key, IMAGES, with_ema=True),
            jax.random.key(0),
        )
        step = training.make_train_step(task, sgd, ema_decay=0.9)
        after, metrics = jax.eval_shape(step, state, batch(), jax.random.key(0))
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32", "int32", "bool"}
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)
    assert {x.dtype.name for x in metrics.values()} == {"float32"}


def small_run(data_dir, duration):
    config = small_config(
        data_dir,
        **{
            "noise.preset": None,
            "duration": duration,
            "log_every": "1 steps",
            "checkpoint.every": "3 steps",
            "optimizer.name": "sgd",
            "optimizer.schedule": "inverse",
            "optimizer.rates": ("head/.*=1", "task/.*=1", ".*=0.1"),
            "model.depth": 2,
            "accumulate": 2,
        },
    )
    options = {"bottleneck_dim": 8, "check_every": 2, "scales": 1}
    config.task = training.task_config(
        "ssrt", source="digits", source_split="train[200:350]", **options
    )
    return config


@pytest.mark.long
def test_a_run_resumes_bitwise_with_its_snapshot(data_dir, tmp_path):
    whole = training.build(small_run(data_dir, "6 steps"))
    half = training.build(small_run(data_dir, "3 steps"))
    program = training.create_program(whole, parallel.data_mesh())  # rates ignore the duration
    for name in ("whole", "halves"):
        run_config.claim(tmp_path / name, whole.config)
    expected = jax.device_get(training.fit(whole, tmp_path / "whole", program))
    assert int(training.fit(half, tmp_path / "halves", program).step) == 3
    resumed = jax.device_get(training.fit(whole, tmp_path / "halves", program))
    assert int(resumed.step) == 6
    assert set(resumed.task) == {"safe_training", "snapshot"}
    chex.assert_trees_all_equal(resumed, expected)
    metrics = RunDirectory(tmp_path / "whole").metrics.read_text().splitlines()
    named = {"class_loss", "domain_loss", "self_loss", "ramp", "diversity", "restores"}
    assert [named <= json.loads(line).keys() for line in metrics] == [True] * 6


# ---- bad input --


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (4,)}, r"layers=\(4,\): give layers of this model, 1 to 3, or 'image'; 4 is"),
        ({"layers": (0, 1)}, "0 is neither"),
        ({"layers": ("last",)}, "'last' is neither"),
        ({"layers": (True,)}, "True is neither"),
        ({"layers": "1,2"}, "name each|is neither"),
        ({"layers": (1, 1)}, "name each layer once"),
        ({"strength": -0.1}, "strength=-0.1: give a number from 0 to 1"),
        ({"strength": float("nan")}, "strength=nan: give a number from 0 to 1"),
        ({"threshold": 1.5}, "threshold=1.5: give a number from 0 to 1"),
        ({"reversal_max": -1.0}, "reversal_max=-1.0: give a number of at least 0|at least 0"),
        ({"reversal_steps": 0}, "reversal_steps=0: give a number above 0"),
        ({"bottleneck_dim": 0}, "bottleneck_dim=0: give a whole number of at least 1"),
        ({"dropout": 1.0}, r"dropout=1.0: give a rate in \[0, 1\)"),
        ({"check_every": 8, "scales": 4}, r"check_every=8: .* 2\^4 parts"),
        ({"published_restore": True, "safe_training": False}, "nothing is restored without"),
    ],
)
def test_a_bad_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ssrt(**options)


def test_a_plain_model_has_no_bottleneck():
    with pytest.raises(ValueError, match=r"no bottleneck: pass Ssrt.prepare_model\(model\)"):
        Ssrt(model=vit())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task.self_weight": -1.0}, "self_weight=-1.0: give a number of at least 0"),
        ({"task.source": ""}, "source='' names no data set"),
        ({"task.layers": (3,)}, r"task: layers=\(3,\).*1 to 2"),
        ({"batch_size": 16, "accumulate": 16}, "accumulate=16: an image is perturbed with another"),
        ({"optimizer.rates": ("task/discriminators/.*=2",)}, "which include .*task/discriminator/"),
    ],
)
def test_a_bad_config_is_named_before_anything_is_compiled(data_dir, changes, message):
    config = small_run(data_dir, "3 steps")
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        check(config)


def check(config):
    experiment = training.build(config)
    if config.batch_size // config.accumulate > 1:
        check_training(experiment)
    experiment.task.check()


def test_the_head_of_weights_cannot_be_kept(data_dir):
    config = small_run(data_dir, "3 steps")
    task = training.build(config).task
    config.weights, config.weights_head = "somewhere.npz", "keep"
    with pytest.raises(ValueError, match="weights_head='keep': SSRT's head has extra layers"):
        dataclasses.replace(task, setup=dataclasses.replace(task.setup, config=config)).check()
