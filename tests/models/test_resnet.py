import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models
from pnoise_jax.models import resnet
from tests.models import observing
from tests.models.drawing import draw_variables

TINY = {"stage_sizes": (2, 1), "width": 4, "num_classes": 5}
BLOCKS = {"basic": "resnet18", "bottleneck": "resnet50"}
IMAGES = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
blocks = pytest.mark.parametrize("block", BLOCKS)


def tiny(block: str = "basic", **options) -> models.ResNet:
    return models.create_model(BLOCKS[block], **{**TINY, **options})


@functools.cache
def tiny_variables(block: str = "basic") -> dict:
    return draw_variables(tiny(block), IMAGES)


@functools.partial(jax.jit, static_argnums=0)
def apply(module, variables, x):
    """As one program: eagerly, each of its operations would be compiled."""
    return module.apply(variables, x)


@functools.partial(jax.jit, static_argnums=0)
def train(model: models.ResNet, variables: dict, images: jax.Array) -> tuple[jax.Array, dict]:
    return model.apply(variables, images, train=True, mutable=["batch_stats"])


def test_parameter_names_and_shapes_of_basic_blocks():
    expected = {
        "conv1/kernel": (7, 7, 3, 4),
        "bn1": 4,
        "stage1_block1/conv1/kernel": (3, 3, 4, 4),
        "stage1_block1/bn1": 4,
        "stage1_block1/conv2/kernel": (3, 3, 4, 4),
        "stage1_block1/bn2": 4,
        "stage1_block2/conv1/kernel": (3, 3, 4, 4),
        "stage1_block2/bn1": 4,
        "stage1_block2/conv2/kernel": (3, 3, 4, 4),
        "stage1_block2/bn2": 4,
        "stage2_block1/conv1/kernel": (3, 3, 4, 8),
        "stage2_block1/bn1": 8,
        "stage2_block1/conv2/kernel": (3, 3, 8, 8),
        "stage2_block1/bn2": 8,
        "stage2_block1/downsample_conv/kernel": (1, 1, 4, 8),
        "stage2_block1/downsample_bn": 8,
        "head/kernel": (8, 5),
        "head/bias": (5,),
    }
    assert_names_and_shapes(tiny_variables("basic"), expected)


def test_parameter_names_and_shapes_of_bottlenecks():
    expected = {
        "conv1/kernel": (7, 7, 3, 4),
        "bn1": 4,
        "stage1_block1/conv1/kernel": (1, 1, 4, 4),
        "stage1_block1/bn1": 4,
        "stage1_block1/conv2/kernel": (3, 3, 4, 4),
        "stage1_block1/bn2": 4,
        "stage1_block1/conv3/kernel": (1, 1, 4, 16),
        "stage1_block1/bn3": 16,
        "stage1_block1/downsample_conv/kernel": (1, 1, 4, 16),
        "stage1_block1/downsample_bn": 16,
        "stage1_block2/conv1/kernel": (1, 1, 16, 4),
        "stage1_block2/bn1": 4,
        "stage1_block2/conv2/kernel": (3, 3, 4, 4),
        "stage1_block2/bn2": 4,
        "stage1_block2/conv3/kernel": (1, 1, 4, 16),
        "stage1_block2/bn3": 16,
        "stage2_block1/conv1/kernel": (1, 1, 16, 8),
        "stage2_block1/bn1": 8,
        "stage2_block1/conv2/kernel": (3, 3, 8, 8),
        "stage2_block1/bn2": 8,
        "stage2_block1/conv3/kernel": (1, 1, 8, 32),
        "stage2_block1/bn3": 32,
        "stage2_block1/downsample_conv/kernel": (1, 1, 16, 32),
        "stage2_block1/downsample_bn": 32,
        "head/kernel": (32, 5),
        "head/bias": (5,),
    }
    assert_names_and_shapes(tiny_variables("bottleneck"), expected)


def assert_names_and_shapes(variables: dict, expected: dict) -> None:
    """`expected` gives a shape, or the features of a batch norm, for each name."""
    params, statistics = {}, {}
    for name, shape in expected.items():
        if isinstance(shape, tuple):
            params[name] = shape
        else:
            params |= {f"{name}/scale": (shape,), f"{name}/bias": (shape,)}
            statistics |= {f"{name}/mean": (shape,), f"{name}/var": (shape,)}
    for collection, shapes in {"params": params, "batch_stats": statistics}.items():
        actual = traverse_util.flatten_dict(variables[collection], sep="/")
        assert {name: x.shape for name, x in actual.items()} == shapes


