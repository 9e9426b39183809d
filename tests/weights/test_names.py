"""Naming schemes, recognised from all names, so that a missing one is reported as such."""

import numpy as np
import pytest

from pnoise_jax import weights
from tests.models import test_golden as timm
from tests.weights import sources

PROJECTIONS = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/"


def match(file, model):
    return weights.match(file, model, sources.shapes(model))


def google_model(**options):
    return sources.vit(dim=24, depth=2, mlp_dim=48, **options)


def google(file, name="augreg", **changed):
    """A golden file in Google's names; arrays added or, as None, left out."""
    arrays = sources.arrays(sources.GOLDEN / f"{name}.npz") | changed
    np.savez(file, **{k: x for k, x in arrays.items() if x is not None})
    return file


@pytest.mark.parametrize(
    ("name", "key", "ours"),
    [
        ("vit_token", "pos_embed", "pos_embed"),
        ("vit_token", "patch_embed.proj.weight", "patch_embed/kernel"),
        ("beit", "blocks.0.attn.q_bias", "block_1/attn/q_bias"),
        (
            "beit",
            "blocks.0.attn.relative_position_bias_table",
            "block_1/attn/relative_position_bias_table",
        ),
        ("convit", "blocks.0.attn.gating_param", "block_1/attn/gating_param"),
        ("swin", "patch_embed.norm.weight", "patch_norm/scale"),
        ("swin", "layers.0.blocks.0.attn.qkv.weight", "stage1_block1/attn/qkv/kernel"),
    ],
)
def test_a_missing_array_is_named(name, key, ours, tmp_path):
    file = sources.save_timm(tmp_path / "file", name, **{key: None})
    with pytest.raises(ValueError, match=rf"model:\n  1 missing: params/{ours} \(") as error:
        match(file, timm.create(name))
    assert "looks like" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "ours"), [("conv1", "conv1"), ("layer1.0.conv1", "stage1_block1/conv1")]
)
def test_a_missing_array_of_a_resnet(key, ours, tmp_path):
    model = timm.create("resnet_basic")
    file = sources.save_timm(tmp_path / "file", "resnet_basic", **{f"{key}.weight": None})
    with pytest.raises(ValueError, match=rf"1 missing: params/{ours}/kernel \("):
        weights.match(file, model, sources.shapes(model, 32, 32, 3))


def test_a_missing_array_in_googles_names(tmp_path):
    file = google(tmp_path / "file.npz", **{"embedding/kernel": None})
    with pytest.raises(ValueError, match=r"1 missing: params/patch_embed/kernel \(8, 8, 3, 24\)$"):
        match(file, google_model())
    file = google(tmp_path / "file.npz", **{f"{PROJECTIONS}key/kernel": None})
    with pytest.raises(ValueError, match=r", here \(24, 48\), where params/block_1/attn/qkv/kern"):
        match(file, google_model())


@pytest.mark.parametrize("prefix", ["opt/target/", "params/img/", "params/", ""])
@pytest.mark.parametrize("name", ["augreg", "big_vision"])
def test_other_arrays_in_googles_checkpoints_are_ignored(name, prefix, tmp_path):
    """An optimiser's state, or LiT's text tower, which has other heads."""
    arrays = sources.arrays(sources.GOLDEN / f"{name}.npz")
    arrays = {prefix + key.removeprefix("params/"): x for key, x in arrays.items()}
    text = "params/txt/Encoder_0/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"
    beside = {"opt/state/step": np.array(1.0), text: np.ones((24, 8, 3), "f4")}
    np.savez(tmp_path / "file.npz", **(beside if prefix.count("/") > 1 else {}), **arrays)
    matched = match(tmp_path / "file.npz", google_model())
    assert matched.describe().endswith("(npz); Google's ViT; head kept (7 classes)")


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("augreg", {f"{PROJECTIONS}query/kernel": np.ones(5, "f4")}, r"query/kernel \(5,\)"),
        # As long as the others, so that they could be joined, were it not for its axes.
        ("augreg", {f"{PROJECTIONS}query/kernel": np.ones(24, "f4")}, r"query/kernel \(24,\)"),
        ("augreg", {f"{PROJECTIONS}query/bias": np.float32(1)}, r"query/bias .* \(49,\), where"),
        (
            "augreg",
            {f"{PROJECTIONS}out/kernel": np.ones((3, 8, 24, 2), "f4")},
            r"out/kernel \(3, 8, 24, 2\), where params/block_1/attn/proj/kernel is \(24, 24\)",
        ),
        (
            "big_vision",
            {"params/Transformer/encoderblock/LayerNorm_0/bias": np.float32(1)},
            r"2 missing: params/block_1/norm1/bias .*\n  1 unexpected: .*LayerNorm_0/bias \(\)",
        ),
    ],
)
def test_googles_arrays_with_other_axes_are_refused(name, changed, said, tmp_path):
    with pytest.raises(ValueError, match=rf"does not fit config\.model(.|\n)*{said}"):
        match(google(tmp_path / "file.npz", name, **changed), google_model())


