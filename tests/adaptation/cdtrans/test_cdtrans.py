"""CDTrans: its three streams and its loss, against plain formulas."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from pnoise_jax import models, noise
from pnoise_jax.adaptation import CdTrans
from pnoise_jax.adaptation.cdtrans.branches import run_branches
from pnoise_jax.adaptation.cdtrans.cdtrans import distillation
from pnoise_jax.training import StepContext
from pnoise_jax.training.step.random_streams import RandomStreams

BATCH, SIDE, CLASSES = 4, 8, 3
SIZES = {"image_size": SIDE, "patch_size": 4, "dim": 8, "depth": 2, "num_heads": 2}
MIXING = noise.Injection(noise.LinearTransform(noise.Optimal()), layer=1)
DRAWING = noise.Injection(noise.Gaussian(std=0.5), layer="random", tokens="patch")


def create(name="vit_ti_16", **options):
    model = models.create_model(name, num_classes=CLASSES, **SIZES | options)
    return CdTrans.prepare_model(model)


def random_variables(model, seed=0):
    """Variables that are neither zero nor one, so that each one counts."""
    images = jnp.zeros((1, SIDE, SIDE, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (
            jnp.asarray(0.5 + np.abs(generator.normal(0, 0.3, x.shape)), jnp.float32)
            if x.ndim == 1
            else jnp.asarray(generator.normal(0, 0.4, x.shape), jnp.float32)
        ),
        variables,
    )


def inputs(seed=1, streams=3):
    shape = (streams, BATCH, 5, 8)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def keys(*numbers):
    return [{"noise": jax.random.key(n), "dropout": jax.random.key(100 + n)} for n in numbers]


branches = jax.jit(run_branches, static_argnums=0)


def part(model, variables, x, **call):
    """A part of one stream's pass alone; jitted, since the model is slow otherwise."""

    def run(variables, x, rngs):
        return model.apply(variables, x, rngs=rngs, method="forward", **call)

    return jax.jit(run)(variables, x, call.pop("rngs", {}))


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def attend(query, key, value, heads=2):
    """For one example: (tokens, dim) each."""
    out = []
    for q, k, v in zip(*(np.split(x, heads, axis=-1) for x in (query, key, value)), strict=True):
        out.append(special.softmax(q @ k.T / np.sqrt(q.shape[-1]), axis=-1) @ v)
    return np.concatenate(out, axis=-1)


def reference(params, source, target, fusion):
    """The class tokens (3, dim) of one pair, by the description of the three branches."""
    streams = [source, target, fusion]
    for layer in (1, 2):
        p = params[f"block_{layer}"]
        split = [np.split(dense(norm(x, p["norm1"]), p["attn"]["qkv"]), 3, -1) for x in streams]
        (query, *_), (_, key, value) = split[0], split[1]
        weighed = [attend(*split[0]), attend(*split[1]), attend(query, key, value)]
        for number, x in enumerate(weighed):
            x = streams[number] + dense(x, p["attn"]["proj"])
            hidden = dense(norm(x, p["norm2"]), p["mlp"]["fc1"])
            hidden = hidden * special.ndtr(hidden)
            streams[number] = x + dense(hidden, p["mlp"]["fc2"])
    return np.stack([norm(x, params["norm"])[0] for x in streams])


def test_the_fusion_has_queries_of_the_source_and_keys_of_the_target():
    model, x = create(), inputs()
    variables = random_variables(model)
    features = branches(model, variables, x, keys(0, 1, 2))
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), variables["params"])
    for example in range(BATCH):
        expected = reference(params, *np.asarray(x[:, example], np.float64))
        np.testing.assert_allclose(features[:, example], expected, atol=2e-4)


SWIN = {"patch_size": 1, "dim": 8, "head_dim": 4, "stage_sizes": (2, 1), "window_size": 4}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_ti_16", SIZES),
        ("beit_b_16", SIZES),
        ("convit_ti", SIZES | {"depth": 3, "local_layers": 1}),
        ("swin_t", SWIN | {"image_size": SIDE}),
        ("vit_parallel_s_14", SIZES),
    ],
)
def test_every_transformer_has_three_streams(name, options):
    model = CdTrans.prepare_model(models.create_model(name, num_classes=CLASSES, **options))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, BATCH, SIDE, SIDE, 3)), "float32")
    variables = random_variables(model)
    x = [part(model, variables, each, end=1) for each in images]
    features = branches(model, variables, jnp.stack([*x, x[1]]), keys(0, 1, 2))
    separate = [part(model, variables, each, end="features", train=True) for each in images]
    np.testing.assert_allclose(features[:2], jnp.stack(separate), atol=1e-4)
    assert np.abs(features[2] - features[1]).max() > 1e-3
    same = branches(model, variables, jnp.stack([x[1]] * 3), keys(0, 1, 2))
    np.testing.assert_allclose(same[2], same[1], atol=1e-5)  # all queries are the target's


