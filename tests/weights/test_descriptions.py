"""What config.json beside a file, or its metadata, say about its model."""

import json
import re

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from pnoise_jax import models, weights
from pnoise_jax.weights import stated_options
from pnoise_jax.weights.matching import open_named
from pnoise_jax.weights.names import families
from tests.weights import sources


def match(file, model):
    return weights.match(file, model, sources.shapes(model))


SIZES = {"embed_dim": 36, "depth": 3, "patch_size": 8, "mlp_ratio": 2.0}  # of the golden ViT


def describe(file, **said):
    (file.parent / "config.json").write_text(json.dumps(said))


@pytest.fixture
def file(tmp_path):
    """A ViT with three heads that reads its class token."""
    return sources.save_timm(tmp_path / "model.safetensors", "vit_token")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"global_pool": "avg"}, "pooling='mean'"),
        ({"global_pool": "token", "model_args": {"global_pool": "avg"}}, "pooling='mean'"),
        ({"model_args": {"num_heads": 12}}, "num_heads=12"),
        (
            {"architecture": "vit_small_patch16_224.augreg_in21k", "model_args": SIZES},
            "num_heads=6",
        ),
        ({"architecture": "vit_small_patch16_384", "model_args": SIZES}, "num_heads=6"),
        ({"architecture": "vit_base_patch16_gap_224", "model_args": SIZES}, "num_heads=16"),
    ],
)
def test_stated_options_that_no_shape_shows_must_agree(file, said, message):
    describe(file, **said)
    with pytest.raises(ValueError, match=f"has {message}, the model"):
        match(file, sources.vit())