@blocks
def test_initial_values_are_timms(block):
    model = tiny(block, stage_sizes=(1,), width=32)
    key = jax.random.key(0, impl="rbg")  # compiles faster
    variables = jax.jit(model.init)(key, IMAGES)
    last = "bn2" if block == "basic" else "bn3"
    for name, x in traverse_util.flatten_dict(variables["params"], sep="/").items():
        if name == "head/kernel":  # uniform within ±1/sqrt(fan_in)
            bound = x.shape[0] ** -0.5
            assert 0.9 * bound < jnp.abs(x).max() <= bound
        elif name.endswith("kernel"):  # fan out
            std = (2 / (x.shape[0] * x.shape[1] * x.shape[3])) ** 0.5
            np.testing.assert_allclose(x.std(), std, rtol=0.15, err_msg=name)
        elif name == f"stage1_block1/{last}/scale":  # every block starts as the identity
            assert not x.any(), name
        elif name.endswith("scale"):
            assert (x == 1).all(), name
        else:
            assert not x.any(), name


def test_zero_init_residual_can_be_off():
    model = tiny(stage_sizes=(1,), zero_init_residual=False)
    params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), IMAGES)["params"]
    assert (params["stage1_block1"]["bn2"]["scale"] == 1).all()


def test_every_parameter_matters():
    variables = tiny_variables()

    def loss(params):
        return jnp.square(train(tiny(), variables | {"params": params}, IMAGES)[0]).sum()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for name, gradient in traverse_util.flatten_dict(gradients, sep="/").items():
        assert jnp.isfinite(gradient).all(), name
        assert gradient.any(), name


@blocks
@pytest.mark.parametrize(
    ("stem", "sides"), [("imagenet", (8, 4, 2)), ("small", (16, 16, 8))], ids=["imagenet", "small"]
)
def test_the_sides_of_the_feature_maps(block, stem, sides):
    model = tiny(block, stem=stem)

    def features(variables):
        return model.apply(variables, IMAGES, capture_intermediates=True, mutable="intermediates")

    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    outputs = jax.eval_shape(features, variables)[1]["intermediates"]
    names = ("conv1", "stage1_block2", "stage2_block1")
    assert tuple(outputs[name]["__call__"][0].shape[1] for name in names) == sides


def test_in_training_the_batch_normalises_and_in_evaluation_the_statistics_do():
    model, variables = tiny(), tiny_variables()
    logits, updated = train(model, variables, IMAGES)
    assert jnp.abs(logits - train(model, variables, 2 * IMAGES)[0]).max() < 1e-2  # scale-free
    for name, x in traverse_util.flatten_dict(updated["batch_stats"], sep="/").items():
        assert (x != (0 if name.endswith("mean") else 1)).any(), name

    evaluated = apply(model, variables, IMAGES)
    chex.assert_trees_all_equal(evaluated[:1], apply(model, variables, IMAGES)[:1])
    chex.assert_trees_all_close(evaluated[:1], apply(model, variables, IMAGES[:1]), rtol=1e-4)
    assert jnp.abs(evaluated - apply(model, {**variables, **updated}, IMAGES)).max() > 1e-3


def test_evaluation_leaves_the_statistics_alone():
    evaluate = jax.jit(functools.partial(tiny().apply, mutable=["batch_stats"]))
    _, state = evaluate(tiny_variables(), IMAGES)
    chex.assert_trees_all_equal(state["batch_stats"], tiny_variables()["batch_stats"])


def test_axis_name_shares_the_statistics_of_a_mapped_axis():
    variables = tiny_variables()
    logits, updated = train(tiny(), variables, IMAGES)

    def mapped(axis_name: str | None):
        step = functools.partial(train, tiny(axis_name=axis_name), variables)
        halves = IMAGES.reshape(2, 2, *IMAGES.shape[1:])
        return jax.jit(jax.vmap(step, axis_name="devices"))(halves)

    shared_logits, shared = mapped("devices")
    chex.assert_trees_all_close(shared_logits.reshape(logits.shape), logits, rtol=1e-3, atol=1e-3)
    for device in range(2):
        mine = jax.tree.map(lambda x, device=device: x[device], shared)
        chex.assert_trees_all_close(mine, updated, rtol=1e-4, atol=1e-5)
    assert jnp.abs(mapped(None)[0].reshape(logits.shape) - logits).max() > 1e-2