@pytest.mark.long
@pytest.mark.parametrize("injection", [MIXING, DRAWING, (MIXING, DRAWING)])
def test_noise_mixes_each_stream_separately(injection):
    model = create(injection=injection)
    variables, x = random_variables(model), inputs()
    features = branches(model, variables, x, keys(0, 1, 2))
    for stream in (0, 1):
        call = {"start": 1, "end": "features", "train": True}
        separate = part(model, variables, x[stream], **call, rngs=keys(0, 1, 2)[stream])
        np.testing.assert_allclose(features[stream], separate, atol=1e-4)
        plain = part(model.clone(injection=None), variables, x[stream], **call)
        assert np.abs(features[stream] - plain).max() > 1e-2
    # The input of the fusion reaches no other stream.
    changed = branches(model, variables, x.at[2].set(inputs(9)[2]), keys(0, 1, 2))
    chex.assert_trees_all_equal(changed[:2], features[:2])
    assert np.abs(changed[2] - features[2]).max() > 1e-2


def test_recomputed_blocks_have_the_same_gradients():
    x = inputs()

    def gradient(model):
        variables = random_variables(model)

        def loss(params):
            return jnp.sin(run_branches(model, {"params": params}, x, keys(0, 1, 2))).sum()

        return jax.jit(jax.grad(loss))(variables["params"])

    plain, recomputed = (
        gradient(create(injection=MIXING)),
        gradient(create(injection=MIXING, remat=True)),
    )
    chex.assert_trees_all_close(plain, recomputed, atol=1e-4, rtol=1e-4)
    assert np.abs(plain["block_2"]["attn"]["qkv"]["kernel"]).max() > 0


def test_attention_that_cannot_be_crossed_is_refused():
    class Own(models.Classifier, kw_only=True):
        num_layers = 1

        def run_embed(self, images, *, train):
            return images.reshape(len(images), -1)

        def run_block(self, x, taps, *, layer, train):
            return nn.Dense(8, name="block_1")(x)

        def run_features(self, x, *, train):
            return x

    model = Own(num_classes=CLASSES)
    x = inputs()[:, :, 0]
    variables = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 2)))
    with pytest.raises(ValueError, match="0 of the 1 layers of Own have an attention with"):
        branches(model, variables, x, keys(0, 1, 2))


def example_batch(seed=3):
    generator = np.random.default_rng(seed)
    shape = (BATCH, SIDE, SIDE, 3)
    images = [jnp.asarray(generator.integers(0, 256, shape), jnp.uint8) for _ in range(2)]
    labels = [jnp.asarray(generator.integers(0, CLASSES, BATCH), jnp.int32) for _ in range(2)]
    names = ("image", "target_image", "label", "pseudo_label")
    return dict(zip(names, images + labels, strict=True))


def state_of(variables):
    pairs = {"count": jnp.int32(7), "classes": jnp.int32(2)}
    return {"batch_stats": variables["batch_stats"], "pairs": pairs}


def loss_of(task, variables, batch):
    """The loss, (state, metrics), and the gradient."""

    def loss(params, state, batch):
        context = StepContext(jnp.int32(0), RandomStreams(jax.random.key(0)))
        return task.loss(params, state, batch, context)

    function = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, aux), gradient = function(variables["params"], state_of(variables), batch)
    return value, aux, gradient


def neck(features, scale, kernel):
    mean, var = features.mean(0), features.var(0)
    return (features - mean) / np.sqrt(var + 1e-5) * scale @ kernel


def cross_entropy(logits, labels):
    return -special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("swap", [False, True])
