"""Labels that follow the noise, and Manifold Mixup: the matrices of targets and of examples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pnoise_jax import noise, training
from pnoise_jax.models import create_model
from pnoise_jax.training import RandomStreams, StepContext
from pnoise_jax.training.step.mixup import Mixing
from pnoise_jax.training.step.noise_labels import mix_targets
from tests.training.runs import small_config

BATCH = 16
MODEL = {"image_size": 8, "patch_size": 4, "dim": 16, "depth": 2, "num_heads": 2}
FOLLOW = {
    "noise.preset": None,
    "noise.name": "linear_transform",
    "noise.quality": "cyclic_shift",
    "noise.strength": 0.3,
    "noise.train": True,
    "mixup.labels_follow_noise": True,
}
QUALITIES = {
    "shift": noise.CyclicShift(0.3),
    "backwards": noise.CyclicShift(0.45, shift=-3),
    "reverse": noise.Reverse(0.2),
    "optimal": noise.Optimal(),
}


def matrix(quality, size, groups, strength=None):
    """I + Q of a batch in which each group is mixed by itself."""
    of_group = np.eye(size) + np.asarray(quality.matrix(size, strength=strength))
    return np.kron(np.eye(groups), of_group)


def injected(*injections, **options):
    return create_model("vit_ti_16", num_classes=10, injection=injections, **MODEL | options)


def context(strength=None):
    return StepContext(jnp.int32(0), RandomStreams(jax.random.key(3)), strength)


def batch():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH, 8, 8, 1), dtype=np.uint8)
    return {"image": jnp.asarray(images), "label": jnp.arange(BATCH, dtype=jnp.int32) % 10}


@pytest.mark.parametrize("group_size", [None, 4])
@pytest.mark.parametrize("implementation", ["structured", "matmul"])
@pytest.mark.parametrize("name", QUALITIES)
def test_targets_are_mixed_by_the_matrix_that_mixes_the_examples(name, implementation, group_size):
    """The noise turns a one-hot example into the row of its weights."""
    quality = QUALITIES[name]
    kind = noise.LinearTransform(quality, implementation, group_size=group_size)
    examples = jnp.eye(BATCH, dtype=jnp.float32)
    targets = mix_targets(
        [noise.Injection(kind, layer=1)], examples, strengths=[quality.strength], num_layers=2
    )
    latents = kind(None, examples[:, None, :])[:, 0]
    size = group_size or BATCH
    np.testing.assert_allclose(targets, latents, atol=1e-6)
    np.testing.assert_allclose(targets, matrix(quality, size, BATCH // size), atol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("group_size", [None, 4])
def test_the_targets_are_the_same_on_eight_devices(group_size):
    kind = noise.LinearTransform(noise.CyclicShift(0.3), group_size=group_size)
    targets = jax.random.dirichlet(jax.random.key(1), jnp.ones(10), (BATCH,))

    @jax.jit
    def mixed(targets):
        return mix_targets([noise.Injection(kind)], targets, strengths=[0.3], num_layers=2)

    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    spread = jax.device_put(targets, NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_allclose(mixed(spread), mixed(targets), atol=1e-7)


def test_several_places_mix_in_the_order_of_the_layers():
    first = noise.Injection(noise.LinearTransform(noise.Reverse(0.2)), layer=2)
    second = noise.Injection(noise.LinearTransform(noise.CyclicShift(0.3)), layer=(1, 3))
    off = noise.Injection(noise.LinearTransform(noise.Optimal()), layer=1, train=False)
    mixed = mix_targets([first, second, off], jnp.eye(4), strengths=[0.2, 0.3, 1.0], num_layers=3)
    shift, reverse = matrix(noise.CyclicShift(0.3), 4, 1), matrix(noise.Reverse(0.2), 4, 1)
    np.testing.assert_allclose(mixed, shift @ reverse @ shift, atol=1e-6)


def test_rows_that_do_not_sum_to_one_are_normalised():
    kind = noise.LinearTransform(noise.Dense(np.full((4, 4), 0.5)))
    model = injected(noise.Injection(kind, layer=1))
    training.Classification(model=model, labels_follow_noise=True).check()
    mixed = mix_targets(model.injections, jnp.eye(4), strengths=[1.0], num_layers=2)
    np.testing.assert_allclose(mixed, (np.eye(4) + 0.5) / 3, atol=1e-6)


@pytest.mark.parametrize("layer", ["last", "random"])
def test_targets_use_a_traced_strength(layer):
    kind = noise.LinearTransform(noise.CyclicShift(1.0))
    model = injected(noise.Injection(kind, layer=layer))
    task = training.Classification(model=model, labels_follow_noise=True, label_smoothing=0.1)

    @jax.jit
    def targets(strength):
        return task.inputs(batch(), context(strength))[1]

    plain = dataclasses.replace(task, labels_follow_noise=False).inputs(batch(), context())[1]
    expected = matrix(noise.CyclicShift(0.3), BATCH, 1) @ np.asarray(plain)
    np.testing.assert_allclose(targets(jnp.float32(0.3)), expected, atol=1e-6)


def test_targets_follow_schedules():
    """Only the second of two injections has a schedule, here at half of its strength."""
    cyclic = [noise.LinearTransform(noise.CyclicShift(0.2, shift=n)) for n in (1, 2)]
    task = training.Classification(
        model=injected(*[noise.Injection(each, layer=1, train=True) for each in cyclic]),
        labels_follow_noise=True,
    )
    at_half = context((None, jnp.float32(0.1)))
    _, targets = task.inputs(batch(), at_half)
    labels = jax.nn.one_hot(batch()["label"], 10, dtype=jnp.float32)
    expected = cyclic[1](None, cyclic[0](None, labels), strength=0.1)
    np.testing.assert_allclose(targets, expected, rtol=1e-5, atol=1e-6)


def test_the_twin_at_the_first_layer_is_mixup_of_the_images():
    """Same logits, same targets: the patch embedding is affine."""
    kind = noise.LinearTransform(noise.CyclicShift(0.3))
    twin = training.Classification(
        model=injected(noise.Injection(kind, layer=1)), labels_follow_noise=True
    )
    plain = training.Classification(model=injected())
    images, targets = plain.inputs(batch(), context())
    variables = plain.model.init(jax.random.key(0), images)
    _, mixed_targets = twin.inputs(batch(), context())
    logits, _ = twin.apply(variables["params"], {}, images, context())
    by_hand, _ = plain.apply(
        variables["params"], {}, 0.7 * images + 0.3 * jnp.roll(images, 1, 0), context()
    )
    np.testing.assert_allclose(logits, by_hand, atol=1e-5)
    np.testing.assert_allclose(mixed_targets, 0.7 * targets + 0.3 * jnp.roll(targets, 1, 0))


def logits_and_targets(mixing, *injections, strength=None):
    task = training.Classification(model=injected(*injections), mixing=mixing)
    images, targets = task.inputs(batch(), context(strength))
    variables = injected().init(jax.random.key(0), images)
    return task.apply(variables["params"], {}, images, context(strength))[0], targets, variables


def test_mixup_at_the_first_layer_is_mixup_of_the_images():
    at_layer, targets, _ = logits_and_targets(Mixing(alpha=0.8, layer=1))
    of_images, same_targets, _ = logits_and_targets(Mixing(alpha=0.8))
    np.testing.assert_allclose(at_layer, of_images, atol=1e-5)
    np.testing.assert_allclose(targets, same_targets, atol=1e-6)
    unmixed, _, _ = logits_and_targets(None)
    assert np.abs(at_layer - unmixed).max() > 1e-3


def test_mixup_at_a_layer_follows_its_formula():
    logits, targets, variables = logits_and_targets(Mixing(alpha=0.8, layer=2))
    plain = training.Classification(model=injected())
    images, labels = plain.inputs(batch(), context())
    share = Mixing(alpha=0.8, layer=2).draw_share(context().keys["mixup"])
    latent = plain.model.apply(variables, images, end=2, method="forward")
    latent = share * latent + (1 - share) * jnp.roll(latent, 2, axis=0)
    expected = plain.model.apply(variables, latent, start=2, method="forward")
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(targets, share * labels + (1 - share) * jnp.roll(labels, 2, 0))
    assert 0 < share < 1


@pytest.mark.parametrize("layers", [(1, 2), (2, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("name", ["reverse", "in groups"])
def test_noise_and_mixup_mix_targets_in_the_order_of_their_layers(name, layers):
    """Their matrices do not commute, so the targets show the order."""
    quality = noise.Reverse(0.4) if name == "reverse" else noise.CyclicShift(0.4)
    kind = noise.LinearTransform(quality, group_size=4 if name == "in groups" else None)
    at, mixed_at = layers
    task = training.Classification(
        model=injected(noise.Injection(kind, layer=at)),
        mixing=Mixing(alpha=1.0, layer=mixed_at),
        labels_follow_noise=True,
    )
    _, targets = task.inputs(batch(), context())
    share = task.mixing.draw_share(context().keys["mixup"])
    mixed = np.asarray(share * np.eye(BATCH) + (1 - share) * np.roll(np.eye(BATCH), 2, axis=0))
    groups = 4 if name == "in groups" else 1
    noisy = matrix(quality, BATCH // groups, groups)
    product = noisy @ mixed if mixed_at < at else mixed @ noisy  # the rightmost acts first
    labels = np.eye(10)[np.asarray(batch()["label"])]
    np.testing.assert_allclose(targets, product @ labels, atol=1e-6)
    assert not np.allclose(noisy @ mixed @ labels, mixed @ noisy @ labels, atol=1e-3)


def test_mixup_at_a_layer_does_not_change_the_strength_of_noise():
    kind = noise.Injection(noise.LinearTransform(noise.CyclicShift(0.3)), layer=1)
    default, _, _ = logits_and_targets(Mixing(alpha=0.8, layer=2), kind)
    same, _, _ = logits_and_targets(Mixing(alpha=0.8, layer=2), kind, strength=jnp.float32(0.3))
    other, _, _ = logits_and_targets(Mixing(alpha=0.8, layer=2), kind, strength=jnp.float32(0.1))
    np.testing.assert_allclose(default, same, atol=1e-5)
    assert np.abs(default - other).max() > 1e-3


def test_a_batch_that_is_not_drawn_is_not_mixed():
    shares = {
        float(Mixing(alpha=0.8, layer=1, probability=0.5).draw_share(jax.random.key(seed)))
        for seed in range(16)
    }
    assert 1.0 in shares
    assert len(shares) > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise.train": False}, "no noise acts in training"),
        ({"noise.axis": "tokens"}, "noise.axis='tokens' mixes within one image"),
        ({"noise.tokens": "patch"}, "noise.tokens='patch' leaves a class token"),
        ({"noise.point": "attention_input"}, "point='attention_input' mixes one branch"),
        (
            {"noise.strength": -0.1},
            "noise.strength=-0.1 gives an example or its partner a negative",
        ),
        ({"noise.strength": 1.5}, "noise.strength=1.5 gives an example or its partner a negative"),
        (
            {"noise.schedule": "linear 0 to 5 over 4 steps"},
            "noise.strength=1.5 gives an example or its partner a negative",
        ),
        (
            {"noise.layer": "random", "mixup.layer": 1, "mixup.alpha": 0.5},
            "one of several noises (mixup at a layer counts) has layer='random'",
        ),
        (dict.fromkeys(FOLLOW, None) | {"mixup.labels_follow_noise": True}, "no noise acts"),
        ({"noise.name": "gaussian", "noise.quality": None}, "noise is Gaussian, which has no"),
        (
            {
                "noise.name": "salt_and_pepper",
                "noise.quality": None,
                "noise.strength": None,
                "noise.probability": 0.1,
                "noise.extremes": "batch",
                "noise.group_size": 2,
            },
            "noise is SaltAndPepper, which has no matrix",
        ),
    ],
)
def test_noise_that_labels_cannot_follow_is_refused(changes, message, data_dir):
    with pytest.raises(ValueError, match=r"mixup\.labels_follow_noise=True") as error:
        training.build(small_config(data_dir, **FOLLOW | changes)).task.check()
    assert message in str(error.value)


class Away(noise.QualityMatrix):
    """Moves an example away from the one before it: (1 + s) x[i] - s x[i - 1]."""

    strength = 0.5

    def mixing_matrix(self, k, *, mask=None):
        del mask
        return 2 * jnp.eye(k) - jnp.roll(jnp.eye(k), 1, axis=0)

    def mix(self, x, *, axis, mask, axis_name):
        del mask, axis_name
        return 2 * x - jnp.roll(x, 1, axis=axis)

    def log_abs_det(self, k):
        return float(np.linalg.slogdet(np.asarray(np.eye(k) + self.matrix(k)))[1])


@pytest.mark.parametrize(("size", "message"), [(4, "negative weights"), (None, "set .*group_size")])
def test_negative_weights_of_a_custom_matrix_are_refused(size, message):
    kind = noise.LinearTransform(Away(), group_size=size)
    task = training.Classification(
        model=injected(noise.Injection(kind, layer=1)), labels_follow_noise=True
    )
    with pytest.raises(ValueError, match=message):
        task.check()


def test_negative_weights_of_a_dense_matrix_are_refused():
    kind = noise.LinearTransform(noise.Dense(np.array([[0.5, -0.5], [0.0, 0.0]])))
    task = training.Classification(
        model=injected(noise.Injection(kind, layer=1)), labels_follow_noise=True
    )
    with pytest.raises(ValueError, match="negative weights"):
        task.check()
    with pytest.raises(ValueError, match="negative weights"):  # also without check()
        jax.eval_shape(lambda: task.inputs(batch(), context()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixup.layer": 2}, "mixup.layer=2, but mixup is off"),
        ({"mixup.layer": 2, "mixup.alpha": 0.2}, "mixup.layer=2: this model has no layer 2"),
        ({"mixup.layer": 1, "mixup.alpha": 0.2, "mixup.cutmix_alpha": 1.0}, "CutMix pastes boxes"),
        ({"mixup.layer": -1, "mixup.alpha": 0.2}, "mixup.layer=-1"),
    ],
)
def test_bad_layers_of_mixup_are_refused(changes, message, data_dir):
    with pytest.raises(ValueError, match=r"mixup\.layer") as error:
        training.build(small_config(data_dir, **changes))
    assert message in str(error.value)
