"""What config.json beside a file, or its own metadata, say of its model."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from pnoise_jax import weights
from pnoise_jax.weights import descriptions, files
from tests.weights import sources


def match(file, model):
    return weights.match(file, model, sources.shapes(model))


def describe(file, **said):
    (file.parent / "config.json").write_text(json.dumps(said))


@pytest.fixture
def file(tmp_path):
    """Of a model with three heads that reads its class token."""
    return sources.save_timm(tmp_path / "model.safetensors", "vit_token")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"global_pool": "avg"}, "pooling='mean'"),
        ({"global_pool": "token", "model_args": {"global_pool": "avg"}}, "pooling='mean'"),
        ({"model_args": {"num_heads": 12}}, "num_heads=12"),
        ({"architecture": "vit_small_patch16_224.augreg_in21k"}, "num_heads=6"),
        ({"architecture": "vit_small_patch16_384"}, "num_heads=6"),
        ({"architecture": "vit_base_patch16_gap_224"}, "num_heads=16"),
    ],
)
def test_what_no_shape_tells_has_to_be_the_same(file, said, message):
    describe(file, **said)
    with pytest.raises(ValueError, match=f"has {message}, the model"):
        match(file, sources.vit())


def test_arguments_go_before_names_and_the_name_is_told(file):
    describe(
        file, architecture="vit_base_patch16_224", global_pool="token", model_args={"num_heads": 3}
    )
    said = f"{file} (safetensors, said to be vit_base_patch16_224);"
    assert said in match(file, sources.vit()).describe()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"architecture": "resnetblur18"}, "resnetblur18, which blurs where it strides"),
        ({"architecture": "resnetaa50.a1h_in1k"}, "averages where it strides"),
        ({"architecture": "vit_so400m_patch16_siglip_gap_256.v2_webli"}, "has a GELU by tanh"),
        ({"architecture": "swin_s3_tiny_224.ms_in1k"}, "has windows of another size in each stage"),
        ({"architecture": "resnet18", "model_args": {"act_layer": "gelu"}}, "act_layer='gelu'"),
        ({"model_args": {"output_stride": 8}}, "output_stride=8"),
    ],
)
def test_another_function_with_the_same_arrays_is_refused(tmp_path, said, message):
    """timm's ResNets with antialiasing have no array more than others."""
    file = sources.save_timm(tmp_path / "model.safetensors", "resnet_basic")
    describe(file, **said)
    with pytest.raises(
        ValueError, match=rf"weights='{file}' is of .*{message}, as config\.json be"
    ):
        weights.match(file, sources.resnet(), sources.shapes(sources.resnet(), 32, 32, 3))


def test_each_family_has_one_activation(file):
    """GELU here, and ReLU of ResNets."""
    describe(file, model_args={"act_layer": "gelu"})
    match(file, sources.vit())
    describe(file, model_args={"act_layer": "relu"})
    with pytest.raises(ValueError, match=rf"weights='{file}' is of .*has act_layer='relu', as con"):
        match(file, sources.vit())


@pytest.mark.parametrize("name", ["resnet50.tv_in1k", "resnet18.a1_in1k", "gluon_resnet50_v1b"])
def test_other_trainings_are_the_same_function(tmp_path, name):
    file = sources.save_timm(tmp_path / "model.safetensors", "resnet_basic")
    describe(file, architecture=name, global_pool="avg", model_args={"act_layer": "relu"})
    weights.match(file, sources.resnet(), sources.shapes(sources.resnet(), 32, 32, 3))


@pytest.mark.parametrize(
    "said",
    [
        {"model_args": [1], "architecture": ["vit"], "pretrained_cfg": {"input_size": 3}},
        {"model_args": {"num_heads": [3, 6], "img_size": "large"}},
        {"model_args": {"img_size": [8, None]}},
    ],
)
def test_what_is_not_understood_is_left(file, said):
    describe(file, **said)
    opened = files.open_file(file)
    assert (opened.title, opened.options) == ("safetensors", {})


@pytest.mark.parametrize(
    ("said", "sides"),
    [
        ({"pretrained_cfg": {"input_size": [3, 384, 192]}}, (384, 192)),
        ({"pretrained_cfg": {"input_size": [3, 8, 8]}, "model_args": {"img_size": 96}}, (96, 96)),
    ],
)
def test_the_size_of_images(file, said, sides):
    describe(file, architecture="vit_other", **said)
    assert files.open_file(file).options == {"image_size": sides}


def test_the_files_own_metadata_go_before(file):
    """As a file of `launch.export` may lie beside another's config.json."""
    describe(file, architecture="resnetblur18", global_pool="max")
    state = {k: np.ascontiguousarray(x) for k, x in sources.timm_state("vit_token").items()}
    own = {"timm.model": "vit_tiny_patch16_224", "timm.arguments": '{"global_pool": "avg"}'}
    save_file(state, file, metadata=own)
    assert files.open_file(file).options == {"pooling": "mean", "num_heads": 3}
    save_file(state, file, metadata=own | {"pnoise_jax.model": '{"num_heads": 9}'})
    assert files.open_file(file).options == {"num_heads": 9}


@pytest.mark.parametrize("said", [{"model_args": {"num_heads": 3}}, {"global_pool": "token"}])
def test_models_are_made_only_for_a_name(file, monkeypatch, said):
    """All of them, to know their heads."""
    monkeypatch.setattr(descriptions, "_known_num_heads", pytest.fail)
    describe(file, **said)
    match(file, sources.vit())
