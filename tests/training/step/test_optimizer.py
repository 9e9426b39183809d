"""Optimisers and schedules."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pnoise_jax import models, training
from pnoise_jax.training import optimizer
from tests.training.runs import small_config


def section(**changes):
    config = training.default_config().optimizer
    config.learning_rate = 0.1
    config.update(changes)
    return config


def schedule(total=100, warmup=10, **changes):
    return optimizer.learning_rate_schedule(
        section(**changes), warmup_steps=warmup, total_steps=total
    )


def test_warmup_then_cosine_to_zero():
    rate = schedule()
    np.testing.assert_allclose([rate(0), rate(5), rate(10)], [0.0, 0.05, 0.1], atol=1e-7)
    assert float(rate(55)) == pytest.approx(0.05, abs=1e-6)  # half of the cosine
    assert float(rate(100)) == pytest.approx(0.0, abs=1e-7)
    assert float(schedule(warmup=0)(0)) == pytest.approx(0.1)
    assert float(schedule(warmup=0, schedule="constant")(7)) == pytest.approx(0.1)
    constant = schedule(schedule="constant")
    np.testing.assert_allclose([constant(5), constant(99)], [0.05, 0.1], rtol=1e-6)


def test_an_inverse_schedule_does_not_depend_on_the_length_of_the_run():
    """SSRT's: lr0 * (1 + 0.001 i)^-0.75."""
    steps = np.array([0, 1, 500, 20_000])
    rates = [schedule(warmup=0, schedule="inverse")(step) for step in steps]
    np.testing.assert_allclose(rates, 0.1 * (1 + 0.001 * steps) ** -0.75, rtol=1e-6)
    warmed = schedule(schedule="inverse")
    np.testing.assert_allclose([warmed(0), warmed(5), warmed(10)], [0, 0.05, 0.1], atol=1e-7)
    assert float(jax.jit(warmed)(jnp.int32(1010))) == pytest.approx(0.1 * 2**-0.75, rel=1e-6)


def test_a_cosine_by_epoch_ends_near_its_final_rate():
    """PyTorch's CosineAnnealingLR, stepped once an epoch."""
    config = section(schedule="cosine_by_epoch", final_learning_rate=0.01)
    rate = optimizer.learning_rate_schedule(
        config, warmup_steps=0, total_steps=30, steps_per_epoch=3
    )
    epochs = np.arange(30) // 3
    expected = 0.01 + (0.1 - 0.01) * (1 + np.cos(np.pi * epochs / 10)) / 2
    np.testing.assert_allclose([rate(step) for step in range(30)], expected, rtol=1e-6)
    assert float(rate(jnp.int32(30))) == pytest.approx(0.01)
    smooth = schedule(warmup=0, final_learning_rate=0.01)
    assert float(smooth(50)) == pytest.approx(0.055)
    assert float(smooth(100)) == pytest.approx(0.01)


def test_a_warmup_by_epoch_starts_with_an_epoch_at_zero():
    rate = optimizer.learning_rate_schedule(
        section(schedule="cosine_by_epoch"), warmup_steps=10, total_steps=100, steps_per_epoch=5
    )
    np.testing.assert_allclose([rate(4), rate(5), rate(9), rate(10)], [0, 0.05, 0.05, 0.1])


@pytest.mark.parametrize(
    ("examples", "batch", "epochs"),
    [(300, 120, 100), (300, 128, 100), (50_000, 128, 30), (10, 10, 7), (14_197_122, 4096, 800)],
)
def test_a_rate_by_epoch_changes_once_an_epoch(examples, batch, epochs):
    """Also if an epoch is not a whole number of steps, or a product does not fit 32 bits."""
    total = round(epochs * examples / batch)
    rate = optimizer.learning_rate_schedule(
        section(schedule="cosine_by_epoch"),
        warmup_steps=0,
        total_steps=total,
        steps_per_epoch=Fraction(examples, batch),
    )
    steps = np.unique(np.linspace(0, total - 1, 20_000).astype(np.int64))
    share = steps * batch // examples * examples / batch / total  # the whole run is rounded
    expected = 0.05 * (1 + np.cos(np.pi * share))
    rates = jax.jit(jax.vmap(rate))(jnp.asarray(steps, jnp.int32))
    np.testing.assert_allclose(rates, expected, atol=2e-6)
    if total <= 20_000:
        assert len(np.unique(rates)) == epochs


@pytest.mark.parametrize("name", ["cosine", "cosine_by_epoch"])
def test_a_cosine_from_0_to_another_rate_is_an_error(name):
    message = r"learning_rate=0.0, optimizer.final_learning_rate=0.1: .* set .*learning_rate above"
    with pytest.raises(ValueError, match=message):
        schedule(schedule=name, learning_rate=0.0, final_learning_rate=0.1)
    assert float(schedule(schedule=name, learning_rate=0.0)(50)) == 0


