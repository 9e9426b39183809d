"""LinearTransform: its two implementations agree, on any sharding."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pnoise_jax import noise, parallel

SHARDED = [noise.CyclicShift(0.4, shift=-3), noise.Reverse(0.3), noise.Optimal()]
QUALITIES = [noise.CyclicShift(0.3), *SHARDED]
DTYPES = [jnp.float32, jnp.bfloat16]
K = 16


@pytest.mark.parametrize("quality", QUALITIES, ids=str)
@pytest.mark.parametrize("implementation", ["structured", "matmul"])
def test_a_batch_of_one_has_nothing_to_mix(quality, implementation):
    x = sample((1, 5, 3))
    noisy = noise.LinearTransform(quality, implementation=implementation)(None, x)
    np.testing.assert_allclose(noisy, x, rtol=1e-6)
    assert quality.violations(1) == ()


def tolerance(dtype):
    return {"rtol": 2e-2, "atol": 2e-2} if dtype == jnp.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}


@functools.cache
def sample(shape=(K, 5, 3), dtype=jnp.float32, seed=0):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def both(quality, **options):
    return [
        noise.LinearTransform(quality, implementation=name, **options)
        for name in ("structured", "matmul")
    ]


@functools.partial(jax.jit, static_argnums=0)
def apply(transform, x, mask=None):
    """Compiles the transform once for all tests that call it with the same shapes."""
    return transform(None, x, mask=mask)


def value_and_gradient(transform, x, weights, mask=None):
    """The transform of x, and the gradient of its sum weighted by `weights`."""
    y, pullback = jax.vjp(lambda x: transform(None, x, mask=mask), x)
    return y, pullback(weights.astype(y.dtype))[0]


compute = jax.jit(value_and_gradient, static_argnums=0)


@functools.cache
def weights_of(shape):
    return jax.random.normal(jax.random.key(9), shape)


def assert_agree(first, second, x, mask=None):
    got, expected = (compute(t, x, weights_of(x.shape), mask) for t in (first, second))
    chex.assert_trees_all_equal_shapes_and_dtypes(got, expected)
    as_float = functools.partial(jax.tree.map, lambda leaf: np.asarray(leaf, np.float32))
    chex.assert_trees_all_close(as_float(got), as_float(expected), **tolerance(x.dtype))


@pytest.mark.parametrize("quality", QUALITIES, ids=repr)
def test_matmul_is_x_plus_qx(quality):
    x = sample()
    expected = x + jnp.einsum("ij,jtd->itd", quality.matrix(K), x)
    transform = noise.LinearTransform(quality, implementation="matmul")
    chex.assert_trees_all_close(transform(None, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"group_size": 4}, {"axis": "tokens"}], ids=str)
@pytest.mark.parametrize("quality", QUALITIES, ids=repr)
def test_structured_equals_matmul_forward_and_backward(quality, options, dtype):
    assert_agree(*both(quality, **options), sample(dtype=dtype))


@pytest.mark.parametrize("quality", QUALITIES, ids=repr)
def test_gradients_of_bfloat16_are_rounded_once(quality):
    x = sample(dtype=jnp.bfloat16)
    mesh = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        gradient = compute(noise.LinearTransform(quality), x, x)[1]
    wide = x.astype(jnp.float32)
    expected = compute(noise.LinearTransform(quality, implementation="matmul"), wide, wide)[1]
    # Half a unit in the last of 8 bits, and float32 sums in another order.
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected, rtol=2**-8 + 1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", [None, "0110111001000111"])
@pytest.mark.parametrize("quality", QUALITIES, ids=repr)
def test_gradients_by_the_strength_and_second_gradients_equal_the_matmuls(quality, mask):
    mask = None if mask is None else np.array([c == "1" for c in mask])

    def steepness(transform):
        def loss(x, strength):
            return jnp.sin(transform(None, x, mask=mask, strength=strength)).sum()

        def squares(x, strength):
            by_x, by_strength = jax.grad(loss, argnums=(0, 1))(x, strength)
            return jnp.square(by_x).sum() + by_strength**2

        return jax.jit(jax.value_and_grad(squares, argnums=(0, 1)))(sample(), jnp.float32(0.7))

    chex.assert_trees_all_close(*map(steepness, both(quality)), rtol=1e-3, atol=1e-4)


class Running(noise.Optimal):
    """An asymmetric matrix, as a subclass of a symmetric one."""

    def mix(self, x, *, axis, mask, axis_name):
        return jnp.cumsum(x, axis)


def test_gradients_of_a_subclass_are_those_of_its_mix():
    x, g = sample(), weights_of((K, 5, 3))
    _, pullback = jax.vjp(lambda x: noise.LinearTransform(Running())(None, x), x)
    _, expected = jax.vjp(lambda x: jnp.cumsum(x, 0), x)
    chex.assert_trees_all_close(pullback(g), expected(g), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", ["1111111111110000", "0110111001000111", "0000000000010000"])
@pytest.mark.parametrize("group_size", [None, 8])
@pytest.mark.parametrize("quality", QUALITIES, ids=repr)
def test_padding_neither_gives_nor_receives(quality, group_size, mask):
    mask = np.array([c == "1" for c in mask])
    x = sample()
    structured, matmul = both(quality, group_size=group_size)
    assert_agree(structured, matmul, x, mask=mask)
    y, x = jax.device_get((apply(structured, x, mask), x))
    np.testing.assert_array_equal(y[~mask], x[~mask])
    other_padding = np.where(mask[:, None, None], x, np.float32(1e6))
    np.testing.assert_array_equal(apply(structured, other_padding, mask)[mask], y[mask])
    # The rows that are kept are mixed as if there were no others.
    for start in range(0, K, group_size or K):
        rows = np.flatnonzero(mask[start : start + (group_size or K)]) + start
        if len(rows):
            expected = apply(noise.LinearTransform(quality), x[rows])
            chex.assert_trees_all_close(y[rows], expected, rtol=1e-5, atol=1e-6)


def test_an_exported_program_takes_batches_of_any_size():
    call = jax.jit(functools.partial(noise.LinearTransform(noise.Optimal()), None))
    (batch,) = jax.export.symbolic_shape("batch")
    program = jax.export.export(call)(jax.ShapeDtypeStruct((batch, 5), jnp.float32))
    x = jax.random.normal(jax.random.key(0), (7, 5))
    chex.assert_trees_all_close(program.call(x), call(x), rtol=1e-6)


@pytest.mark.parametrize("quality", QUALITIES, ids=repr)
def test_views_are_groups_of_the_batch(quality):
    x = sample()
    views = noise.LinearTransform(quality, axis="views", group_size=4)
    batch = noise.LinearTransform(quality, group_size=4)
    chex.assert_trees_all_equal(views(None, x), batch(None, x))


@pytest.mark.parametrize("quality", QUALITIES, ids=repr)
def test_padding_that_is_not_finite_stays_where_it_is(quality):
    mask = np.arange(K) < 12
    x = np.where(mask[:, None, None], sample(), np.float32(np.nan))
    x[-1] = np.inf
    for transform in both(quality):
        y = apply(transform, x, mask)
        expected = apply(transform, x[:12])
        chex.assert_trees_all_close(y[:12], expected, rtol=1e-5, atol=1e-6)


def test_tokens_mix_inside_one_image_only():
    x = sample((4, 2, 3, 5))
    transform = noise.LinearTransform(noise.Optimal(), axis="tokens")
    y = transform(None, x)
    flat = x.reshape(4, 6, 5)
    expected = ((flat + flat.sum(1, keepdims=True)) / 7).reshape(x.shape)
    chex.assert_trees_all_close(y, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(transform(None, x[2:3]), y[2:3], atol=1e-6)


@pytest.mark.parametrize("implementation", ["structured", "matmul"])
def test_optimal_is_permutation_equivariant_and_shift_is_shift_equivariant(implementation):
    x = sample()
    order = jax.random.permutation(jax.random.key(1), K)
    optimal = noise.LinearTransform(noise.Optimal(), implementation=implementation)
    chex.assert_trees_all_close(optimal(None, x[order]), optimal(None, x)[order], atol=1e-6)
    shift = noise.LinearTransform(noise.CyclicShift(0.3), implementation=implementation)
    rolled = shift(None, jnp.roll(x, 5, 0))
    chex.assert_trees_all_close(rolled, jnp.roll(shift(None, x), 5, 0), atol=1e-6)


def test_rows_keep_their_mean_and_strength_zero_is_bitwise_nothing():
    x = sample()
    for quality in QUALITIES:
        for transform in both(quality):
            chex.assert_trees_all_close(apply(transform, x).mean(0), x.mean(0), atol=1e-6)
        chex.assert_trees_all_equal(noise.LinearTransform(quality)(None, x, strength=0.0), x)


@pytest.mark.parametrize("implementation", ["structured", "matmul"])
def test_a_traced_strength_sweeps_without_recompiling(implementation):
    x = sample()
    transform = noise.LinearTransform(noise.CyclicShift(0.3), implementation=implementation)
    strengths = jnp.array([0.0, 0.3, 0.45])
    swept = jax.vmap(lambda a: transform(None, x, strength=a))(strengths)
    for a, y in zip(strengths, swept, strict=True):
        fixed = noise.LinearTransform(noise.CyclicShift(float(a)), implementation=implementation)(
            None, x
        )
        chex.assert_trees_all_close(y, fixed, rtol=1e-5, atol=1e-6)

    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(a):
        return transform(None, x, strength=a)

    for a in strengths:
        apply(a)
    first = apply(jnp.float32(0.3))[0]
    chex.assert_trees_all_close(first, 0.7 * x[0] + 0.3 * x[-1], rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda a: transform(None, x, strength=a)[0].sum())(0.3)
    assert float(slope) == pytest.approx(float((x[-1] - x[0]).sum()), rel=1e-3)


def test_reverse_mixes_each_row_with_its_mirror_image():
    x = np.arange(5.0, dtype=np.float32)[:, None]
    for transform in both(noise.Reverse(0.25)):
        np.testing.assert_allclose(
            transform(None, x)[:, 0], [1.0, 1.5, 2.0, 2.5, 3.0], rtol=1e-6
        )  # 0 and 4, 1 and 3; the middle one stays
    mask = jnp.array([True, False, True, True, False])
    kept = noise.LinearTransform(noise.Reverse(1.0))(None, x, mask=mask)
    np.testing.assert_array_equal(kept[:, 0], [3.0, 1.0, 2.0, 0.0, 4.0])
    pairs = noise.LinearTransform(noise.Reverse(1.0), group_size=2)
    np.testing.assert_array_equal(pairs(None, x[:4])[:, 0], [1.0, 0.0, 3.0, 2.0])


# ---- sharding ------------------------------------------------------------------------------------


def mesh_of(devices, kind=AxisType.Auto):
    return jax.make_mesh((devices,), ("data",), (kind,), devices=jax.devices()[:devices])


CALLS = {
    "plain": ({}, None),
    "masked": ({}, "1111111111110000"),
    "holes": ({}, "0110111001000111"),
    "pairs": ({"group_size": 2}, None),
    "eights": ({"group_size": 8}, None),
    "eights masked": ({"group_size": 8}, "1111111100001111"),
    "tokens": ({"axis": "tokens"}, None),
}


@functools.cache
def reference(quality, call):
    """The result of a matmul on one device."""
    options, mask = case(call)
    transform = noise.LinearTransform(quality, implementation="matmul", **options)
    x = sample()
    return jax.device_get(compute(transform, x, weights_of(x.shape), mask))


def case(name):
    options, mask = CALLS[name]
    return options, None if mask is None else np.array([c == "1" for c in mask])


@pytest.mark.parametrize(
    ("implementation", "kind"),
    [
        ("structured", AxisType.Auto),
        ("structured", AxisType.Explicit),
        ("matmul", AxisType.Auto),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("quality", SHARDED, ids=repr)
def test_jit_over_eight_devices_equals_one(quality, call, kind, implementation):
    options, mask = case(call)
    x = sample()
    transform = noise.LinearTransform(quality, implementation=implementation, **options)
    sharding = NamedSharding(mesh_of(8, kind), P("data"))
    arguments = jax.device_put((x, weights_of(x.shape)), sharding)
    got = compute(transform, *arguments, mask)
    chex.assert_trees_all_close(jax.device_get(got), reference(quality, call), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", ["structured", "matmul"])
@pytest.mark.parametrize("devices", [2, 8])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("quality", SHARDED, ids=repr)
def test_shard_map_equals_one_device(quality, call, devices, implementation):
    options, mask = case(call)
    x = sample()
    transform = noise.LinearTransform(
        quality, implementation=implementation, axis_name="data", **options
    )
    got = spread(transform, devices, x, weights_of(x.shape), mask)
    chex.assert_trees_all_close(got, reference(quality, call), rtol=1e-5, atol=1e-6)


@functools.partial(jax.jit, static_argnums=(0, 1))
def spread(transform, devices, *arguments):
    run = jax.shard_map(
        functools.partial(value_and_gradient, transform),
        mesh=mesh_of(devices),
        in_specs=P("data"),
        out_specs=P("data"),
    )
    return run(*arguments)


@pytest.mark.parametrize("implementation", ["structured", "matmul"])
@pytest.mark.parametrize("call", ["plain", "masked", "eights"])
@pytest.mark.parametrize("quality", QUALITIES, ids=repr)
def test_pmap_equals_one_device(quality, call, implementation):
    options, mask = case(call)
    x = sample()
    transform = noise.LinearTransform(
        quality, implementation=implementation, axis_name="data", **options
    )
    run = jax.pmap(functools.partial(value_and_gradient, transform), axis_name="data")
    arguments = jax.device_get((x, weights_of(x.shape), mask))
    got = run(*jax.tree.map(lambda a: a.reshape(8, 2, *a.shape[1:]), arguments))
    got = jax.tree.map(lambda a: a.reshape(x.shape), jax.device_get(got))
    chex.assert_trees_all_close(got, reference(quality, call), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["optimal", "matmul", "extremes"])
def test_the_part_of_a_batch_that_a_device_has_is_not_mixed_alone_unasked(kind):
    each = {
        "optimal": noise.LinearTransform(noise.Optimal()),
        "matmul": noise.LinearTransform(noise.Optimal(), implementation="matmul"),
        "extremes": noise.SaltAndPepper(1.0, extremes="batch"),
    }[kind]
    x, key = sample(), jax.random.key(0)

    def run(each, spec):
        options = {"mesh": mesh_of(8), "in_specs": spec, "out_specs": spec}
        key_of_device = functools.partial(jax.lax.pcast, key, "data", to="varying")
        return jax.shard_map(
            lambda x: each(key_of_device() if spec == P("data") else key, x), **options
        )(x)

    with pytest.raises(ValueError, match=r"only the 2 examples of each.*or group_size=2"):
        run(each, P("data"))
    pairs = dataclasses.replace(each, group_size=2)
    if not each.draws:
        chex.assert_trees_all_close(run(pairs, P("data")), pairs(None, x), rtol=1e-5, atol=1e-6)
    run(pairs, P("data"))
    chex.assert_trees_all_close(run(each, P()), each(key, x), rtol=1e-5, atol=1e-6)


def test_shard_map_over_two_mesh_axes():
    mesh = jax.make_mesh((4, 2), ("hosts", "chips"), (AxisType.Auto,) * 2)
    x = sample()
    for quality in QUALITIES:
        for transform in both(quality, axis_name=("hosts", "chips")):
            run = jax.shard_map(
                lambda x, t=transform: t(None, x),
                mesh=mesh,
                in_specs=P(("hosts", "chips")),
                out_specs=P(("hosts", "chips")),
            )
            expected = noise.LinearTransform(quality)(None, x)
            chex.assert_trees_all_close(jax.jit(run)(x), expected, rtol=1e-5, atol=1e-6)


# ---- what the compiled program sends between devices ---------------------------------------------

ELEMENTS_IN_A_ROW = 5 * 3


def collectives(function, x):
    """{(kind, elements sent)} in the program compiled for x."""
    text = jax.jit(function).lower(x).compile().as_text()
    sent = parallel.find_collectives(text, 8)
    return {(each.kind, each.size // x.dtype.itemsize) for each in sent}


def collectives_each_way(transform, x):
    weights = jax.device_put(weights_of(x.shape), x.sharding)
    forward = collectives(lambda x: transform(None, x), x)
    _, pullback = jax.vjp(lambda x: transform(None, x), x)
    return forward, collectives(lambda g: pullback(g)[0], weights)


SHIFTS = [noise.CyclicShift(0.4, shift=shift) for shift in (1, -3, 5 * K + 2)]


@pytest.mark.parametrize("quality", SHIFTS, ids=str)
@pytest.mark.parametrize("options", [{}, {"group_size": 4}, {"axis": "tokens"}], ids=str)
def test_gathering_rows_on_one_gpu_gives_the_same_result(quality, options, monkeypatch):
    transform = noise.LinearTransform(quality, **options)

    def pull(x, g):
        noisy, transpose = jax.vjp(functools.partial(transform, None), x)
        return noisy, *transpose(g)

    arguments = sample(), sample(seed=1)
    expected = pull(*arguments)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cuda, default: cuda(*args))
    with parallel.lay_out(jax.make_mesh((1,), ("data",), (AxisType.Auto,))):
        chex.assert_trees_all_equal(pull(*arguments), expected)


@pytest.mark.parametrize(("devices", "taken"), [(1, True), (8, False)])
def test_rows_are_gathered_only_on_one_gpu(devices, taken, monkeypatch):
    # As if one device compiled for a mesh of devices elsewhere.
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    mesh = jax.make_mesh((devices,), (parallel.DATA_AXIS,), (AxisType.Auto,))
    with parallel.lay_out(mesh):
        traced = jax.jit(functools.partial(noise.LinearTransform(SHIFTS[0]), None)).trace(sample())
        for platform in ("cuda", "cpu", "tpu"):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert ("stablehlo.gather" in text) == (taken and platform == "cuda")
            assert ("stablehlo.concatenate" in text) == (not taken or platform != "cuda")


@pytest.mark.parametrize("k", [16, 64])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_shift_sends_one_row_and_optimal_reduces_one_row_each_way(k, kind):
    x = jax.device_put(sample((k, 5, 3)), NamedSharding(mesh_of(8, kind), P("data")))
    one_row = ELEMENTS_IN_A_ROW
    for sent in collectives_each_way(noise.LinearTransform(noise.CyclicShift(0.3)), x):
        assert sent == {("collective-permute", one_row)}
    for sent in collectives_each_way(noise.LinearTransform(noise.Optimal()), x):
        assert sent == {("all-reduce", one_row)}


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_reverse_sends_each_device_the_rows_of_another(kind):
    x = jax.device_put(sample((64, 5, 3)), NamedSharding(mesh_of(8, kind), P("data")))
    for sent in collectives_each_way(noise.LinearTransform(noise.Reverse(0.3)), x):
        assert sent == {("collective-permute", 8 * ELEMENTS_IN_A_ROW)}


def test_matmul_gathers_every_row():
    x = jax.device_put(sample(), NamedSharding(mesh_of(8), P("data")))
    transform = noise.LinearTransform(noise.CyclicShift(0.3), implementation="matmul")
    forward, _ = collectives_each_way(transform, x)
    assert K * ELEMENTS_IN_A_ROW in {elements for _, elements in forward}


def test_groups_inside_a_device_send_nothing():
    x = jax.device_put(sample(), NamedSharding(mesh_of(8), P("data")))
    for quality in QUALITIES:
        transform = noise.LinearTransform(quality, group_size=2)
        assert collectives_each_way(transform, x) == (set(), set())


@pytest.mark.parametrize(
    "quality", [noise.CyclicShift(0.3), noise.CyclicShift(0.3, shift=-1), noise.Optimal()], ids=repr
)
def test_shard_map_sends_one_row_each_way(quality):
    transform = noise.LinearTransform(quality, axis_name="data")
    spread = jax.shard_map(
        lambda x: transform(None, x), mesh=mesh_of(8), in_specs=P("data"), out_specs=P("data")
    )
    x = jax.device_put(sample(), NamedSharding(mesh_of(8), P("data")))
    kind = "collective-permute" if isinstance(quality, noise.CyclicShift) else "all-reduce"
    for sent in collectives_each_way(lambda key, x: spread(x), x):
        assert sent == {(kind, ELEMENTS_IN_A_ROW)}


# ---- bad input -----------------------------------------------------------------------------------


def test_mixes_says_what_is_mixed():
    for axis, mixes in (("batch", "batch"), ("tokens", None), ("views", "views")):
        size = 4 if axis == "views" else None
        assert noise.LinearTransform(noise.Optimal(), axis=axis, group_size=size).mixes == mixes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noise.LinearTransform(0.3), "quality=0.3"),
        (lambda: noise.LinearTransform(noise.Optimal(), implementation="fast"), "'structured', 'm"),
        (lambda: noise.LinearTransform(noise.Optimal(), axis="channels"), "axis='channels'"),
        (lambda: noise.LinearTransform(noise.Optimal(), axis="views"), "number of views"),
        (lambda: noise.LinearTransform(noise.Optimal(), axis="tokens", group_size=2), "leave gro"),
        (lambda: noise.LinearTransform(noise.Optimal(), group_size=0), "group_size=0"),
        (
            lambda: noise.LinearTransform(noise.Dense(np.eye(2)), implementation="structured"),
            "Dense has no structure",
        ),
        (lambda: noise.LinearTransform(noise.Optimal(), group_size=5)(None, sample()), "of 16 exa"),
        (lambda: noise.LinearTransform(noise.Dense(np.eye(2)))(None, sample()), "group_size=2"),
        (
            lambda: noise.LinearTransform(noise.Optimal(), axis="tokens")(None, sample((4, 3))),
            r"got \(4, 3\)",
        ),
        (
            lambda: noise.LinearTransform(noise.Optimal())(None, sample(), mask=jnp.ones(3, bool)),
            r"mask has shape \(3,\)",
        ),
        (lambda: noise.LinearTransform(noise.Optimal())(None, jnp.arange(4)), r"int32\[4\]"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
