"""Evaluation: every example once, by exactly the protocol's batches, on any number of devices."""

import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from rich.console import Console

from pnoise_jax import data, evaluation, noise

scoring = importlib.import_module("pnoise_jax.evaluation.evaluate")  # not the function
OPTIMAL = noise.LinearTransform(noise.Optimal())
PIXELS = {"mean": (0.5,), "std": (0.5,)}


class Linear(nn.Module):
    """Logits linear in the noisy pixels, so that mixing shows at once."""

    num_classes: int = 10
    injection: noise.Injection | None = None

    @nn.compact
    def __call__(self, images, train=False, mask=None, noise_strength=None, index=None):
        taps = noise.open_taps(
            self,
            self.injection,
            num_layers=2,
            train=train,
            mask=mask,
            strength=noise_strength,
            index=index,
        )
        x = taps(images, point="image").reshape(images.shape[0], -1)
        x = taps(x, layer=1, point="block_input")
        x = taps(jnp.tanh(x), layer=2, point="block_input")
        return nn.Dense(self.num_classes)(x)


def mesh_of(devices):
    devices = jax.devices()[:devices]
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


@pytest.fixture(scope="module")
def variables():
    kernel = jax.random.normal(jax.random.key(0), (64, 10)) / 8
    return {"params": {"Dense_0": {"kernel": kernel, "bias": jnp.zeros(10)}}}


@pytest.fixture(scope="module")
def odd(digits):
    """993 examples: no batch size divides them."""
    labels, images = digits.labels[:993], digits.images[:993]
    return data.Dataset("digits", "test", 10, (8, 8, 1), labels, images)


def by_hand(variables, dataset, order, batch_size, mix):
    """top-1 with plain numpy: batch after batch, the last one short."""
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"], np.float64)
    x = (np.asarray(dataset.images, np.float64).reshape(len(dataset), -1) / 255 - 0.5) / 0.5
    correct = 0  # the layer's tanh comes after the image's noise
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = x[rows]
        if mix:
            batch = (batch + batch.sum(0)) / (len(rows) + 1)
        correct += ((np.tanh(batch) @ kernel).argmax(1) == dataset.labels[rows]).sum()
    return 100 * correct / len(dataset)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("batch_size", [10, 48])
@pytest.mark.parametrize("order", evaluation.ORDERS)
def test_noisy_batches_are_exactly_the_protocols(variables, odd, order, batch_size, devices):
    model = Linear(injection=noise.Injection(OPTIMAL, point="image"))
    protocol = evaluation.Protocol(noise=True, order=order, batch_size=batch_size)
    row = evaluation.predict(
        model, variables, odd, protocol, mesh=mesh_of(devices), seed=3, **PIXELS
    ).summary()
    indices = data.evaluation_order(odd.labels, order, seed=3)
    assert row["n"] == 993
    assert row["top1"] == pytest.approx(by_hand(variables, odd, indices, batch_size, True))


def test_clean_depends_neither_on_order_nor_on_batch_size(variables, odd):
    model = Linear(injection=noise.Injection(OPTIMAL, point="image", inference=True))
    results = [
        evaluation.predict(
            model,
            variables,
            odd,
            evaluation.Protocol(noise=False, order=order, batch_size=size),
            mesh=mesh_of(8),
            **PIXELS,
        )
        for order, size in [("shuffled", 10), ("class_sorted", 10), ("shuffled", 500)]
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result.rank, results[0].rank)
        np.testing.assert_allclose(result.nll, results[0].nll, rtol=1e-5)
    by_numpy = by_hand(variables, odd, np.arange(993), 993, False)
    assert results[0].summary()["top1"] == pytest.approx(by_numpy)


