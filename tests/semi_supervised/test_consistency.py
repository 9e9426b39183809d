"""Consistency: its terms against NumPy, its labels and views, what it refuses, and runs."""

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
from scipy.special import log_softmax, rel_entr, softmax

from pnoise_jax import data, parallel, training
from pnoise_jax.semi_supervised import Consistency, divergence
from tests.training.runs import small_config

KEY = jax.random.key(0)
GAUSSIAN = {"noise.name": "gaussian", "noise.std": 0.2, "noise.point": "image", "noise.train": True}
SHIFT = {
    "noise.name": "linear_transform",
    "noise.quality": "cyclic_shift",
    "noise.strength": 0.3,
    "noise.layer": "1",
    "noise.train": True,
}


def consistency_config(data_dir, changes=GAUSSIAN, **options):
    config = small_config(data_dir)
    config.noise.preset = None
    config.model.dim = 8
    config.task = training.task_config("consistency", **{"labelled_per_class": 3} | options)
    config.update_from_flattened_dict(dict(changes))
    return config


def build(*args, **options):
    return training.build(consistency_config(*args, **options))


@pytest.fixture(scope="module")
def batch(digits):
    images = jnp.asarray(digits.images[:32])
    labels = jnp.asarray(digits.labels[:16])
    return {"image": images[:16], "label": labels, "unlabelled_image": images[16:]}


@functools.cache
def params_of(data_dir):
    """The parameters of every experiment here; their predictions are far from equal."""
    params = jax.jit(build(data_dir).initial_state)(KEY).params
    head = {**params["head"], "kernel": 50 * params["head"]["kernel"]}
    return {**params, "head": head}


def loss_of(data_dir, experiment, batch, *, step=0, params=None):
    """The loss and its metrics."""

    def loss(params, batch):
        context = training.StepContext(jnp.int32(step), training.RandomStreams(KEY))
        value, (_, metrics) = experiment.task.loss(params, {"batch_stats": {}}, batch, context)
        return value, metrics

    return jax.jit(loss)(params_of(data_dir) if params is None else params, batch)


def test_divergences_equal_those_of_scipy():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 5, 4)).astype(np.float32)
    p, q = softmax(first, axis=1), softmax(second, axis=1)
    kl = rel_entr(p, q).sum(1).mean()
    assert float(divergence(first, second, kind="kl")) == pytest.approx(kl, rel=1e-5)
    assert float(divergence(first, second, kind="mse")) == pytest.approx(
        np.square(p - q).sum(1).mean(), rel=1e-5
    )


def test_the_loss_is_the_sum_of_both_terms(data_dir, batch):
    plain = build(data_dir, {**GAUSSIAN, "task.consistency_weight": 0.0})
    supervised, off = loss_of(data_dir, plain, batch)
    assert off["consistency"] == 0
    total, metrics = loss_of(data_dir, build(data_dir, consistency_weight=2.5), batch)
    assert float(metrics["consistency"]) > 1e-6
    assert float(total) == pytest.approx(
        float(supervised) + 2.5 * float(metrics["consistency"]), rel=1e-5
    )
    assert metrics["top1"] == off["top1"]


def test_if_off_it_is_bitwise_classification(data_dir, batch):
    ours = loss_of(data_dir, build(data_dir, consistency_weight=0.0), batch)[0]
    config = consistency_config(data_dir)
    config.task = training.task_config("classification")
    assert ours == loss_of(data_dir, training.build(config), batch)[0]


def views_of(data_dir, experiment, batch):
    """The logarithms of the probabilities of both views."""
    images = experiment.task.normalise(batch["unlabelled_image"])
    variables = {"params": params_of(data_dir)}

    @jax.jit
    def view(key):
        return experiment.model.apply(variables, images, train=True, rngs={"noise": key})

    streams = training.RandomStreams(KEY)
    keys = [training.RandomStreams(streams[n])["noise"] for n in ("first_view", "second_view")]
    return [log_softmax(np.asarray(view(key)), axis=1) for key in keys]


def test_the_views_are_two_passes_with_separate_noise(data_dir, batch):
    experiment = build(data_dir)
    p, q = views_of(data_dir, experiment, batch)
    expected = (np.exp(p) * (p - q)).sum(1).mean()
    consistency = loss_of(data_dir, experiment, batch)[1]["consistency"]
    assert float(consistency) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("stop", [True, False])
def test_the_first_view_can_be_constant_to_the_gradient(data_dir, batch, stop):
    """For the head's bias, the gradient of KL(p || q) is then the mean of q - p."""
    experiment = build(data_dir, stop_gradient=stop)
    gradient = jax.grad(lambda p: loss_of(data_dir, experiment, batch, params=p)[1]["consistency"])(
        params_of(data_dir)
    )["head"]["bias"]
    p, q = (np.exp(each) for each in views_of(data_dir, experiment, batch))
    assert np.allclose(gradient, (q - p).mean(0), rtol=1e-3, atol=1e-6) == stop


def test_if_noise_mixes_examples_the_mates_differ(data_dir, batch):
    experiment = build(data_dir, SHIFT)
    assert experiment.task.views_differ
    assert float(loss_of(data_dir, experiment, batch)[1]["consistency"]) > 1e-8


def test_labels_are_few_and_balanced_and_drawn_by_the_seed(data_dir):
    task = build(data_dir).task
    labels = task.labelled_data.labels
    np.testing.assert_array_equal(np.bincount(labels), [3] * 10)
    again, other = build(data_dir).task, build(data_dir, GAUSSIAN | {"seed": 1}).task
    first = task.labelled_data[0]["image"]
    np.testing.assert_array_equal(first, again.labelled_data[0]["image"])
    chosen = [
        np.stack([each.labelled_data[i]["image"] for i in range(30)]) for each in (task, other)
    ]
    assert not np.array_equal(*chosen)