def test_a_warmup_longer_than_the_run_is_an_error():
    with pytest.raises(ValueError, match=r"optimizer.warmup='9 epochs' is 200 steps, longer"):
        optimizer.learning_rate_schedule(
            section(warmup="9 epochs"), warmup_steps=200, total_steps=100
        )


PARAMS = {
    "cls_token": jnp.ones((1, 1, 4)),
    "pos_embed": jnp.ones((1, 3, 4)),
    "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
    "norm": {"scale": jnp.ones(4)},
    "conv": {"kernel": jnp.ones((2, 2, 1, 4))},
}


def test_only_kernels_decay():
    decayed = optimizer.decayed(PARAMS)
    assert decayed == {
        "cls_token": False,
        "pos_embed": False,
        "head": {"kernel": True, "bias": False},
        "norm": {"scale": False},
        "conv": {"kernel": True},
    }


ONE_BLOCK = {
    "deit_ti_16_distilled": {"depth": 1},
    "beit_b_16": {"depth": 1},
    "vit_little_16_reg4": {"depth": 1},
    "vit_b_32_clip": {"depth": 1},
    "vit_parallel_s_14": {"depth": 1},
    "swinv2_t": {"stage_sizes": (1, 1, 1, 1)},
    "maxvit_t": {"stage_sizes": (1, 1, 1, 1)},
    "davit_t": {"stage_sizes": (2, 2, 2, 2)},
}


