import dataclasses
import functools
import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from pnoise_jax import models, noise, training
from pnoise_jax.models.parts import layers
from tests.models import observing
from tests.models.drawing import draw_variables

# timm's counts for 1000 classes.
PARAMETERS = {
    "beit_b_16": 86_530_984,
    "beit_l_16": 304_430_568,
    "deit_ti_16": 5_717_416,
    "deit_s_16": 22_050_664,
    "deit_b_16": 86_567_656,
    "deit_ti_16_distilled": 5_910_800,
    "deit_s_16_distilled": 22_436_432,
    "deit_b_16_distilled": 87_338_192,
    "deit3_s_16": 22_059_496,
    "deit3_m_16": 38_849_512,
    "deit3_b_16": 86_585_320,
    "deit3_l_16": 304_374_760,
    "deit3_h_14": 632_126_440,
    "convit_ti": 5_710_512,
    "convit_s": 27_777_322,
    "convit_b": 86_540_040,
    "davit_t": 28_360_168,
    "davit_s": 49_745_896,
    "davit_b": 87_954_408,
    "davit_l": 196_811_752,
    "davit_h": 348_922_856,
    "davit_g": 1_406_470_120,
    "maxvit_t": 30_916_528,
    "maxvit_s": 68_927_956,
    "maxvit_b": 119_467_708,
    "maxvit_l": 211_785_560,
    "maxvit_xl": 474_951_952,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "swin_t": 28_288_354,
    "swin_s": 49_606_258,
    "swin_b": 87_768_224,
    "swin_l": 196_532_476,
    "swin_b_384": 87_903_584,
    "swin_l_384": 196_735_516,
    "swinv2_t": 28_347_154,
    "swinv2_t_window16": 28_347_154,
    "swinv2_s": 49_728_418,
    "swinv2_s_window16": 49_728_418,
    "swinv2_b": 87_918_816,
    "swinv2_b_window16": 87_918_816,
    "swinv2_b_256": 87_918_816,
    "swinv2_b_384": 87_918_816,
    "swinv2_l_256": 196_739_932,
    "swinv2_l_384": 196_739_932,
    "vit_b_8": 86_576_872,
    "vit_b_32": 88_224_232,
    "vit_h_14": 632_045_800,
    "vit_b_16_clip": 86_568_424,
    "vit_b_32_clip": 88_225_000,
    "vit_l_14_clip": 304_204_776,
    "vit_h_14_clip": 632_047_080,
    "vit_wee_16_reg1": 13_422_568,
    "vit_little_16_reg4": 22_516_008,
    "vit_medium_16_reg4": 38_881_768,
    "vit_mediumd_16_reg4": 64_109_032,
    "vit_betwixt_16_reg4": 60_398_440,
    "vit_so150m_16_reg4": 134_131_560,
    "vit_so150m2_16_reg1": 136_059_560,
    "vit_22b": 22_209_743_848,
    "vit_parallel_s_14": 23_751_016,
    "vit_parallel_g_14": 1_037_523_688,
    "vit_ti_16": 5_717_416,
    "vit_s_16": 22_050_664,
    "vit_b_16": 86_567_656,
    "vit_l_16": 304_326_632,
}


def test_every_listed_model_has_a_count():
    assert set(models.list_models()) == set(PARAMETERS)


@pytest.mark.long
@pytest.mark.parametrize("name", models.list_models())
def test_parameters_and_logits(name):
    """If all blocks are equal, traces models of one and of two, and counts the rest from them."""
    model = models.create_model(name)
    if isinstance(model, models.IsotropicTransformer) and not isinstance(model, models.ConViT):
        with_one, with_two = (parameters_and_logits(model.clone(depth=depth)) for depth in (1, 2))
        assert with_one + (model.depth - 1) * (with_two - with_one) == PARAMETERS[name]
    else:
        assert parameters_and_logits(model) == PARAMETERS[name]


