"""Files of DeiT and BEiT: the same logits as timm's, also at another resolution."""

import jax
import numpy as np
import pytest

from pnoise_jax import models, weights
from pnoise_jax.weights.adapt import resize
from tests.models import test_golden as timm
from tests.weights import sources

NAMES = ("deit_distilled", "beit")


def create(name, num_classes=7, **options):
    base, defaults = timm.MODELS[name]
    return models.create_model(base, num_classes=num_classes, **defaults | options)


def match(file, model, **options):
    return weights.match(file, model, sources.shapes(model), **options)


@pytest.mark.parametrize("size", [32, (48, 40)])
@pytest.mark.parametrize("name", NAMES)
def test_logits(name, size, tmp_path):
    where = sources.TIMM if size == 32 else sources.GOLDEN
    golden = sources.arrays(where / f"{name if size == 32 else f'{name}_resized'}.npz")
    model = create(name, image_size=size)
    variables = sources.read(sources.save_timm(tmp_path / "file", name), model)
    logits = jax.jit(model.apply)(variables, golden["images"])
    expected = golden["logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deit_distilled", "timm's ViT; head kept (7 classes); position embedding 4×4 → 6×5"),
        ("beit", "timm's BEiT; head kept (7 classes); relative positions 4×4 → 6×5"),
    ],
)
def test_a_resizing_is_mentioned_once(name, said, tmp_path):
    matched = match(sources.save_timm(tmp_path / "file", name), create(name, image_size=(48, 40)))
    assert matched.describe().endswith(said)


def test_both_prefix_tokens_keep_their_positions(tmp_path):
    file = sources.save_timm(tmp_path / "file", "deit_distilled")
    arrays = dict(match(file, create("deit_distilled", image_size=48)).read())
    original = sources.timm_state("deit_distilled")["pos_embed"]
    assert arrays["params/pos_embed"].shape == (1, 2 + 36, 24)
    np.testing.assert_array_equal(arrays["params/pos_embed"][:, :2], original[:, :2])


def test_both_heads_are_kept_or_fresh(tmp_path):
    file = sources.save_timm(tmp_path / "file", "deit_distilled")

    def heads(classes, head):
        matched = match(file, create("deit_distilled", classes), head=head)
        return {path.split("/")[1] for path, _ in matched.read() if "head" in path}

    assert heads(7, "keep") == {"head", "head_dist"}
    assert heads(7, "fresh") == heads(9, "auto") == set()


def test_the_distillation_token_is_never_inferred(tmp_path):
    with_token = sources.save_timm(tmp_path / "with", "deit_distilled")
    with pytest.raises(
        ValueError, match=r"3 unexpected: dist_token.*, head_dist.bias.*, head_dist.weight"
    ) as error:
        match(with_token, create("deit_distilled", distilled=False))
    assert "It looks like deit_b_16_distilled with patch_size=8, dim=24" in str(error.value)
    absent = dict.fromkeys(("dist_token", "head_dist.weight", "head_dist.bias"))
    without = sources.save_timm(tmp_path / "without", "deit_distilled", **absent)
    with pytest.raises(
        ValueError,
        match=r"3 missing: params/dist_token.*, params/head_dist/bias.*, params/head_dist/kernel",
    ):
        match(without, create("deit_distilled"))


def test_a_beits_file_is_named_where_it_does_not_fit(tmp_path):
    file = sources.save_timm(tmp_path / "file", "beit")
    with pytest.raises(ValueError, match=r"It looks like beit_b_16 with patch_size=8, dim=24"):
        match(file, sources.vit())


def test_indices_beside_the_weights_are_ignored(tmp_path):
    index = {"blocks.0.attn.relative_position_index": np.zeros((17, 17), np.int64)}
    matched = match(sources.save_timm(tmp_path / "file", "beit", **index), create("beit"))
    assert len(list(matched.read())) == len(sources.timm_state("beit"))


def test_tables_without_a_square_grid_cannot_be_resized(tmp_path):
    table = {"blocks.1.attn.relative_position_bias_table": np.ones((7 * 5 + 3, 2), np.float32)}
    file = sources.save_timm(tmp_path / "file", "beit", **table)
    message = (
        "blocks.1.attn.relative_position_bias_table has 38 rows, which .*not a square grid"
        ".* resized to the model's 4×4: set model.image_size"
    )
    with pytest.raises(ValueError, match=message):
        match(file, create("beit"))


@pytest.mark.parametrize("grid", [(5, 5), (9, 4), (2, 2), (1, 7), (30, 30)])
def test_tables_are_resized_as_timm_does(grid):
    golden = sources.arrays(sources.GOLDEN / "relative_positions.npz")
    name = f"{grid[0]}x{grid[1]}"
    resized = resize.resize_table(golden["from"][:25], (3, 3), grid)
    np.testing.assert_allclose(resized, golden[f"bare/{name}"], atol=2e-5)
    np.testing.assert_allclose(resized, golden[f"to/{name}"][:-3], atol=2e-5)
    np.testing.assert_array_equal(golden["from"][-3:], golden[f"to/{name}"][-3:])


@pytest.mark.parametrize(("rows", "grid"), [(1, (1, 1)), (25, (3, 3)), (35, None), (36, None)])
def test_the_grid_of_a_table(rows, grid):
    assert resize.table_grid(rows) == grid