@pytest.mark.parametrize("layer", [1, "random"])
def test_random_noise_depends_neither_on_devices_nor_on_order(variables, odd, layer):
    """Gaussian noise mixes nothing: by the same seed, the same predictions in any order."""
    model = Linear(injection=noise.Injection(noise.Gaussian(), layer=layer))
    results = [
        evaluation.predict(
            model,
            variables,
            odd,
            evaluation.Protocol(noise=True, order=order, batch_size=50),
            mesh=mesh_of(devices),
            seed=3,
            **PIXELS,
        )
        for order, devices in [("shuffled", 1), ("shuffled", 8), ("class_sorted", 8)]
    ]
    np.testing.assert_array_equal(results[0].rank, results[1].rank)
    if layer == 1:
        np.testing.assert_array_equal(results[0].rank, results[2].rank)
    clean = evaluation.Protocol(noise=False, order="shuffled", batch_size=50)
    clean = evaluation.predict(model, variables, odd, clean, mesh=mesh_of(1), **PIXELS)
    assert not np.array_equal(results[0].rank, clean.rank)


def test_a_random_layer_is_drawn_for_each_batch_on_any_number_of_devices(variables, odd):
    model = Linear(injection=noise.Injection(OPTIMAL, layer="random"))
    protocol = evaluation.Protocol(noise=True, order="shuffled", batch_size=50)
    on_one, on_eight = (
        evaluation.predict(model, variables, odd, protocol, mesh=mesh_of(n), seed=3, **PIXELS)
        for n in (1, 8)
    )
    np.testing.assert_allclose(on_one.nll, on_eight.nll, rtol=1e-4)
    layers = [
        evaluation.predict(
            Linear(injection=noise.Injection(OPTIMAL, layer=n)),
            variables,
            odd,
            protocol,
            mesh=mesh_of(1),
            seed=3,
            **PIXELS,
        ).nll
        for n in (1, 2)
    ]
    order = data.evaluation_order(odd.labels, "shuffled", seed=3)
    chosen = [
        [bool(np.allclose(on_one.nll[rows], nll[rows], rtol=1e-4)) for nll in layers]
        for rows in (order[start : start + 50] for start in range(0, 993, 50))
    ]
    assert all(sum(which) == 1 for which in chosen)
    assert {which.index(True) for which in chosen} == {0, 1}


def test_models_that_differ_in_strength_share_one_program(variables, odd):
    protocol = evaluation.Protocol(noise=True, order="class_sorted", batch_size=10)
    injections = [
        noise.Injection(noise.LinearTransform(noise.CyclicShift(s)), point="image")
        for s in (0.1, 0.3)
    ]
    compiled = scoring._score._cache_size()
    weak, strong = (
        evaluation.predict(Linear(injection=i), variables, odd, protocol, mesh=mesh_of(1), **PIXELS)
        for i in injections
    )
    assert scoring._score._cache_size() == compiled + 1
    at_call = evaluation.predict(
        Linear(injection=injections[0]),
        variables,
        odd,
        protocol,
        mesh=mesh_of(1),
        strength=0.3,
        **PIXELS,
    )
    np.testing.assert_array_equal(at_call.nll, strong.nll)
    assert not np.array_equal(weak.nll, strong.nll)


@pytest.mark.parametrize(("mixed", "batch_size"), [(False, None), (True, None), (True, 10)])
def test_logits_of_a_batch(variables, odd, mixed, batch_size):
    """Of clean images, or mixed within consecutive batches of the protocol's size."""
    model = Linear(injection=noise.Injection(OPTIMAL, point="image"))
    images = odd.images[:20]
    actual = evaluation.batch_logits(
        model, variables, images, noise=mixed, batch_size=batch_size, **PIXELS
    )
    x = (images.reshape(-1, batch_size or 20, 64) / 255 - 0.5) / 0.5
    if mixed:
        x = (x + x.sum(axis=1, keepdims=True)) / (x.shape[1] + 1)
    expected = np.tanh(x.reshape(20, 64)) @ np.asarray(variables["params"]["Dense_0"]["kernel"])
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_summary_counts():
    predictions = evaluation.Predictions(
        rank=np.array([0, 4, 5, 0]),
        nll=np.array([1.0, 2.0, 3.0, 4.0]),
        predicted=np.array([1, 2, 3, 4]),
        lead=np.ones(4),
    )
    assert predictions.summary() == {"top1": 50.0, "top5": 75.0, "nll": 2.5, "n": 4}


