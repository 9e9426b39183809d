"""The dtype in which devices sum gradients of kernels: what it changes, and what is exchanged."""

import functools
import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import noise, parallel, training
from pnoise_jax.training.experiment import build
from pnoise_jax.training.step.program import create_program
from tests.training.runs import small_config


class Mixed(nn.Module):
    """Every kind of module with a kernel; in one, the first axis is not the batch."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), dtype=self.dtype, name="conv")(x)
        x = nn.DenseGeneral((2, 4), axis=(1, 2, 3), dtype=self.dtype, name="general")(x)
        x = nn.DenseGeneral(3, axis=0, dtype=self.dtype, name="over_batch")(x)
        return nn.Dense(2, dtype=self.dtype, name="dense")(x).astype(jnp.float32)


def gradients(model, reduce_dtype, x, params):
    """Gradients of the sum of squares; x is split over devices."""
    mesh = parallel.data_mesh()

    def loss(params, x):
        with parallel.reduce_kernels_in(reduce_dtype, mesh):
            return (model.apply(params, x) ** 2).sum()

    everywhere, split = parallel.replicated(mesh), parallel.split_batch(mesh)
    step = jax.jit(jax.grad(loss), in_shardings=(everywhere, split), out_shardings=everywhere)
    return step(params, x)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(16, 4, 4, 3)).astype(np.float32)


@pytest.mark.parametrize(("reduce_dtype", "rtol"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_gradients_are_the_same_but_for_rounding(reduce_dtype, rtol, images):
    params = Mixed().init(jax.random.key(0), images)
    expected = gradients(Mixed(), None, images, params)
    actual = gradients(Mixed(), reduce_dtype, images, params)

    def norms(tree):
        return {name: np.linalg.norm(x) for name, x in leaves(tree).items()}

    difference = norms(jax.tree.map(jnp.subtract, actual, expected))
    for name, size in norms(expected).items():
        assert difference[name] <= rtol * size, name
    if reduce_dtype == "bfloat16":  # and kernels are rounded, if their axis is the batch
        assert difference["params/conv/kernel"] > 1e-4 * norms(expected)["params/conv/kernel"]


class InheritingCall(nn.Dense):
    """Like nn.Dense."""


class OverridingCall(nn.Dense):
    """Overrides the call, so its input may be anything."""

    @nn.compact
    def __call__(self, x):
        return super().__call__(x.swapaxes(0, 1)).swapaxes(0, 1)


@pytest.mark.parametrize(
    ("kind", "is_rounded"), [(nn.Dense, True), (InheritingCall, True), (OverridingCall, False)]
)
def test_only_subclasses_that_inherit_the_call_are_rounded(kind, is_rounded, images):
    images = images.reshape(16, 16, 3)
    params = kind(4).init(jax.random.key(0), images)
    expected = gradients(kind(4), None, images, params)["params"]["kernel"]
    actual = gradients(kind(4), "bfloat16", images, params)["params"]["kernel"]
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert (error > 1e-4) == is_rounded
    assert error < 0.02


def leaves(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): x
        for path, x in jax.tree.leaves_with_path(tree)
    }


def test_shares_are_not_rounded_again_where_the_sum_is_wider(images):
    """Eight shares that are exact in bfloat16, and whose sum is not."""
    model = nn.Dense(1, use_bias=False, dtype=jnp.bfloat16)
    x = np.ones((8, 1), np.float32)
    x[0] = 256.0
    params = {"params": {"kernel": jnp.zeros((1, 1))}}

    def gradient(reduce_dtype):
        mesh = parallel.data_mesh()

        def loss(params):
            with parallel.reduce_kernels_in(reduce_dtype, mesh):
                split = jax.lax.with_sharding_constraint(x, parallel.split_batch(mesh))
                return model.apply(params, split).sum().astype(jnp.float32)

        return float(jax.jit(jax.grad(loss))(params)["params"]["kernel"][0, 0])

    assert gradient("float32") == 256.0 + 7.0
    assert gradient("bfloat16") in (262.0, 264.0)  # bfloat16 has only even numbers there


def test_noise_from_an_interceptor_is_kept(images):
    injected = noise.InjectedModule(
        Mixed(), noise.LinearTransform(noise.CyclicShift(0.3)), at="conv", point="output"
    )
    params = injected.init(jax.random.key(0), images)
    noisy = functools.partial(injected.apply, params, images, inject=True)
    expected = noisy()
    with parallel.reduce_kernels_in("float32", parallel.data_mesh()):
        chex.assert_trees_all_close(noisy(), expected, rtol=1e-5)
    plain = injected.apply(params, images)
    assert np.abs(plain - expected).max() > 1e-3


def sent_by_dtype(data_dir, tmp_path, **changes):
    """Bytes that a device sends to sum gradients, before the CPU's compiler widens bfloat16."""
    config = small_config(data_dir, **changes)
    program = create_program(build(config), parallel.training_mesh())
    batch = {  # a size that no other test compiles, as programs in the cache are not dumped
        "image": jax.ShapeDtypeStruct((24, 8, 8, 1), jnp.uint8),
        "label": jax.ShapeDtypeStruct((24,), jnp.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    options = {"xla_dump_to": str(tmp_path), "xla_dump_hlo_pass_re": "spmd-partitioning"}
    program.step.lower(program.like, batch, key).compile(compiler_options=options)
    (partitioned,) = tmp_path.glob("*after_spmd-partitioning*.txt")
    sent = {}
    for each in parallel.find_collectives(partitioned.read_text(), 8):
        assert each.kind == "all-reduce"
        sent[each.dtype] = sent.get(each.dtype, 0.0) + each.sent
    kernels = sum(
        x.size for path, x in leaves(program.like.params).items() if path.endswith("kernel")
    )
    return sent, 2 * 7 / 8 * kernels


@pytest.mark.parametrize(
    ("dtype", "reduce_dtype", "wide"),
    [
        ("float32", None, True),
        ("bfloat16", None, False),
        ("bfloat16", "float32", True),
        ("float32", "bfloat16", False),
    ],
)
def test_kernels_are_exchanged_in_the_stated_dtype(dtype, reduce_dtype, wide, data_dir, tmp_path):
    sent, kernels = sent_by_dtype(data_dir, tmp_path, dtype=dtype, reduce_dtype=reduce_dtype)
    if wide:
        assert sent["f32"] >= 4 * kernels
        assert sent.get("bf16", 0.0) < kernels  # biases, at most
    else:  # the head computes in float32, whatever the rest does
        head = 2 * 7 / 8 * 16 * 10 * (reduce_dtype is None)
        assert sent["bf16"] >= 2 * (kernels - head)
        assert sent["f32"] < 2 * kernels


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"fsdp": 8}, {"accumulate": 2}, {"optimizer.freeze": ("head/.*",)}]
)
def test_the_dtype_changes_a_run_only_by_rounding(changes, data_dir, tmp_path):
    """With split parameters, accumulated gradients, or frozen parameters."""
    losses = {}
    for reduce_dtype in (None, "float32", "bfloat16"):
        run = tmp_path / str(reduce_dtype)
        options = {"model.dim": 128, "reduce_dtype": reduce_dtype, "log_every": "1 steps"}
        training.train(small_config(data_dir, **options | changes), run)
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        losses[reduce_dtype] = [line["loss"] for line in lines if "loss" in line]
    assert losses["float32"] == pytest.approx(losses[None], rel=1e-5)
    assert losses["bfloat16"] == pytest.approx(losses[None], rel=0.02)
    assert losses["bfloat16"][2:] != pytest.approx(losses[None][2:], rel=1e-7)


def test_other_dtypes_are_refused(data_dir):
    with pytest.raises(ValueError, match="reduce_dtype='float16': give one of float32, bfloat16"):
        build(small_config(data_dir, reduce_dtype="float16"))