def test_other_labels_never_reach_the_step(data_dir, digits):
    """Those of all examples after the last that is drawn are permuted: no batch changes a bit."""
    experiment = build(data_dir)
    train = experiment.train_data
    order = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(3,))).permutation(len(train))
    drawn = data.draw_per_class(train.labels, 3, num_classes=10, seed=0, field="n")
    after = order[1 + max(np.flatnonzero(np.isin(order, drawn))) :]
    labels = train.labels.copy()
    labels[after] = np.random.default_rng(1).permutation(labels[after])
    assert np.count_nonzero(labels != train.labels) > 50

    def batches(dataset):
        setup = dataclasses.replace(experiment, load=lambda split: dataset)
        task = Consistency.from_setup(setup, labelled_per_class=3)
        with task.open_batches() as stream:
            return [next(stream) for _ in range(12)]

    ours, theirs = batches(train), batches(dataclasses.replace(train, labels=labels))
    chex.assert_trees_all_equal(ours, theirs)
    assert set(ours[0]) == {"image", "label", "unlabelled_image"}
    assert {len(x) for x in ours[0].values()} == {16}


def test_eight_devices_equal_one(data_dir, batch):
    """Also if the second view has the batch in another order."""
    experiment = build(data_dir, SHIFT)
    step = jax.jit(training.make_train_step(experiment.task, optax.sgd(0.1)))
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    init = jax.jit(lambda key: training.init_state(
        experiment.task, optax.sgd(0.1), key, images, with_ema=False))  # fmt: skip
    state = init(KEY)
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    everywhere = NamedSharding(mesh, P())
    got = step(
        jax.device_put(state, everywhere),
        jax.device_put(batch, NamedSharding(mesh, P("data"))),
        jax.device_put(KEY, everywhere),
    )
    expected = step(state, batch, KEY)
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(expected), atol=2e-5)


def test_a_schedule_multiplies_the_weight(data_dir, batch):
    schedule = "linear 0 to 1 over 4 steps from 2 steps"
    experiment = build(data_dir, consistency_weight=2.0, consistency_schedule=schedule)
    (early, metrics), (late, _) = (loss_of(data_dir, experiment, batch, step=n) for n in (2, 4))
    assert float(late - early) == pytest.approx(float(metrics["consistency"]), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"consistency_weight": -1.0}, {}, r"task: consistency_weight=-1\.0: give a number of at"),
        ({"consistency_weight": float("nan")}, {}, "consistency_weight=nan: give a number"),
        ({"consistency_weight": "a"}, {}, "consistency_weight='a': give a number"),
        ({"consistency_weight": True}, {}, "consistency_weight=True: give a number"),
        ({"consistency_weight": None}, {}, "consistency_weight=None: give a number"),
        ({"stop_gradient": "no"}, {}, "stop_gradient='no': give True or False"),
        ({"divergence": "l1"}, {}, "divergence='l1': choose one of kl, mse"),
        ({"consistency_schedule": "up"}, {}, "consistency_schedule='up': give a schedule"),
        (
            {"consistency_weight": 0.0, "consistency_schedule": "linear 0 to 1 over 1 epochs"},
            {},
            "the weight that it schedules is 0",
        ),
    ],
)
def test_bad_options_are_named(data_dir, options, changes, message):
    with pytest.raises(ValueError, match=message):
        build(data_dir, {**GAUSSIAN, **changes}, **options)


OFF = {"noise.train": False}
OPTIMAL = {"noise.name": "linear_transform", "noise.quality": "optimal", "noise.train": True}
TOKENS = SHIFT | {"noise.axis": "tokens"}


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"labelled_per_class": 25}, GAUSSIAN,
         r"task\.labelled_per_class=25: class \d has only \d+ examples; give at most"),
        ({"labelled_per_class": 0}, GAUSSIAN, r"task\.labelled_per_class=0: give a whole number"),
        ({"labelled_per_class": 1}, GAUSSIAN,
         r"batch_size=16 is larger than the 10 labelled images that task\.labelled_per_class=1"),
        ({}, {}, "noise: both views of an image would be the same"),
        ({"consistency_schedule": "linear 0 to 1 over 1 steps from 900 epochs"}, GAUSSIAN,
         r"task\.consistency_schedule=.* begins at step \d+, and the run has 12: make it begin"),
        ({}, GAUSSIAN | OFF, "noise: both views of an image would be the same"),
        ({}, GAUSSIAN | {"noise.std": 0.0}, "noise: both views of an image would be the same"),
        ({}, OPTIMAL, "noise: both views of an image would be the same"),
        ({}, TOKENS, "noise: both views of an image would be the same"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_at_the_start(data_dir, options, changes, message):
    task = build(data_dir, changes, **options).task
    with pytest.raises(ValueError, match=message):
        task.check()


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, {"model.dropout": 0.1}),
        ({}, OPTIMAL | {"noise.group_size": 4, "evaluation.batch_size": 8}),
        ({"consistency_weight": 0.0}, {}),
    ],
)
def test_configs_whose_views_differ_are_allowed(data_dir, options, changes):
    build(data_dir, changes, **options).task.check()


def test_a_run_trains_reloads_and_stores_how_many_labels(data_dir, tmp_path):
    config = consistency_config(data_dir, GAUSSIAN | {"duration": "4 steps"})
    rows = training.train(config, tmp_path)
    assert training.evaluate(None, tmp_path)[0]["nll"] == rows[0]["nll"]
    assert json.loads((tmp_path / "data.json").read_text())["labelled_examples"] == 30
    assert parallel.data_mesh().size == 8
