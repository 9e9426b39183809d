"""Which kernel computes attention: what cuDNN accepts, and that XLA's results are JAX's."""

import contextlib
import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from pnoise_jax import models
from pnoise_jax.models.parts import attention_kernels
from pnoise_jax.models.parts.attention import Attention
from pnoise_jax.models.parts.attention_kernels import Case, choose, refusal

VIT = Case(platform="cuda", capability=(9, 0), dtype="bfloat16", tokens=197, head_dim=64)
LENGTHS = {"query_seq_lengths", "key_value_seq_lengths"}
SMALL = {
    "vit_ti_16": {"depth": 1},
    "beit_b_16": {"depth": 1},
    "swin_t": {"stage_sizes": (1, 1), "window_size": 4},
    "convit_ti": {"depth": 2, "local_layers": 1},
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),  # ViT-B/16 at 224
        ({"tokens": 577}, None),  # at 384
        ({"dtype": "float16", "capability": (8, 0)}, None),
        ({"bias": True, "tokens": 198}, None),
        ({"bias": True, "training": False}, None),
        ({"head_dim": 256}, None),
        ({"head_dim": 256, "capability": (8, 9)}, "multiples of 8 up to 128"),
        ({"head_dim": 264}, "up to 256"),
        ({"head_dim": 36}, "head_dim=36"),
        ({"bias": True}, "197 tokens: in training, with a bias"),  # BEiT
        ({"bias": True, "tokens": 49, "head_dim": 32}, "49 tokens"),  # Swin
        ({"dtype": "float32"}, "the computation is in float32"),
        ({"weighted": True}, "after the softmax"),
        ({"platform": "cpu"}, "this is cpu"),
        ({"platform": "tpu"}, "this is tpu"),
        ({"platform": "rocm"}, "this is rocm"),
        ({"capability": (7, 5)}, "the GPU has 7.5"),
        ({"capability": ()}, "the GPU has unknown"),
    ],
    ids=str,
)
def test_what_cudnn_accepts(changes, reason, capsys):
    case = dataclasses.replace(VIT, **changes)
    attention_kernels._say_once.cache_clear()
    if reason is None:
        assert refusal(case) is None
        assert choose("cudnn", case) == "cudnn"
        assert choose("auto", case) == ("xla" if case.bias else "cudnn")  # a bias is untried
    else:
        assert reason in refusal(case)
        with pytest.raises(
            ValueError, match=r"attention_kernel='cudnn'.*set attention_kernel='auto'"
        ):
            choose("cudnn", case)
        assert [choose("auto", case) for _ in range(12)] == 12 * ["xla"]
    assert choose("xla", case) == "xla"
    said = capsys.readouterr().err.count("attention_kernel='auto'")
    assert said == (case.platform == "cuda" and (reason is not None or case.bias))


@pytest.mark.parametrize("name", ["", "flash", "Cudnn", "cuddn"])
def test_an_unknown_kernel_is_refused_at_construction(name):
    with pytest.raises(ValueError, match=r"attention_kernel=.*xla, auto, cudnn"):
        models.create_model("vit_ti_16", num_classes=3, attention_kernel=name)


@pytest.mark.parametrize("name", SMALL)
def test_on_cpus_auto_is_xla_and_cudnn_an_error(name):
    images = jnp.ones((2, 32, 32, 3))
    options = {"num_classes": 3, "image_size": 32, "patch_size": 4, **SMALL[name]}

    def gradient(model):
        def loss(variables, images):
            return model.apply(variables, images, train=True, rngs=keys).sum()

        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        return jax.make_jaxpr(jax.value_and_grad(loss))(variables, images)

    keys = {"dropout": jax.random.key(1)}
    programs = [
        str(gradient(models.create_model(name, attention_kernel=kernel, **options)))
        for kernel in ("xla", "auto")
    ]
    assert programs[0] == programs[1]
    model = models.create_model(name, attention_kernel="cudnn", **options)
    with pytest.raises(ValueError, match=r"attention_kernel='cudnn'.*this is cpu"):
        jax.eval_shape(model.init, jax.random.key(0), images)


@pytest.mark.long
@pytest.mark.parametrize("tokens", [5, pytest.param(8, marks=pytest.mark.slow)])
def test_a_padded_token_takes_no_part(tokens):
    query, key, value, weight = jax.random.normal(jax.random.key(0), (4, 3, tokens, 2, 8))
    attention = jax.nn.dot_product_attention

    def weighed(attend):
        return lambda *arrays: jnp.vdot(attend(*arrays), weight)

    padded = functools.partial(attention_kernels.attend_padded, attention)
    results = [
        jax.value_and_grad(weighed(f), argnums=(0, 1, 2))(query, key, value)
        for f in (padded, attention)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)
    assert padded(query, key, value).shape == query.shape
    runs = [jnp.stack([x, 2 * x]) for x in (query, key, value)]
    batched = jax.vmap(jax.grad(weighed(padded)))(*runs)
    separate = [jax.grad(weighed(attention))(*(x[run] for x in runs)) for run in range(2)]
    chex.assert_trees_all_close(batched, jnp.stack(separate), rtol=1e-5, atol=1e-6)