@pytest.mark.parametrize("name", ONE_BLOCK)
def test_in_each_family_only_weights_decay_and_only_the_end_has_the_full_rate(name):
    model = models.create_model(name, num_classes=2, **ONE_BLOCK[name])
    images = jnp.zeros((1, *(model.image_shape or (224, 224)), 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    for path, is_decayed in jax.tree.leaves_with_path(optimizer.decayed(params)):
        *_, module, leaf = (key.key for key in (path[0], *path))
        is_weight = leaf in ("kernel", "latent") and not module.startswith("cpb_")
        assert is_decayed == is_weight, path
    layers = [model.layer_name(layer) for layer in range(1, model.num_layers + 1)]
    factors = optimizer.learning_rate_multipliers(params, section(layer_decay=0.5), layers)
    end = {"norm", "fc_norm", "attn_pool", "pre_head", "head", "head_dist"}
    full_rate = {path[0].key for path, factor in jax.tree.leaves_with_path(factors) if factor == 1}
    assert full_rate <= end


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_shrinks_kernels_and_nothing_else(name):
    config = section(name=name, weight_decay=0.5)
    transform = optimizer.create_optimizer(config, optax.constant_schedule(0.1))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = transform.update(zeros, transform.init(PARAMS), PARAMS)
    for path, update in jax.tree.leaves_with_path(updates):
        is_kernel = path[-1].key == "kernel"
        momentum = 1.9 if name == "sgd" else 1.0  # Nesterov's first step
        np.testing.assert_allclose(update, -0.05 * momentum * is_kernel, rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_on_all_shrinks_everything(name):
    config = section(name=name, weight_decay=0.5, weight_decay_on="all", momentum=0.0)
    transform = optimizer.create_optimizer(config, optax.constant_schedule(0.1))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = transform.update(zeros, transform.init(PARAMS), PARAMS)
    for update in jax.tree.leaves(updates):
        np.testing.assert_allclose(update, -0.05, rtol=1e-5)


def test_clipping_uses_the_norm_over_all_parameters():
    config = section(name="sgd", weight_decay=0.0, momentum=0.0, clip_norm=1.0)
    transform = optimizer.create_optimizer(config, optax.constant_schedule(1.0))
    gradients = jax.tree.map(lambda x: 100.0 * x, PARAMS)
    updates, _ = transform.update(gradients, transform.init(PARAMS), PARAMS)
    assert float(optax.tree.norm(updates)) == pytest.approx(1.0, rel=1e-5)


# Fine-tuning

VIT = {
    "patch_embed": {"kernel": jnp.ones((2, 2, 1, 4))},
    "cls_token": jnp.ones((1, 1, 4)),
    "block_1": {"attn": {"qkv": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}}},
    "block_2": {"norm1": {"scale": jnp.ones(4)}},
    "norm": {"scale": jnp.ones(4)},
    "head": {"kernel": jnp.ones((4, 2))},
}
LAYERS = ("block_1", "block_2")


def test_learning_rates_fall_by_layer():
    config = section(layer_decay=0.5, head_learning_rate_multiplier=10.0)
    assert optimizer.learning_rate_multipliers(VIT, config, LAYERS) == {
        "patch_embed": {"kernel": 0.125},
        "cls_token": 0.125,
        "block_1": {"attn": {"qkv": {"kernel": 0.25, "bias": 0.25}}},
        "block_2": {"norm1": {"scale": 0.5}},
        "norm": {"scale": 1.0},
        "head": {"kernel": 10.0},
    }


def test_the_first_matching_rate_multiplies_the_rate_of_the_layer():
    config = section(layer_decay=0.5, rates=("block_1/.*/bias=20", ".*/bias=2", "head/.*=10"))
    params = VIT | {"task": {"out": {"kernel": jnp.ones((4, 1)), "bias": jnp.ones(1)}}}
    assert optimizer.learning_rate_multipliers(params, config, LAYERS) == {
        "patch_embed": {"kernel": 0.125},
        "cls_token": 0.125,
        "block_1": {"attn": {"qkv": {"kernel": 0.25, "bias": 5.0}}},
        "block_2": {"norm1": {"scale": 0.5}},
        "norm": {"scale": 1.0},
        "head": {"kernel": 10.0},
        "task": {"out": {"kernel": 1.0, "bias": 2.0}},
    }


def test_rates_alone_scale_the_update():
    """As published: everything but the head at a tenth of the rate."""
    config = section(name="sgd", weight_decay=0.0, momentum=0.0, rates=("head/.*=1", ".*=0.1"))
    transform = optimizer.create_optimizer(config, optax.constant_schedule(1.0))
    updates, _ = transform.update(VIT, transform.init(VIT), VIT)
    np.testing.assert_allclose(updates["head"]["kernel"], -1.0)
    np.testing.assert_allclose(updates["norm"]["scale"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["block_1"]["attn"]["qkv"]["bias"], -0.1, rtol=1e-6)


def test_a_rate_that_matches_nothing_lists_paths():
    with pytest.raises(
        ValueError,
        match=r"optimizer.rates: 'head/bias' matches none .* which include .*head/kernel",
    ):
        optimizer.require_rates(VIT, ("head/.*=2", "head/bias=3"))
    optimizer.require_rates(VIT, ("head/.*=2", "head/kernel=3"))


def test_modules_outside_layers_get_the_rate_of_a_neighbour():
    """Swin's merging belongs to the next block; DeiT's second head and BEiT's norm to the head."""
    after_layers = ("head_dist", "fc_norm", "pre_head")
    params = {
        name: {"kernel": jnp.ones((2, 2))}
        for name in (
            "patch_norm",
            "bn1",
            "stage1_block1",
            "merge_2",
            "stage2_block1",
            *after_layers,
        )
    }
    params["dist_token"] = jnp.ones((1, 1, 2))
    layers = ("stage1_block1", "stage2_block1")
    config = section(layer_decay=0.5, head_learning_rate_multiplier=4.0)
    multipliers = optimizer.learning_rate_multipliers(params, config, layers)
    assert multipliers.pop("dist_token") == 0.125
    assert {name: module["kernel"] for name, module in multipliers.items()} == {
        "patch_norm": 0.125,
        "bn1": 0.125,
        "stage1_block1": 0.25,
        "merge_2": 0.5,
        "stage2_block1": 0.5,
        "head_dist": 4.0,
        "fc_norm": 1.0,
        "pre_head": 1.0,
    }
    assert optimizer.decayed(params)["dist_token"] is False


def test_flags_of_a_pattern_do_not_break_others():
    assert optimizer.frozen(VIT, ("(?i)NORM/.*", "head/.*"))["norm"] == {"scale": True}


def test_layer_decay_uses_the_layers_of_the_model(data_dir):
    config = small_config(data_dir, **{"optimizer.layer_decay": 0.5, "steps": 1})
    config.model = training.model_config("resnet18", stage_sizes=(1, 1), width=4, stem="small")
    config.optimizer.update(name="sgd", weight_decay=0.0, momentum=0.0, learning_rate=1.0)
    experiment = training.build(config)
    ones = jax.tree.map(lambda x: jnp.ones(x.shape), experiment.variables["params"])
    transform = experiment.optimizer
    updates, _ = transform.update(ones, transform.init(ones), ones)
    rates = {
        name: -float(jax.tree.leaves(update)[0].ravel()[0]) for name, update in updates.items()
    }
    assert rates == {
        "conv1": 0.125,
        "bn1": 0.125,
        "stage1_block1": 0.25,
        "stage2_block1": 0.5,
        "head": 1.0,
    }


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_multiplier_acts_like_a_learning_rate(name):
    """Two steps of the block equal those of an optimiser with a quarter of the rate."""
    both = [
        optimizer.create_optimizer(
            section(name=name, layer_decay=decay), optax.constant_schedule(rate), layers=LAYERS
        )
        for decay, rate in ((0.5, 0.4), (None, 0.1))
    ]
    ended = []
    for transform in both:
        params, state = VIT, transform.init(VIT)
        for scale in (1.0, 0.5):
            gradients = jax.tree.map(lambda x, scale=scale: scale * x, params)
            updates, state = transform.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        ended.append(params)
    block = [params["block_1"]["attn"]["qkv"]["kernel"] for params in ended]
    np.testing.assert_allclose(*block, rtol=1e-6)
    assert np.abs(ended[0]["head"]["kernel"] - ended[1]["head"]["kernel"]).min() > 0.1


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_frozen_parameters_neither_move_nor_have_a_state(name):
    config = section(name=name, clip_norm=1.0, freeze=("cls_token", "block_1/.*"), layer_decay=0.5)
    transform = optimizer.create_optimizer(config, optax.constant_schedule(0.1), layers=LAYERS)
    state = transform.init(VIT)
    state_size = sum(x.size for x in jax.tree.leaves(state) if x.ndim)
    trained = 16 + 4 + 4 + 8  # patch_embed, norm1, norm, head
    assert state_size == trained * (2 if name == "adamw" else 1)
    updates, _ = transform.update(VIT, state, VIT)
    moved = jax.tree.map(lambda x: bool((x != 0).any()), updates)
    assert moved == {
        "patch_embed": {"kernel": True},
        "cls_token": False,
        "block_1": {"attn": {"qkv": {"kernel": False, "bias": False}}},
        "block_2": {"norm1": {"scale": True}},
        "norm": {"scale": True},
        "head": {"kernel": True},
    }


def test_clipping_ignores_frozen_parameters():
    config = section(name="sgd", weight_decay=0.0, momentum=0.0, clip_norm=1.0)
    config.freeze = ("(?!head).*",)
    transform = optimizer.create_optimizer(config, optax.constant_schedule(1.0))
    updates, _ = transform.update(VIT, transform.init(VIT), VIT)
    assert float(optax.tree.norm(updates)) == pytest.approx(1.0, rel=1e-6)


def test_a_pattern_must_match_a_whole_path():
    assert optimizer.frozen(VIT, ("norm/scale", ".*/qkv/.*"))["block_2"] == {
        "norm1": {"scale": False}
    }
    with pytest.raises(
        ValueError, match=r"'norm' matches none of the 7 parameters, which include norm/"
    ):
        optimizer.require_frozen(VIT, ("head/.*", "norm"))
    with pytest.raises(ValueError, match="leaves no parameter to train"):
        optimizer.require_frozen(VIT, ("[a-m].*", "[n-z].*"))
    optimizer.require_frozen(VIT, ())


def test_without_fine_tuning_the_state_is_that_of_optax():
    """So that checkpoints of older versions resume."""
    transform = optimizer.create_optimizer(section(), optax.constant_schedule(0.1))
    plain = optax.chain(optax.adamw(optax.constant_schedule(0.1), mask=optimizer.decayed))
    assert jax.tree.structure(transform.init(VIT)) == jax.tree.structure(plain.init(VIT))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer.layer_decay", 0.0, r"layer_decay=0.0: give a number in \(0, 1\]"),
        ("optimizer.layer_decay", 1.5, r"layer_decay=1.5: give a number in \(0, 1\]"),
        ("optimizer.head_learning_rate_multiplier", 0.0, "multiplier=0.0: give a number in"),
        (
            "optimizer.freeze",
            ("block_(1",),
            r"'block_\(1' is not a valid regular expression \(missing \)",
        ),
        ("optimizer.freeze", (3,), r"=\[3\]: give patterns of names, such as"),
        ("optimizer.freeze", (None,), r"or \(\) for none"),
        ("optimizer.rates", ("head/.*",), r"'head/\.\*' is not PATTERN=FACTOR; give one such as"),
        ("optimizer.rates", ("=2",), "'=2' is not PATTERN=FACTOR"),
        ("optimizer.rates", ("head/.*=ten",), "the factor 'ten' is not a number"),
        ("optimizer.rates", ("head/.*=0",), "give a factor above 0 and below inf"),
        ("optimizer.rates", ("head/.*=-1",), "give a factor above 0 and below inf"),
        ("optimizer.rates", ("head/.*=nan",), "give a factor above 0 and below inf"),
        ("optimizer.rates", ("block_(1=2",), r"'block_\(1' is not a valid regular expression"),
        ("optimizer.rates", (3,), "give strings PATTERN=FACTOR, such as"),
        ("weights_head", "zero", "weights_head='zero': give one of auto, keep, fresh"),
    ],
)
def test_a_bad_value_is_named(field, value, message):
    config = training.default_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        training.validate(config)