def test_equal_logits_are_right_only_for_class_0(odd):
    """As argmax does, ties go to the smallest class, never to the label."""
    nothing = {"params": {"Dense_0": {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}}}
    protocol = evaluation.Protocol(noise=False, order="shuffled", batch_size=10)
    result = evaluation.predict(Linear(), nothing, odd, protocol, mesh=mesh_of(1), **PIXELS)
    np.testing.assert_array_equal(result.rank, odd.labels)


def test_logits_that_are_not_finite_are_an_error(odd, variables):
    broken = jax.tree.map(lambda x: x * jnp.nan, variables)
    protocol = evaluation.Protocol(noise=False, order="shuffled", batch_size=10)
    with pytest.raises(ValueError, match=r"logits of example 0 .* are not finite"):
        evaluation.predict(Linear(), broken, odd, protocol, mesh=mesh_of(1), **PIXELS)


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("weight_noise", [True, False])
@pytest.mark.parametrize("draws", [1, 3])
def test_a_row_tells_its_protocol(noise, weight_noise, draws):
    if draws > 1 and not (noise or weight_noise):
        return
    protocol = evaluation.Protocol(noise, "shuffled", 10, draws=draws, weight_noise=weight_noise)
    row = protocol.row()
    assert evaluation.Protocol.of_row(row | {"top1": 50.0}) == protocol
    others = {"draws"} if draws > 1 else set()
    others |= {"weight_noise"} if weight_noise else set()
    assert set(row) == {"noise", "order", "batch_size"} | others


@pytest.mark.parametrize("draws", [0, -1, True, 1.5, "3"])
def test_draws_must_be_a_whole_number(draws):
    with pytest.raises(
        ValueError, match=r"evaluation\.draws=.*: give a whole number of at least 1"
    ):
        evaluation.Protocol(noise=True, order="shuffled", batch_size=10, draws=draws)


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 1), (1, 64), (8, 1), (8, 64)])
def test_a_device_takes_256_examples_at_a_time(variables, odd, devices, batch_size):
    """Whatever the protocol's batch size, so that memory and speed do not depend on it."""
    sizes = []

    class Watched(Linear):
        @nn.compact
        def __call__(self, images, **options):
            sizes.append(len(images))
            return super().__call__(images, **options)

    rows = np.arange(3000) % len(odd)
    dataset = data.Dataset("digits", "test", 10, (8, 8, 1), odd.labels[rows], odd.images[rows])
    protocol = evaluation.Protocol(noise=False, order="shuffled", batch_size=batch_size)
    model = Watched()
    evaluation.predict(model, variables, dataset, protocol, mesh=mesh_of(devices), **PIXELS)
    assert set(sizes) == {256 * devices}


def test_a_noisy_protocol_needs_noise(odd, variables):
    protocol = evaluation.Protocol(noise=True, order="shuffled", batch_size=10)
    with pytest.raises(ValueError, match=r"set noise\.preset or noise\.name"):
        evaluation.predict(Linear(), variables, odd, protocol, mesh=mesh_of(1), **PIXELS)


def test_a_noisy_number_never_stands_alone():
    noisy = evaluation.standard_protocols(10, noise=True)
    assert [(p.noise, p.order) for p in noisy] == [
        (False, "shuffled"),
        (True, "shuffled"),
        (True, "class_sorted"),
    ]
    assert [p.noise for p in evaluation.standard_protocols(10, noise=False)] == [False]
    with pytest.raises(ValueError, match=r"evaluation\.batch_size=0"):
        evaluation.standard_protocols(0, noise=True)


def test_report_on_console():
    row = {"noise": True, "order": "class_sorted", "batch_size": 10}
    rows = [row | {"top1": 98.26, "top5": 100.0, "nll": 0.12345, "n": 1000}]
    console = Console(record=True, width=100)
    evaluation.print_report(console, rows, title="digits", mixes_batch=True)
    text = console.export_text()
    assert "noisy, class-sorted" in text
    assert {"98.3", "100.0", "0.123"} <= set(text.split())
    assert "no deployed classifier knows" in text
