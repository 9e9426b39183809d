"""Self-attention against its formula, and with few queries against that with all."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import parallel
from pnoise_jax.models.parts.attention import Attention
from pnoise_jax.studies import ahead_of_time

X = jax.random.normal(jax.random.key(0), (3, 7, 16))


class Biased(Attention, kw_only=True):
    """Attention with a bias that is added to its logits."""

    @nn.compact
    def __call__(self, x, bias):
        return self.attend(x, bias)


@pytest.mark.parametrize("qkv_bias", ["all", "query and value", "none"])
def test_attention_with_biases(qkv_bias):
    """Against the formula, for a bias of the logits, and of queries, keys and values."""
    tokens, dim, heads = 5, 8, 2
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, tokens, dim)).astype(np.float32)
    bias = rng.normal(size=(1, heads, tokens, tokens)).astype(np.float32)
    options = {"num_heads": heads, "qkv_bias": qkv_bias}
    plain, biased = Attention(**options), Biased(**options)
    shapes = jax.eval_shape(plain.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    params = variables["params"]

    if qkv_bias == "all":
        added = params["qkv"]["bias"]
    elif qkv_bias == "none":
        assert {*params} | {*params["qkv"]} == {"qkv", "proj", "kernel"}
        added = 0
    else:
        assert set(params) == {"qkv", "q_bias", "v_bias", "proj"}
        added = np.concatenate([params["q_bias"], np.zeros(dim), params["v_bias"]])
    qkv = (x @ params["qkv"]["kernel"] + added).reshape(3, tokens, 3, heads, dim // heads)
    query, key, value = qkv.transpose(2, 0, 3, 1, 4)
    logits = query @ key.swapaxes(2, 3) / np.sqrt(dim // heads)
    for actual, added_logits in (
        (biased.apply(variables, x, bias), bias),
        (plain.apply(variables, x), 0),
    ):
        weights = nn.softmax(jnp.asarray(logits + added_logits))
        joined = (weights @ value).swapaxes(1, 2).reshape(3, tokens, dim)
        expected = joined @ params["proj"]["kernel"] + params["proj"]["bias"]
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def drawn(module: Attention) -> dict:
    """Random parameters that are all large enough to matter."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), X)
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [0.3 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("queries", [1, 2])
@pytest.mark.parametrize("qkv_bias", ["all", "none"])
def test_few_queries_attend_as_they_do_among_all(qkv_bias, queries, dtype):
    whole = Attention(num_heads=4, qkv_bias=qkv_bias, dtype=jnp.dtype(dtype))
    few = whole.clone(queries=queries)
    variables = drawn(whole)
    chex.assert_trees_all_equal(  # the initial parameters, too
        *(jax.jit(each.init)(jax.random.key(0), X) for each in (few, whole))
    )

    def loss(module, variables, x):
        y = module.apply(variables, x)[:, :queries].astype(jnp.float32)
        return jnp.sum(jnp.sin(y)), y

    actual, expected = (
        jax.jit(jax.grad(functools.partial(loss, module), argnums=(0, 1), has_aux=True))(
            variables, X
        )
        for module in (few, whole)
    )
    tolerance = 1e-5 if dtype == "float32" else 0.03
    for close, exact in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        difference = (close - exact).astype(jnp.float32)
        assert jnp.linalg.norm(difference) <= tolerance * jnp.linalg.norm(exact) + 1e-6


def test_few_queries_project_no_other_token():
    """Only two products with each token remain, those with the queries of all heads."""
    dim, heads, tokens = 64, 2, 1000
    module = Attention(num_heads=heads, queries=1)
    x = jax.ShapeDtypeStruct((1, tokens, dim), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    flops = ahead_of_time.count_flops(module.apply, variables, x)
    assert 2 * 2 * tokens * heads * dim < flops < 1.2 * 2 * 2 * tokens * heads * dim


def test_all_tokens_are_projected_where_kernel_gradients_have_another_dtype():
    few = Attention(num_heads=4, queries=1)
    variables, mesh = drawn(few), parallel.data_mesh()
    projected = []

    def record(method, args, kwargs, context):
        if isinstance(context.module, nn.Dense):
            projected.append((context.module.name, args[0].shape[1]))
        return method(*args, **kwargs)

    assert mesh.size > 1
    with parallel.reduce_kernels_in("float32", mesh), nn.intercept_methods(record):
        expected = few.apply(variables, X)
    assert projected == [("qkv", 7), ("proj", 1)]
    with nn.intercept_methods(record):
        chex.assert_trees_all_close(few.apply(variables, X), expected, atol=1e-5)
    assert projected[2:] == [("proj", 1)]


@pytest.mark.parametrize(
    "options",
    [
        {"qk_norm": nn.RMSNorm},
        {"qkv_bias": "query and value"},
        {"key_gate": lambda *, train, name: lambda key: 1 + jnp.abs(key.sum(-1))},
    ],
    ids=lambda options: next(iter(options)),
)
def test_few_queries_with_something_between_projection_and_attention(options):
    whole = Attention(num_heads=4, **options)
    variables = drawn(whole)
    few = jax.jit(whole.clone(queries=1).apply)(variables, X)
    chex.assert_trees_all_close(few, jax.jit(whole.apply)(variables, X)[:, :1], atol=1e-5)


def test_few_queries_still_refuse_a_kernel_that_cannot_run():
    with pytest.raises(ValueError, match="attention_kernel='cudnn': it runs only on NVIDIA GPUs"):
        Attention(num_heads=4, queries=1, kernel="cudnn").init(jax.random.key(0), X)
