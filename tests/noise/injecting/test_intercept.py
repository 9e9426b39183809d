"""Noise in unmodified Linen modules."""

import functools
from collections.abc import Callable

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import models, noise

OPTIMAL = noise.LinearTransform(noise.Optimal())
GAUSSIAN = noise.Gaussian()


class CNN(nn.Module):
    """As in Flax's MNIST example."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(8)(x)))
        return nn.Dense(3)(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(x.shape[-1])(x)


class Remat(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.remat(Block)(name=f"block_{i}")(x)
        return x


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return Block(name="inner")(x), None


class Scan(nn.Module):
    @nn.compact
    def __call__(self, x):
        scan = nn.scan(Step, {"params": 0}, split_rngs={"params": True, "noise": True}, length=3)
        return scan(name="layers")(x, None)[0]


class Shared(nn.Module):
    """One submodule called twice."""

    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(x.shape[-1], kernel_init=nn.initializers.ones, name="dense")
        return dense(dense(x))


def image():
    return jax.random.normal(jax.random.key(0), (6, 8, 8, 1))


def initialise(module, x):
    return module.init(jax.random.key(1), x)


def test_sites_are_listed_in_calling_order_with_shapes():
    sites = noise.list_sites(CNN(), image(), train=True)
    assert [s.path for s in sites] == ["Conv_0", "Dense_0", "Dropout_0", "Dense_1"]
    assert sites[1] == noise.Site("Dense_0", "Dense", "float32[6,64]", "float32[6,8]")
    assert [s.path for s in noise.list_sites(Remat(), jnp.ones((2, 4)))] == [
        "block_0",
        "block_0/Dense_0",
        "block_1",
        "block_1/Dense_0",
    ]


def test_wrapping_changes_no_parameters():
    plain = initialise(CNN(), image())
    wrapped = initialise(noise.InjectedModule(CNN(), OPTIMAL, at="Dense_1"), image())
    chex.assert_trees_all_equal(wrapped, plain)


def test_input_and_output_of_a_site():
    x, module = image(), CNN()
    variables = initialise(module, x)
    last = variables["params"]["Dense_1"]
    _, state = module.apply(variables, x, capture_intermediates=lambda m, _: m.name == "Dropout_0")
    features = state["intermediates"]["Dropout_0"]["__call__"][0]

    def head(features):
        return features @ last["kernel"] + last["bias"]

    at_input = noise.InjectedModule(module, OPTIMAL, at="Dense_1")
    chex.assert_trees_all_close(
        at_input.apply(variables, x, inject=True), head(OPTIMAL(None, features)), atol=1e-5
    )
    at_output = noise.InjectedModule(module, OPTIMAL, at="Dense_1", point="output")
    chex.assert_trees_all_close(
        at_output.apply(variables, x, inject=True), OPTIMAL(None, head(features)), atol=1e-5
    )


def test_numpy_inputs_work_like_jax_arrays():
    x = np.asarray(image())
    variables = initialise(CNN(), x)
    wrapped = noise.InjectedModule(CNN(), OPTIMAL, at="Conv_0")
    chex.assert_trees_all_close(
        wrapped.apply(variables, x, inject=True),
        wrapped.apply(variables, jnp.asarray(x), inject=True),
        atol=1e-6,
    )


def test_switched_off_it_is_bitwise_the_module():
    x = image()
    variables = initialise(CNN(), x)
    wrapped = noise.InjectedModule(CNN(), GAUSSIAN, at="Dense_*")
    plain = CNN().apply(variables, x)
    chex.assert_trees_all_equal(wrapped.apply(variables, x), plain)  # the default
    chex.assert_trees_all_equal(wrapped.apply(variables, x, inject=False), plain)
    noisy = wrapped.apply(variables, x, inject=True, rngs={"noise": jax.random.key(2)})
    assert not np.allclose(noisy, CNN().apply(variables, x))


def test_it_works_under_jit_and_grad():
    x = image()
    variables = initialise(CNN(), x)
    wrapped = noise.InjectedModule(CNN(), OPTIMAL, at="Dense_0")
    eager = wrapped.apply(variables, x, inject=True)
    chex.assert_trees_all_close(
        jax.jit(functools.partial(wrapped.apply, inject=True))(variables, x), eager, atol=1e-5
    )
    gradient = jax.grad(lambda x: wrapped.apply(variables, x, inject=True)[0].sum())(x)
    assert np.abs(gradient[1:]).max() > 0  # the first prediction depends on the other examples


def test_train_keyword_and_mask_pass_through():
    x, mask = image(), jnp.arange(6) < 4
    variables = initialise(CNN(), x)
    wrapped = noise.InjectedModule(CNN(), OPTIMAL, at="Conv_0")
    y = wrapped.apply(variables, x, inject=True, noise_mask=mask, noise_strength=1.0)
    chex.assert_trees_all_close(y[:4], wrapped.apply(variables, x[:4], inject=True), atol=1e-5)
    wrapped.apply(variables, x, inject=True, train=True, rngs={"dropout": jax.random.key(1)})


@pytest.mark.parametrize("path", ["block_0", "block_1/Dense_0"])
def test_remat_injects_once(path):
    x = jax.random.normal(jax.random.key(0), (4, 5))
    variables = initialise(Remat(), x)
    params = variables["params"]

    def block(x, name, inject):
        inner = params[name]["Dense_0"]
        dense_input = OPTIMAL(None, x) if inject == "dense" else x
        return x + dense_input @ inner["kernel"] + inner["bias"]

    if path == "block_0":
        expected = block(block(OPTIMAL(None, x), "block_0", None), "block_1", None)
    else:
        expected = block(block(x, "block_0", None), "block_1", "dense")
    wrapped = noise.InjectedModule(Remat(), OPTIMAL, at=path)
    chex.assert_trees_all_close(wrapped.apply(variables, x, inject=True), expected, atol=1e-5)
    gradient = jax.grad(lambda v: wrapped.apply(v, x, inject=True).sum())(variables)
    chex.assert_tree_all_finite(gradient)


def test_scan_injects_in_every_layer_with_its_own_key():
    x = jnp.zeros((2, 5))
    variables = initialise(Scan(), x)
    zeros = jax.tree.map(jnp.zeros_like, variables)  # each layer is then the identity
    wrapped = noise.InjectedModule(Scan(), GAUSSIAN, at="layers/inner")
    keys = jax.random.split(jax.random.key(0), 400)
    draws = jax.vmap(lambda key: wrapped.apply(zeros, x, inject=True, rngs={"noise": key}))(keys)
    assert float(draws.var()) == pytest.approx(3.0, rel=0.15)  # three independent draws


def test_a_shared_submodule_takes_noise_at_each_call():
    x = jax.random.normal(jax.random.key(0), (4, 2))
    variables = initialise(Shared(), x)
    wrapped = noise.InjectedModule(Shared(), OPTIMAL, at="dense")
    ones = jnp.ones((2, 2))
    expected = OPTIMAL(None, OPTIMAL(None, x) @ ones) @ ones
    chex.assert_trees_all_close(wrapped.apply(variables, x, inject=True), expected, atol=1e-5)


def test_a_pattern_without_a_match_suggests_similar_paths():
    x = image()
    variables = initialise(CNN(), x)
    with pytest.raises(ValueError, match=r"'dense_1' matches no.*did you mean.*'Dense_1'.*Conv_0"):
        noise.InjectedModule(CNN(), OPTIMAL, at="dense_1").apply(variables, x, inject=True)


def test_a_module_without_submodules_has_no_site():
    x, dense = jnp.ones((2, 3)), nn.Dense(3)
    injected = noise.InjectedModule(dense, OPTIMAL, at="*")
    with pytest.raises(ValueError, match="at='\\*': the module calls no submodules"):
        injected.apply(dense.init(jax.random.key(0), x), x, inject=True)


def test_a_missing_key_and_a_wrong_point_are_named():
    x = image()
    variables = initialise(CNN(), x)
    with pytest.raises(ValueError, match=r"rngs=\{'noise'"):
        noise.InjectedModule(CNN(), GAUSSIAN, at="Dense_0").apply(variables, x, inject=True)
    with pytest.raises(ValueError, match="point='middle'"):
        noise.InjectedModule(CNN(), OPTIMAL, at="Dense_0", point="middle").apply(
            variables, x, inject=True
        )


def test_a_star_never_matches_a_slash():
    x = jax.random.normal(jax.random.key(0), (4, 5))
    variables = initialise(Remat(), x)
    twice = noise.InjectedModule(Remat(), GAUSSIAN, at="block_?")
    zeros = jax.tree.map(jnp.zeros_like, variables)  # a block is then the identity
    keys = jax.random.split(jax.random.key(0), 400)
    draws = jax.vmap(lambda key: twice.apply(zeros, 0 * x, inject=True, rngs={"noise": key}))(keys)
    assert float(draws.var()) == pytest.approx(2.0, rel=0.1)  # once for each block
    inside = noise.InjectedModule(Remat(), noise.Erase(), at="*/Dense_*")
    chex.assert_trees_all_equal(inside.apply(variables, x, inject=True), x)
    with pytest.raises(ValueError, match=r"'Dense_\*' matches no submodule"):
        noise.InjectedModule(Remat(), GAUSSIAN, at="Dense_*").apply(variables, x, inject=True)


class Halves(nn.Module):
    """A submodule used only by other methods, and a tied embedding, which is called too."""

    def setup(self):
        self.steps = Steps()
        self.embed = nn.Embed(3, 5)

    def __call__(self, x):
        word = self.embed(jnp.zeros(len(x), jnp.int32))
        return self.embed.attend(self.steps.second(self.steps.first(x)) + word)


class Steps(nn.Module):
    def setup(self):
        self.dense = nn.Dense(5)

    def first(self, x):
        return self.dense(x)

    def second(self, x):
        return 2 * x


def test_a_module_that_is_used_without_a_call_is_named():
    x = jnp.ones((4, 5))
    variables = initialise(Halves(), x)
    for pattern in ("steps", "s*"):
        injected = noise.InjectedModule(Halves(), noise.Erase(), at=pattern)
        with pytest.raises(ValueError, match=r"at='s.*'steps'.*by its method second"):
            injected.apply(variables, x, inject=True)
    for pattern in ("steps/dense", "embed"):
        injected = noise.InjectedModule(Halves(), OPTIMAL, at=pattern, point="output")
        injected.apply(variables, x, inject=True)


class Table(nn.Module):
    """Holds a parameter and is never called."""

    def setup(self):
        self.values = self.param("values", nn.initializers.ones, (5,))


class Reader(nn.Module):
    def setup(self):
        self.table, self.dense = Table(), nn.Dense(5)

    def __call__(self, x):
        return self.dense(x) + self.table.values[None]


def test_reading_the_parameters_of_an_uncalled_module_is_not_an_error():
    x = jnp.ones((4, 5))
    variables = initialise(Reader(), x)
    injected = noise.InjectedModule(Reader(), noise.Erase(), at="*")
    chex.assert_trees_all_equal(injected.apply(variables, x, inject=True), jnp.ones((4, 5)))


@pytest.mark.parametrize("all_tokens", [True, False])
def test_our_models_name_a_site_that_the_last_block_skips(all_tokens):
    sizes = {"image_size": 8, "patch_size": 4, "dim": 8, "depth": 2, "num_heads": 2}
    model = models.create_model("vit_ti_16", num_classes=3, all_tokens=all_tokens, **sizes)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = initialise(model, images)
    injected = noise.InjectedModule(model, noise.Erase(), at="block_*/attn/qkv")
    if all_tokens:
        injected.apply(variables, images, inject=True)
    else:
        with pytest.raises(ValueError, match=r"'block_2/attn/qkv'.*all_tokens=True"):
            injected.apply(variables, images, inject=True)


def test_submodules_passed_as_fields_have_the_listed_paths():
    x, module = jnp.ones((4, 5)), nn.Sequential([nn.Dense(3), nn.Dense(2)])
    assert [site.path for site in noise.list_sites(module, x)] == ["layers_0", "layers_1"]
    injected = noise.InjectedModule(module, noise.Erase(), at="layers_1")
    variables = module.init(jax.random.key(0), x)
    noisy = injected.apply(variables, x, inject=True)
    assert not noisy.any()  # zeros in, and the bias starts at zero
    with pytest.raises(ValueError, match="Choose one of: layers_0, layers_1"):
        noise.InjectedModule(module, noise.Erase(), at="nowhere").apply(variables, x, inject=True)


class Decorated(nn.Module):
    @nn.jit
    @nn.compact
    def __call__(self, x):
        return nn.Dense(x.shape[-1])(x)


class Compiled(nn.Module):
    """Two blocks of one class that nn.jit compiles."""

    kind: type[nn.Module]

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(self.kind(name="b")(self.kind(name="a")(x)))


@pytest.mark.parametrize("kind", [Decorated, nn.jit(Block)])
def test_a_module_compiled_by_nn_jit_is_refused(kind):
    """Flax would reuse its trace: for the other block, and in calls without noise."""
    x, module = jnp.ones((4, 5)), Compiled(kind)
    injected = noise.InjectedModule(module, OPTIMAL, at="a/Dense_0")
    variables = injected.init(jax.random.key(0), x)
    for call in (
        lambda: injected.apply(variables, x, inject=True),
        lambda: noise.list_sites(module, x),
    ):
        with pytest.raises(ValueError, match=r" is compiled by nn\.jit.* with jax\.jit"):
            call()
    chex.assert_trees_all_equal(injected.apply(variables, x), module.apply(variables, x))


class Rows(nn.Module):
    """Sees one example at a time."""

    @nn.compact
    def __call__(self, x):
        options = {"variable_axes": {"params": None}, "split_rngs": {"params": False}}
        return nn.vmap(Block, **options)(name="rows")(x)


def test_mixing_rows_that_are_not_examples_is_refused():
    x = jnp.arange(4.0 * 7 * 5).reshape(4, 7, 5)
    inside = noise.InjectedModule(Rows(), OPTIMAL, at="rows/Dense_0")
    variables = inside.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"gets \[7, 5\] inside vmap, so a noise.*\(7,\) bool"):
        inside.apply(variables, x, inject=True)
    with pytest.raises(ValueError, match="inside vmap"):  # 8 is a multiple of 4 examples
        inside.apply(variables, jnp.ones((4, 8, 5)), inject=True)
    inside.apply(variables, x, inject=True, noise_mask=jnp.ones(7, bool))  # if they are examples
    at_rows = noise.InjectedModule(Rows(), OPTIMAL, at="rows")
    with pytest.raises(ValueError, match="inside vmap"):
        at_rows.apply(variables, x, inject=True)
    turned = noise.InjectedModule(Turned(), OPTIMAL, at="Dense_0")
    variables = turned.init(jax.random.key(0), x)
    for call in ((x,), {"x": x}):
        args, kwargs = ((), call) if isinstance(call, dict) else (call, {})
        with pytest.raises(ValueError, match=r"gets \[7, 4, 5\] in a call with 4 examples"):
            turned.apply(variables, *args, inject=True, **kwargs)
    folded = noise.InjectedModule(Folded(), OPTIMAL, at="Dense_0")  # several rows of each example
    folded.apply(folded.init(jax.random.key(0), x), x, inject=True)


def test_a_vmap_around_a_whole_call_may_mix():
    """As in a sweep over strengths: each member sees all examples."""
    x, injected = jnp.ones((4, 5)), noise.InjectedModule(Block(), OPTIMAL, at="Dense_0")
    variables = injected.init(jax.random.key(0), x)
    swept = jax.vmap(lambda a: injected.apply(variables, x, inject=True, noise_strength=a))
    expected = injected.apply(variables, x, inject=True, noise_strength=0.5)
    chex.assert_trees_all_close(swept(jnp.array([0.0, 0.5]))[1], expected, rtol=1e-6)


class OneByOne(nn.Module):
    """Calls its block on one example at a time."""

    how: Callable

    @nn.compact
    def __call__(self, x):
        block = Block()
        return block(x) if self.is_initializing() else self.how(block, x)


def _nn_vmap(block, x):
    axes = {"variable_axes": {"params": None}, "split_rngs": {"params": False, "noise": True}}
    return nn.vmap(lambda block, x: block(x), **axes)(block, x)


def _nn_scan(block, x):
    axes = {"variable_broadcast": "params", "split_rngs": {"params": False, "noise": True}}
    return nn.scan(lambda block, carry, x: (carry, block(x)), **axes)(block, None, x)[1]


def test_random_noise_is_refused_where_all_examples_would_draw_the_same():
    x = jnp.zeros((4, 7, 5))

    def noisy(how):
        injected = noise.InjectedModule(OneByOne(how), noise.Gaussian(), at="Block_0/Dense_0")
        variables = injected.init(jax.random.key(0), x)
        return injected.apply(variables, x, inject=True, rngs={"noise": jax.random.key(1)})

    for how in (lambda block, x: jax.vmap(block)(x), jax.lax.map):
        with pytest.raises(ValueError, match=r"inside jax\.vmap or a loop .* use nn\.vmap or nn"):
            noisy(how)
    for how in (_nn_vmap, _nn_scan):
        draws = noisy(how)
        assert (draws[0] != draws[1]).any()


class Twice(nn.Module):
    """Calls its dense layer twice, through one function that JAX traces only once."""

    transform: Callable

    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(5)
        dense(x)  # creates its parameters
        function = self.transform(lambda x: dense(x))
        return function(x), function(x)


@pytest.mark.parametrize("transform", [jax.jit, jax.checkpoint])
def test_a_function_that_is_traced_once_draws_at_each_call(transform):
    x = jnp.zeros((40, 5))
    injected = noise.InjectedModule(Twice(transform), GAUSSIAN, at="Dense_0", point="output")
    variables = injected.init(jax.random.key(0), x)
    for apply in (injected.apply, jax.jit(injected.apply, static_argnames="inject")):
        first, second = apply(variables, x, inject=True, rngs={"noise": jax.random.key(1)})
        assert float((first - second).var()) == pytest.approx(2.0, rel=0.25)
        chex.assert_trees_all_equal(*apply(variables, x))  # no noise is left over


class OwnDerivative(nn.Module):
    """Its derivative is that of its dense layer, but computed by functions of its own."""

    lifted: bool

    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(5)
        if self.is_initializing():
            return dense(x)
        if self.lifted:

            def forward(dense, x):
                return nn.vjp(lambda dense, x: dense(x), dense, x)

            options = {"forward_fn": forward, "backward_fn": lambda vjp, g: vjp(g)}
            return nn.custom_vjp(lambda dense, x: dense(x), **options)(dense, x)
        function = jax.custom_vjp(lambda x: dense(x))
        function.defvjp(lambda x: jax.vjp(dense, x), lambda vjp, g: vjp(g))
        return function(x)


@pytest.mark.parametrize("lifted", [True, False])
@pytest.mark.parametrize("each", [OPTIMAL, GAUSSIAN])
def test_noise_that_a_gradient_would_lack_is_refused(lifted, each):
    x = jax.random.normal(jax.random.key(1), (4, 5))
    injected = noise.InjectedModule(OwnDerivative(lifted), each, at="Dense_0")
    variables = injected.init(jax.random.key(0), x)

    def loss(x, inject=True):
        rngs = {"noise": jax.random.key(2)}
        return (injected.apply(variables, x, inject=inject, rngs=rngs) ** 2).sum()

    value, gradient = jax.value_and_grad(loss)(x)
    compiled = jax.jit(jax.value_and_grad(loss))(x)
    chex.assert_trees_all_close((value, gradient), compiled, rtol=1e-5)
    assert value == pytest.approx(float(loss(x)), rel=1e-5)
    with pytest.raises(ValueError, match=r"'Dense_0' is called inside a function with its own"):
        jax.grad(jax.jit(loss))(x)
    jax.grad(jax.jit(lambda x: loss(x, inject=False)))(x)


class Recurrent(nn.Module):
    """Its transform passes on the key for noise, or does not."""

    rngs: tuple[str, ...] = ("params",)

    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.GRUCell(5), split_rngs={name: name == "noise" for name in self.rngs})(x)


def test_a_transform_that_passes_on_no_key_for_noise_is_named():
    x = jnp.ones((4, 3, 5))
    for rngs in (("params",), ("params", "noise")):
        injected = noise.InjectedModule(Recurrent(rngs), GAUSSIAN, at="GRUCell_0/in")
        variables = injected.init(jax.random.key(0), x)
        call = functools.partial(injected.apply, variables, x, inject=True)
        if "noise" in rngs:
            call(rngs={"noise": jax.random.key(1)})
            continue
        with pytest.raises(ValueError, match=r"'GRUCell_0/in' .*add 'noise': True to its split"):
            call(rngs={"noise": jax.random.key(1)})
        with pytest.raises(ValueError, match=r"give apply\(\.\.\., rngs=\{'noise'"):
            call()


class Spread(nn.Module):
    """Each device computes its own examples."""

    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(5, use_bias=False)
        if self.is_initializing():
            return dense(x)
        mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
        spec = jax.sharding.PartitionSpec("data")
        return jax.shard_map(lambda x: dense(x), mesh=mesh, in_specs=spec, out_specs=spec)(x)


def test_examples_may_be_spread_over_the_axis_of_the_noise():
    x = jax.random.normal(jax.random.key(1), (8, 5))
    for kind in (functools.partial(noise.LinearTransform, noise.Optimal()), noise.Gaussian):
        injected = noise.InjectedModule(Spread(), kind(axis_name="data"), at="Dense_0")
        variables = injected.init(jax.random.key(0), x)
        rngs = {"noise": jax.random.key(1)}
        spread = injected.apply(variables, x, inject=True, rngs=rngs)
        whole = noise.InjectedModule(Alone(), kind(), at="Dense_0")
        expected = whole.apply(variables, x, inject=True, rngs=rngs)
        chex.assert_trees_all_close(spread, expected, rtol=1e-5, atol=1e-6)
        local = noise.InjectedModule(Spread(), kind(), at="Dense_0")
        with pytest.raises(ValueError, match=r"gets \[2, 5\] in a call with 8|mapped axes data"):
            local.apply(variables, x, inject=True, rngs=rngs)


class Alone(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(5, use_bias=False)(x)


class Turned(nn.Module):
    """Moves the tokens first."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(jnp.swapaxes(x, 0, 1))


