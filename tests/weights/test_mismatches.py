"""The report on weights that do not fit: complete, in order, with advice that helps."""

from typing import Any

import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from pnoise_jax import weights
from pnoise_jax.weights.likely_model import describe_likely_model
from tests.models import test_golden as timm
from tests.weights import sources


def error(file, model, **options):
    with pytest.raises(ValueError, match=r"does not fit config\.model") as raised:
        weights.match(file, model, sources.shapes(model), **options)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "changed", "text"),
    [
        ("vit_token", {"head.bias": (1, 7)}, "head.bias (1, 7), where params/head/bias is (7,)"),
        ("vit_token", {"head.weight": (7, 36, 1, 1)}, "params/head/kernel is (36, 7)"),
        ("vit_token", {"blocks.0.mlp.fc1.bias": ()}, "fc1.bias (), where params/block_1/mlp/fc1"),
        ("vit_token", {"pos_embed": (17, 36)}, "pos_embed (17, 36), where"),
        ("vit_token", {"pos_embed": (2, 26, 36)}, "pos_embed (2, 26, 36), where"),
        ("beit", {"blocks.1.attn.relative_position_bias_table": (2, 2)}, "has 2 rows, which is"),
        ("beit", {"blocks.1.attn.relative_position_bias_table": (84,)}, "table (84,), where"),
        ("beit", {"blocks.1.attn.relative_position_bias_table": (84, 2, 1)}, "(84, 2, 1), where"),
        ("swin", {"layers.0.blocks.0.attn.relative_position_bias_table": (49, 0)}, "(49, 0), wh"),
        ("convit", {"blocks.0.attn.gating_param": ()}, "gating_param (), where"),
    ],
)
@pytest.mark.parametrize("head", ["keep", "auto"])
def test_arrays_of_any_shape_are_reported(name, changed, text, head, tmp_path):
    changed = {key: np.ones(shape, "f4") for key, shape in changed.items()}
    file = sources.save_timm(tmp_path / "file", name, **changed)
    assert text in error(file, timm.create(name), head=head)


def test_integers_and_bools_are_reported_with_the_rest(tmp_path):
    """Before anything is read; arrays that are not used may have any dtype."""
    arrays = sources.arrays(sources.GOLDEN / "augreg.npz")
    del arrays["Transformer/encoder_norm/bias"]
    arrays |= {"head/bias": np.arange(7), "cls": np.ones((1, 1, 24), bool)}
    np.savez(tmp_path / "file.npz", **arrays)
    model = sources.vit(dim=24, depth=2, mlp_dim=48)
    missing = "\n  1 missing: params/norm/bias (24,)"
    text = "not floating-point (save them as float32): cls (bool)"
    assert error(tmp_path / "file.npz", model).endswith(f"{missing}\n  2 {text}, head/bias (int64)")
    assert error(tmp_path / "file.npz", model, head="fresh").endswith(f"{missing}\n  1 {text}")


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("blocks.2.attn.q_norm.weight", "norms of queries and keys"),
        ("attn_pool.latent", "attention instead of the pooling"),
    ],
)
def test_a_vit_with_parts_that_no_model_here_has(key, part, tmp_path):
    """No model is suggested, not even where another option differs."""
    file = sources.save_timm(tmp_path / "file", "vit_token", **{key: np.ones(36, "f4")})
    text = f"\n  The file's model has {part} ({key}): no model here has this, so use other weights"
    assert error(file, sources.vit()).endswith(f"{text}\n  1 unexpected: {key} (36,)")
    assert f"model:{text}\n" in error(file, sources.vit(depth=2))


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("blocks.1.ls1.gamma", "layer scale"),
        ("norm_pre.weight", "a norm before its blocks"),
        ("fc_norm.weight", "its last norm after the pooling"),
        ("reg_token", "registers"),
    ],
)
def test_a_deit_with_parts_that_only_vits_have_here(key, part, tmp_path):
    file = sources.save_timm(tmp_path / "file", "deit_distilled", **{key: np.ones(24, "f4")})
    text = f"\n  The file's model has {part} ({key}): no model here has this, so use other weights"
    assert text in error(file, sources.vit())