def test_arguments_override_the_named_architecture_which_is_reported(file):
    describe(
        file,
        architecture="vit_base_patch16_224",
        global_pool="token",
        model_args=SIZES | {"num_heads": 3},
    )
    said = f"{file} (safetensors, described as vit_base_patch16_224);"
    assert said in match(file, sources.vit()).describe()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"architecture": "resnetblur18"}, "resnetblur18, which blurs where it strides"),
        ({"architecture": "resnetaa50.a1h_in1k"}, "averages where it strides"),
        (
            {"architecture": "resnet18", "model_args": {"layers": [2, 1, 1], "act_layer": "gelu"}},
            "act_layer='gelu'",
        ),
        ({"model_args": {"output_stride": 8}}, "output_stride=8"),
        ({"model_args": {"aa_layer": "avg"}}, "aa_layer='avg'"),
        ({"model_args": {"block_args": {}, "norm_layer": "groupnorm"}}, "norm_layer='groupnorm'"),
        ({"model_args": {"replace_stem_pool": True}}, "replace_stem_pool=True"),
        (
            {"model_type": "resnet", "depths": [2, 1, 1], "downsample_in_bottleneck": True},
            "downsample_in_bottleneck=True",
        ),
    ],
)
def test_another_function_with_the_same_arrays_is_refused(tmp_path, said, message):
    """timm's ResNets with antialiasing have the same arrays as others."""
    file = sources.save_timm(tmp_path / "model.safetensors", "resnet_basic")
    describe(file, **said)
    with pytest.raises(
        ValueError, match=rf"weights='{file}' is of .*{message}, as config\.json be"
    ):
        weights.match(file, sources.resnet(), sources.shapes(sources.resnet(), 32, 32, 3))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"architecture": "vit_so400m_patch16_siglip_gap_256.v2", "model_args": SIZES},
            "has a GELU by tanh",
        ),
        ({"model_args": {"act_layer": "quick_gelu"}}, "act_layer='quick_gelu'"),
        ({"model_args": {"act_layer": "gelu_tanh"}}, "act_layer='gelu_tanh'"),
        ({"model_args": {"act_layer": ["gelu"]}}, r"act_layer=\['gelu'\]"),
        ({"model_args": {"norm_layer": "rmsnorm"}}, "norm_layer='rmsnorm'"),
        ({"model_args": {"norm_eps": 0.1}}, "norm_eps=0.1"),
        ({"model_args": {"norm_eps": float("nan")}}, "norm_eps=nan"),
        ({"model_args": {"mlp_layer": "glu"}}, "mlp_layer='glu'"),
        ({"model_args": {"block_fn": "ResPostBlock"}}, "block_fn='ResPostBlock'"),
        ({"model_args": {"pool_include_prefix": True}}, "pool_include_prefix=True"),
        ({"model_type": "vit", "hidden_act": "quick_gelu"}, "act_layer='quick_gelu'"),
        ({"model_type": "vit", "hidden_act": "gelu_new"}, "act_layer='gelu_tanh'"),
        ({"model_type": "vit", "layer_norm_eps": 0.01}, "norm_eps=0.01"),
    ],
)
def test_another_function_of_a_vit_is_refused(file, said, message):
    describe(file, **said)
    with pytest.raises(
        ValueError, match=rf"weights='{file}' is of .*{message}, as config\.json be"
    ):
        match(file, sources.vit())


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"architecture": "resnet50.a1_in1k"}, r"resnet50\.a1_in1k"),
        ({"architecture": "resnetblur18"}, "resnetblur18"),
        ({"architecture": "convit_tiny"}, "convit_tiny"),
        ({"architecture": "vitamin_small_224"}, "vitamin_small_224"),
        ({"architecture": "efficientnet_b0"}, "efficientnet_b0"),
        ({"model_type": "resnet", "depths": [3, 4, 6, 3]}, r"resnet \(transformers\)"),
        ({"model_type": "bert"}, r"bert \(transformers\)"),
    ],
)
def test_a_description_of_another_architecture_is_ignored_with_a_note(file, said, why):
    """Its pooling and preprocessing, too: a ResNet's config beside a ViT was once believed."""
    section = {"mean": [0.1], "std": [0.2]}
    describe(file, global_pool="max", pretrained_cfg=section, **said)
    matched = match(file, sources.vit())
    assert re.search(
        rf"; config\.json beside the file describes {why}, which does not have these arrays: ign",
        matched.describe(),
    )
    assert (matched.preprocessing, matched.file.title) == (None, "safetensors")
    assert matched.assumed[0] == "pooling='token'"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"architecture": "vit_base_patch16_224"}, "patch_size=16, and these arrays 8"),
        ({"architecture": "vit_other_patch32_224"}, "patch_size=32, and these arrays 8"),
        (
            {"architecture": "vit_small_patch16_224", "model_args": SIZES | {"depth": 12}},
            "depth=12, and these arrays 3",
        ),
        ({"model_type": "vit", "hidden_size": 768}, "dim=768, and these arrays 36"),
    ],
)
def test_a_description_of_other_sizes_confirms_nothing_but_must_agree(file, said, why):
    """timm does not save the sizes passed to `create_model`: it may describe the file."""
    describe(file, **said)
    matched = match(file, sources.vit())
    assert f"which has {why}: it may describe another file" in matched.describe()
    assert "num_heads=3" in matched.assumed  # not the number for that name
    assert "activation='gelu' (exact)" in matched.assumed
    if "model_type" in said:  # from transformers, which calls pooling otherwise
        return
    describe(file, global_pool="avg", **said)
    with pytest.raises(ValueError, match="has pooling='mean', the model 'token'"):
        match(file, sources.vit())


@pytest.mark.parametrize(
    ("said", "assumed"),
    [
        ({}, ["pooling='token'", "activation='gelu' (exact)", "epsilon=1e-06", "num_heads=3"]),
        ({"global_pool": "token"}, ["activation='gelu' (exact)", "epsilon=1e-06", "num_heads=3"]),
        ({"model_args": {"act_layer": "gelu", "norm_eps": 1e-6}}, ["pooling='token'", "num_heads"]),
        (
            {"architecture": "vit_tiny_patch16_224", "model_args": SIZES, "global_pool": "token"},
            [],
        ),
        ({"architecture": "vit_tiny_patch16_224", "model_args": SIZES}, ["pooling='token'"]),
        (
            {
                "model_type": "vit",
                "hidden_act": "gelu",
                "layer_norm_eps": 1e-12,
                "num_attention_heads": 3,
            },
            [],
        ),
    ],
)
def test_assumptions_that_nothing_confirms_are_listed(file, said, assumed):
    describe(file, **said)
    matched = match(file, sources.vit())
    assert len(matched.assumed) == len(assumed)
    assert all(map(str.startswith, matched.assumed, assumed))
    sentence = matched.describe_assumed()
    assert sentence.startswith("assumed, because neither the arrays nor a d" if assumed else "")
    assert bool(sentence) == bool(assumed)


