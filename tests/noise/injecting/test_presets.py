"""Presets: the settings of the paper and of its published code, and one that is retired."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import noise
from pnoise_jax.noise import stochastic

OPTIMAL = noise.LinearTransform(noise.Optimal())


def test_presets_are_the_settings_of_the_paper_and_its_code():
    paper = noise.Injection.preset("paper_vit")
    assert paper == noise.Injection(
        noise.LinearTransform(noise.CyclicShift(0.3)), train=True, inference=True
    )
    assert noise.Injection.preset("paper_resnet") == paper
    assert noise.Injection.preset("published_resnet") == noise.Injection(
        noise.LinearTransform(noise.CyclicShift(0.4, shift=-1)),
        train=True,
        inference=True,
        stop_gradient=True,
    )
    assert noise.Injection.preset("published_resnet_gaussian") == noise.Injection(
        noise.Gaussian(mean=0.0, std=1.0, strength=1.0), train=True, inference=True
    )
    assert noise.Injection.preset("published_resnet_impulse") == noise.Injection(
        noise.SaltAndPepper(1.0, extremes="batch"), train=True, inference=True
    )
    assert noise.Injection.preset("optimal_published") == noise.Injection(
        OPTIMAL, point="attention_input", tokens="patch", train=False, inference=True
    )
    assert noise.Injection.preset("optimal_all_tokens") == noise.Injection(
        OPTIMAL, train=False, inference=True
    )


class Residual(nn.Module):
    """Three blocks, x + tanh(x), with a tap at the input of each, before the shortcut leaves."""

    injection: noise.Injection

    @nn.compact
    def __call__(self, x, train):
        taps = noise.open_taps(self, self.injection, num_layers=3, train=train)
        for layer in (1, 2, 3):
            x = taps(x, layer=layer, point="block_input")
            x = x + jnp.tanh(x)
        return x


# What the published ResNet does to the input of the last block: the noisy x, and its derivative by
# x element by element. `drawn` are its random numbers.


def published_linear(x, drawn):
    del drawn
    following = np.concatenate([x[1:], x[:1]])
    return x + 0.4 * (following - x), np.ones_like(x)


def published_gaussian(x, drawn):
    return x + 1.0 * (0.0 + 1.0 * drawn), np.ones_like(x)


def published_impulse(x, drawn):
    noisy, slope = x.copy(), np.ones_like(x)
    for replaced, extreme in ((drawn < 0.5, x.max()), (drawn > 0.5, x.min())):
        noisy[replaced], slope[replaced] = extreme, 0.0
    return noisy, slope


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("preset", "published", "draw"),
    [
        ("published_resnet", published_linear, None),
        ("published_resnet_gaussian", published_gaussian, "normal"),
        ("published_resnet_impulse", published_impulse, "random"),
    ],
)
def test_presets_equal_the_published_resnet_in_numpy(preset, published, draw, train, monkeypatch):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(5, 2, 2, 3)).astype(np.float32)
    drawn = None if draw is None else getattr(generator, draw)(size=x.shape).astype(np.float32)
    if draw == "random":
        drawn[0, 0, 0, 0] = 0.5  # neither below nor above: the element stays
    monkeypatch.setattr(stochastic, "draw_per_example", lambda *_, **__: jnp.asarray(drawn))
    model = Residual(noise.Injection.preset(preset))

    def apply(x):
        logits = model.apply({}, x, train, rngs={"noise": jax.random.key(0)})
        return logits.sum(), logits

    (_, ours), ours_gradient = jax.value_and_grad(apply, has_aux=True)(jnp.asarray(x))
    inputs = [x, x + np.tanh(x)]
    last = inputs[1] + np.tanh(inputs[1])
    noisy, slope = published(last, drawn)
    np.testing.assert_allclose(ours, noisy + np.tanh(noisy), rtol=1e-5, atol=1e-6)
    theirs_gradient = slope * (2 - np.tanh(noisy) ** 2)
    for value in inputs:
        theirs_gradient = theirs_gradient * (2 - np.tanh(value) ** 2)
    np.testing.assert_allclose(ours_gradient, theirs_gradient, rtol=1e-4, atol=1e-6)


def test_the_published_vits_cyclic_shift_is_retired():
    for use in (
        lambda: noise.Injection.preset("published_vit"),
        lambda: noise.Injection.from_config({"preset": "published_vit", "strength": 0.1}),
    ):
        with pytest.raises(
            ValueError,
            match=r"noise\.preset='published_vit': this preset is retired.*injects nothing\."
            r" Use 'paper_vit'.*'optimal_published'",
        ):
            use()


@pytest.mark.parametrize("name", ["publishd_vit", "published_vt", "published-vit", "vit"])
def test_a_retired_preset_is_never_proposed(name):
    with pytest.raises(ValueError, match="unknown preset") as caught:
        noise.Injection.preset(name)
    assert "published_vit" not in str(caught.value).replace(name, "")
    assert "published_vit" not in noise.PRESETS


def test_a_stored_section_with_a_retired_preset_keeps_its_meaning():
    def read(**section):
        everything = dict.fromkeys(noise.CONFIG_FIELDS) | section
        return noise.Injection.from_config(noise.spell_out_retired(everything))

    site = {"point": "attention_input", "tokens": "patch", "train": True, "inference": True}
    expected = noise.Injection(noise.LinearTransform(noise.CyclicShift(0.3)), **site)
    assert read(preset="published_vit") == expected
    other = read(preset="published_vit", strength=0.1, layer="2", train=False)
    shift = noise.LinearTransform(noise.CyclicShift(0.1))
    assert other == noise.Injection(shift, layer=2, **site | {"train": False})
    assert read(preset="published_vit", quality="optimal", name="linear_transform") == (
        noise.Injection(OPTIMAL, **site)
    )
    assert read(preset="published_vit", quality="optimal") == noise.Injection(OPTIMAL, **site)
    assert read(preset="published_vit", name="none") is None
    assert read(preset="paper_vit") == noise.Injection.preset("paper_vit")