@pytest.mark.parametrize(
    ("key", "shape", "text"),
    [
        ("blocks.0.ls1.gamma", (36,), "looks like deit3_b_16 with patch_size=8, dim=36, depth=3"),
        ("norm_pre.weight", (36,), "looks like vit_b_16_clip with patch_size=8, dim=36, depth=3"),
        ("fc_norm.weight", (36,), "mlp_dim=72, pooling='mean_then_norm': set config.model to it"),
        ("reg_token", (1, 4, 36), "register_tokens=4"),
    ],
)
def test_a_vit_with_an_additional_array_is_recognised(key, shape, text, tmp_path):
    file = sources.save_timm(tmp_path / "file", "vit_token", **{key: np.ones(shape, "f4")})
    assert text in error(file, sources.vit())


def test_the_configured_model_is_not_suggested(tmp_path):
    file = sources.save_timm(tmp_path / "file", "vit_token", other=np.ones(3, "f4"))
    assert error(file, sources.vit()).endswith("\n  1 unexpected: other (3,)")


def test_a_model_with_another_stem_or_other_gates_is_named(tmp_path):
    file = sources.save_timm(tmp_path / "file", "resnet_small_stem")
    assert "like resnet18 with stage_sizes=(1, 1), width=8, stem='small':" in error(
        file, sources.vit()
    )
    file = sources.save_timm(tmp_path / "file", "convit")
    assert "like convit_ti with patch_size=8, dim=36, depth=3, mlp_dim=72, local_layers=2:" in (
        error(file, sources.vit())
    )