def test_small_epsilons_other_classes_and_unknown_arguments_are_noted(file):
    describe(
        file,
        model_type="vit",
        layer_norm_eps=1e-12,
        id2label={str(n): "" for n in range(1000)},
    )
    notes = match(file, sources.vit()).describe()
    assert "the epsilon of norms is 1e-06 here and 1e-12 in config.json beside the file" in notes
    assert "says num_classes=1000, and the head has 7: make sure" in notes
    describe(file, model_args={"drop_rate": 0.1, "wave_\x1b[2J": "large"})
    notes = match(file, sources.vit()).describe()
    assert r"also says wave_\x1b[2J='large', which was not checked" in notes


def test_no_pooling_is_assumed_for_a_fresh_head(file):
    model = sources.vit(9)
    matched = weights.match(file, model, sources.shapes(model), head="auto")
    assert matched.assumed[0] == "activation='gelu' (exact)"


@pytest.mark.parametrize(
    ("name", "model", "assumed"),
    [
        (
            "resnet_basic",
            sources.resnet(),
            ("pooling='mean'", "activation='relu'", "epsilon=1e-05"),
        ),
    ],
)
def test_other_families_assume_other_things(tmp_path, name, model, assumed):
    file = sources.save_timm(tmp_path / "model.safetensors", name)
    matched = weights.match(file, model, sources.shapes(model, 32, 32, 3))
    assert len(matched.assumed) == len(assumed)
    assert all(map(str.startswith, matched.assumed, assumed))


def test_convits_read_their_class_token(tmp_path):
    """They have no option for it, and timm's may read the mean."""
    assert families.CONVIT.pooling == "token"
    options = {"image_size": 16, "patch_size": 8, "dim": 8, "depth": 2, "num_heads": 2}
    model = models.create_model("convit_ti", num_classes=3, local_layers=1, **options)
    drawn = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    flat = traverse_util.flatten_dict(jax.device_get(drawn), sep="/")
    state = {name: np.array(x) for name, x in weights.timm_state(flat).items()}
    save_file(state, tmp_path / "model.safetensors")
    describe(tmp_path / "model.safetensors", global_pool="avg")
    with pytest.raises(ValueError, match="pooling='mean', the model 'token': use weights of anoth"):
        match(tmp_path / "model.safetensors", model)


def test_each_family_has_one_activation(file):
    """GELU here, and ReLU in ResNets."""
    describe(file, model_args={"act_layer": "gelu"})
    match(file, sources.vit())
    describe(file, model_args={"act_layer": "relu"})
    with pytest.raises(ValueError, match=rf"weights='{file}' is of .*has act_layer='relu', as con"):
        match(file, sources.vit())


@pytest.mark.parametrize("name", ["resnet50.tv_in1k", "resnet18.a1_in1k", "gluon_resnet50_v1b"])
def test_weights_from_other_trainings_are_accepted(tmp_path, name):
    file = sources.save_timm(tmp_path / "model.safetensors", "resnet_basic")
    sizes = {"layers": [2, 1, 1], "block": "basic"}
    arguments = sizes | {"act_layer": "relu"}
    describe(file, architecture=name, global_pool="avg", model_args=arguments)
    weights.match(file, sources.resnet(), sources.shapes(sources.resnet(), 32, 32, 3))


@pytest.mark.parametrize(
    "said",
    [
        {"model_args": [1], "architecture": ["vit"], "pretrained_cfg": {"input_size": 3}},
        {"model_args": {"num_heads": [3, 6], "img_size": "large"}},
        {"model_args": {"img_size": [8, None]}},
    ],
)
def test_malformed_descriptions_are_ignored(file, said):
    describe(file, **said)
    array_file = open_named(file).file
    assert (array_file.title, array_file.options) == ("safetensors", {})


