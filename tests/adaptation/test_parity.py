"""Whole steps of the methods against PyTorch, which computed the published formulas independently.

The files in golden/ come from make_golden.py.
"""

import functools
import pathlib
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models
from pnoise_jax.adaptation import CdTrans, Ssrt, Tvt
from pnoise_jax.training.step.random_streams import RandomStreams
from pnoise_jax.training.task import StepContext

SMALL = {"image_size": 8, "patch_size": 4, "dim": 8, "num_heads": 2, "mlp_dim": 16}


@functools.cache
def golden(method):
    return dict(np.load(pathlib.Path(__file__).parent / "golden" / f"{method}.npz"))


def arrays(method, kind):
    """A tree of the arrays of a kind."""
    start = f"{kind}/"
    flat = {k.removeprefix(start): x for k, x in golden(method).items() if k.startswith(start)}
    return traverse_util.unflatten_dict(flat, sep="/")


def batch_of(method):
    images, labels = golden(method)["images"], golden(method)["labels"]
    batch = {"image": images[0], "target_image": images[1], "label": labels}
    if labels.ndim == 2:
        batch |= {"label": labels[0], "pseudo_label": labels[1]}
    return jax.tree.map(jnp.asarray, batch)


def small_model(depth):
    return models.create_model("vit_ti_16", num_classes=4, depth=depth, **SMALL)


def assert_same(actual, expected):
    """Trees with the same names, equal to 1e-4."""
    chex.assert_trees_all_close(actual, expected, atol=1e-4, rtol=0)


# ---- TVT --


@pytest.fixture(scope="module")
def tvt():
    """The loss, its terms and its gradients."""
    options = {"detach": False, "discriminator_dropout": 0.0}
    weights = {"domain_weight": 0.7, "patch_weight": 0.3, "information_weight": 0.2}
    model = Tvt.prepare_model(small_model(1), **options)
    task = Tvt(model=model, hidden_dim=5, **options, **weights)
    context = StepContext(jnp.int32(0), RandomStreams(jax.random.key(0)))

    def loss(params):
        return task.loss(params, {"batch_stats": {}}, batch_of("tvt"), context)

    with (
        mock.patch.object(Tvt, "coefficient", return_value=jnp.float32(0.4)),
        mock.patch.object(Tvt, "patch_coefficient", return_value=jnp.float32(0.6)),
    ):
        (value, (_, metrics)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
            arrays("tvt", "param")
        )
    return value, metrics, gradients


def test_the_terms_of_tvt_equal_those_of_pytorch(tvt):
    _, metrics, _ = tvt
    names = {
        "class": "class_loss",
        "domain": "domain_loss",
        "patch": "patch_loss",
        "information": "information",
    }
    terms = {theirs: metrics[our_name] for theirs, our_name in names.items()}
    assert_same(terms, arrays("tvt", "term"))


def test_the_gradients_of_tvt_equal_those_of_pytorch(tvt):
    """Of every parameter: the reversals, the gate that is not detached, and all weights."""
    _, _, gradients = tvt
    assert_same(gradients, arrays("tvt", "gradient"))


def test_the_published_schedule_counts_the_calls_of_each_discriminator():
    """From 1, over 10 000 calls: one call a step for images, two for patches."""
    task = Tvt(model=Tvt.prepare_model(small_model(1)), published_schedule=True)

    def after(calls):
        return 2 / (1 + np.exp(-10 * calls / 10_000)) - 1

    for step in (0, 1, 499, 4998):
        found = [
            task.coefficient(jnp.int32(step)),
            task.patch_coefficient(jnp.int32(step), domain="source"),
            task.patch_coefficient(jnp.int32(step), domain="target"),
        ]
        calls = step + 1, 2 * step + 1, 2 * step + 2
        np.testing.assert_allclose(found, [after(n) for n in calls], rtol=1e-3)


# ---- SSRT --