def own_shapes(depth) -> dict[str, tuple[int, ...]]:
    flat: Any = traverse_util.flatten_dict(sources.shapes(sources.vit(depth=depth)), sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def test_the_arrays_of_a_run_are_not_called_unknown():
    """A run's arrays have our own names, which no other format has."""
    run, model = (own_shapes(depth) for depth in (3, 2))
    unexpected = {path: path for path in run if path not in model}
    assert len(unexpected) == 12
    foreign, likely = describe_likely_model(run, run, unexpected, model_shapes=model)
    assert (foreign, "depth=3" in likely) == ("", True)


def test_a_width_that_the_likely_models_heads_do_not_divide(tmp_path):
    """No array shows how many heads there are, and vit_b_8's 12 do not divide 40."""
    file = tmp_path / "file.safetensors"
    sources.save_random_vit(file, dim=40, depth=2, patch_size=8, grid=4)
    arrays = load_file(file) | {"patch_embed.proj.weight": np.ones((40, 3, 8, 8), "f4")}
    save_file(arrays, file)
    text = "It looks like vit_b_8 with dim=40, depth=2"
    assert text in error(file, sources.vit())
    save_file(arrays | {"blocks.1.mlp.fc1.weight": np.ones((77, 40), "f4")}, file)
    closest = "No model here has these arrays; vit_b_8 is the closest, and 1 differ"
    assert closest in error(file, sources.vit())


def test_a_swin_is_suggested_with_its_sizes(tmp_path):
    file = sources.save_timm(tmp_path / "file", "swin")
    text = "with patch_size=2, dim=8, stage_sizes=(2, 2, 1), head_dim=4, window_size=4: set config"
    assert text in error(file, sources.vit())


def test_a_long_list_is_sorted_and_shortened(tmp_path):
    blocks = {f"blocks.{n}.norm3.bias": np.ones(1, "f4") for n in range(23)}
    file = sources.save_timm(tmp_path / "file", "vit_token", **blocks)
    listed = ", ".join(f"blocks.{n}.norm3.bias (1,)" for n in range(20))
    assert error(file, sources.vit()).endswith(f"\n  23 unexpected: {listed} and 3 more")


def test_advice_on_tables_is_given_once(tmp_path):
    name = "attn.relative_position_bias_table"
    tables = {f"blocks.{n}.{name}": np.ones((38, 2), "f4") for n in (0, 1)}
    file = sources.save_timm(tmp_path / "file", "beit", **tables)
    text = error(file, timm.create("beit"))
    assert text.count("not a square grid") == 1
    assert f"blocks.0.{name} has 38 rows" in text


def test_a_file_for_images_of_other_channels_is_refused(tmp_path):
    grey = {"patch_embed.proj.weight": np.ones((36, 1, 8, 8), "f4")}
    file = sources.save_timm(tmp_path / "file", "vit_token", **grey)
    text = (
        "model:\n  The file is for images with 1 channel(s), and the data has 3: use other weights"
    )
    assert text in error(file, sources.vit())


def test_a_beit_is_suggested_with_its_number_of_heads(tmp_path):
    file = sources.save_timm(tmp_path / "file", "beit")
    heads = timm.create("beit").num_heads
    text = error(file, sources.vit())
    assert "model:\n  It looks like beit_b_16 with" in text
    assert f"num_heads={heads}" in text


def test_a_fresh_head_may_use_another_pooling(tmp_path):
    """As when weights whose head read the class token are fine-tuned on the mean."""
    file = sources.save_timm(tmp_path / "file", "vit_token")
    (tmp_path / "config.json").write_text('{"global_pool": "token"}')
    model = sources.vit(pooling="mean")
    with pytest.raises(ValueError, match=r"has pooling='token', the model 'mean': set model\.pool"):
        weights.match(file, model, sources.shapes(model))
    weights.match(file, model, sources.shapes(model), head="fresh")


@pytest.mark.parametrize("pooling", ["max", "avgmax", "catavgmax"])
def test_a_pooling_that_no_model_has_needs_a_fresh_head(tmp_path, pooling):
    file = sources.save_timm(tmp_path / "file", "resnet_basic")
    (tmp_path / "config.json").write_text(f'{{"global_pool": "{pooling}"}}')
    shapes = sources.shapes(sources.resnet(), 32, 32, 3)
    with pytest.raises(ValueError, match=f"has global_pool='{pooling}', which no model here has"):
        weights.match(file, sources.resnet(), shapes)
    weights.match(file, sources.resnet(), shapes, head="fresh")


def save_swin_with_windows(file, *sides):
    """The golden Swin, whose five windows are 4×4, with tables for other sides."""
    heads = (2, 2, 4, 4, 8)
    names = [f"layers.{stage}.blocks.{n}" for stage, n in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))]
    tables = {
        f"{name}.attn.relative_position_bias_table": np.ones(((2 * side - 1) ** 2, number), "f4")
        for name, side, number in zip(names, sides, heads, strict=True)
    }
    return sources.save_timm(file, "swin", **tables)


@pytest.mark.parametrize(
    ("sides", "text"),
    [
        ((4, 4, 6, 6, 4), "4×4, 6×6, 4×4"),  # as timm's swin_s3_tiny
        ((6, 6, 4, 4, 4), "6×6, 4×4, 4×4"),  # the third's grid would have half the second's sides
        ((4, 6, 4, 4, 4), "4×4 and 6×6, 4×4, 4×4"),
    ],
)
def test_windows_that_differ_are_not_resized(tmp_path, sides, text):
    file = save_swin_with_windows(tmp_path / "file", *sides)
    message = error(file, timm.create("swin"))
    assert "of another shape: layers." in message
    assert f"\n  The file's windows have {text} tokens from stage to stage, which no" in message


@pytest.mark.parametrize(
    ("sides", "text"),
    [((6, 6, 6, 6, 6), "6×6 → 4×4"), ((4, 4, 4, 4, 2), "2×2 → 4×4"), ((6, 6, 6, 6, 4), "6×6 → 4")],
)
def test_windows_of_one_size_may_be_cut_by_the_grid(tmp_path, sides, text):
    """As for images that are smaller."""
    model = timm.create("swin")
    matched = weights.match(
        save_swin_with_windows(tmp_path / "file", *sides), model, sources.shapes(model)
    )
    assert f"; relative positions {text}" in matched.describe()