@pytest.mark.parametrize(
    ("said", "sides"),
    [
        ({"pretrained_cfg": {"input_size": [3, 384, 192]}}, (384, 192)),
        ({"pretrained_cfg": {"input_size": [3, 8, 8]}, "model_args": {"img_size": 96}}, (96, 96)),
    ],
)
def test_stated_image_sizes_are_read(file, said, sides):
    describe(file, architecture="vit_other", **said)
    assert open_named(file).options == {"image_size": sides}


def test_the_files_metadata_override_config_json(file):
    """A file from `launch.export` may lie beside another's config.json."""
    describe(file, architecture="resnetblur18", global_pool="max")
    state = {k: np.ascontiguousarray(x) for k, x in sources.timm_state("vit_token").items()}
    arguments = json.dumps(SIZES | {"global_pool": "avg"})
    metadata = {"timm.model": "vit_tiny_patch16_224", "timm.arguments": arguments}
    save_file(state, file, metadata=metadata)
    assert open_named(file).options == {"pooling": "mean", "num_heads": 3}
    save_file(state, file, metadata=metadata | {"pnoise_jax.model": '{"num_heads": 9}'})
    assert open_named(file).options == {"num_heads": 9}


@pytest.mark.parametrize("said", [{"model_args": {"num_heads": 3}}, {"global_pool": "token"}])
def test_models_are_created_only_to_look_up_a_name(file, monkeypatch, said):
    """All of them are, for their heads."""
    monkeypatch.setattr(stated_options, "_models_by_timms_name", pytest.fail)
    describe(file, **said)
    match(file, sources.vit())


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ({"model_type": "vit", "id2label": {"0": "b", "1": "a"}}, "put in the order of the data"),
        ({"model_type": "vit", "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "the file has none"),
        ({"model_type": "vit", "id2label": {"0": "b", "2": "a"}}, "the file has none"),
        ({"pretrained_cfg": {"label_names": ["b", "a"]}}, "put in the order of the data by name"),
        ({"label_names": ["b", "a", "c"]}, "compared by number: the file names 3 classes"),
    ],
)
def test_class_names_as_others_write_them(tmp_path, said, note):
    model = sources.vit().clone(num_classes=2)
    variables = model.init(jax.random.key(0), np.zeros((1, *model.image_shape, 3), np.float32))
    flat = traverse_util.flatten_dict(variables, sep="/")
    flat = {path: np.asarray(x) for path, x in flat.items()}
    flat["params/head/bias"] = np.array([1.0, 2.0], np.float32)
    file = tmp_path / "model.safetensors"
    save_file(weights.timm_state(flat), file)
    describe(file, **said)
    matched = weights.match(file, model, sources.shapes(model), class_names=("a", "b"))
    assert note in matched.describe()
    bias = dict(matched.read())["params/head/bias"]
    np.testing.assert_array_equal(bias, [2, 1] if "order" in note else [1, 2])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{,}", "is not valid JSON"),
        ("[1]", "contains no JSON object"),
        ("[" * 100_000, "is not valid"),
    ],
)
def test_an_unreadable_description_is_mentioned(file, content, why):
    (file.parent / "config.json").write_text(content)
    assert f"config.json beside the file {why}" in match(file, sources.vit()).describe()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model_type": "vit", "num_attention_heads": 12.0}, "num_heads=12, the model 3"),
        ({"architecture": "vit_base_patch16_clip_quickgelu_224"}, "has a GELU by a sigmoid"),
    ],
)
def test_options_in_other_words_are_compared(file, said, message):
    describe(file, **said)
    with pytest.raises(ValueError, match=message):
        match(file, sources.vit())


def test_a_number_of_heads_as_text_confirms_nothing(file):
    describe(file, model_type="vit", num_attention_heads="12")
    assert "num_heads=3" in match(file, sources.vit()).describe_assumed()


def test_huge_numbers_are_cut(file):
    (file.parent / "config.json").write_text('{"num_classes": %s}' % ("9" * 4000))
    assert len(match(file, sources.vit()).describe()) < 1000