def parameters_and_logits(model):
    """The number of parameters; checks dtypes and logits."""
    image_shape = model.image_shape or (224, 224)  # ResNets and DaViTs take any
    images = jax.ShapeDtypeStruct((2, *image_shape, 3), jnp.float32)
    with jax.enable_x64(True):  # without it, everything would be float32
        logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    chex.assert_shape(logits, (2, 1000))
    chex.assert_type(logits, jnp.float32)
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", models.list_models())
def test_models_compare_and_hash_by_their_options(name):
    # So that a model can be a static argument of a jitted function without recompiling it.
    model = models.create_model(name)
    assert model == models.create_model(name)
    assert hash(model) == hash(models.create_model(name))
    assert model != models.create_model(name, dtype=jnp.bfloat16)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (models.VisionTransformer, "vit_b_16"),
        (models.Beit, "beit_b_16"),
        (models.SwinTransformer, "swin_t"),
        (models.SwinTransformerV2, "swinv2_t"),
        (models.DaViT, "davit_t"),
        (models.MaxVit, "maxvit_t"),
        (models.ResNet, "resnet50"),
    ],
)
def test_a_class_without_options_is_a_named_model(kind, name):
    assert kind() == models.create_model(name)


def test_list_models_matches_a_pattern_and_sorts():
    assert models.list_models("vit_?_16") == ["vit_b_16", "vit_l_16", "vit_s_16"]
    assert models.list_models("resnet?4") == ["resnet34"]
    assert models.list_models("bert*") == []


def test_options_override_the_named_model_and_only_here():
    model = models.create_model("vit_ti_16", num_classes=10, depth=2, image_size=32)
    assert (model.depth, model.dim, model.num_classes) == (2, 192, 10)
    assert models.create_model("vit_ti_16").depth == 12


def test_an_unknown_name_suggests_a_similar_one_and_lists_all():
    pattern = r"'vit_b16'.*did you mean 'vit_b_16'.*Choose one of"
    with pytest.raises(ValueError, match=pattern) as error:
        models.create_model("vit_b16")
    assert all(name in str(error.value) for name in models.list_models())


def test_an_unknown_option_suggests_a_similar_one_and_lists_all():
    with pytest.raises(
        ValueError, match="option of vit_b_16 'patchsize'; did you mean 'patch_size'"
    ) as error:
        models.create_model("vit_b_16", patchsize=8)
    assert "image_size" in str(error.value)


@pytest.mark.parametrize(
    ("name", "option", "explanation"),
    [
        ("resnet18", "image_size", r"accepts images of any size \(in a config, data\.image_size"),
        ("resnet50", "patch_size", "this model has no patches"),
        ("resnet18", "depth", "stage_sizes is the number of blocks"),
        ("swin_t", "depth", "stage_sizes is the number of blocks"),
    ],
)
def test_an_option_that_only_other_models_have_is_explained(name, option, explanation):
    """A name that is merely spelt alike would mislead: image_size is not stage_sizes."""
    with pytest.raises(ValueError, match=explanation) as error:
        models.create_model(name, **{option: 8})
    assert "did you mean" not in str(error.value)
    assert "There are: " in str(error.value)
    assert "stage_sizes" in str(error.value)
    with pytest.raises(ValueError, match=rf"model\.{option}: .*{explanation}"):
        training.model_config(name, **{option: 8})


def test_the_explanation_depends_on_the_models_options():
    assert "any size" in models.explain_absent_option("image_size", ("width",))
    assert "stage_sizes" in models.explain_absent_option("depth", ("width", "stage_sizes"))
    assert models.explain_absent_option("depth", ("width",)) == ""
    assert models.explain_absent_option("imagesize", ("width",)) == ""


def test_a_model_of_a_fixed_size_is_not_said_to_take_any():
    class Fixed(models.ResNet):
        image_shape = (8, 8)

    with pytest.raises(ValueError, match="'image_size'; did you mean 'stage_sizes'"):
        models.register_model("fixed", image_size=8)(Fixed)


def test_flax_attributes_are_not_options():
    with pytest.raises(ValueError, match="unknown option of vit_b_16 'parent'"):
        models.create_model("vit_b_16", parent=None)


# Injection: what every model promises -------------------------------------------------------------

