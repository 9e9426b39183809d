"""What is measured on noisy images and representations, and what cannot be shown."""

import dataclasses

import jax
import numpy as np
import pytest

from pnoise_jax import noise, training
from pnoise_jax.noise import Noise
from pnoise_jax.studies import showing
from pnoise_jax.studies.showing import measuring, shown_noises


@pytest.fixture
def config(data_dir):
    config = training.default_config()
    config.model = training.model_config(
        "vit_ti_16", image_size=8, patch_size=4, dim=8, depth=2, num_heads=2
    )
    config.data.name, config.data.data_dir = "digits", str(data_dir)
    config.data.test_split = "test[:40]"
    config.evaluation.batch_size = 10
    return config


@dataclasses.dataclass(frozen=True)
class Needy(Noise):
    strength: float
    spread: float

    def noisy(self, key, x, *, mask, strength, index):
        return x


@dataclasses.dataclass(frozen=True)
class Stubborn(Noise):
    """Its strength cannot be set."""

    draws = False

    @property
    def strength(self):
        return 1.0

    def noisy(self, key, x, *, mask, strength, index):
        return x


@dataclasses.dataclass(frozen=True)
class Mean(Noise):
    """Adds the mean of groups of images."""

    strength: float = 1.0
    group_size: int | None = 3

    mixes = "batch"
    draws = False

    def noisy(self, key, x, *, mask, strength, index):
        groups = x.reshape(-1, self.group_size, *x.shape[1:])
        return x + strength * groups.mean(1).repeat(self.group_size, 0)


def test_norms_cosines_and_spectra_match_their_definitions():
    clean = jax.random.normal(jax.random.key(0), (8, 3, 5))
    x = np.asarray(clean)
    norm, cosine = measuring.compare(x, -2 * x)
    np.testing.assert_allclose(norm, 2, rtol=1e-6)
    np.testing.assert_allclose(cosine, -1, rtol=1e-6)
    assert np.isnan(measuring.compare(x, 0 * x)[1]).all()
    expected = np.mean([np.linalg.svd(b.reshape(4, 15))[1] for b in (x[:4], x[4:])], axis=0)
    np.testing.assert_allclose(measuring.mean_spectrum(x, 4), expected, rtol=1e-5)


def test_the_optimal_q_keeps_one_direction_and_shrinks_the_others():
    x = np.ones((10, 6), np.float32)  # examples differ only in one feature of mean 0
    x[5:, 0] = -1
    noisy = measuring.apply(noise.LinearTransform(noise.Optimal()), x, 1.0, 0)
    first, second, *_ = measuring.mean_spectrum(noisy, 10)
    clean = measuring.mean_spectrum(x, 10)
    np.testing.assert_allclose((first, second), (clean[0], clean[1] / 11), rtol=1e-4)


def test_a_noise_of_the_config_is_shown_once_with_its_strength():
    injections = (
        noise.Injection(noise.LinearTransform(noise.CyclicShift(0.4))),
        noise.Injection(noise.Gaussian(std=2.0), section="noise.others.early"),
    )
    shown, missing = shown_noises.list_noises(injections)
    assert not missing
    assert [each.name for each in shown[:2]] == ["cyclic_shift", "noise.others.early"]
    assert shown[0].strengths == (0.4,)
    assert shown[1].title == "Gaussian (std=2.0)"
    names = {each.name for each in shown}
    assert names >= {"gaussian", "salt_and_pepper", "erase", "reverse", "optimal"}
    assert len(names) == len(shown) == 7


def test_a_title_has_the_fields_that_differ_from_the_defaults():
    equal = noise.Injection(noise.Gaussian(mean=float("0.5"), std=float("1.0")), section="noise")
    assert shown_noises.list_noises((equal,))[0][0].title == "Gaussian (mean=0.5)"


def test_noises_that_cannot_be_shown_are_named(monkeypatch):
    monkeypatch.setitem(noise.NOISES._things, "needy", Needy)
    assert "spread is not set" in shown_noises.list_noises(())[1]["needy"]
    with pytest.raises(ValueError, match=r"define with_strength\(strength\)"):
        shown_noises.list_noises((noise.Injection(Stubborn()),))
    views = noise.LinearTransform(noise.Optimal(), axis="views", group_size=2)
    with pytest.raises(ValueError, match=r"set noise\.axis='batch' or 'tokens'"):
        shown_noises.list_noises((noise.Injection(views),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strengths": ()}, "give 1 to 8 numbers"),
        ({"strengths": (-0.1,)}, "at least 0"),
        ({"strengths": (float("nan"),)}, "finite"),
        ({"strengths": (0.1, 0.1)}, "each strength once"),
        ({"images": 0}, "images=0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        showing.ShowSettings(**settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"noise.layer": 3}, "no layer 3"),
        ({"data.test_split": "test[:5]", "evaluation.batch_size": 5}, "images=8: .* has 5"),
        ({"evaluation.batch_size": 50}, "evaluation.batch_size=50"),
        ({"noise.group_size": 5}, "noise.group_size=5 does not divide"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config, fields, message):
    config.noise.preset = "optimal_all_tokens"
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        showing.show(config)


@pytest.mark.long
@pytest.mark.parametrize(
    ("images", "batch_size", "reason"),
    [
        (8, 9, "images=8: mean.group_size=3 does not divide it; give a multiple of 3"),
        (6, 10, "mean.group_size=3 does not divide the batch of 10 examples"),
        (6, 9, None),
    ],
)
def test_a_registered_noise_that_does_not_fit_is_not_shown(
    config, monkeypatch, images, batch_size, reason
):
    monkeypatch.setitem(noise.NOISES._things, "mean", Mean)
    config.noise.name, config.evaluation.batch_size = "gaussian", batch_size
    shown = showing.show(config, None, showing.ShowSettings((1.0,), images=images))
    assert ("mean" in {each.name for each in shown.noises}) == (reason is None)
    assert shown.not_shown.get("mean", "").startswith(reason or "")
    assert set(shown.not_shown) == ({"mean"} if reason else set())
    assert {each.shown for each in shown.noisy_images} == set(shown.noises)
    assert {each.shown for each in shown.sites[0].noisy} == set(shown.noises)


@pytest.mark.slow
def test_images_and_attention_inputs_are_sites_too(config):
    config.noise.name, config.noise.std, config.noise.point = "gaussian", 0.1, "image"
    config.noise.others.late = training.noise_config(
        preset="paper_vit", layer=2, point="attention_input", tokens="patch"
    )
    shown = showing.show(config, None, showing.ShowSettings((0.0, 1.0, 2.0), images=3))
    image, late = shown.sites
    assert (image.site.name, image.shape) == ("image", (5, 8))
    assert (late.site.name, late.shape) == ("layer_2_attention_input_patch", (4, 8))
    for site in shown.sites:
        for each in (each for each in site.noisy if each.strength == 0):
            assert each.norm.median == pytest.approx(1, abs=1e-4)
            assert each.cosine.median == pytest.approx(1, abs=1e-4)
    for each in shown.noisy_images:
        allowed = each.strength <= 1 or each.shown.name != "salt_and_pepper"
        assert (each.images is not None) == allowed
        if allowed and each.strength == 0:
            np.testing.assert_allclose(each.images, shown.images, atol=1e-3)
    for figure in (showing.image_figure(shown), showing.latent_figure(shown, late)):
        figure.canvas.draw()