class Folded(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.reshape(-1, x.shape[-1]))


class Wrapper(nn.Module):
    module: nn.Module

    def __call__(self, x):
        return self.module(x)


def test_a_field_called_module_is_refused_and_its_sites_are_listed_in_full():
    wrapper = Wrapper(Block())
    sites = noise.list_sites(wrapper, jnp.ones((4, 5)))
    assert [site.path for site in sites] == ["module", "module/Dense_0"]
    with pytest.raises(ValueError, match=r"Wrapper has a field called 'module'.*: rename it"):
        noise.InjectedModule(wrapper, OPTIMAL, at="module/Dense_0")


class Around(nn.Module):
    """Has an InjectedModule inside."""

    at: str

    @nn.compact
    def __call__(self, x, inject=False):
        x = nn.Dense(5)(x)
        return noise.InjectedModule(Compiled(Block), OPTIMAL, at=self.at)(x, inject=inject)


def test_patterns_are_relative_to_the_wrapped_module():
    x = jax.random.normal(jax.random.key(1), (4, 5))
    variables = Around("a/Dense_0").init(jax.random.key(0), x)
    noisy = Around("a/Dense_0").apply(variables, x, inject=True)
    outermost = noise.InjectedModule(Compiled(Block), OPTIMAL, at="a/Dense_0")
    entering = nn.Dense(5).apply({"params": variables["params"]["Dense_0"]}, x)
    wrapped_variables = {"params": variables["params"]["Compiled_0"]}
    chex.assert_trees_all_close(
        noisy, outermost.apply(wrapped_variables, entering, inject=True), rtol=1e-6
    )
    with pytest.raises(ValueError, match="Choose one of: a, a/Dense_0, b"):
        Around("Compiled_0").apply(variables, x, inject=True)


