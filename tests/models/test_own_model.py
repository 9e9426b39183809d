"""Your own model: what it must have, and that it works as ours do."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import models, noise


class Layer(nn.Module):
    """A layer into which noise can enter."""

    features: int
    number: int

    @nn.compact
    def __call__(self, x, taps):
        x = taps(x, point="block_input", layer=self.number)
        return x + nn.relu(nn.Dense(self.features)(x))


class Mlp(models.Classifier, kw_only=True):
    """The example in the documentation."""

    features: int = 16
    depth: int = 2

    @property
    def num_layers(self):
        return self.depth

    def run_embed(self, images, *, train):
        return nn.Dense(self.features, name="embed")(images.reshape(images.shape[0], -1))

    def run_block(self, x, taps, *, layer, train):
        return Layer(self.features, layer, name=self.layer_name(layer))(x, taps)

    def run_head(self, x, *, train):
        return nn.Dense(self.num_classes, name="head")(x)


IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4, 4, 1)), jnp.float32)
OPTIMAL = noise.Injection(noise.LinearTransform(noise.Optimal()), layer=2, inference=True)


@pytest.fixture
def registered():
    models.register_model("wide_mlp", features=32)(Mlp)
    models.register_model("wide_mlp", features=32)(Mlp)  # as if its module were imported again
    yield
    del models.registry.MODELS._things["wide_mlp"]


@pytest.mark.usefixtures("registered")
def test_a_registered_model_takes_noise_and_options():
    assert models.list_models("wide*") == ["wide_mlp"]
    assert models.default_options("wide_mlp")["features"] == 32
    model = models.create_model("wide_mlp", num_classes=3, depth=3, injection=OPTIMAL)
    variables = model.init(jax.random.key(0), IMAGES)
    assert variables["params"]["embed"]["kernel"].shape == (16, 32)
    noisy = model.apply(variables, IMAGES)
    plain = model.clone(injection=None)
    clean, inputs = plain.apply(variables, IMAGES, (2,), method="record_inputs")
    assert jnp.abs(noisy - clean).max() > 1e-3
    mixed = OPTIMAL.noise(None, inputs[2])
    resumed = plain.apply(variables, mixed, 2, method="resume")
    chex.assert_trees_all_close(resumed, noisy, rtol=1e-5)


def test_a_config_imports_a_model_by_module_and_name():
    model = models.create_model(f"{__name__}:Mlp", num_classes=3, features=8)
    assert model == Mlp(num_classes=3, features=8)
    with pytest.raises(ValueError, match=r"cannot be imported .*ModuleNotFoundError"):
        models.create_model("no_such_module:Mlp")


def test_a_class_that_is_defined_again_keeps_its_name():
    """A notebook's cell that runs again, or a module that is reloaded."""
    first, second = (type("Mlp", (Mlp,), {"__module__": "notebook"}) for _ in range(2))
    try:
        models.register_model("again", features=3)(first)
        models.register_model("again", features=3)(second)
        assert type(models.create_model("again")) is second
        with pytest.raises(ValueError, match=r"already registered as notebook\.Mlp: choose anoth"):
            models.register_model("again", features=4)(second)
    finally:
        models.registry.MODELS._things.pop("again", None)


@pytest.mark.parametrize("injection", [None, OPTIMAL])
@pytest.mark.parametrize("train", [False, True])
def test_a_mask_is_checked_whether_or_not_noise_acts(injection, train):
    model = Mlp(num_classes=3, injection=injection)
    variables = model.init(jax.random.key(0), IMAGES)
    for name, value in (("mask", jnp.ones(5, bool)), ("index", jnp.arange(2)), ("mask", [True])):
        with pytest.raises(ValueError, match=rf"{name} has .*; expected an array .* = \(6,\)"):
            model.apply(variables, IMAGES, train=train, **{name: value})


def test_a_block_must_have_the_name_that_layer_name_returns():
    class Unnamed(Mlp):
        def run_block(self, x, taps, *, layer, train):
            return Layer(self.features, layer)(x, taps)

    with pytest.raises(ValueError, match="created no submodule 'block_1' for layer=1: give the"):
        Unnamed().init(jax.random.key(0), IMAGES)

    class Renamed(Unnamed):
        @nn.nowrap
        def layer_name(self, layer):
            return f"Layer_{layer - 1}"

    assert "Layer_1" in Renamed().init(jax.random.key(0), IMAGES)["params"]


class Bare(models.Classifier):
    """Lacks everything."""


class Headless(Mlp):
    """Lacks a head: it does not inherit that of `Mlp`."""

    run_head = models.Classifier.run_head


class Forgetful(Mlp):
    """Its head does not accept `train`."""

    def run_head(self, x):
        return x


class Positional(Mlp):
    """Its blocks require `grid`, too."""

    def run_block(self, x, taps, layer, grid, *, train):
        return x


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        (
            "bare",
            {},
            Bare,
            "Bare lacks num_layers, run_embed, run_block, run_head: models.Classifier",
        ),
        ("headless", {}, Headless, "Headless lacks run_head: models.Classifier says"),
        (
            "forgetful",
            {},
            Forgetful,
            r"Forgetful\.run_head: .*'train'; change its signature to \(self, x, \*, train\)",
        ),
        (
            "positional",
            {},
            Positional,
            r"Positional\.run_block: missing .*'grid'; change its signature to",
        ),
        ("dense", {}, nn.Dense, "Dense is not a model: make it a subclass of models.Classifier"),
        ("mlp", {"width": 3}, Mlp, "unknown option of mlp 'width'"),
        ("vit_b_16", {}, Mlp, "model 'vit_b_16' is already registered"),
        ("wide_mlp", {"features": 8}, Mlp, "model 'wide_mlp' is already registered"),
        ("my model", {}, Mlp, "model name 'my model': use letters, digits and underscores"),
    ],
)
def test_bad_input_is_named(name, options, kind, message):
    with pytest.raises(ValueError, match=message):
        models.register_model(name, **options)(kind)