VIT = {"patch_size": 4, "image_size": 8, "dim": 16, "depth": 2, "num_heads": 2}
RESNET = {"stage_sizes": (1, 1), "width": 4, "stem": "small"}
SWIN = {"patch_size": 2, "dim": 16, "head_dim": 8, "stage_sizes": (1, 1), "window_size": 2}
DAVIT = {"dim": 16, "head_dim": 8, "stage_sizes": (2,), "window_size": 2}
MAXVIT = {"dim": 8, "stem_dim": 4, "head_dim": 4, "stage_sizes": (1, 1), "image_size": 32}
SMALL = {
    "vit_ti_16": VIT,
    "vit_medium_16_reg4": VIT,
    "beit_b_16": VIT,
    "swin_t": SWIN | {"image_size": 8},
    "swinv2_t": SWIN | {"image_size": 8},
    "convit_ti": VIT | {"local_layers": 1},
    "vit_parallel_s_14": VIT,
    "davit_t": DAVIT,
    "maxvit_t": MAXVIT,
    "resnet18": RESNET,
}
X = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
LARGER = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))  # MaxViT's windows need 32 pixels
SHIFT = noise.LinearTransform(noise.CyclicShift(0.3))
ALWAYS = noise.Injection(SHIFT, layer=2, train=True, inference=True)
small = pytest.mark.parametrize("name", SMALL)
# Their programs take long to compile; the golden files and test_types compile some by default.
_SLOW = ("davit_t", "maxvit_t", "swinv2_t", "vit_medium_16_reg4", "vit_parallel_s_14")
PREFIX = {"vit_ti_16": 1, "beit_b_16": 1, "vit_medium_16_reg4": 4}  # learned tokens in front
COMPILED = {n: pytest.param(n, marks=pytest.mark.slow) if n in _SLOW else n for n in SMALL}
compiled = pytest.mark.parametrize("name", COMPILED.values())


def images_for(name: str) -> jax.Array:
    return LARGER if name == "maxvit_t" else X


def create_small(name: str, **options) -> nn.Module:
    return models.create_model(name, num_classes=5, **SMALL[name], **options)


@functools.cache
def small_variables(name: str) -> dict:
    return draw_variables(create_small(name), images_for(name))


@functools.partial(jax.jit, static_argnames=("model", "train"))
def apply(model, variables, images, *, train=False, mask=None, strength=None):
    """Logits and the updated variables."""
    return model.apply(
        variables,
        images,
        train=train,
        mask=mask,
        noise_strength=strength,
        rngs={"noise": jax.random.key(7, impl="rbg")},  # compiles faster
        mutable=["batch_stats"],
    )


def call(model, variables, images, *layers, **options):
    """`model.apply` as one program: eagerly, each of its operations would be compiled."""
    return jax.jit(lambda v, x: model.apply(v, x, *layers, **options))(variables, images)


@small
def test_the_taps_are_opened_once_with_all_they_need(name):
    mask, index = jnp.array([True, True, True, False]), jnp.arange(4)
    call = {"mask": mask, "index": index, "train": True, "noise_strength": 0.3}
    model = create_small(name, injection=ALWAYS)
    ((options,), tapped) = observing.taps(model, small_variables(name), images_for(name), **call)
    assert options.pop("mask") is mask
    assert options.pop("index") is index
    assert options == {
        "injection": ALWAYS,
        "num_layers": 2,
        "train": True,
        "strength": 0.3,
        "prefix_tokens": PREFIX.get(name, 0),
    }
    assert [place[:2] for place in tapped] == [
        (None, "image"),
        *((layer, point) for layer in (1, 2) for point in model.points[1:]),
    ]


@small
def test_an_injection_changes_no_parameter(name):
    def program(injection):
        model = create_small(name, injection=injection)
        init = jax.jit(functools.partial(model.init, train=True))
        return init.lower(jax.random.key(0), images_for(name)).as_text()

    gaussian = noise.Injection(noise.Gaussian(), layer="random")
    assert program(ALWAYS) == program(gaussian) == program(None)


@small
@pytest.mark.parametrize("train", [True, False])
def test_an_injection_that_does_not_act_compiles_to_the_plain_model(name, train):
    idle = dataclasses.replace(ALWAYS, train=not train, inference=train)
    variables = small_variables(name)

    def program(injection):
        model = create_small(name, injection=injection)
        return apply.lower(model, variables, images_for(name), train=train).as_text()

    assert program(idle) == program(None)
    assert program(ALWAYS) != program(None)