def test_two_arrays_for_the_same_place(tmp_path):
    norm = {"Transformer/encoderblock_0/LayerNorm_1/bias": np.ones(24, "f4")}  # big_vision's
    with pytest.raises(ValueError, match=r"npz' has two arrays for params/block_1/norm2/bias: T"):
        match(google(tmp_path / "file.npz", **norm), google_model())


@pytest.mark.parametrize("wrapper", ["module.", "module.model.", "vit.", "encoder."])
def test_a_common_prefix_of_the_names_is_reported(wrapper, tmp_path):
    state = {wrapper + k: np.ascontiguousarray(x) for k, x in timm_state().items()}
    sources.save_file(state, tmp_path / "file")
    message = f"save it without the prefix '{wrapper}' that all names begin with"
    with pytest.raises(ValueError, match=message):
        match(tmp_path / "file", sources.vit())
    sources.save_file(state | {"n_averaged": np.ones(1, "f4")}, tmp_path / "file")
    with pytest.raises(ValueError, match=f"'{wrapper}' that 44 of the names begin with"):
        match(tmp_path / "file", sources.vit())


def timm_state():
    return sources.timm_state("vit_token")


def test_unknown_names_are_refused(tmp_path):
    sources.save_file({"encoder.layers.0.weight": np.ones(3, "f4")}, tmp_path / "file")
    with pytest.raises(
        ValueError,
        match=(
            r"file' has 1 array \(encoder.layers.0.weight\) in no naming .*: give weights of "
            "timm's ViT, timm"
        ),
    ):
        match(tmp_path / "file", sources.vit())


@pytest.mark.parametrize(
    ("count", "listed"),
    [(3, r"has 3 arrays \(a, b, c\) in"), (4, r"has 4 arrays \(a, b, c, …\) in")],
)
def test_an_ellipsis_stands_for_names_that_are_left_out(tmp_path, count, listed):
    sources.save_file({name: np.ones(3, "f4") for name in "abcd"[:count]}, tmp_path / "file")
    with pytest.raises(ValueError, match=listed):
        match(tmp_path / "file", sources.vit())


def test_an_unknown_user_is_refused():
    with pytest.raises(
        ValueError, match=r"weights='~nosuchuser/x' begins with an unknown user: give"
    ):
        match("~nosuchuser/x", sources.vit())


def positions(file, model):
    matched = match(file, model)
    return matched, dict(matched.read())["params/pos_embed"]


def test_the_source_decides_how_positions_are_resized_and_not_the_container(tmp_path):
    """The same arrays give the same numbers, in an npz and in safetensors."""
    model = google_model(image_size=48)
    from_npz, in_npz = positions(google(tmp_path / "file.npz"), model)
    sources.save_file(sources.arrays(sources.GOLDEN / "augreg.npz"), tmp_path / "file")
    from_safetensors, in_safetensors = positions(tmp_path / "file", model)
    np.testing.assert_array_equal(in_npz, in_safetensors)
    assert "4×4 → 6×6 (bilinear)" in from_npz.describe()
    assert "4×4 → 6×6 (bilinear)" in from_safetensors.describe()
    assert from_safetensors.preprocessing == from_npz.preprocessing
    assert from_npz.preprocessing.mean == (0.5, 0.5, 0.5)


def test_timms_names_in_an_npz_are_resized_as_timms(tmp_path):
    model = sources.vit(image_size=48)
    np.savez(tmp_path / "file.npz", **timm_state())
    from_npz, in_npz = positions(tmp_path / "file.npz", model)
    file = sources.save_timm(tmp_path / "file", "vit_token")
    from_safetensors, in_safetensors = positions(file, model)
    np.testing.assert_array_equal(in_npz, in_safetensors)
    for found in (from_npz, from_safetensors):
        assert found.describe().endswith("position embedding 4×4 → 6×6")
        assert found.preprocessing is None