def test_the_loss_is_the_sum_of_its_terms(swap):
    weights = {"source_weight": 0.5, "pseudo_weight": 2.0, "distillation_weight": 3.0}
    task = CdTrans(model=create(), swap=swap, label_smoothing=0.1, **weights)  # not for pairs
    variables, batch = random_variables(task.model), example_batch()
    loss, (after, metrics), _ = loss_of(task, variables, batch)

    def embedded(images):
        images = np.asarray(images, np.float32) / 255 * 2 - 1
        return part(task.model, variables, images, end=1)

    x = [embedded(batch["image"]), embedded(batch["target_image"])]
    features = np.asarray(
        branches(task.model, variables, jnp.stack([*x, x[1]]), keys(0, 1, 2)), np.float64
    )
    head = jax.tree.map(np.asarray, variables["params"]["head"])
    source, target, fusion = (
        neck(stream, head["norm"]["scale"], head["dense"]["kernel"]) for stream in features
    )
    learner, teacher = (fusion, target) if swap else (target, fusion)
    p = special.softmax(teacher, axis=1)
    expected = {
        "class_loss": cross_entropy(source, np.asarray(batch["label"])),
        "pseudo_loss": cross_entropy(learner, np.asarray(batch["pseudo_label"])),
        "distillation": -(p * special.log_softmax(learner, axis=1)).sum(1).mean(),
        "source_top1": 100 * (source.argmax(1) == batch["label"]).mean(),
        "pairs": 7.0,
        "pseudo_classes": 2.0,
    }
    chex.assert_trees_all_close(metrics, expected, atol=2e-3, rtol=1e-3)
    total = 0.5 * expected["class_loss"] + 2 * expected["pseudo_loss"]
    assert float(loss) == pytest.approx(total + 3 * expected["distillation"], abs=5e-3)

    # Running statistics: source, fusion, target, one after the other.
    stats = jax.tree.map(np.asarray, variables["batch_stats"]["head"]["norm"])
    for stream in (features[0], features[2], features[1]):
        stats = {
            "mean": 0.9 * stats["mean"] + 0.1 * stream.mean(0),
            "var": 0.9 * stats["var"] + 0.1 * stream.var(0),
        }
    chex.assert_trees_all_close(after["batch_stats"]["head"]["norm"], stats, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("term", ["source", "pseudo", "distillation"])
def test_each_term_can_be_turned_off(term):
    whole = CdTrans(model=create())
    variables = random_variables(whole.model)
    loss, (_, metrics), gradient = loss_of(whole, variables, example_batch())
    without = dataclasses.replace(whole, **{f"{term}_weight": 0.0})
    reduced, (_, same), other = loss_of(without, variables, example_batch())
    chex.assert_trees_all_close(metrics, same, rtol=1e-5)  # still logged
    change = jax.tree.map(lambda a, b: np.abs(a - b).max(), gradient, other)
    assert change["head"]["dense"]["kernel"] > 1e-4
    name = {"source": "class_loss", "pseudo": "pseudo_loss"}.get(term, term)
    assert float(loss - reduced) == pytest.approx(float(metrics[name]), rel=1e-4)


def test_the_teacher_learns_only_if_it_is_not_detached():
    teacher, learner = jnp.array([[1.0, 0.0, -1.0]]), jnp.array([[0.5, 2.0, 0.0]])
    for detach in (True, False):
        loss = lambda t, d=detach: distillation(t, learner, detach=d)  # noqa: E731
        assert bool((jax.grad(loss)(teacher) == 0).all()) is detach
    p = special.softmax(np.array(teacher))
    expected = -(p * special.log_softmax(np.array(learner))).sum()
    value = distillation(teacher, learner, detach=True)
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_before_there_are_pairs_only_the_source_is_learned():
    task = CdTrans(model=create(), label_smoothing=0.1)
    variables, batch = random_variables(task.model), example_batch()
    batch = {name: batch[name] for name in ("image", "label")}
    loss, (_, metrics), _ = loss_of(task, variables, batch)
    assert loss == metrics["class_loss"] > 0
    assert metrics["pseudo_loss"] == metrics["distillation"] == 0
    sharp, *_ = loss_of(dataclasses.replace(task, label_smoothing=0.0), variables, batch)
    assert abs(float(sharp - loss)) > 1e-3


def test_the_head_is_a_norm_without_bias_and_a_small_dense_layer():
    model = models.create_model("vit_ti_16", num_classes=50, **SIZES | {"dim": 64})
    init = jax.jit(CdTrans.prepare_model(model).init)
    params = init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    head = params["params"]["head"]
    assert {name: set(arrays) for name, arrays in head.items()} == {
        "norm": {"scale"},
        "dense": {"kernel"},
    }
    assert float(head["dense"]["kernel"].std()) == pytest.approx(1e-3, rel=0.1)
    assert hash(CdTrans.prepare_model(model)) == hash(CdTrans.prepare_model(model))


def test_a_model_that_is_not_a_transformer_is_refused():
    with pytest.raises(ValueError, match="ResNet is not a transformer, which CDTrans needs"):
        CdTrans.prepare_model(models.create_model("resnet18", num_classes=3))