@compiled
def test_noise_at_each_layer_and_point_gives_other_logits(name):
    model = create_small(name)
    # Not the image: patches are embedded linearly, so noise on it equals noise at layer 1.
    injections = [None] + [
        dataclasses.replace(ALWAYS, point=point, layer=layer)
        for point in model.points[1:]
        for layer in (1, 2)
    ]
    logits = [
        apply(model.clone(injection=i), small_variables(name), images_for(name))[0]
        for i in injections
    ]
    for a, b in itertools.combinations(logits, 2):
        assert jnp.abs(a - b).max() > 1e-3


@compiled
def test_noise_on_the_image_is_noise_before_the_model(name):
    model = create_small(name, injection=dataclasses.replace(ALWAYS, point="image"))
    expected = apply(create_small(name), small_variables(name), SHIFT(None, images_for(name)))
    chex.assert_trees_all_close(
        apply(model, small_variables(name), images_for(name)), expected, rtol=1e-5, atol=1e-5
    )


@compiled
def test_strength_and_mask_reach_the_noise(name):
    model, variables = create_small(name, injection=ALWAYS), small_variables(name)
    plain, _ = apply(create_small(name), variables, images_for(name))
    logits, _ = apply(model, variables, images_for(name))
    silent, _ = apply(model, variables, images_for(name), strength=0.0)
    chex.assert_trees_all_close(silent, plain, rtol=1e-5, atol=1e-6)
    explicit, _ = apply(model, variables, images_for(name), strength=0.3)
    chex.assert_trees_all_close(explicit, logits, rtol=1e-5, atol=1e-6)

    mask = jnp.array([True, True, True, False])
    masked, _ = apply(model, variables, images_for(name), mask=mask)
    unpadded, _ = apply(model, variables, images_for(name)[:3])
    chex.assert_trees_all_close(masked[:3], unpadded, rtol=1e-5, atol=1e-6)
    assert jnp.abs(masked[:3] - logits[:3]).max() > 1e-6


@pytest.mark.long
@compiled
def test_remat_recomputes_every_block_and_draws_the_same_noise_again(name):
    injection = noise.Injection(noise.Gaussian(std=0.1), layer="random")
    plain = create_small(name, injection=injection)
    params = small_variables(name)["params"]
    rest = {k: v for k, v in small_variables(name).items() if k != "params"}

    def loss(params, model):
        logits, updated = apply(model, {"params": params, **rest}, images_for(name), train=True)
        return jnp.square(logits).sum(), updated

    step = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    remat = plain.clone(remat=True)
    jaxpr = str(jax.make_jaxpr(step, static_argnums=1)(params, remat))
    assert jaxpr.count("remat") >= 2
    expected = step(params, plain)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
    chex.assert_trees_all_close(step(params, remat), expected, rtol=1e-4, atol=1e-5 * scale)


# Where bfloat16 would lose too much.
FLOAT32 = {
    "beit_b_16": {"fc_norm"},
    "convit_ti": {"norm", "block_1/attn/pos_proj"},
    "vit_medium_16_reg4": {"fc_norm"},
    "swinv2_t": {
        "norm",
        *(f"stage{n}_block1/attn/{name}" for n in (1, 2) for name in ("cpb_fc1", "cpb_fc2")),
    },
    "davit_t": {"fc_norm"},
    "maxvit_t": {"fc_norm", "pre_head"},
    "vit_parallel_s_14": {
        "norm",
        "attn_pool",
        *(f"attn_pool/{name}" for name in ("q", "kv", "proj", "norm", "mlp", "mlp/fc1", "mlp/fc2")),
        *(f"attn_pool/mlp/Dropout_{n}" for n in (0, 1)),
    },
    "resnet18": set(),
}


@compiled
@pytest.mark.flax_promotes
def test_bfloat16_models_keep_parameters_and_logits_in_float32(name):
    model = create_small(name, dtype="bfloat16")  # as a config gives it
    shapes = jax.eval_shape(model.init, jax.random.key(0), images_for(name))
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    outputs = observing.outputs(model, small_variables(name), images_for(name))
    in_float32 = {path for path, x in outputs.items() if x.dtype != jnp.bfloat16}
    assert in_float32 == {"", "head"} | FLOAT32.get(name, {"norm"})
    logits, expected = (
        apply(create_small(name, dtype=dtype), small_variables(name), images_for(name))[0]
        for dtype in ("bfloat16", "float32")
    )
    chex.assert_type(logits, jnp.float32)
    chex.assert_trees_all_close(logits, expected, atol=0.03 * float(jnp.abs(expected).max()))