@pytest.mark.flax_promotes
def test_statistics_of_a_bfloat16_model_stay_float32():
    _, updated = train(tiny(dtype="bfloat16"), tiny_variables(), IMAGES)
    assert {x.dtype for x in jax.tree.leaves(updated)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "wide"}, 'block=\'wide\' is unknown: use "basic" or "bottleneck"'),
        ({"stem": "tiny"}, 'stem=\'tiny\' is unknown: use "imagenet" or "small"'),
    ],
)
def test_unknown_choices_raise_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        models.create_model("resnet18", **options)


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 4, 16, 16, 3)])
def test_images_of_another_rank_raise(shape):
    expected = r"expected \(batch, height, width, channels\)"
    with pytest.raises(ValueError, match=expected) as error:
        tiny().apply(tiny_variables(), jnp.zeros(shape))
    assert str(shape) in str(error.value)


# The tap -----------------------------------------------------------------------------------------


def test_the_taps_see_the_maps_between_the_blocks():
    _, tapped = observing.taps(tiny(), tiny_variables(), IMAGES)
    assert tapped == [
        (None, "image", (4, 16, 16, 3)),
        *((layer, "block_input", (4, 4, 4, 4)) for layer in (1, 2, 3)),
    ]


@pytest.mark.parametrize(("kind", "stride"), [("basic", 1), ("basic", 2), ("bottleneck", 1)])
def test_noise_at_a_block_is_what_both_its_branches_read(kind, stride):
    """It enters before the shortcut leaves, whether that is the identity or a convolution."""
    norm = functools.partial(nn.BatchNorm, use_running_average=True)
    block = resnet.ResidualBlock(layer=3, kind=kind, width=4, stride=stride, norm=norm)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4))

    @jax.jit
    def output(params, *, amount: float) -> jax.Array:
        def taps(x, *, layer, point):
            assert (layer, point) == (3, "block_input")
            return x + amount

        return block.apply(params, x - amount, taps)

    init = jax.jit(functools.partial(block.init, taps=lambda x, **_: x))
    params = init(jax.random.key(0, impl="rbg"), x)
    params = jax.tree.map(lambda x: x + 0.1, params)  # the last norm's scale starts at zero
    chex.assert_trees_all_close(output(params, amount=1.0), output(params, amount=0.0), atol=1e-5)


# What CPUs compute differently --------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_convolutions_are_convolutions(stride):
    convolutions = [
        nn.Conv(5, (1, 1), strides=stride, use_bias=False, padding=0, **special)
        for special in ({}, {"conv_general_dilated": resnet.convolutions.pointwise})
    ]
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    kernel = {"kernel": jax.random.normal(jax.random.key(1), (1, 1, 3, 5))}
    results = [
        jax.vjp(lambda params, x, conv=conv: conv.apply({"params": params}, x), kernel, x)
        for conv in convolutions
    ]
    (expected, expected_vjp), (actual, actual_vjp) = results
    chex.assert_trees_all_close(actual, expected, atol=1e-5)
    chex.assert_trees_all_close(actual_vjp(actual), expected_vjp(actual), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 10, 2), (2, 1, 2, 1), (1, 3, 1, 1)])
def test_pooling_by_slices_is_max_pooling(shape):
    """Values, and whole numbers as gradients, whose sums are exact; most values are equal."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 3, shape), jnp.float32)
    expected, expected_vjp = jax.vjp(resnet._max_pool, x)
    actual, actual_vjp = jax.vjp(resnet._max_pool_by_slices, x)
    chex.assert_trees_all_equal(actual, expected)
    gradient = jnp.asarray(rng.integers(1, 9, expected.shape), jnp.float32)
    chex.assert_trees_all_equal(actual_vjp(gradient), expected_vjp(gradient))


def test_pooling_by_slices_hides_no_nan():
    by_slices, whole = jax.jit(resnet._max_pool_by_slices), jax.jit(resnet._max_pool)
    for place in np.ndindex(3, 3):
        x = np.zeros((1, 3, 3, 1), np.float32)
        x[0, *place, 0] = np.nan
        np.testing.assert_array_equal(by_slices(x), whole(x))


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_other_devices_compute_as_xla_does(platform):
    model = models.create_model("resnet50", stage_sizes=(1,), width=4)
    images = jnp.zeros((1, 16, 16, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    loss = jax.grad(lambda variables, images: model.apply(variables, images).sum())
    traced = jax.jit(loss).trace(variables, images)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("reduce_window" in text) == (platform != "cpu")
    assert ("select_and_scatter" in text) == (platform != "cpu")
    # Of 5 convolutions 3 are 1x1; each has two gradients, but for the first, which has one.
    assert text.count("stablehlo.convolution") == (2 + 3 if platform == "cpu" else 5 + 9)
