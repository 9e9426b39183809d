"""The layers before the noise run once: the same predictions, with less work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from pnoise_jax import data, evaluation, models, noise
from pnoise_jax.evaluation import representations
from tests.models.drawing import draw_variables

SHAPE = (16, 16, 1)
PIXELS = {"mean": (0.5,), "std": (0.5,)}
VIT = {"image_size": 16, "patch_size": 4, "dim": 16, "depth": 3, "num_heads": 2}
RESNET = {"stage_sizes": (2, 2), "width": 8, "stem": "small"}
CASES = [
    ("vit_ti_16", VIT | {"remat": True}, 2, "attention_input"),
    ("vit_ti_16", VIT, (2, 3), "block_input"),
    ("vit_ti_16", VIT, "random", "block_input"),
    ("resnet18", RESNET, 3, "block_input"),
]


@pytest.fixture(scope="module")
def dataset():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (37, *SHAPE), np.uint8)
    return data.Dataset("random", "test", 5, SHAPE, generator.integers(0, 5, 37, np.int32), images)


def mesh_of(devices):
    return jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])


def create(name, options, layer="last", point="block_input"):
    transform = noise.LinearTransform(noise.CyclicShift(0.4))
    injection = noise.Injection(transform, layer=layer, point=point)
    model = models.create_model(name, num_classes=5, injection=injection, **options)
    return model, draw_variables(model, jnp.zeros((1, *SHAPE)))


@pytest.mark.parametrize(("name", "options", "layer", "point"), CASES)
def test_resumed_predictions_equal_those_from_the_image(name, options, layer, point, dataset):
    model, variables = create(name, options, layer, point)
    first = evaluation.first_noisy_layer(model.injection, model.num_layers)
    mesh = mesh_of(2)
    clean = evaluation.clean_pass(model, variables, dataset, layers=(first,), mesh=mesh, **PIXELS)
    protocol = evaluation.Protocol(noise=True, order="class_sorted", batch_size=5)
    whole, resumed = (
        evaluation.predict(
            model, variables, dataset, protocol, mesh=mesh, representations=inputs, **PIXELS
        )
        for inputs in (None, clean.representations[first])
    )
    np.testing.assert_allclose(resumed.nll, whole.nll, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(resumed.predicted, whole.predicted)
    assert not np.allclose(resumed.nll, clean.predictions.nll, rtol=1e-3)


def test_several_injections_have_one_first_layer(dataset):
    model, variables = create("vit_ti_16", VIT, 3)
    gaussian = noise.Injection(noise.Gaussian(std=0.5), layer=(2, 3))
    both = model.clone(injection=(model.injection, gaussian))
    assert evaluation.first_noisy_layer(both.injection, 3) == 2
    mesh = mesh_of(2)
    clean = evaluation.clean_pass(both, variables, dataset, layers=(2, 3), mesh=mesh, **PIXELS)
    protocol = evaluation.Protocol(noise=True, order="class_sorted", batch_size=5)
    predict = functools.partial(evaluation.predict, mesh=mesh, **PIXELS)
    whole = predict(both, variables, dataset, protocol)
    resumed = predict(both, variables, dataset, protocol, representations=clean.representations[2])
    np.testing.assert_allclose(resumed.nll, whole.nll, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"the noise enters layer 2, .* input of layer 3"):
        predict(both, variables, dataset, protocol, representations=clean.representations[3])
    only_first = predict(both, variables, dataset, protocol, strength=(0.4, 0.0))
    single = predict(model, variables, dataset, protocol)
    np.testing.assert_allclose(only_first.nll, single.nll, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"strength=0\.4: the model has 2 .* a tuple of 2 numbers"):
        predict(both, variables, dataset, protocol, strength=0.4)


@pytest.mark.parametrize(("name", "options"), [("vit_ti_16", VIT), ("resnet18", RESNET)])
def test_the_clean_pass_is_the_clean_evaluation(name, options, dataset):
    """Batch norms have their running statistics in both."""
    model, variables = create(name, options)
    clean = evaluation.clean_pass(model, variables, dataset, layers=(), mesh=mesh_of(4), **PIXELS)
    protocol = evaluation.Protocol(noise=False, order="shuffled", batch_size=5)
    expected = evaluation.predict(model, variables, dataset, protocol, mesh=mesh_of(4), **PIXELS)
    np.testing.assert_allclose(clean.predictions.nll, expected.nll, rtol=1e-5)
    np.testing.assert_array_equal(clean.logits.argmax(1), expected.predicted)
    assert clean.representations == {}


@pytest.mark.parametrize(("name", "options"), [("vit_ti_16", VIT), ("resnet18", RESNET)])
def test_resuming_does_not_compile_earlier_layers(name, options):
    model, variables = create(name, options)
    layer = model.num_layers
    images = jnp.zeros((8, *SHAPE))
    _, inputs = model.apply(variables, images, (layer,), method="record_inputs")

    def flops(function, x):
        return jax.jit(function).lower(variables, x).compile().cost_analysis()["flops"]

    whole = flops(lambda v, x: model.apply(v, x), images)
    resumed = flops(lambda v, x: model.apply(v, x, layer, method="resume"), inputs[layer])
    assert resumed < whole / 2


def test_representations_after_the_noise_are_refused(dataset):
    model, variables = create("vit_ti_16", VIT, layer=2)
    clean = evaluation.clean_pass(model, variables, dataset, layers=(3,), mesh=mesh_of(1), **PIXELS)
    protocol = evaluation.Protocol(noise=True, order="shuffled", batch_size=5)
    with pytest.raises(ValueError, match=r"the noise enters layer 2, .* input of layer 3"):
        evaluation.predict(
            model,
            variables,
            dataset,
            protocol,
            mesh=mesh_of(1),
            representations=clean.representations[3],
            **PIXELS,
        )


def test_what_does_not_fit_into_memory_goes_to_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(representations.os, "sysconf", lambda name: 64)  # 4 KB in all
    like = {1: np.zeros((1, 10), jnp.bfloat16), 3: np.zeros((1, 2), np.float32)}
    mapped = representations.allocate(100, like, tmp_path)
    assert all(isinstance(array, np.memmap) for array in mapped.values())
    assert list(tmp_path.iterdir()) == []  # without a name, so a kill leaves nothing
    mapped[1][:] = np.arange(1000).reshape(100, 10)
    mapped[3][:] = 7
    assert mapped[1][99, 9] == jnp.bfloat16(999)
    assert mapped[3].shape == (100, 2)
    few = representations.allocate(30, like, tmp_path)  # 840 bytes
    assert not any(isinstance(array, np.memmap) for array in few.values())
    with pytest.raises(OSError, match=r"representations .* need 28000\.0 GB, but .* make room"):
        representations.allocate(10**12, like, tmp_path)


def test_views_and_representations_cannot_be_combined(dataset):
    model, variables = create("vit_ti_16", VIT)
    inputs = representations.Representations(3, np.zeros((37, 17, 16), np.float32))
    protocol = evaluation.Protocol(noise=True, order="shuffled", batch_size=5)
    with pytest.raises(ValueError, match="views=5: representations contain one view"):
        evaluation.predict(
            model,
            variables,
            dataset,
            protocol,
            mesh=mesh_of(1),
            views=5,
            representations=inputs,
            **PIXELS,
        )


def test_layers_have_the_names_of_their_submodules(dataset):
    for name, options in (("vit_ti_16", VIT), ("resnet18", RESNET | {"stage_sizes": (1, 3, 2)})):
        model, variables = create(name, options)
        names = [model.layer_name(layer) for layer in range(1, model.num_layers + 1)]
        blocks = [k for k in variables["params"] if k.startswith(("block_", "stage"))]
        assert sorted(names) == sorted(blocks)