@small
def test_dropout_stands_where_timm_has_it(name):
    """After the embedding, but for Swin's; nowhere in models with convolutions."""
    if name in ("resnet18", "davit_t", "maxvit_t"):
        with pytest.raises(ValueError, match=f"unknown option of {name} 'dropout'"):
            create_small(name, dropout=0.5)
        return
    model = create_small(name, dropout=0.5)
    rngs = {"dropout": jax.random.key(0)}
    outputs = observing.outputs(
        model, small_variables(name), images_for(name), train=True, rngs=rngs
    )
    dropped = {path for path in outputs if "Dropout" in path and "drop_path" not in path}
    blocks = [model.layer_name(layer) for layer in (1, 2)]
    within = {"attn/Dropout_0", "mlp/Dropout_0", "mlp/Dropout_1"}
    if name == "vit_parallel_s_14":  # the attention's and the head's have the rate 0
        within = {"attn/Dropout_0", "Dropout_0"}
        dropped = {path for path in dropped if not path.startswith("attn_pool")}
    first = set() if name in ("swin_t", "swinv2_t") else {"Dropout_0"}
    assert dropped == first | {f"{block}/{layer}" for block in blocks for layer in within}

    def program(model, train):
        def call(variables, images, key):
            return model.apply(
                variables, images, train=train, rngs={"dropout": key} if train else {}
            )

        arguments = small_variables(name), images_for(name), jax.random.key(0)
        return jax.jit(call).lower(*arguments).as_text()

    # Each draws in training, and none in evaluation.
    has_rate_0 = "/attn/" if name == "vit_parallel_s_14" else "nowhere"
    drawing = [path for path in dropped if has_rate_0 not in path]
    assert program(model, True).count("call @_bernoulli") == len(drawing)
    assert program(model, False) == program(create_small(name), False)


@compiled
@pytest.mark.flax_promotes
def test_noise_in_a_bfloat16_model(name):
    model = create_small(name, injection=ALWAYS, dtype=jnp.bfloat16)
    logits, _ = apply(model, small_variables(name), images_for(name), strength=jnp.float32(0.3))
    expected, _ = apply(
        create_small(name, injection=ALWAYS), small_variables(name), images_for(name)
    )
    chex.assert_type(logits, jnp.float32)
    chex.assert_trees_all_close(logits, expected, atol=0.03 * float(jnp.abs(expected).max()))


@compiled
@pytest.mark.parametrize("injection", [None, ALWAYS], ids=["clean", "noisy"])
def test_a_model_resumes_from_the_input_of_any_layer(name, injection):
    model, variables = create_small(name, injection=injection), small_variables(name)
    logits, inputs = call(model, variables, images_for(name), (1, 2), method="record_inputs")
    chex.assert_trees_all_close(
        logits, call(model, variables, images_for(name)), rtol=1e-5, atol=1e-5
    )
    assert list(inputs) == [1, 2]
    for layer, x in inputs.items():
        resumed = call(model, variables, x, layer, method="resume")
        chex.assert_trees_all_close(resumed, logits, rtol=1e-5, atol=1e-5)