def test_list_sites_accepts_shapes_and_keeps_python_values():
    x = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
    listed = noise.list_sites(CNN(), x, True)
    assert listed == noise.list_sites(CNN(), x, train=True)
    assert "Dropout_0" in [site.path for site in listed]


def test_one_injected_module_inside_another_is_refused():
    inner = noise.InjectedModule(CNN(), OPTIMAL, at="Dense_0")
    with pytest.raises(ValueError, match=r"already an InjectedModule.*noise\.Chain"):
        noise.InjectedModule(inner, OPTIMAL, at="Dense_1")


def test_cached_inner_traces_keep_no_noise():
    """A function under nn.jit is refused; one under jax.jit keeps no noise in its trace."""

    def call_dense(module, x):
        return nn.Dense(6, name="d")(x)

    compiled = nn.jit(call_dense)
    inner = nn.Dense(6)
    inner_variables = inner.init(jax.random.key(0), jnp.ones((4, 6)))
    apply_inner = jax.jit(inner.apply)

    class ByFlax(nn.Module):
        @nn.compact
        def __call__(self, x):
            return compiled(self, x)

    class ByJax(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(6, name="e")(apply_inner(inner_variables, x))

    x = jax.random.normal(jax.random.key(1), (4, 6))
    injected = noise.InjectedModule(ByFlax(), OPTIMAL, at="d")
    variables = injected.init(jax.random.key(0), x)
    injected.apply(variables, x)  # its trace must not be reused below
    with pytest.raises(ValueError, match="ByFlax is compiled by nn"):
        injected.apply(variables, x, inject=True)
    injected = noise.InjectedModule(ByJax(), OPTIMAL, at="*")
    variables = injected.init(jax.random.key(0), x)
    clean = ByJax().apply(variables, x)
    noisy = injected.apply(variables, x, inject=True)
    chex.assert_trees_all_equal(injected.apply(variables, x), clean)
    assert not np.allclose(noisy, clean)
    chex.assert_trees_all_equal(injected.apply(variables, x, inject=True), noisy)
    off = injected.apply(variables, x, inject=True, noise_strength=0.0)  # nor an old strength
    chex.assert_trees_all_close(off, clean, rtol=1e-5)


def test_a_noisy_call_that_is_not_compiled_compiles_nothing_the_second_time():
    x, injected = jnp.ones((4, 8, 8, 1)), noise.InjectedModule(CNN(), OPTIMAL, at="Dense_0")
    variables = injected.init(jax.random.key(0), x)
    compiled = []

    def record(event, *_, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(about["fun_name"])

    injected.apply(variables, x, inject=True, noise_strength=0.3)
    jax.monitoring.register_event_duration_secs_listener(record)
    try:
        injected.apply(variables, x, inject=True, noise_strength=0.4)
    finally:
        jax.monitoring.unregister_event_duration_listener(record)
    assert not compiled