@pytest.fixture(scope="module")
def ssrt():
    """A step with a key: the loss, (state, metrics), and the gradients."""
    options = {"bottleneck_dim": 5, "dropout": 0.0}
    layers = ("image", 1, 2)
    task = Ssrt(model=Ssrt.prepare_model(small_model(2), **options), layers=layers, **options)
    state = {
        "batch_stats": {"head": {"norm": arrays("ssrt", "statistics")}},
        "safe_training": task._safety.init(4),
    }

    @jax.jit
    def run(key):
        context = StepContext(jnp.int32(500), RandomStreams(key))
        function = jax.value_and_grad(task.loss, has_aux=True)
        return function(arrays("ssrt", "param"), state, batch_of("ssrt"), context)

    return run


def key_that_draws(place, direction):
    """A key with which SSRT draws this place, of three, and this direction."""
    for seed in range(100):
        streams = RandomStreams(jax.random.key(seed))
        drawn = jax.random.randint(streams["perturbed_layer"], (), 0, 3)
        forward = jax.random.bernoulli(streams["direction"])
        if (int(drawn), bool(forward)) == (place, direction == "forward"):
            return streams.key
    raise AssertionError("one of 100 keys should draw it")


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_step_of_ssrt_equals_that_of_pytorch(ssrt, place, direction):
    """At step 500 of a ramp of 1000, with the published weights."""
    (loss, (state, metrics)), gradients = ssrt(key_that_draws(place, direction))
    case = f"{place}/{direction}"
    terms = {
        "class": metrics["class_loss"],
        "domain": metrics["domain_loss"],
        "self": metrics["self_loss"],
        "total": loss,
    }
    assert_same(terms, arrays("ssrt", f"{case}/term"))
    assert_same(gradients, arrays("ssrt", f"{case}/gradient"))
    rows = 3 * len(golden("ssrt")["labels"])
    expected = statistics("ssrt", case, updates=1, rows=rows)
    assert_same(state["batch_stats"]["head"]["norm"], expected)


def statistics(method, case, *, updates, rows):
    """PyTorch's running statistics, with the biased variance instead of the unbiased one."""
    start, end = arrays(method, "statistics"), arrays(method, f"{case}/statistics")
    kept = 0.9**updates * start["var"]
    return {"mean": end["mean"], "var": kept + (end["var"] - kept) * (rows - 1) / rows}


# ---- CDTrans --


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("default", {}),
        ("published", {"detach": False}),
        ("swapped", {"detach": False, "swap": True}),
    ],
)
def test_a_pair_step_of_cdtrans_equals_that_of_pytorch(case, options):
    weights = {"source_weight": 1.0, "pseudo_weight": 0.8, "distillation_weight": 0.6}
    model = CdTrans.prepare_model(small_model(2))
    task = CdTrans(model=model, label_smoothing=0.1, **options, **weights)  # not for pairs
    state = {
        "batch_stats": {"head": {"norm": arrays("cdtrans", "statistics")}},
        "pairs": {"count": jnp.int32(1), "classes": jnp.int32(1)},
    }
    context = StepContext(jnp.int32(0), RandomStreams(jax.random.key(0)))

    @jax.jit
    def run(params):
        function = jax.value_and_grad(task.loss, has_aux=True)
        return function(params, state, batch_of("cdtrans"), context)

    (loss, (state, metrics)), gradients = run(arrays("cdtrans", "param"))
    terms = {
        "class": metrics["class_loss"],
        "pseudo": metrics["pseudo_loss"],
        "distillation": metrics["distillation"],
        "total": loss,
    }
    assert_same(terms, arrays("cdtrans", f"{case}/term"))
    assert_same(gradients, arrays("cdtrans", f"{case}/gradient"))
    rows = golden("cdtrans")["labels"].shape[1]
    expected = statistics("cdtrans", case, updates=3, rows=rows)
    assert_same(state["batch_stats"]["head"]["norm"], expected)