@compiled
def test_resuming_accepts_all_options_of_a_call(name):
    model, variables = create_small(name, injection=ALWAYS), small_variables(name)
    options = {"mask": jnp.array([True, True, True, False]), "noise_strength": 0.7, "train": True}
    options |= {"index": jnp.arange(4), "mutable": ["batch_stats"]}
    direct, _ = call(model, variables, images_for(name), **options)
    (logits, inputs), _ = call(
        model, variables, images_for(name), (1, 2), method="record_inputs", **options
    )
    resumed, _ = call(model, variables, inputs[2], 2, method="resume", **options)
    chex.assert_trees_all_close(logits, direct, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(resumed, direct, rtol=1e-5, atol=1e-5)


@small
def test_no_submodule_or_parameter_has_the_name_of_a_method(name):
    """For `nnx.bridge.ToNNX`, which finds both as attributes."""
    assert not set(small_variables(name)["params"]) & set(dir(create_small(name)))


@pytest.mark.parametrize("layer", [0, 3])
def test_a_model_does_not_resume_from_a_layer_that_it_lacks(layer):
    model, variables = create_small("vit_ti_16"), small_variables("vit_ti_16")
    for argument, method in ((layer, "resume"), ((1, layer), "record_inputs")):
        with pytest.raises(ValueError, match=f"layer={layer}: the layers of .* are 1 to 2"):
            model.apply(variables, X, argument, method=method)


# In DaViT, both blocks of a pair have the same rate.
@pytest.mark.parametrize("name", [each for n, each in COMPILED.items() if n != "davit_t"])
def test_stochastic_depth_leaves_out_branches_of_whole_examples(name):
    model, variables = create_small(name, drop_path=0.5), small_variables(name)
    x = jnp.tile(images_for(name), (4, 1, 1, 1))

    def logits_and_branches(model, *, train):
        return call(
            model,
            variables,
            x,
            train=train,
            rngs={"dropout": jax.random.key(0, impl="rbg")},
            capture_intermediates=lambda module, _: isinstance(module, layers.DropPath),
            mutable=["batch_stats", "intermediates"],
        )

    _, state = logits_and_branches(model, train=True)
    first, last = (state["intermediates"][model.layer_name(layer)] for layer in (1, 2))
    for branch in jax.tree.leaves(first):
        assert branch.any(axis=tuple(range(1, branch.ndim))).all()
    left_out = [~branch.any(axis=tuple(range(1, branch.ndim))) for branch in jax.tree.leaves(last)]
    assert all(2 <= branch.sum() <= 14 for branch in left_out)
    branches = {"resnet18": 1, "vit_parallel_s_14": 1, "maxvit_t": 5}
    assert len(left_out) == branches.get(name, 2)
    if len(left_out) > 1:  # attention and MLP are left out independently
        assert (left_out[0] != left_out[1]).any()
    for train in (True, False):
        plain, _ = logits_and_branches(create_small(name), train=train)
        logits, _ = logits_and_branches(model, train=train)
        assert (logits == plain).all() == (not train)


@compiled
def test_a_model_takes_several_injections(name):
    first = noise.Injection(noise.LinearTransform(noise.Optimal()), layer=1, inference=True)
    model = create_small(name, injection=[first, ALWAYS], remat=True)
    assert model == create_small(name, injection=(first, ALWAYS), remat=True)
    assert model.injections == (first, ALWAYS)
    variables, (_, inputs) = small_variables(name), _inputs(create_small(name), name)
    second = create_small(name, injection=ALWAYS)
    x = call(second, variables, first.noise(None, inputs[1]), 1, method="resume")
    chex.assert_trees_all_close(call(model, variables, images_for(name)), x, rtol=1e-5, atol=1e-5)
    scaled, _ = apply(model, variables, images_for(name), strength=(0.0, 0.0))
    chex.assert_trees_all_close(
        scaled, call(create_small(name), variables, images_for(name)), atol=1e-5
    )


def _inputs(model, name):
    return call(model, small_variables(name), images_for(name), (1, 2), method="record_inputs")


def test_a_tuple_of_one_injection_is_that_injection():
    assert create_small("vit_ti_16", injection=(ALWAYS,)) == create_small(
        "vit_ti_16", injection=ALWAYS
    )
    assert create_small("vit_ti_16", injection=()) == create_small("vit_ti_16")
    with pytest.raises(ValueError, match=r"injection=LinearTransform.*: give a noise\.Injection"):
        create_small("vit_ti_16", injection=SHIFT)
    with pytest.raises(ValueError, match=r"layer=3\b.*1 to 2"):
        create_small("vit_ti_16", injection=(ALWAYS, dataclasses.replace(ALWAYS, layer=3)))


@small
def test_a_place_that_the_model_lacks_raises(name):
    with pytest.raises(ValueError, match=r"layer=3\b.*1 to 2"):
        create_small(name, injection=dataclasses.replace(ALWAYS, layer=3))


def test_resnets_have_no_attention():
    injection = dataclasses.replace(ALWAYS, point="attention_input")
    with pytest.raises(ValueError, match=r"point='attention_input'.*'image', 'block_input'"):
        create_small("resnet18", injection=injection)
    create_small("vit_ti_16", injection=injection)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_ti_16", {"depth": 0}, "depth=0: give whole numbers of at least 1"),
        ("vit_ti_16", {"num_heads": 0}, "num_heads=0"),
        ("vit_ti_16", {"patch_size": -2}, "patch_size=-2"),
        ("vit_ti_16", {"mlp_dim": 0}, "mlp_dim=0"),
        ("vit_ti_16", {"dropout": 1.5}, r"dropout=1.5: give a number in \[0, 1\)"),
        ("beit_b_16", {"depth": 0}, "depth=0"),
        ("beit_b_16", {"mlp_dim": 0}, "mlp_dim=0"),
        ("beit_b_16", {"layer_scale": None}, "layer_scale=None: give a number"),
        ("vit_ti_16", {"image_size": 224.0}, r"image_size=224\.0: give the images' side, or \(hei"),
        ("vit_ti_16", {"image_size": None}, "image_size=None: give the"),
        ("swin_t", {"image_size": (224,)}, r"image_size=\(224,\): give the"),
        ("convit_ti", {"image_size": (224, 224, 3)}, r"image_size=\(224, 224, 3\): give the"),
        ("vit_ti_16", {"image_size": (224, 1.5)}, r"image_size=\(224, 1\.5\): give whole numbers"),
        ("beit_b_16", {"drop_path": 1}, r"drop_path=1: give a number in \[0, 1\)"),
        ("swin_t", {"window_size": 0}, "window_size=0: give whole numbers of at least 1"),
        ("swin_t", {"stage_sizes": (2, 0)}, r"stage_sizes=\(2, 0\)"),
        ("swin_t", {"drop_path": 1.0}, r"drop_path=1.0: give a number in \[0, 1\)"),
        ("swinv2_t", {"pretrained_window_sizes": (12,)}, r"sizes=\(12,\): give one side for each"),
        (
            "swinv2_t",
            {"pretrained_window_sizes": (-1, 0, 0, 0)},
            r"sizes=\(-1, 0, 0, 0\): give one",
        ),
        ("swinv2_t", {"pretrained_window_sizes": 12}, "sizes=12: give one side for each of the 4"),
        ("vit_ti_16", {"register_tokens": -1}, "register_tokens=-1: give a whole number of at le"),
        ("vit_ti_16", {"register_tokens": True}, "register_tokens=True: give a whole number"),
        ("vit_ti_16", {"layer_scale": None}, "layer_scale=None: give a number"),
        ("vit_ti_16", {"layer_scale": float("nan")}, "layer_scale=nan: give a number"),
        ("davit_t", {"stage_sizes": (2, 1)}, r"stage_sizes=\(2, 1\): give even numbers, twice"),
        ("davit_t", {"head_dim": 36}, "dim=96 is not divisible by head_dim=36"),
        ("davit_t", {"window_size": 0}, "window_size=0"),
        (
            "davit_t",
            {"image_size": 224},
            r"accepts images of any size \(in a config, data.image_si",
        ),
        ("convit_ti", {"depth": 0}, "depth=0"),
        ("convit_ti", {"dropout": -1}, "dropout=-1"),
        ("resnet18", {"drop_path": -0.1}, "drop_path=-0.1"),
        ("resnet18", {"stage_sizes": ()}, r"stage_sizes=\(\)"),
        ("resnet18", {"stage_sizes": (0, 1)}, r"stage_sizes=\(0, 1\)"),
        ("resnet18", {"width": 0}, "width=0"),
    ],
)
def test_an_option_out_of_its_range_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create_model(name, **options)


def test_lists_from_a_stored_config_become_tuples():
    model = models.create_model("resnet18", stage_sizes=[1, 1])
    assert hash(model) == hash(models.create_model("resnet18", stage_sizes=(1, 1)))


@compiled
def test_the_parts_of_a_model_make_up_the_whole(name):
    """From the images to a layer, from there to the features, from there to the logits."""
    model, variables = create_small(name), small_variables(name)
    whole = call(model, variables, images_for(name))
    x = call(model, variables, images_for(name), end=2, method="forward")
    features = call(model, variables, x, start=2, end="features", method="forward")
    logits = call(model, variables, features, start="features", method="forward")
    chex.assert_trees_all_close(logits, whole, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="the start must be before the end"):
        model.apply(variables, x, start=2, end=2, method="forward")