def test_lengths_of_padded_tokens_are_mapped_by_vmap():
    def lengths_of(query):
        recorded = {}
        attention_kernels.attend_padded(
            lambda *arrays, **lengths: (recorded.update(lengths), arrays[2])[1], query, query, query
        )
        assert recorded.keys() == LENGTHS
        return recorded["query_seq_lengths"]

    queries = jnp.full((3, 2, 5, 1, 8), jnp.nan)
    np.testing.assert_array_equal(jax.vmap(lengths_of)(queries), np.full((3, 2), 5))
    with pytest.raises(ValueError, match="out_axes"):  # as JAX's rule for cuDNN needs
        jax.vmap(lengths_of, out_axes=None)(queries)


@pytest.mark.parametrize(
    ("kernel", "tokens", "bias", "counted"),
    [
        ("cudnn", 197, False, 198),
        ("cudnn", 198, False, 198),
        ("cudnn", 50, True, 50),
        ("xla", 197, False, 197),
    ],
)
def test_odd_numbers_of_tokens_are_padded_for_cudnn(kernel, tokens, bias, counted, monkeypatch):
    monkeypatch.setattr(attention_kernels, "on_cpu", lambda: False)

    def record(query, key, value, bias=None, *, implementation, **lengths):
        assert query.shape == key.shape == value.shape == (2, counted, 1, 8)
        assert implementation == kernel
        assert set(lengths) == (set() if tokens == counted else LENGTHS)
        for length in lengths.values():
            np.testing.assert_array_equal(length, [tokens, tokens])
        return value

    monkeypatch.setattr(jax.nn, "dot_product_attention", record)
    x = jnp.ones((2, tokens, 1, 8), jnp.bfloat16)
    bias = jnp.zeros((1, 1, tokens, tokens), jnp.bfloat16) if bias else None
    assert attention_kernels.attend(x, x, x, bias, kernel=kernel).shape == x.shape


@pytest.mark.parametrize("bias", [None, (1, 1), (3, 2), "mask"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("on_one_device", [True, False])
def test_on_cpus_attention_by_xla_equals_jaxs(dtype, tolerance, bias, on_one_device):
    """Values and gradients, with fewer queries than keys and logits in the hundreds as well."""
    keys = jax.random.split(jax.random.key(0), 5)
    query = 30 * jax.random.normal(keys[0], (3, 4, 2, 9), dtype)
    key, value = jax.random.normal(keys[1], (2, 3, 7, 2, 9), dtype)
    weight = jax.random.normal(keys[2], (3, 4, 2, 9))
    added = None
    if bias == "mask":
        added = jnp.where(jnp.arange(7) < 5, 0, -jnp.inf)[None, None, None].astype(dtype)
    elif bias is not None:
        added = jax.random.normal(keys[3], (*bias, 4, 7), dtype)

    def loss(attend):
        return lambda *arrays: jnp.vdot(attend(*arrays).astype(jnp.float32), weight)

    attend = functools.partial(attention_kernels.attend, kernel="xla")
    gradients = functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
    mesh = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    with jax.set_mesh(mesh) if on_one_device else contextlib.nullcontext():
        results = [gradients(loss(attend))(query, key, value, added)]
    with jax.numpy_dtype_promotion("standard"):  # JAX's own needs it
        results.append(gradients(loss(jax.nn.dot_product_attention))(query, key, value, added))
    assert attend(query, key, value, added).dtype == dtype
    assert all(grad.dtype == dtype for grad in results[0][1])
    for ours, theirs in zip(*map(jax.tree.leaves, results), strict=True):
        scale = np.abs(np.asarray(theirs, np.float32)).max()
        np.testing.assert_allclose(
            np.float32(ours), np.float32(theirs), rtol=0, atol=tolerance * scale
        )


def test_runs_under_vmap_equal_separate_runs():
    module = Attention(num_heads=2, kernel="auto", train=True)
    x = jax.random.normal(jax.random.key(0), (3, 2, 5, 8))
    variables = jax.vmap(lambda key: module.init(key, x[0]))(jax.random.split(jax.random.key(1), 3))

    def loss(variables, x):
        return jnp.square(module.apply(variables, x)).sum()

    batched = jax.jit(jax.vmap(jax.grad(loss)))(variables, x)
    for run in range(3):
        separate = jax.jit(jax.grad(loss))(
            jax.tree.map(lambda leaf, i=run: leaf[i], variables), x[run]
        )
        for ours, theirs in zip(jax.tree.leaves(batched), jax.tree.leaves(separate), strict=True):
            np.testing.assert_allclose(ours[run], theirs, rtol=1e-5, atol=1e-6)
